use burn::tensor::{DType, Tensor};

/// The plain twin of the kernel.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let dtype = x.dtype();
    let mut per_channel = [1; D];
    per_channel[D - 1] = x.dims()[D - 1];
    let x = x.cast(DType::F32);
    let centred = x.clone().sub(x.mean_dim(D - 1));
    let variance = centred.clone().square().mean_dim(D - 1);
    centred
        .div(variance.add_scalar(eps).sqrt())
        .mul(weight.clone().reshape(per_channel))
        .add(bias.clone().reshape(per_channel))
        .cast(dtype)
}
