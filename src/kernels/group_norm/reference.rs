use burn::tensor::{DType, Tensor, activation};

use super::GroupNormOptions;

/// The plain twin of the kernel.
pub fn group_norm(
    x: Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let dtype = x.dtype();
    let per_group = c / options.groups;
    // Reduces over pixels, then over a group's channels.
    let mean = |x: Tensor<4>| x.mean_dim(1).mean_dim(3);
    let x = x.cast(DType::F32).reshape([b, h * w, options.groups, per_group]);
    let centred = x.clone().sub(mean(x));
    let variance = mean(centred.clone().square());
    let normal = centred.div(variance.add_scalar(options.eps).sqrt()).reshape([b, h, w, c]);
    let per_channel = |v: &Tensor<1>| v.clone().reshape([1, 1, 1, c]);
    let y = normal.mul(per_channel(weight)).add(per_channel(bias));
    let y = if options.silu { activation::silu(y) } else { y };
    y.cast(dtype)
}
