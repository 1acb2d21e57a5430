//! Group normalisation, with the SiLU that usually follows.

mod reference;

use burn::tensor::Tensor;

/// How to normalise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormOptions {
    /// Number of channel groups; divides the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Applies `x * sigmoid(x)` to the result.
    pub silu: bool,
}

/// Normalises each group of channels of each picture, then scales and shifts per channel.
/// Statistics are in `f32`.
///
/// # Shapes
/// `x`: `[B, H, W, C]`; `weight`, `bias`: `[C]`; the result: `[B, H, W, C]`.
pub fn group_norm(
    x: Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Tensor<4> {
    reference::group_norm(x, weight, bias, options)
}
