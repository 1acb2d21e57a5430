//! `StableDiffusionXLInstructPix2PixPipeline`.
//!
//! Source: Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image
//! Synthesis"; diffusers
//! `pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_instruct_pix2pix.py`.

use std::ops::{Deref, DerefMut};

use burn::tensor::Tensor;

use super::base::{Job, PipelineBase, Tidy};
use super::denoise::{to_floats, to_floats_as_is};
use super::text::{Conditions, Features, Side, TextEncoder, one_for_each, repeat_each, rows};
use super::{
    Floats, Guidance, Images, LoadOptions, NoiseSource, Observer, Output, PromptEmbeds, Prompts,
    SecondTexts, Tap, XlEditRequest,
};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::models::{
    AddedConditions, AutoencoderKL, ClipTextModel, UNet2DConditionConfig, UNet2DConditionModel,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;

/// What `model_index.json` says beside the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XlConfig {
    /// Where there is no negative prompt at all, its embeddings are zeros in place of those of an
    /// empty text.
    pub force_zeros_for_empty_prompt: bool,
    /// Whether the pictures' latents are scaled, as CosXL-Edit was trained.
    pub is_cosxl_edit: bool,
    /// Whether results carry SDXL's [invisible watermark](crate::image::watermark). diffusers' default
    /// is whether a package for it is installed; here it is off.
    pub add_watermarker: bool,
}

impl Default for XlConfig {
    fn default() -> Self {
        Self { force_zeros_for_empty_prompt: true, is_cosxl_edit: false, add_watermarker: false }
    }
}

/// Edits pictures by instruction, with Stable Diffusion XL or CosXL-Edit.
///
/// A clone shares its tensors with the original, but has its own adapters, words and sampler.
#[derive(Debug, Clone)]
pub struct StableDiffusionXLInstructPix2PixPipeline(PipelineBase);

impl Deref for StableDiffusionXLInstructPix2PixPipeline {
    type Target = PipelineBase;

    fn deref(&self) -> &PipelineBase {
        &self.0
    }
}

impl DerefMut for StableDiffusionXLInstructPix2PixPipeline {
    fn deref_mut(&mut self) -> &mut PipelineBase {
        &mut self.0
    }
}

impl StableDiffusionXLInstructPix2PixPipeline {
    /// A pipeline of loaded components. The first text encoder may be absent, as it is in SDXL's
    /// refiner.
    pub fn new(
        first: Option<(ClipTokenizer, ClipTextModel)>,
        second: (ClipTokenizer, ClipTextModel),
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        scheduler: SchedulerConfig,
        config: XlConfig,
        options: LoadOptions,
    ) -> Self {
        let texts = [("text_encoder", first), ("text_encoder_2", Some(second))];
        let texts = texts.into_iter().filter_map(|(component, parts)| {
            let (tokenizer, model) = parts?;
            Some(TextEncoder::new(component, tokenizer, model))
        });
        let (vae, unet) = (Box::new(vae), Box::new(unet));
        Self::of(PipelineBase::new(texts.collect(), vae, unet, scheduler, options), config)
    }

    /// Of parts that are put together.
    pub(super) fn of(mut base: PipelineBase, config: XlConfig) -> Self {
        base.xl = Some(config);
        Self(base)
    }

    /// What `model_index.json` says beside the components, unless it was changed.
    pub fn config(&self) -> XlConfig {
        self.xl.unwrap_or_default()
    }

    /// Changes what `model_index.json` says beside the components.
    pub fn set_config(&mut self, config: XlConfig) {
        self.xl = Some(config);
    }

