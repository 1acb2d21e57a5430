//! A linear combination of tensors in one pass: guidance and every scheduler's update.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::on_gpu_or;

/// `sum(coefficient * tensor)` over the terms.
///
/// Coefficients are `f64` on the host and rounded to the tensors' type once, here.
///
/// # Shapes
/// All terms have one shape, which is the result's.
///
/// # Panics
/// When there are no terms.
pub fn combine<const D: usize>(terms: &[(f64, &Tensor<D>)]) -> Tensor<D> {
    on_gpu_or!(gpu::combine(terms), reference::combine(terms))
}

#[cfg(feature = "wgpu")]
mod gpu {
    use super::*;
    use crate::kernels::source::{Access, Wgsl, empty, float_name, line, on_gpu, to_tensor};

    /// Invocations of a workgroup.
    const THREADS: usize = 256;
    /// Terms of one pass: WebGPU promises eight storage buffers.
    const TERMS: usize = 7;

    pub fn combine<const D: usize>(terms: &[(f64, &Tensor<D>)]) -> Option<Tensor<D>> {
        let (_, like) = terms.first().expect("a linear combination has at least one term");
        let (now, later) = terms.split_at(terms.len().min(TERMS));
        let tensors: Vec<_> =
            now.iter().map(|(_, term)| on_gpu(&(*term).clone().cast(like.dtype()))).collect();
        let tensors = tensors.into_iter().collect::<Option<Vec<_>>>()?;
        let count = like.shape().num_elements();
        let output = empty(&tensors[0], like.dims(), like.dtype());
        let mut buffers: Vec<_> = tensors.iter().map(|tensor| (tensor, Access::Read)).collect();
        buffers.push((&output, Access::Write));
        let mut parameters = vec![count as u32];
        parameters.extend(now.iter().map(|(coefficient, _)| (*coefficient as f32).to_bits()));
        Wgsl::new("combine", include_str!("kernel.wgsl"))
            .define("FLOAT", float_name(like.dtype()))
            .define("THREADS", THREADS)
            .define("TERMS", now.len())
            .launch(line(count.div_ceil(THREADS)), &buffers, &parameters);
        let sum = to_tensor(output);
        if later.is_empty() {
            return Some(sum);
        }
        let mut rest = vec![(1.0, &sum)];
        rest.extend_from_slice(later);
        combine(&rest)
    }
}
