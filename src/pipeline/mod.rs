//! From a request to edited pictures. Reads through [`Fetch`](crate::hub::Fetch), reports through
//! [`Observer`], and knows of no browser.

mod adapters;
mod base;
mod blank;
mod components;
mod denoise;
mod guidance;
mod layout;
mod load;
mod needs;
mod noise;
mod observer;
mod pictures;
mod request;
mod residency;
mod safety;
mod save;
mod sd;
mod sdxl;
mod single_file;
mod speed;
mod text;
mod turns;
#[cfg(feature = "wgpu")]
mod warm_up;
mod xl_request;

pub use adapters::{
    AdapterSource, AdapterWeight, ComponentWeights, LayerWeights, PartWeight, PartWeights,
    UNetWeight,
};
pub use base::PipelineBase;
pub use blank::{MemoryChoice, PipelineClass};
pub use components::Components;
pub use guidance::Guidance;
pub use layout::{from_nchw, to_host, to_nchw};
pub use load::{InstructPix2Pix, LoadEvent, LoadOptions, Requirements};
pub use needs::{asked_of_edit, asked_of_load};
pub use noise::{NoiseSource, RecordedNoise, TorchGenerator, TorchGenerators};
pub use observer::{CONTINUE, Observer, Step, StepTensorNames, StepTensors, Tap, Unobserved};
pub use request::{EditRequest, Floats, Images, OutputType, Prompts, SchedulerChoice};
pub use residency::{MemoryNeeds, PartNeeds, Residency, Room};
pub use safety::SafetyCheck;
pub use save::Sink;
pub use sd::StableDiffusionInstructPix2PixPipeline;
pub use sdxl::{StableDiffusionXLInstructPix2PixPipeline, XlConfig};
pub use single_file::SingleFile;
#[cfg(feature = "wgpu")]
pub use warm_up::WarmUp;
pub use xl_request::{SecondTexts, XlEditRequest};

use crate::image::RgbImage;

/// Where the time of an edit went, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// Text and picture to embeddings and latents.
    pub encode: f64,
    /// All steps.
    pub denoise: f64,
    /// Latents to pictures.
    pub decode: f64,
    /// The whole edit.
    pub total: f64,
}

/// What an edit makes, those of one prompt together.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputImages {
    /// Pictures of bytes.
    Pictures(Vec<RgbImage>),
    /// Samples in 0 to 1, in the order that was asked for.
    Samples(Floats<4>),
    /// Nothing was decoded.
    None,
}

/// What encoded instructions are.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptEmbeds {
    /// `[N, T, C]`, each row as many times as there are results for a prompt.
    pub prompt_embeds: Floats<3>,
    /// The same of what to keep away from; absent without guidance.
    pub negative_prompt_embeds: Option<Floats<3>>,
    /// `[N, P]`, of SDXL.
    pub pooled_prompt_embeds: Option<Floats<2>>,
    /// `[N, P]`, of SDXL with guidance.
    pub negative_pooled_prompt_embeds: Option<Floats<2>>,
}

/// The result of an edit.
#[derive(Debug, Clone)]
pub struct Output {
    /// The edited pictures.
    pub images: OutputImages,
    /// Which pictures were not safe for work and are black now; absent when none were checked.
    pub nsfw_content_detected: Option<Vec<bool>>,
    /// The final latents, `[B, C, h, w]`.
    pub latents: Floats<4>,
    /// Where the time went.
    pub timings: Timings,
}
