//! From a request to edited pictures. Reads through [`Fetch`](crate::hub::Fetch), reports through
//! [`Observer`], and knows of no browser.

mod adapters;
mod guidance;
mod layout;
mod load;
mod noise;
mod safety;
mod sd;
mod speed;

pub use guidance::Guidance;
pub use layout::{from_nchw, to_host, to_nchw};
pub use load::{LoadEvent, LoadOptions};
pub use noise::{NoiseSource, RecordedNoise, TorchGenerator};
pub use safety::SafetyCheck;
pub use sd::StableDiffusionInstructPix2PixPipeline;

use std::ops::ControlFlow;

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::schedulers::SchedulerConfig;

/// A sampler to use in place of the model's own.
#[derive(Debug, Clone)]
pub struct SchedulerChoice {
    /// diffusers' class, e.g. `DDIMScheduler` or `DDIM`.
    pub class_name: String,
    /// Its configuration; the model's own when absent.
    pub config: Option<SchedulerConfig>,
}

/// What to do with which pictures.
#[derive(Debug, Clone)]
pub struct EditRequest {
    /// One picture for all prompts, or one for each; all of one size.
    pub images: Vec<RgbImage>,
    /// The instructions.
    pub prompts: Vec<String>,
    /// What to keep away from: one for all prompts, or one for each; `""` when absent.
    pub negative_prompts: Option<Vec<String>>,
    /// Results for each prompt.
    pub num_images_per_prompt: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// How closely to follow the instruction; above 1 turns guidance on.
    pub guidance_scale: f64,
    /// How closely to stay with the picture; 1 or more keeps guidance on.
    pub image_guidance_scale: f64,
    /// Share of fresh noise, for the samplers that have it, 0 to 1.
    pub eta: f64,
    /// Another sampler.
    pub scheduler: Option<SchedulerChoice>,
    /// How much the adapters contribute to the UNet in this edit, times their own weights:
    /// diffusers' `cross_attention_kwargs["scale"]`. The text encoder of this pipeline does not
    /// heed it.
    pub lora_scale: f64,
    /// The initial noise in the order `[B, C, h, w]`, before the sampler scales it; drawn when absent.
    pub latents: Option<Vec<f32>>,
}

impl Default for EditRequest {
    /// diffusers' defaults, without pictures and prompts.
    fn default() -> Self {
        Self {
            images: Vec::new(),
            prompts: Vec::new(),
            negative_prompts: None,
            num_images_per_prompt: 1,
            num_inference_steps: 100,
            guidance_scale: 7.5,
            image_guidance_scale: 1.5,
            eta: 0.0,
            scheduler: None,
            lora_scale: 1.0,
            latents: None,
        }
    }
}

impl EditRequest {
    /// Checks what can be checked before any work is done.
    fn check(&self) -> Result<()> {
        let prompts = self.prompts.len();
        if prompts == 0 {
            return Err(Error::argument("prompt", "at least one is needed"));
        }
        let images = self.images.len();
        if images != 1 && images != prompts {
            return Err(Error::argument(
                "image",
                format!("{images} pictures for {prompts} prompts; one, or one for each"),
            ));
        }
        if self.images.iter().any(|image| {
            [image.width, image.height] != [self.images[0].width, self.images[0].height]
        }) {
            return Err(Error::argument("image", "all pictures must have the same size"));
        }
        if let Some(negative) = &self.negative_prompts
            && negative.len() != 1
            && negative.len() != prompts
        {
            return Err(Error::argument(
                "negativePrompt",
                format!("{} for {prompts} prompts; one, or one for each", negative.len()),
            ));
        }
        let at_least_one = [
            ("numInferenceSteps", self.num_inference_steps),
            ("numImagesPerPrompt", self.num_images_per_prompt),
        ];
        for (name, value) in at_least_one {
            if value < 1 {
                return Err(Error::argument(name, format!("{value} is under 1")));
            }
        }
        let finite = [
            ("guidanceScale", self.guidance_scale),
            ("imageGuidanceScale", self.image_guidance_scale),
            ("eta", self.eta),
            ("loraScale", self.lora_scale),
        ];
        for (name, value) in finite {
            if !value.is_finite() {
                return Err(Error::argument(name, format!("{value} is not finite")));
            }
        }
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(Error::argument("eta", format!("{} is outside 0 to 1", self.eta)));
        }
        Ok(())
    }
}

/// A model call that has been made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// From 0.
    pub index: usize,
    /// Model calls in all.
    pub count: usize,
    /// The sampler's timestep.
    pub timestep: f64,
}

/// What passes by on the way, for tests to look at.
#[derive(Debug, Clone, Copy)]
pub enum Tap<'a> {
    /// Token ids of the texts of one call of the text encoder.
    Ids(&'a [Vec<u32>]),
    /// Numbers on the host.
    Values(&'a [f64]),
    /// Text embeddings, `[B, N, C]`.
    Text(&'a Tensor<3>),
    /// Latents or pictures, `[B, H, W, C]`.
    Latents(&'a Tensor<4>),
}

/// Follows an edit, and may stop it.
pub trait Observer {
    /// Asked before every piece of work; `true` ends the edit with [`Error::Aborted`].
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Called after every model call; `Break` ends the edit with [`Error::Aborted`].
    fn step(&mut self, _step: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Shown intermediate results, by the names of the oracle.
    fn tap(&mut self, _name: &'static str, _tap: Tap<'_>) {}
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

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

/// The result of an edit.
#[derive(Debug, Clone)]
pub struct Output {
    /// The edited pictures, those of one prompt together.
    pub images: Vec<RgbImage>,
    /// Which pictures were not safe for work and are black now; absent without a safety checker.
    pub nsfw_content_detected: Option<Vec<bool>>,
    /// The final latents in the order `[B, C, h, w]`.
    pub latents: Vec<f32>,
    /// Their shape.
    pub latents_shape: [usize; 4],
    /// Where the time went.
    pub timings: Timings,
}
