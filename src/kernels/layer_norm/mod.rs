//! Layer normalisation.

mod reference;

use burn::tensor::Tensor;

/// Normalises each token over its channels, then scales and shifts. Statistics are in `f32`.
///
/// # Shapes
/// `x`: `[.., C]`; `weight`, `bias`: `[C]`; the result: `[.., C]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    reference::layer_norm(x, weight, bias, eps)
}
