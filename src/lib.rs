//! InstructPix2Pix in the browser: the diffusion pipeline of diffusers'
//! `StableDiffusionInstructPix2PixPipeline` on [Burn](burn) and WebGPU.

pub mod error;
pub mod kernels;
pub mod schedulers;

pub use error::{Error, Result};