    /// Edits pictures.
    ///
    /// `noise` gives the initial latents, unless the request has them, and then whatever the sampler
    /// draws, in the order in which diffusers draws them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what the request has wrong; [`Error::Unsupported`] when the
    /// components do not fit together; [`Error::Aborted`] when `observer` says so; [`Error::Gpu`]
    /// when the device fails or the latents stop being finite.
    pub async fn edit(
        &self,
        request: &XlEditRequest,
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
        request: &XlEditRequest,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        request.check()?;
        let XlEditRequest { edit, second, .. } = request;
        let size = self.size(request)?;
        let guidance = Guidance {
            text: edit.guidance_scale,
            image: edit.image_guidance_scale,
            rescale: request.guidance_rescale,
        };
        let scaled = self.scaled(edit.lora_scale);
        let job = Job {
            request: edit,
            guidance,
            size: Some(size),
            image_scale: match self.config().is_cosxl_edit {
                true => self.vae.config().scaling_factor,
                false => 1.0,
            },
            denoising_end: request.denoising_end.filter(|end| *end > 0.0 && *end < 1.0),
            needs_texts: edit
                .text
                .needs_encoder(guidance.is_on() && !self.zeros_negative(&edit.text)),
            files,
            conditions: &|base, observer| {
                let guided = guidance.is_on();
                let (prompt, negative) =
                    self.embeddings(base, &edit.text, second, guided, observer)?;
                let (negative, negative_pooled) = match negative {
                    Some(Encoded { tokens, pooled }) => (Some(tokens), Some(pooled)),
                    None => (None, None),
                };
                let pooled = rows(prompt.pooled, negative_pooled);
                let time_ids = time_ids(self.unet.config(), request, size, pooled.dims())?;
                let [count, channels] = pooled.dims();
                let seen = pooled.clone().reshape([count, 1, channels]);
                observer.tap("added_text_embeds", Tap::Text(&seen));
                observer.tap("added_time_ids", Tap::Values(&time_ids.concat()));
                Ok(Conditions {
                    text: rows(prompt.tokens, negative),
                    added: Some(AddedConditions { text_embeds: pooled, time_ids }),
                })
            },
        };
        scaled.run(job, noise, observer).await
    }

    /// Encodes instructions on their own, so that they serve many edits (`encode_prompt`): pass the
    /// result on as [`Prompts::prompt_embeds`], [`Prompts::negative_prompt_embeds`],
    /// [`SecondTexts::pooled_prompt_embeds`] and [`SecondTexts::negative_pooled_prompt_embeds`].
    /// `guided` is diffusers' `do_classifier_free_guidance`; `lora_scale` scales the adapters of the
    /// text encoders, this time only.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what the texts have wrong; [`Error::Gpu`].
    pub async fn encode_prompt(
        &self,
        text: &Prompts,
        second: &SecondTexts,
        guided: bool,
        lora_scale: f64,
        observer: &mut dyn Observer,
    ) -> Result<PromptEmbeds> {
        self.check_resident("encodePrompt")?;
        let _tidy = Tidy(self.device());
        text.check()?;
        second.check(text)?;
        if !lora_scale.is_finite() {
            return Err(Error::argument("loraScale", format!("{lora_scale} is not finite")));
        }
        let scaled = self.scaled(lora_scale);
        let (prompt, negative) = self.embeddings(&scaled, text, second, guided, observer)?;
        let (negative_tokens, negative_pooled) = match negative {
            Some(Encoded { tokens, pooled }) => {
                (Some(to_floats_as_is(tokens).await?), Some(to_floats_as_is(pooled).await?))
            }
            None => (None, None),
        };
        Ok(PromptEmbeds {
            prompt_embeds: to_floats_as_is(prompt.tokens).await?,
            negative_prompt_embeds: negative_tokens,
            pooled_prompt_embeds: Some(to_floats_as_is(prompt.pooled).await?),
            negative_pooled_prompt_embeds: negative_pooled,
        })
    }

    /// Encodes pictures on their own, so that they serve many edits of that height and width:
    /// `[N, 4, h, w]`, the VAE's mode, not scaled. Pass the result on as [`Images::Tensor`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a size that is too small; [`Error::Gpu`].
    pub async fn encode_image(
        &self,
        images: &Images,
        height: Option<usize>,
        width: Option<usize>,
    ) -> Result<Floats<4>> {
        self.check_resident("encodeImage")?;
        let _tidy = Tidy(self.device());
        images.check()?;
        let request = XlEditRequest { height, width, ..XlEditRequest::default() };
        let size = self.size(&request)?;
        to_floats(self.encode(self.image_input(images, Some(size))?)).await
    }

