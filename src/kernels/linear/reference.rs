use burn::tensor::Tensor;

use super::{Epilogue, Matrix};

/// The plain twin of the kernel.
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
    let mut y = x.reshape([rows, inputs]).matmul(weight.to_float(dtype).transpose());
    if let Some(bias) = bias {
        y = y.add(bias.clone().cast(dtype).reshape([1, outputs]));
    }
    epilogue.apply(y.reshape(shape))
}
