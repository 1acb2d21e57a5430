//! The gated linear unit of the transformer blocks' feed-forward.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::{Tensor, activation};

use super::{Matrix, on_gpu_or};

/// `value * gelu(gate)`, where `[value, gate] = x W^T + bias` (exact GELU).
///
/// Source: Shazeer, "GLU Variants Improve Transformer"; diffusers `models/activations.py`, `GEGLU`.
///
/// # Shapes
/// `x`: `[B, N, I]`; `weight`: `[2 * O, I]`; `bias`: `[2 * O]`; the result: `[B, N, O]`.
pub fn geglu(x: Tensor<3>, weight: &Matrix, bias: &Tensor<1>) -> Tensor<3> {
    on_gpu_or!(gpu::geglu(&x, weight, bias), reference::geglu(x, weight, bias))
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::gemm::{Activation, Gemm};
    use crate::kernels::source::{on_gpu, to_tensor};

    pub fn geglu(x: &Tensor<3>, weight: &Matrix, bias: &Tensor<1>) -> Option<Tensor<3>> {
        let [rows, inputs] = weight.shape();
        let [batch, tokens, _] = x.dims();
        let outputs = rows / 2;
        let gemm = Gemm {
            input: on_gpu(x)?,
            weight: weight.buffer()?,
            bias: on_gpu(bias),
            added: None,
            residual: None,
            activation: Activation::GeGlu,
            window: None,
            size: [batch * tokens, outputs, inputs],
        };
        Some(to_tensor(gemm.run("geglu", [batch, tokens, outputs])))
    }
}

/// `value * gelu(gate)` of a dense layer's result, `[B, N, 2 * O]` to `[B, N, O]`: what [`geglu`]
/// does after its product, for results that something else has been added to.
pub fn geglu_gate(y: Tensor<3>) -> Tensor<3> {
    let [value, gate]: [_; 2] = y.chunk(2, 2).try_into().expect("chunk(2) yields two");
    value.mul(activation::gelu(gate))
}
