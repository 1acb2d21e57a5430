//! The operations that carry the work, one folder each: `mod.rs` is the safe wrapper that models
//! call, `reference.rs` its twin in plain Burn operations, which every backend can run, and the
//! `.wgsl` files what the GPU runs instead. `gemm` is the matrix product that several share.
//!
//! Activations are channels-last: `[B, H, W, C]` for pictures and `[B, N, C]` for tokens are the
//! same memory. Weights are a [`Matrix`]: one row for each output channel, its inputs contiguous,
//! which is the `[out, in]` of a torch `Linear` as it is and a convolution's `[O, kh, kw, I]`.
//! Biases, scales and shifts are `f32` whatever the activations.

mod attention;
mod combine;
mod concat;
mod conv2d;
mod embedding;
mod geglu;
#[cfg(feature = "wgpu")]
mod gemm;
mod group_norm;
mod layer_norm;
mod linear;
mod matrix;
#[cfg(feature = "wgpu")]
mod memory;
mod quantise;
#[cfg(feature = "wgpu")]
mod source;
#[cfg(feature = "wgpu")]
mod template;
mod unpack;

pub use attention::attention;
pub use combine::combine;
pub use concat::concat;
pub use conv2d::{Conv2dOptions, conv2d};
pub use embedding::embedding;
pub use geglu::{geglu, geglu_gate};
pub use group_norm::{GroupNormOptions, group_norm};
pub use layer_norm::layer_norm;
pub use linear::{Epilogue, linear, product};
pub use matrix::{Matrix, MatrixWriter, Packing, StandIn};
pub use quantise::Bits;

#[cfg(feature = "tuning")]
pub use memory::{device_memory, memory_of};
#[cfg(feature = "wgpu")]
pub use memory::{flush, held_memory, largest_buffer, release_memory};
#[cfg(feature = "wgpu")]
pub use source::warm_up;
#[cfg(feature = "tuning")]
pub use source::{Pretended, as_wide, pretend};

/// What the plans of products are made of, for benchmarks that try others.
#[cfg(feature = "tuning")]
pub mod tuning {
    pub use super::gemm::{Plan, Tile, plan, with_plan};
}

/// The GPU's result where the tensors are on a GPU, else the reference's.
///
/// A build without Burn's CPU backend has no references: its tensors are always on a GPU.
///
/// With `x =>` before it, the GPU's side takes the tensor `x` over.
macro_rules! on_gpu_or {
    ($x:ident => $gpu:expr, $reference:expr) => {{
        #[cfg(feature = "wgpu")]
        if let Some(there) = $crate::kernels::source::on_gpu(&$x) {
            drop($x);
            let $x = there;
            return $gpu;
        }
        #[cfg(feature = "flex")]
        {
            $reference
        }
        #[cfg(not(feature = "flex"))]
        {
            unreachable!("every tensor of this build is on a GPU")
        }
    }};
    ($gpu:expr, $reference:expr) => {{
        #[cfg(feature = "wgpu")]
        if let Some(result) = $gpu {
            return result;
        }
        #[cfg(feature = "flex")]
        {
            $reference
        }
        #[cfg(not(feature = "flex"))]
        {
            unreachable!("every tensor of this build is on a GPU")
        }
    }};
}
use on_gpu_or;
