use burn::tensor::{Tensor, activation};

use crate::kernels::{Epilogue, Matrix, linear};

/// The plain twin of the kernel.
pub fn geglu(x: Tensor<3>, weight: &Matrix, bias: &Tensor<1>) -> Tensor<3> {
    let y = linear(x, weight, Some(bias), Epilogue::None);
    let [value, gate]: [_; 2] = y.chunk(2, 2).try_into().expect("chunk(2) yields two");
    value.mul(activation::gelu(gate))
}
