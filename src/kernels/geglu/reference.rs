use burn::tensor::Tensor;

use super::geglu_gate;
use crate::kernels::{Epilogue, Matrix, linear};

/// The plain twin of the kernel.
pub fn geglu(x: Tensor<3>, weight: &Matrix, bias: &Tensor<1>) -> Tensor<3> {
    geglu_gate(linear(x, weight, Some(bias), Epilogue::None))
}
