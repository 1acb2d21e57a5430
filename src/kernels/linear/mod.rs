//! A dense layer with what follows it.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::{Tensor, activation};

use super::{Matrix, on_gpu_or};

/// What is done to a dense layer's result before it is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "made for one call and taken apart by it")]
pub enum Epilogue<const D: usize> {
    /// Nothing.
    None,
    /// Adds a tensor of the result's shape.
    Residual(Tensor<D>),
    /// `x * sigmoid(1.702 x)`, CLIP's activation.
    QuickGelu,
    /// `x * Phi(x)`, exact.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
}

impl<const D: usize> Epilogue<D> {
    /// The epilogue by itself, for results that something else has been added to.
    pub fn apply(self, y: Tensor<D>) -> Tensor<D> {
        match self {
            Self::None => y,
            Self::Residual(residual) => y.add(residual),
            Self::QuickGelu => activation::sigmoid(y.clone().mul_scalar(1.702)).mul(y),
            Self::Gelu => activation::gelu(y),
            Self::Silu => activation::silu(y),
        }
    }
}

/// `epilogue(x W^T + bias)`.
///
/// # Shapes
/// `x`: `[.., I]`; `weight`: `[O, I]`; `bias`: `[O]`; the result: `[.., O]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: &Matrix,
    bias: Option<&Tensor<1>>,
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    on_gpu_or!(
        gpu::linear(&x, weight, bias, &epilogue),
        reference::linear(x, weight, bias, epilogue)
    )
}

/// `a b`, for products that are no layer: Burn's own would bring its whole family of products along.
///
/// # Shapes
/// `a`: `[M, K]`; `b`: `[K, N]`; the result: `[M, N]`; all `f32`.
pub fn product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    linear(a, &Matrix::from_tensor(b.transpose()), None, Epilogue::None)
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::gemm::{Activation, Gemm};
    use crate::kernels::source::{on_gpu, to_tensor};

    pub fn linear<const D: usize>(
        x: &Tensor<D>,
        weight: &Matrix,
        bias: Option<&Tensor<1>>,
        epilogue: &Epilogue<D>,
    ) -> Option<Tensor<D>> {
        let [outputs, inputs] = weight.shape();
        let mut shape = x.dims();
        let (activation, residual) = match epilogue {
            Epilogue::None => (Activation::None, None),
            Epilogue::Residual(residual) => {
                (Activation::None, on_gpu(&residual.clone().cast(x.dtype())))
            }
            Epilogue::QuickGelu => (Activation::QuickGelu, None),
            Epilogue::Gelu => (Activation::Gelu, None),
            Epilogue::Silu => (Activation::Silu, None),
        };
        let gemm = Gemm {
            input: on_gpu(x)?,
            weight: weight.buffer()?,
            bias: bias.and_then(on_gpu),
            added: None,
            residual,
            activation,
            window: None,
            size: [shape.iter().product::<usize>() / inputs, outputs, inputs],
        };
        shape[D - 1] = outputs;
        Some(to_tensor(gemm.run("linear", shape)))
    }
}
