use burn::tensor::{DType, Tensor};

use super::{Epilogue, Matrix};

/// The plain twin of the kernel. Sums in `f32`, whatever the activations, as it does: libraries for CPUs differ there.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: &Matrix,
    bias: Option<&Tensor<1>>,
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    let [outputs, inputs] = weight.shape();
    let mut shape = x.dims();
    let rows = shape.iter().product::<usize>() / inputs;
    shape[D - 1] = outputs;
    let dtype = x.dtype();
    let x = x.reshape([rows, inputs]).cast(DType::F32);
    let mut y = x.matmul(weight.to_float(DType::F32).transpose());
    if let Some(bias) = bias {
        y = y.add(bias.clone().reshape([1, outputs]));
    }
    epilogue.apply(y.cast(dtype).reshape(shape))
}
