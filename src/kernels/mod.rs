//! The operations that carry the work, one folder each: `mod.rs` is the safe wrapper that models
//! call, `reference.rs` its twin in plain Burn operations, which every backend can run, and
//! `kernel.wgsl`, where there is one, what the GPU runs instead.
//!
//! Activations are channels-last: `[B, H, W, C]` for pictures and `[B, N, C]` for tokens are the
//! same memory. Weights are a [`Matrix`]: one row for each output channel, its inputs contiguous,
//! which is the `[out, in]` of a torch `Linear` as it is and a convolution's `[O, kh, kw, I]`.

mod attention;
mod combine;
mod conv2d;
mod embedding;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod matrix;
#[cfg(feature = "wgpu")]
mod source;
mod unpack;

pub use attention::attention;
pub use combine::combine;
pub use conv2d::{Conv2dOptions, conv2d};
pub use embedding::embedding;
pub use geglu::{geglu, geglu_gate};
pub use group_norm::{GroupNormOptions, group_norm};
pub use layer_norm::layer_norm;
pub use linear::{Epilogue, linear};
pub use matrix::Matrix;
