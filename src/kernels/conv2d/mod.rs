//! 2D convolution, channels-last.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::{Matrix, on_gpu_or};

/// What a convolution does besides multiplying.
#[derive(Debug, Clone)]
pub struct Conv2dOptions {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step between outputs, both axes.
    pub stride: usize,
    /// Zeros around the input: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Doubles the input by nearest neighbour before the kernel sees it.
    pub upsample_2x: bool,
    /// Added to the result, `[B, H', W', O]`.
    pub residual: Option<Tensor<4>>,
}

impl Conv2dOptions {
    /// A kernel of stride 1 whose padding keeps height and width.
    pub fn same(kernel: [usize; 2]) -> Self {
        let [h, w] = kernel;
        Self {
            kernel,
            stride: 1,
            padding: [h / 2, w / 2, h / 2, w / 2],
            upsample_2x: false,
            residual: None,
        }
    }
}

/// A convolution with bias.
///
/// # Shapes
/// `x`: `[B, H, W, I]`; `weight`: `[O, kh * kw * I]` in the order `[O, kh, kw, I]`; `bias`: `[O]`;
/// the result: `[B, H', W', O]`.
pub fn conv2d(
    x: Tensor<4>,
    weight: &Matrix,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
) -> Tensor<4> {
    on_gpu_or!(gpu::conv2d(&x, weight, bias, &options), reference::conv2d(x, weight, bias, options))
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::gemm::{Activation, Gemm, Window};
    use crate::kernels::source::{on_gpu, to_tensor};

    pub fn conv2d(
        x: &Tensor<4>,
        weight: &Matrix,
        bias: Option<&Tensor<1>>,
        options: &Conv2dOptions,
    ) -> Option<Tensor<4>> {
        let [outputs, depth] = weight.shape();
        let [batch, height, width, channels] = x.dims();
        let [top, left, bottom, right] = options.padding;
        let [kernel_height, kernel_width] = options.kernel;
        let scale = if options.upsample_2x { 2 } else { 1 };
        let out_height = (height * scale + top + bottom - kernel_height) / options.stride + 1;
        let out_width = (width * scale + left + right - kernel_width) / options.stride + 1;
        let residual = options.residual.as_ref();
        let gemm = Gemm {
            input: on_gpu(x)?,
            weight: weight.buffer()?,
            bias: bias.and_then(on_gpu),
            residual: residual.and_then(|residual| on_gpu(&residual.clone().cast(x.dtype()))),
            activation: Activation::None,
            window: Some(Window {
                picture: [height, width, channels],
                output: [out_height, out_width],
                kernel_width,
                stride: options.stride,
                padding: [top, left],
                upsample_2x: options.upsample_2x,
            }),
            size: [batch * out_height * out_width, outputs, depth],
        };
        Some(to_tensor(gemm.run("conv2d", [batch, out_height, out_width, outputs])))
    }
}
