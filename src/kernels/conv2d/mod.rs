//! 2D convolution, channels-last.

mod reference;

use burn::tensor::Tensor;

use super::Matrix;

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
    reference::conv2d(x, weight, bias, options)
}
