//! InstructPix2Pix in the browser: the diffusion pipeline of diffusers'
//! `StableDiffusionInstructPix2PixPipeline` on [Burn](burn) and WebGPU.

pub mod error;
pub mod hub;
pub mod kernels;
pub mod models;
pub mod schedulers;
pub mod weights;

pub use error::{Error, Result};
