//! 2D convolution, channels-last.

#[cfg(feature = "flex")]
mod reference;
#[cfg(feature = "wgpu")]
mod winograd;

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
    /// Added to every pixel of a picture, `[B, O]`.
    pub added: Option<Tensor<2>>,
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
            added: None,
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
    use super::winograd::Winograd;
    use super::*;
    use crate::kernels::gemm::{Activation, Gemm, Window};
    use crate::kernels::source::{is_narrow, on_gpu, to_tensor};

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
        let output = [out_height, out_width, outputs];
        let input = on_gpu(x)?;
        let weight = weight.buffer()?;
        let bias = bias.and_then(on_gpu);
        let dtype = x.dtype();
        let added = options.added.as_ref().and_then(|added| on_gpu(&added.clone().cast(dtype)));
        let residual = options.residual.as_ref();
        let residual = residual.and_then(|residual| on_gpu(&residual.clone().cast(dtype)));
        let gemm = Gemm {
            input,
            weight,
            bias,
            added,
            residual,
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
        if options.kernel == [3, 3]
            && options.stride == 1
            && !gemm.is_cooperative()
            && let Some(tile) = Winograd::suits(batch, channels, output, is_narrow(&gemm.input))
        {
            let winograd = Winograd {
                input: gemm.input,
                weight: gemm.weight,
                bias: gemm.bias,
                added: gemm.added,
                residual: gemm.residual,
                picture: [batch, height, width, channels],
                output,
                padding: [top, left],
                upsample_2x: options.upsample_2x,
            };
            return Some(to_tensor(winograd.run(tile)));
        }
        Some(to_tensor(gemm.run("conv2d", [batch, out_height, out_width, outputs])))
    }
}
