//! The gated linear unit of the transformer blocks' feed-forward.

mod reference;

use burn::tensor::Tensor;

use super::Matrix;

/// `value * gelu(gate)`, where `[value, gate] = x W^T + bias` (exact GELU).
///
/// Source: Shazeer, "GLU Variants Improve Transformer"; diffusers `models/activations.py`, `GEGLU`.
///
/// # Shapes
/// `x`: `[B, N, I]`; `weight`: `[2 * O, I]`; `bias`: `[2 * O]`; the result: `[B, N, O]`.
pub fn geglu(x: Tensor<3>, weight: &Matrix, bias: &Tensor<1>) -> Tensor<3> {
    reference::geglu(x, weight, bias)
}
