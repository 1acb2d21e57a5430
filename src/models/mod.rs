//! The networks of the pipeline. Type names are those of diffusers and transformers, field names
//! are the checkpoints' keys, activations are channels-last.

mod attention;
mod clip;
mod config;
mod embeddings;
mod freeu;
mod layers;
mod lora;
pub mod module;
mod resnet;
mod safety_checker;
mod tiles;
mod unet;
mod unet_blocks;
mod vae;

pub use attention::Transformer2DModel;
pub use clip::{ClipTextConfig, ClipTextModel, ClipTextOutput};
pub use config::PerBlock;
pub use freeu::FreeU;
pub use layers::{Conv2d, Embedding, GroupNorm, LayerNorm, Linear};
pub use lora::{LoraBranch, LoraFactor};
pub use module::{Module, Placement, Values, Weight, WeightDtype};
pub use safety_checker::{
    SafetyCheckerConfig, SafetyThresholds, SafetyVerdict, StableDiffusionSafetyChecker, judge,
};
pub use unet::{AddedConditions, TextKeys, UNet2DConditionConfig, UNet2DConditionModel, UNetTap};
pub use vae::{AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian, Network};