    /// With the adapters' weights in UNet and text encoders times `scale`. diffusers scales those of
    /// the text encoders in place, and so again with every call.
    fn scaled(&self, scale: f64) -> std::borrow::Cow<'_, PipelineBase> {
        self.with_lora_scale(scale, &["unet", "text_encoder", "text_encoder_2"])
    }

    /// Height and width of edits that name none, pixels: what the UNet was trained on, where its configuration says so.
    pub fn default_side(&self) -> Option<usize> {
        Some(self.unet.config().sample_side()? * self.vae.config().scale_factor())
    }

    /// Height and width of the results, pixels.
    fn size(&self, request: &XlEditRequest) -> Result<[usize; 2]> {
        let side = |name: &str, given: Option<usize>| {
            given.or_else(|| self.default_side()).ok_or_else(|| {
                Error::argument(name, "it is needed: the model's UNet names no `sample_size`")
            })
        };
        Ok([side("height", request.height)?, side("width", request.width)?])
    }

    /// Whether the embeddings of what to keep away from are zeros: there is no such text at all.
    fn zeros_negative(&self, text: &Prompts) -> bool {
        let is_absent = text.negative_prompts.is_none() && text.negative_prompt_embeds.is_none();
        is_absent && self.config().force_zeros_for_empty_prompt
    }

    /// The embeddings of instructions and of what to keep away from, each row as many times as there
    /// are results for a prompt. `base` has the text encoders.
    fn embeddings(
        &self,
        base: &PipelineBase,
        text: &Prompts,
        second: &SecondTexts,
        guided: bool,
        observer: &mut dyn Observer,
    ) -> Result<(Encoded, Option<Encoded>)> {
        let zeros = self.zeros_negative(text);
        if zeros && guided && second.negative_prompts.is_some() {
            let message = "negativePrompt2 is ignored without negativePrompt, as in diffusers";
            observer.warn(message.into());
        }
        let encode = !zeros && guided;
        let (prompt, negative) = base.features(text, encode, &mut |side, length| {
            let first = text.texts(side);
            let others = match side {
                Side::Prompt => &second.prompts,
                Side::Negative => &second.negative_prompts,
            };
            let others = match others {
                Some(others) => one_for_each(others, text.count()),
                None => first.clone(),
            };
            encode_all(base, [&first, &others], length, observer)
        })?;
        let prompt =
            Encoded::new(base, prompt, ("pooledPromptEmbeds", &second.pooled_prompt_embeds))?;
        let negative = match negative {
            Some(negative) => Some(Encoded::new(
                base,
                negative,
                ("negativePooledPromptEmbeds", &second.negative_pooled_prompt_embeds),
            )?),
            None if guided => Some(Encoded {
                tokens: prompt.tokens.zeros_like(),
                pooled: prompt.pooled.zeros_like(),
            }),
            None => None,
        };
        let repeat = |encoded: Encoded| Encoded {
            tokens: repeat_each(encoded.tokens, text.num_images_per_prompt),
            pooled: repeat_each(encoded.pooled, text.num_images_per_prompt),
        };
        if let Some(negative) = &negative
            && negative.pooled.dims() != prompt.pooled.dims()
        {
            let (found, expected) = (negative.pooled.dims(), prompt.pooled.dims());
            let message = format!("shape {found:?}; the prompt's is {expected:?}");
            return Err(Error::argument("negativePooledPromptEmbeds", message));
        }
        Ok((repeat(prompt), negative.map(repeat)))
    }
}

/// What both text encoders make of texts.
struct Encoded {
    tokens: Tensor<3>,
    pooled: Tensor<2>,
}

