use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, module};

use super::{Conv2dOptions, Matrix};

/// The plain twin of the kernel. Sums in `f32`, whatever the activations, as it does: libraries for CPUs differ there.
pub fn conv2d(
    x: Tensor<4>,
    weight: &Matrix,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
) -> Tensor<4> {
    let x = if options.upsample_2x { upsample_2x(x) } else { x };
    let [batch, _, _, channels] = x.dims();
    let [kh, kw] = options.kernel;
    let [rows, _] = weight.shape();
    let dtype = x.dtype();
    let weight = weight.to_float(DType::F32);
    let weight = weight.reshape([rows, kh, kw, channels]).permute([0, 3, 1, 2]);
    let [top, left, bottom, right] = options.padding;
    let padding = [(top, bottom), (left, right)];
    let conv = ConvOptions::new_with_padding([options.stride; 2], padding, [1, 1], 1);
    let x = x.permute([0, 3, 1, 2]).cast(DType::F32);
    let x = module::conv2d(x, weight, bias.cloned(), conv).permute([0, 2, 3, 1]).cast(dtype);
    let x = match options.added {
        Some(added) => x.add(added.reshape([batch, 1, 1, rows])),
        None => x,
    };
    match options.residual {
        Some(residual) => x.add(residual),
        None => x,
    }
}

/// Every pixel becomes two by two of itself.
fn upsample_2x(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    x.reshape([b, h, 1, w, 1, c]).repeat_dim(2, 2).repeat_dim(4, 2).reshape([b, h * 2, w * 2, c])
}
