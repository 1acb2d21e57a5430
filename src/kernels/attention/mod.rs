//! Scaled dot-product attention over several heads.

mod reference;

use burn::tensor::Tensor;

/// `softmax(q k^T / sqrt(d)) v` for each head, where head `h` owns the channels `h * d .. (h + 1) * d`.
///
/// `causal` hides later tokens from earlier ones, as in CLIP's text encoder. The softmax is in `f32`.
///
/// # Shapes
/// `q`: `[B, N, heads * d]`; `k`, `v`: `[B, M, heads * d]`; the result: `[B, N, heads * d]`.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    causal: bool,
) -> Tensor<3> {
    reference::attention(q, k, v, heads, causal)
}
