//! Layer normalisation.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::on_gpu_or;

/// Normalises each token over its channels, then scales and shifts. Statistics are in `f32`.
///
/// # Shapes
/// `x`: `[.., C]`; `weight`, `bias`: `[C]`; the result: `[.., C]`.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    on_gpu_or!(gpu::layer_norm(&x, weight, bias, eps), reference::layer_norm(x, weight, bias, eps))
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::source::{
        Access, Wgsl, empty, has_subgroups, lanes, line, on_gpu, threads, to_tensor,
    };

    const KERNEL: &str = concat!(include_str!("kernel.wgsl"), include_str!("../total.wgsl"));

    /// Invocations of a workgroup, which has one row.
    const THREADS: usize = 64;

    pub fn layer_norm<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<1>,
        bias: &Tensor<1>,
        eps: f64,
    ) -> Option<Tensor<D>> {
        let shape = x.dims();
        let channels = shape[D - 1];
        let rows = shape[..D - 1].iter().product::<usize>();
        let x = on_gpu(x)?;
        let (weight, bias) = (on_gpu(weight)?, on_gpu(bias)?);
        let output = empty(&x, shape, x.dtype);
        let length = if channels.is_multiple_of(4) { channels / 4 } else { channels };
        lanes(Wgsl::new("layer_norm", KERNEL), x.dtype, channels)
            .define("TOTAL", "f32")
            .define("SUBGROUPS", has_subgroups(&x))
            .define("THREADS", threads(&x, THREADS))
            .launch(
                line(rows),
                &[
                    (&x, Access::Read),
                    (&weight, Access::Read),
                    (&bias, Access::Read),
                    (&output, Access::Write),
                ],
                &[rows as u32, length as u32, (eps as f32).to_bits()],
            );
        Some(to_tensor(output))
    }
}