impl Encoded {
    /// With the pooled embeddings that are given, or else those that were computed.
    fn new(
        base: &PipelineBase,
        features: Features,
        (name, given): (&'static str, &Option<Floats<2>>),
    ) -> Result<Self> {
        let [count, _, _] = features.tokens.dims();
        let pooled = match (given, features.pooled) {
            (Some(given), _) if given.shape[0] != count => {
                let message = format!("{} rows for {count} prompts", given.shape[0]);
                return Err(Error::argument(name, message));
            }
            (Some(given), _) => base.upload(given),
            (None, Some(pooled)) => pooled,
            (None, None) => {
                let message = "they are needed beside embeddings that are given, and where no text encoder of the \
                               model has a projection";
                return Err(Error::argument(name, message));
            }
        };
        Ok(Self { tokens: features.tokens, pooled })
    }
}

/// The features of texts for the first tokenizer and for the second, side by side. A model without
/// a first text encoder gives the first texts to its second, as in diffusers.
fn encode_all(
    base: &PipelineBase,
    texts: [&[&str]; 2],
    length: usize,
    observer: &mut dyn Observer,
) -> Result<Features> {
    let mut hidden = Vec::new();
    let mut pooled = None;
    for (encoder, texts) in base.texts.iter().zip(texts) {
        let mut output = encoder.encode(texts, length, base.options.dtype, observer)?;
        if encoder.model.is_projected() {
            pooled = pooled.or(Some(output.pooled));
        }
        // The last layer's output is not what SDXL was trained on, but the last but one's.
        output.hidden_states.pop();
        hidden.extend(output.hidden_states.pop());
    }
    Ok(Features { tokens: Tensor::cat(hidden, 2), pooled })
}

/// The aesthetic score to aim for, and that to keep away from, where none are given.
const AESTHETIC_SCORES: [f64; 2] = [6.0, 2.5];

/// The micro-conditions of each row: original size, crop, and target size; or, where the UNet was
/// trained on it, an aesthetic score in place of the last.
fn time_ids(
    config: &UNet2DConditionConfig,
    request: &XlEditRequest,
    size: [usize; 2],
    [count, pooled_channels]: [usize; 2],
) -> Result<Vec<Vec<f64>>> {
    let size = size.map(|side| side as f64);
    let original = request.original_size.unwrap_or(size);
    let target = request.target_size.unwrap_or(size);
    let place = [original, request.crops_coords_top_left].concat();
    let (Some(each), Some(expected)) =
        (config.addition_time_embed_dim, config.projection_class_embeddings_input_dim)
    else {
        return Err(Error::unsupported(
            "a UNet without `text_time` conditions in SDXL's pipeline; use InstructPix2Pix for it",
        ));
    };
    let takes = |ids: usize| expected == each * ids + pooled_channels;
    let scores = [request.aesthetic_score, request.negative_aesthetic_score];
    if takes(place.len() + 1) && !takes(place.len() + 2) {
        let [wanted, unwanted] = [0, 1].map(|i| scores[i].unwrap_or(AESTHETIC_SCORES[i]));
        let results = request.edit.text.results();
        let score = |row: usize| if row < results { wanted } else { unwanted };
        return Ok((0..count).map(|row| [place.clone(), vec![score(row)]].concat()).collect());
    }
    let names = ["aestheticScore", "negativeAestheticScore"];
    if let Some((_, name)) = scores.iter().zip(names).find(|(score, _)| score.is_some()) {
        return Err(Error::argument(
            name,
            "the model's UNet was not trained on it; leave it out (refiner models take it)",
        ));
    }
    if !takes(place.len() + 2) {
        return Err(Error::unsupported(format!(
            "a UNet that takes {expected} additional numbers with pooled texts of {pooled_channels} and six conditions \
             of {each}; does `projection_dim` of text_encoder_2 belong to this UNet?"
        )));
    }
    Ok(vec![[place, target.to_vec()].concat(); count])
}
