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
/// Statistics are in `f32`. On a GPU, the result takes the place of a large input that nobody else has.
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
        x => gpu::group_norm(x, weight, bias, options),
        reference::group_norm(x, weight, bias, options)
    )
}

#[cfg(feature = "wgpu")]
mod gpu {
    use burn::tensor::DType;
    use burn_wgpu::CubeTensor;

    use super::*;
    use crate::arena;
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
        x: CubeTensor,
        weight: &Tensor<1>,
        bias: &Tensor<1>,
        options: GroupNormOptions,
    ) -> Tensor<4> {
        let [batch, height, width, channels] = x.meta.shape().dims();
        let groups = options.groups;
        let pixels = height * width;
        let (Some(weight), Some(bias)) = (on_gpu(weight), on_gpu(bias)) else {
            unreachable!("a norm has its numbers where its input is")
        };
        let in_place = arena::is_alone(&x);

        let run = (VALUES_PER_RUN / (channels / groups)).max(pixels.div_ceil(RUNS)).max(1);
        let runs = pixels.div_ceil(run);
        let sums = empty(&x, [batch * groups * (runs + 1), 2], DType::F32);
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
        let output =
            if in_place { x.clone() } else { empty(&x, [batch, height, width, channels], x.dtype) };
        let mut buffers = vec![
            (&x, if in_place { Access::ReadWrite } else { Access::Read }),
            (&sums, Access::Read),
            (&weight, Access::Read),
            (&bias, Access::Read),
        ];
        if !in_place {
            buffers.push((&output, Access::Write));
        }
        lanes(Wgsl::new("group_norm", include_str!("kernel.wgsl")), x.dtype, channels)
            .define("IN_PLACE", in_place)
            .define("THREADS", threads(&x, THREADS))
            .define("GROUPS", groups)
            .define("SILU", options.silu)
            .launch([pixels.div_ceil(here), batch, 1], &buffers, &parameters);
        to_tensor(output)
    }
}
