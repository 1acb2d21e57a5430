//! InstructPix2Pix in the browser: the diffusion pipeline of diffusers'
//! `StableDiffusionInstructPix2PixPipeline` on [Burn](burn) and WebGPU.

#[cfg(feature = "wgpu")]
mod arena;
#[cfg(feature = "tuning")]
pub mod bench;
pub mod cache;
#[cfg(feature = "wgpu")]
pub mod device;
pub mod error;
pub mod hub;
pub mod image;
#[cfg(all(target_family = "wasm", feature = "js"))]
pub mod js;
mod json;
pub mod kernels;
pub mod models;
mod names;
pub mod pipeline;
pub mod schedulers;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
