//! Who follows an edit, and may take a hand in it.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use futures_util::future::{LocalBoxFuture, ready};

use super::Floats;
use crate::error::{Error, Result};
use crate::image::RgbImage;

/// A model call that has been made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// From 0.
    pub index: usize,
    /// Model calls in all.
    pub count: usize,
    /// The sampler's timestep.
    pub timestep: f64,
    /// The inference step that this call ended, from 0: samplers of the second order call the model
    /// twice for most. This is when diffusers calls its legacy `callback`.
    pub inference_step: Option<usize>,
}

/// Which tensors an [`Observer`] wants to see after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepTensorNames {
    /// The sampler's sample.
    pub latents: bool,
    /// What the UNet attends to.
    pub prompt_embeds: bool,
    /// What the UNet sees beside the sample.
    pub image_latents: bool,
}

impl StepTensorNames {
    /// The names of diffusers (`_callback_tensor_inputs`), as JavaScript spells them.
    pub const ALL: [&str; 3] = ["latents", "promptEmbeds", "imageLatents"];

    /// Reads names.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that is none of [`ALL`](Self::ALL).
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut wanted = Self::default();
        for name in names {
            match name {
                "latents" => wanted.latents = true,
                "promptEmbeds" => wanted.prompt_embeds = true,
                "imageLatents" => wanted.image_latents = true,
                _ => {
                    let message = format!("`{name}` is none of {:?}", Self::ALL);
                    return Err(Error::argument("onStepTensorInputs", message));
                }
            }
        }
        Ok(wanted)
    }
}

/// Tensors of a running edit: those that were asked for, or those to go on with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepTensors {
    /// `[B, C, h, w]`
    pub latents: Option<Floats<4>>,
    /// `[text, negative, negative]` with guidance, `[3 * B, T, C]`.
    pub prompt_embeds: Option<Floats<3>>,
    /// `[z, z, 0]` with guidance, `[3 * B, C, h, w]`.
    pub image_latents: Option<Floats<4>>,
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

/// Goes on with nothing changed.
pub const CONTINUE: ControlFlow<(), StepTensors> =
    ControlFlow::Continue(StepTensors { latents: None, prompt_embeds: None, image_latents: None });

/// Follows an edit, may change its tensors, and may stop it.
pub trait Observer {
    /// Asked before every piece of work; `true` ends the edit with [`Error::Aborted`].
    fn is_cancelled(&self) -> bool {
        false
    }

    /// What [`step`](Self::step) is to be shown. Each costs a read-back in every step.
    fn tensor_inputs(&self) -> StepTensorNames {
        StepTensorNames::default()
    }

    /// Called after every model call (`callback_on_step_end`). The edit goes on with the tensors that it returns in
    /// place of its own; `Break` ends it with [`Error::Aborted`].
    fn step<'a>(
        &'a mut self,
        _step: Step,
        _tensors: StepTensors,
    ) -> LocalBoxFuture<'a, ControlFlow<(), StepTensors>> {
        Box::pin(ready(CONTINUE))
    }

    /// Judges pictures in place of the pipeline's safety checker: which are not safe for work. `None` leaves it to
    /// the checker.
    fn judge<'a>(
        &'a mut self,
        _images: &'a [RgbImage],
    ) -> LocalBoxFuture<'a, Option<Result<Vec<bool>>>> {
        Box::pin(ready(None))
    }

    /// Told what may be a mistake, and what was done.
    fn warn(&mut self, _message: String) {}

    /// Shown intermediate results, by the names of the oracle.
    fn tap(&mut self, _name: &'static str, _tap: Tap<'_>) {}
}

/// Follows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
