//! Group normalisation, with the SiLU that usually follows.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::on_gpu_or;

/// How to normalise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormOptions {
    /// Number of channel groups; divides the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Applies `x * sigmoid(x)` to the result.
    pub silu: bool,
}

/// Normalises each group of channels of each picture, then scales and shifts per channel.
/// Statistics are in `f32`.
///
/// # Shapes
/// `x`: `[B, H, W, C]`; `weight`, `bias`: `[C]`; the result: `[B, H, W, C]`.
pub fn group_norm(
    x: Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Tensor<4> {
    on_gpu_or!(
        gpu::group_norm(&x, weight, bias, options),
        reference::group_norm(x, weight, bias, options)
    )
}

#[cfg(feature = "wgpu")]
mod gpu {
    use burn::tensor::DType;

    use super::*;
    use crate::kernels::source::{
        Access, Wgsl, empty, float_name, has_subgroups, lanes, on_gpu, threads, to_tensor,
    };

    const STATISTICS: &str =
        concat!(include_str!("statistics.wgsl"), include_str!("../total.wgsl"));

    /// Invocations of a workgroup.
    const THREADS: usize = 256;
    /// Values of a group that a workgroup sums.
    const VALUES_PER_RUN: usize = 8 * THREADS;
    /// Runs at most, each of which every workgroup of the second pass reads.
    const RUNS: usize = 64;
    /// Values that a workgroup normalises.
    const VALUES_HERE: usize = 64 * THREADS;

    pub fn group_norm(
        x: &Tensor<4>,
        weight: &Tensor<1>,
        bias: &Tensor<1>,
        options: GroupNormOptions,
    ) -> Option<Tensor<4>> {
        let shape = x.dims();
        let [batch, height, width, channels] = shape;
        let groups = options.groups;
        let pixels = height * width;
        let x = on_gpu(x)?;
        let (weight, bias) = (on_gpu(weight)?, on_gpu(bias)?);

        let run = (VALUES_PER_RUN / (channels / groups)).max(pixels.div_ceil(RUNS)).max(1);
        let runs = pixels.div_ceil(run);
        let sums = empty(&x, [batch * groups * runs, 2], DType::F32);
        let mut parameters = [channels, pixels, groups, run, runs].map(|x| x as u32).to_vec();
        Wgsl::new("group_norm_statistics", STATISTICS)
            .define("FLOAT", float_name(x.dtype))
            .define("TOTAL", "vec2<f32>")
            .define("SUBGROUPS", has_subgroups(&x))
            .define("THREADS", threads(&x, THREADS))
            .launch(
                [runs, groups, batch],
                &[(&x, Access::Read), (&sums, Access::Write)],
                &parameters,
            );

        let here = (VALUES_HERE / channels).max(1);
        parameters.extend([here as u32, (options.eps as f32).to_bits()]);
        let output = empty(&x, shape, x.dtype);
        lanes(Wgsl::new("group_norm", include_str!("kernel.wgsl")), x.dtype, channels)
            .define("COMPONENT", if channels.is_multiple_of(4) { "[at % 4u]" } else { "" })
            .define("THREADS", threads(&x, THREADS))
            .define("GROUPS", groups)
            .define("SILU", options.silu)
            .launch(
                [pixels.div_ceil(here), batch, 1],
                &[
                    (&x, Access::Read),
                    (&sums, Access::Read),
                    (&weight, Access::Read),
                    (&bias, Access::Read),
                    (&output, Access::Write),
                ],
                &parameters,
            );
        Some(to_tensor(output))
    }
}
