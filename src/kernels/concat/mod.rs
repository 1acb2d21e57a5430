//! Two pictures' channels behind each other.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::on_gpu_or;

/// The channels of `a`, then those of `b`.
///
/// # Shapes
/// `a`: `[B, H, W, C]`; `b`: `[B, H, W, D]` of the same type; the result: `[B, H, W, C + D]`.
pub fn concat(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    on_gpu_or!(gpu::concat(&a, &b), reference::concat(a, b))
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::source::{Access, Wgsl, empty, float_name, line, on_gpu, to_tensor};

    /// Invocations of a workgroup.
    const THREADS: usize = 256;

    pub fn concat(a: &Tensor<4>, b: &Tensor<4>) -> Option<Tensor<4>> {
        let [batch, height, width, first] = a.dims();
        let [.., second] = b.dims();
        let (a, b) = (on_gpu(a)?, on_gpu(b)?);
        let output = empty(&a, [batch, height, width, first + second], a.dtype);
        // Four channels move as one where both have such.
        let wide = first.is_multiple_of(4) && second.is_multiple_of(4);
        let value = match (wide, float_name(a.dtype)) {
            (true, "f16") => "vec4<f16>",
            (true, _) => "vec4<f32>",
            (false, float) => float,
        };
        let lanes = if wide { 4 } else { 1 };
        let pixels = batch * height * width;
        let count = pixels * (first + second) / lanes;
        Wgsl::new("concat", include_str!("kernel.wgsl"))
            .define("VALUE", value)
            .define("THREADS", THREADS)
            .launch(
                line(count.div_ceil(THREADS)),
                &[(&a, Access::Read), (&b, Access::Read), (&output, Access::Write)],
                &[count, first / lanes, second / lanes].map(|x| x as u32),
            );
        Some(to_tensor(output))
    }
}
