//! A linear combination of tensors in one pass: guidance and every scheduler's update.

mod reference;

use burn::tensor::Tensor;

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
    reference::combine(terms)
}
