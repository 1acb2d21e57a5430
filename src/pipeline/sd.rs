//! `StableDiffusionInstructPix2PixPipeline`.
//!
//! Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing
//! Instructions"; diffusers
//! `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py`.

use std::ops::{Deref, DerefMut};

use burn::tensor::Tensor;

use super::base::{Job, PipelineBase, Tidy};
use super::denoise::{to_floats, to_floats_as_is};
use super::text::{Conditions, Features, TextEncoder, repeat_each, rows};
use super::{
    EditRequest, Floats, Guidance, Images, LoadOptions, NoiseSource, Observer, Output,
    PromptEmbeds, Prompts,
};
use crate::error::Result;
use crate::hub::ModelFiles;
use crate::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;

/// Edits pictures by instruction, with Stable Diffusion 1.5 or a model of its family.
///
/// A clone shares its tensors with the original, but has its own adapters, words and sampler.
#[derive(Debug, Clone)]
pub struct StableDiffusionInstructPix2PixPipeline(PipelineBase);

impl Deref for StableDiffusionInstructPix2PixPipeline {
    type Target = PipelineBase;

    fn deref(&self) -> &PipelineBase {
        &self.0
    }
}

impl DerefMut for StableDiffusionInstructPix2PixPipeline {
    fn deref_mut(&mut self) -> &mut PipelineBase {
        &mut self.0
    }
}

impl StableDiffusionInstructPix2PixPipeline {
    /// A pipeline of loaded components.
    pub fn new(
        tokenizer: ClipTokenizer,
        text_encoder: ClipTextModel,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: SchedulerConfig,
        options: LoadOptions,
    ) -> Self {
        let texts = vec![TextEncoder::new("text_encoder", tokenizer, text_encoder)];
        Self(PipelineBase::new(texts, Box::new(vae), Box::new(unet), scheduler, options))
    }

    /// Of parts that are put together.
    pub(super) fn of(base: PipelineBase) -> Self {
        Self(base)
    }

    /// Edits pictures.
    ///
    /// `noise` gives the initial latents, unless the request has them, and then whatever the sampler
    /// draws, in the order in which diffusers draws them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for what the request has wrong;
    /// [`Error::Aborted`](crate::Error::Aborted) when `observer` says so;
    /// [`Error::Gpu`](crate::Error::Gpu) when the device fails or the latents stop being finite.
    pub async fn edit(
        &self,
        request: &EditRequest,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        self.edit_with(None, request, noise, observer).await
    }

    /// As [`edit`](Self::edit). The models of a pipeline that takes turns are read from `files`, which are those that it
    /// was opened with, each in its turn.
    ///
    /// # Errors
    /// As [`edit`](Self::edit); what reading says.
    pub async fn edit_with(
        &self,
        files: Option<&dyn ModelFiles>,
        request: &EditRequest,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        request.check()?;
        request.images.check_sizes()?;
        let guidance = Guidance {
            text: request.guidance_scale,
            image: request.image_guidance_scale,
            rescale: 0.0,
        };
        // The text encoder of this class does not heed the scale.
        let scaled = self.with_lora_scale(request.lora_scale, &["unet"]);
        let job = Job {
            request,
            guidance,
            size: None,
            image_scale: 1.0,
            denoising_end: None,
            needs_texts: request.text.needs_encoder(guidance.is_on()),
            files,
            conditions: &|base, observer| {
                let (prompt, negative) =
                    embeddings(base, &request.text, guidance.is_on(), observer)?;
                Ok(Conditions { text: rows(prompt, negative), added: None })
            },
        };
        scaled.run(job, noise, observer).await
    }

    /// Encodes instructions on their own, so that they serve many edits
    /// (`encode_prompt`): pass the result on as [`Prompts::prompt_embeds`] and
    /// [`Prompts::negative_prompt_embeds`]. `guided` is diffusers' `do_classifier_free_guidance`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for what `text` has wrong;
    /// [`Error::Gpu`](crate::Error::Gpu).
    pub async fn encode_prompt(
        &self,
        text: &Prompts,
        guided: bool,
        observer: &mut dyn Observer,
    ) -> Result<PromptEmbeds> {
        self.check_resident("encodePrompt")?;
        let _tidy = Tidy(self.device());
        text.check()?;
        let (prompt, negative) = embeddings(self, text, guided, observer)?;
        Ok(PromptEmbeds {
            prompt_embeds: to_floats_as_is(prompt).await?,
            negative_prompt_embeds: match negative {
                Some(negative) => Some(to_floats_as_is(negative).await?),
                None => None,
            },
            pooled_prompt_embeds: None,
            negative_pooled_prompt_embeds: None,
        })
    }

    /// Encodes pictures on their own, so that they serve many edits: `[N, 4, h, w]`, the VAE's mode, not scaled. Pass
    /// the result on as [`Images::Tensor`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for pictures that are too small, or
    /// differ in size; [`Error::Gpu`](crate::Error::Gpu).
    pub async fn encode_image(&self, images: &Images) -> Result<Floats<4>> {
        self.check_resident("encodeImage")?;
        let _tidy = Tidy(self.device());
        images.check()?;
        images.check_sizes()?;
        to_floats(self.encode(self.image_input(images, None)?)).await
    }
}

/// The embeddings of instructions and of what to keep away from, each row as many times as there are results for
/// a prompt.
fn embeddings(
    base: &PipelineBase,
    text: &Prompts,
    guided: bool,
    observer: &mut dyn Observer,
) -> Result<(Tensor<3>, Option<Tensor<3>>)> {
    let encoder = &base.texts[0];
    let (prompt, negative) = base.features(text, guided, &mut |side, length| {
        let output = encoder.encode(&text.texts(side), length, base.options.dtype, observer)?;
        Ok(Features { tokens: output.last_hidden_state, pooled: None })
    })?;
    let repeat = |features: Features| repeat_each(features.tokens, text.num_images_per_prompt);
    Ok((repeat(prompt), negative.map(repeat)))
}
