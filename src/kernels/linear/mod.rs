//! A dense layer with what follows it.

mod reference;

use burn::tensor::{Tensor, activation};

use super::Matrix;

/// What is done to a dense layer's result before it is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    reference::linear(x, weight, bias, epilogue)
}
