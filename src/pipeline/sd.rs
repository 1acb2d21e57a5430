//! `StableDiffusionInstructPix2PixPipeline`.
//!
//! Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing
//! Instructions"; diffusers
//! `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py`.

use burn::tensor::{DType, Device, Tensor, TensorData};
use web_time::Instant;

use super::adapters::Adapters;
use std::ops::ControlFlow;

use super::{
    EditRequest, Floats, Guidance, Images, LoadOptions, NoiseSource, Observer, Output,
    OutputImages, OutputType, PromptEmbeds, Prompts, SafetyCheck, Step, StepTensors, Tap, Timings,
    from_nchw, to_host, to_nchw,
};
use crate::error::{Error, Result};
use crate::image::{RgbImage, VaeImageProcessor, to_u8};
use crate::kernels::combine;
use crate::models::{AutoencoderKL, ClipTextModel, FreeU, UNet2DConditionModel};
use crate::schedulers::{Scheduler, SchedulerConfig, StepInput, StepOptions, from_config};
use crate::tokenizer::{ClipTokenizer, MAX_LENGTH};
use crate::weights::textual_inversion::LearntWords;

/// Edits pictures by instruction, with Stable Diffusion 1.5 or a model of its family.
///
/// A clone shares its tensors with the original, but has its own adapters, words and sampler.
#[derive(Debug, Clone)]
pub struct StableDiffusionInstructPix2PixPipeline {
    pub(super) tokenizer: ClipTokenizer,
    pub(super) text_encoder: ClipTextModel,
    pub(super) vae: AutoencoderKL,
    pub(super) unet: UNet2DConditionModel,
    pub(super) scheduler: SchedulerConfig,
    pub(super) safety_checker: Option<SafetyCheck>,
    vae_tiling: bool,
    vae_slicing: bool,
    pub(super) options: LoadOptions,
    pub(super) adapters: Adapters,
    pub(super) words: LearntWords,
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
        Self {
            tokenizer,
            text_encoder,
            vae,
            unet,
            scheduler,
            safety_checker: None,
            vae_tiling: false,
            vae_slicing: false,
            options,
            adapters: Adapters::default(),
            words: LearntWords::default(),
        }
    }

    /// Checks every picture from now on, or none.
    pub fn set_safety_checker(&mut self, safety_checker: Option<SafetyCheck>) {
        self.safety_checker = safety_checker;
    }

    /// The sampler of edits that name no other: the model's own, unless it was changed.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Changes the sampler of edits that name no other.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a class that is not there, [`Error::InvalidConfig`] without one.
    pub fn set_scheduler(&mut self, scheduler: SchedulerConfig) -> Result<()> {
        let class = scheduler.class_name.as_deref();
        let class = class.ok_or_else(|| Error::config("scheduler", "no `_class_name`"))?;
        from_config(class, &scheduler)?;
        self.scheduler = scheduler;
        Ok(())
    }

    /// Where and how the pipeline computes.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Turns FreeU on or off.
    pub fn set_freeu(&mut self, freeu: Option<FreeU>) {
        self.unet.set_freeu(freeu);
    }

    /// Encodes and decodes in overlapping tiles (`enable_vae_tiling`), which needs less memory and
    /// changes the result a little, or whole.
    pub fn set_vae_tiling(&mut self, tiling: bool) {
        self.vae_tiling = tiling;
    }

    /// Encodes and decodes one picture at a time (`enable_vae_slicing`), or all at once.
    pub fn set_vae_slicing(&mut self, slicing: bool) {
        self.vae_slicing = slicing;
    }

    /// Applies one of the VAE's networks as tiling and slicing say.
    fn in_slices(&self, x: Tensor<4>, network: impl Fn(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
        let rows = x.dims()[0];
        if !self.vae_slicing || rows == 1 {
            return network(x);
        }
        let slices = (0..rows).map(|row| network(x.clone().narrow(0, row, 1)));
        Tensor::cat(slices.collect(), 0)
    }

    fn vae_encode(&self, x: Tensor<4>) -> Tensor<4> {
        self.in_slices(x, |x| match self.vae_tiling {
            true => self.vae.encode_tiled(x).mode(),
            false => self.vae.encode(x).mode(),
        })
    }

    fn vae_decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.in_slices(z, |z| match self.vae_tiling {
            true => self.vae.decode_tiled(z),
            false => self.vae.decode(z),
        })
    }

    fn device(&self) -> &Device {
        &self.options.placement.device
    }

    /// Edits pictures.
    ///
    /// `noise` gives the initial latents, unless the request has them, and then whatever the sampler
    /// draws, in the order in which diffusers draws them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what the request has wrong; [`Error::Aborted`] when `observer`
    /// says so; [`Error::Gpu`] when the device fails or the latents stop being finite.
    pub async fn edit(
        &self,
        request: &EditRequest,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        request.check()?;
        if request.lora_scale != 1.0 && !self.adapters.is_empty() {
            self.with_lora_scale(request.lora_scale).run(request, noise, observer).await
        } else {
            self.run(request, noise, observer).await
        }
    }

    async fn run(
        &self,
        request: &EditRequest,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let start = Instant::now();
        let guidance =
            Guidance { text: request.guidance_scale, image: request.image_guidance_scale };
        if guidance.text > 1.0 && !guidance.is_on() {
            observer.warn(format!(
                "imageGuidanceScale {} is below 1: guidance is off, so guidanceScale and the negative prompt are \
                 ignored, as in diffusers",
                guidance.image
            ));
        }
        let mut scheduler = self.make_scheduler(request)?;
        let options = StepOptions { eta: request.eta, ..StepOptions::default() };
        scheduler.set_timesteps(&request.schedule(), options)?;
        observer.tap("timesteps", Tap::Values(scheduler.timesteps()));
        observer.tap("sigmas", Tap::Values(scheduler.sigmas()));

        stop_if_cancelled(observer)?;
        // Pictures first: they may be too small, and that is to be said before anything is computed.
        let results = request.text.results();
        let pictures = self.image_input(&request.images)?;
        self.check_latents(request, &pictures, noise)?;
        let image_latents = self.image_latents(pictures, &request.text, guidance);
        observer.tap("image_latents", Tap::Latents(&image_latents));
        stop_if_cancelled(observer)?;
        let text = self.text(&request.text, guidance, observer)?;
        let latents = self.initial_latents(request, results, &image_latents, noise)?;
        let latents = latents.mul_scalar(scheduler.init_noise_sigma());
        observer.tap("latents_scaled", Tap::Latents(&latents));
        finish(&latents).await?;
        let encoded = Instant::now();

        let latents = self
            .denoise(latents, image_latents, text, &mut *scheduler, guidance, noise, observer)
            .await?;
        let denoised = Instant::now();

        stop_if_cancelled(observer)?;
        let (images, nsfw_content_detected) = match request.output {
            OutputType::Latent => (OutputImages::None, None),
            output => self.decode(&latents, output, observer).await?,
        };
        let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let end = Instant::now();
        Ok(Output {
            images,
            nsfw_content_detected,
            latents: to_floats(latents).await?,
            timings: Timings {
                encode: milliseconds(start, encoded),
                denoise: milliseconds(encoded, denoised),
                decode: milliseconds(denoised, end),
                total: milliseconds(start, end),
            },
        })
    }

    fn make_scheduler(&self, request: &EditRequest) -> Result<Box<dyn Scheduler>> {
        match &request.scheduler {
            Some(choice) => {
                let config = choice.config.as_ref().unwrap_or(&self.scheduler);
                from_config(&choice.class_name, config)
            }
            None => {
                let class = self.scheduler.class_name.as_deref().ok_or_else(|| {
                    Error::config("scheduler/scheduler_config.json", "no `_class_name`")
                })?;
                from_config(class, &self.scheduler)
            }
        }
    }

    /// Encodes instructions on their own, so that they serve many edits
    /// (`encode_prompt`): pass the result on as [`Prompts::prompt_embeds`] and
    /// [`Prompts::negative_prompt_embeds`]. `guided` is diffusers' `do_classifier_free_guidance`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what `text` has wrong; [`Error::Gpu`].
    pub async fn encode_prompt(
        &self,
        text: &Prompts,
        guided: bool,
        observer: &mut dyn Observer,
    ) -> Result<PromptEmbeds> {
        text.check()?;
        let (prompt, negative) = self.embeddings(text, guided, observer)?;
        Ok(PromptEmbeds {
            prompt_embeds: to_floats_as_is(prompt).await?,
            negative_prompt_embeds: match negative {
                Some(negative) => Some(to_floats_as_is(negative).await?),
                None => None,
            },
        })
    }

    /// Encodes pictures on their own, so that they serve many edits: `[N, 4, h, w]`, the VAE's mode, not scaled. Pass
    /// the result on as [`Images::Tensor`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for pictures that are too small, or differ in size; [`Error::Gpu`].
    pub async fn encode_image(&self, images: &Images) -> Result<Floats<4>> {
        images.check()?;
        to_floats(self.encode(self.image_input(images)?)).await
    }

    /// The embeddings of instructions and of what to keep away from, each row as many times as there are results for
    /// a prompt.
    fn embeddings(
        &self,
        text: &Prompts,
        guided: bool,
        observer: &mut dyn Observer,
    ) -> Result<(Tensor<3>, Option<Tensor<3>>)> {
        let width = self.text_encoder.token_channels();
        let upload = |name: &'static str, embeds: &Floats<3>| {
            if embeds.shape[2] != width {
                let message =
                    format!("{} numbers for a token; this model has {width}", embeds.shape[2]);
                return Err(Error::argument(name, message));
            }
            let data = TensorData::new(embeds.data.clone(), embeds.shape);
            Ok(Tensor::<3>::from_data(data, (self.device(), DType::F32)).cast(self.options.dtype))
        };
        let mut embed = |texts: &[&str], length: usize, name: &'static str| {
            let mut ids = Vec::new();
            for text in texts {
                let (row, cut) = self.tokenizer.encode_to_length(text, length)?;
                if let Some(cut) = cut {
                    observer.warn(format!(
                        "the prompt is longer than CLIP can read, {length} tokens; this was left out: {cut}"
                    ));
                }
                ids.push(row);
            }
            observer.tap(name, Tap::Ids(&ids));
            Ok::<_, Error>(self.text_encoder.forward(&ids, self.options.dtype)?.last_hidden_state)
        };
        let prompt = match &text.prompt_embeds {
            Some(embeds) => upload("promptEmbeds", embeds)?,
            None => {
                let prompts: Vec<&str> = text.prompts.iter().map(String::as_str).collect();
                embed(&prompts, MAX_LENGTH, "input_ids.0")?
            }
        };
        let length = prompt.dims()[1];
        let negative = match (&text.negative_prompt_embeds, guided) {
            (_, false) => None,
            (Some(embeds), true) if embeds.shape[1] != length => {
                let message = format!("{} tokens; the prompt has {length}", embeds.shape[1]);
                return Err(Error::argument("negativePromptEmbeds", message));
            }
            (Some(embeds), true) => Some(upload("negativePromptEmbeds", embeds)?),
            (None, true) if length > MAX_LENGTH => {
                let message = format!(
                    "{length} tokens, and CLIP reads {MAX_LENGTH}: give negativePromptEmbeds too"
                );
                return Err(Error::argument("promptEmbeds", message));
            }
            (None, true) => {
                let all = text.negative_prompts.iter().flatten().map(String::as_str);
                let all: Vec<&str> = all.collect();
                let each = |i: usize| if all.is_empty() { "" } else { all[i % all.len()] };
                let negatives: Vec<&str> = (0..text.count()).map(each).collect();
                Some(embed(&negatives, length, "input_ids.1")?)
            }
        };
        let repeat = |x| repeat_each(x, text.num_images_per_prompt);
        Ok((repeat(prompt), negative.map(repeat)))
    }

    /// What the UNet attends to: `[text, negative, negative]` with guidance.
    fn text(
        &self,
        text: &Prompts,
        guidance: Guidance,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<3>> {
        let (prompt, negative) = self.embeddings(text, guidance.is_on(), observer)?;
        let text = match negative {
            Some(negative) => Tensor::cat(vec![prompt, negative.clone(), negative], 0),
            None => prompt,
        };
        observer.tap("prompt_embeds", Tap::Text(&text));
        Ok(text)
    }

    /// Pictures on the device, -1 to 1, or latents.
    fn image_input(&self, images: &Images) -> Result<ImageInput> {
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let mut samples = Vec::new();
        let mut size = [0; 2];
        match images {
            Images::Pictures(pictures) => {
                for picture in pictures {
                    let (processed, values) = processor.preprocess(picture, None)?;
                    size = processed;
                    samples.extend(values);
                }
            }
            Images::Tensor(tensor) if tensor.shape[1] == self.vae.config().latent_channels => {
                let latents = from_nchw(tensor.data.clone(), tensor.shape, self.device());
                return Ok(ImageInput::Latents(latents.cast(self.options.dtype)));
            }
            Images::Tensor(tensor) => {
                let (processed, values) =
                    processor.preprocess_samples(tensor.shape, &tensor.data)?;
                size = processed;
                samples = values;
            }
        }
        let data = TensorData::new(samples, [images.count(), size[0], size[1], 3]);
        let pictures = Tensor::<4>::from_data(data, (self.device(), DType::F32));
        Ok(ImageInput::Pictures(pictures.cast(self.options.dtype)))
    }

    /// The latents of pictures, not scaled.
    fn encode(&self, input: ImageInput) -> Tensor<4> {
        match input {
            ImageInput::Pictures(pictures) => self.vae_encode(pictures),
            ImageInput::Latents(latents) => latents,
        }
    }

    /// The pictures' latents for every result: `[z, z, 0]` with guidance. Prompt `i` edits picture `i` modulo their
    /// number, also where there are several results for each (diffusers mixes them up then).
    fn image_latents(&self, input: ImageInput, text: &Prompts, guidance: Guidance) -> Tensor<4> {
        let latents = self.encode(input);
        let rounds = text.count() / latents.dims()[0];
        let latents = Tensor::cat(vec![latents; rounds], 0);
        let latents = repeat_each(latents, text.num_images_per_prompt);
        if !guidance.is_on() {
            return latents;
        }
        let zeros = latents.zeros_like();
        Tensor::cat(vec![latents.clone(), latents, zeros], 0)
    }

    /// Refuses initial latents and generators that do not fit, before anything is computed.
    fn check_latents(
        &self,
        request: &EditRequest,
        input: &ImageInput,
        noise: &dyn NoiseSource,
    ) -> Result<()> {
        let factor = self.vae.config().scale_factor();
        let [height, width, image_channels] = match input {
            ImageInput::Pictures(x) => {
                let [_, height, width, _] = x.dims();
                [height / factor, width / factor, self.vae.config().latent_channels]
            }
            ImageInput::Latents(x) => {
                let [_, height, width, channels] = x.dims();
                [height, width, channels]
            }
        };
        let channels = self.vae.config().latent_channels;
        let expected = self.unet.config().in_channels;
        if channels + image_channels != expected {
            return Err(Error::unsupported(format!(
                "a UNet of {expected} input channels with {channels} noisy and {image_channels} \
                 image latent channels; InstructPix2Pix's has 8"
            )));
        }
        let results = request.text.results();
        let shape = [results, channels, height, width];
        if let Some(latents) = &request.latents
            && latents.shape != shape
        {
            let message = format!("shape {:?}; {shape:?} is needed", latents.shape);
            return Err(Error::argument("latents", message));
        }
        match noise.rows() {
            Some(rows) if rows != results => {
                let message = format!("{rows} for {results} results; one, or one for each");
                Err(Error::argument("seed", message))
            }
            _ => Ok(()),
        }
    }

    fn initial_latents(
        &self,
        request: &EditRequest,
        results: usize,
        image_latents: &Tensor<4>,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor<4>> {
        let [_, height, width, _] = image_latents.dims();
        let shape = [results, self.vae.config().latent_channels, height, width];
        let values = match &request.latents {
            Some(latents) => latents.data.clone(),
            None => noise.randn(shape.iter().product())?,
        };
        Ok(from_nchw(values, shape, self.device()))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that the loop steps through")]
    async fn denoise(
        &self,
        mut latents: Tensor<4>,
        mut image_latents: Tensor<4>,
        mut text: Tensor<3>,
        scheduler: &mut dyn Scheduler,
        guidance: Guidance,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>> {
        let timesteps = scheduler.timesteps().to_vec();
        let count = timesteps.len();
        let mut keys = self.unet.text_keys(&text);
        for (index, timestep) in timesteps.into_iter().enumerate() {
            stop_if_cancelled(observer)?;
            let scaled = scheduler.scale_model_input(latents.clone()).cast(self.options.dtype);
            let rows = if guidance.is_on() { 3 } else { 1 };
            let input = Tensor::cat(vec![scaled; rows], 0);
            let input = Tensor::cat(vec![input, image_latents.clone()], 3);
            let prediction = self.unet.forward_to(input, &[timestep], &keys, None).cast(DType::F32);
            observer.tap("unet_out", Tap::Latents(&prediction));
            let guided = guidance.apply(prediction);
            observer.tap("noise_pred", Tap::Latents(&guided));
            let drawn = if scheduler.needs_noise() {
                let [b, h, w, c] = latents.dims();
                let values = noise.randn(b * h * w * c)?;
                Some(from_nchw(values, [b, c, h, w], self.device()))
            } else {
                None
            };
            let input =
                StepInput { model_output: &guided, sample: &latents, noise: drawn.as_ref() };
            latents = scheduler.step(input)?.prev_sample;
            observer.tap("latents_steps", Tap::Latents(&latents));
            if !finish(&latents).await? {
                return Err(Error::Gpu {
                    message: format!(
                        "the latents are not finite after step {} of {count}; use dtype float32",
                        index + 1
                    ),
                });
            }
            let wanted = observer.tensor_inputs();
            let seen = StepTensors {
                latents: match wanted.latents {
                    true => Some(to_floats(latents.clone()).await?),
                    false => None,
                },
                prompt_embeds: match wanted.prompt_embeds {
                    true => Some(to_floats_as_is(text.clone()).await?),
                    false => None,
                },
                image_latents: match wanted.image_latents {
                    true => Some(to_floats(image_latents.clone()).await?),
                    false => None,
                },
            };
            let ControlFlow::Continue(changed) =
                observer.step(Step { index, count, timestep }, seen).await
            else {
                return Err(Error::Aborted);
            };
            if let Some(changed) = changed.latents {
                latents = self.replacement("latents", changed, &latents)?;
            }
            if let Some(changed) = changed.image_latents {
                let changed = self.replacement("imageLatents", changed, &image_latents)?;
                image_latents = changed.cast(self.options.dtype);
            }
            if let Some(changed) = changed.prompt_embeds {
                check_replacement("promptEmbeds", changed.shape, text.dims())?;
                let data = TensorData::new(changed.data, changed.shape);
                let changed = Tensor::<3>::from_data(data, (self.device(), DType::F32));
                text = changed.cast(self.options.dtype);
                keys = self.unet.text_keys(&text);
            }
        }
        Ok(latents)
    }

    /// What `onStep` gave in place of `current`.
    fn replacement(
        &self,
        name: &'static str,
        changed: Floats<4>,
        current: &Tensor<4>,
    ) -> Result<Tensor<4>> {
        let [b, h, w, c] = current.dims();
        check_replacement(name, changed.shape, [b, c, h, w])?;
        Ok(from_nchw(changed.data, changed.shape, self.device()))
    }

    async fn decode(
        &self,
        latents: &Tensor<4>,
        output: OutputType,
        observer: &mut dyn Observer,
    ) -> Result<(OutputImages, Option<Vec<bool>>)> {
        let scaled = combine(&[(1.0 / self.vae.config().scaling_factor, latents)]);
        observer.tap("decode_in", Tap::Latents(&scaled));
        let pictures = self.vae_decode(scaled.cast(self.options.dtype)).cast(DType::F32);
        observer.tap("decoded", Tap::Latents(&pictures));
        let [rows, height, width, _] = pictures.dims();
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let mut samples = processor.denormalize(&to_host(pictures).await?);
        let picture_length = height * width * 3;
        let mut images = samples
            .chunks_exact(picture_length)
            .map(|picture| RgbImage::new(width, height, to_u8(picture)))
            .collect::<Result<Vec<_>>>()?;
        let flags = match (observer.judge(&images).await, &self.safety_checker) {
            (Some(flags), _) => Some(flags?),
            (None, Some(check)) => Some(check.judge(&images, &self.options).await?),
            (None, None) => None,
        };
        // An unsafe picture becomes black, whatever it is given as.
        let flagged = flags.iter().flatten().enumerate().filter(|(_, flag)| **flag);
        for (row, _) in flagged {
            images[row].data.fill(0);
            samples[row * picture_length..][..picture_length].fill(0.0);
        }
        let images = match output {
            OutputType::Pictures => OutputImages::Pictures(images),
            OutputType::Nhwc => {
                OutputImages::Samples(Floats { shape: [rows, height, width, 3], data: samples })
            }
            OutputType::Nchw => {
                let planes = samples.chunks_exact(picture_length).flat_map(|picture| {
                    (0..3).flat_map(|channel| picture[channel..].iter().step_by(3).copied())
                });
                let data = planes.collect();
                OutputImages::Samples(Floats { shape: [rows, 3, height, width], data })
            }
            OutputType::Latent => OutputImages::None,
        };
        Ok((images, flags))
    }
}

/// Pictures in -1 to 1, or latents, on the device, channels last.
enum ImageInput {
    Pictures(Tensor<4>),
    Latents(Tensor<4>),
}

fn check_replacement<const D: usize>(
    name: &'static str,
    found: [usize; D],
    expected: [usize; D],
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("onStep returned shape {found:?}; {expected:?} is needed");
    Err(Error::argument(name, message))
}

/// Downloads `[B, H, W, C]` as `[B, C, H, W]`.
async fn to_floats(tensor: Tensor<4>) -> Result<Floats<4>> {
    let [b, h, w, c] = tensor.dims();
    Ok(Floats { shape: [b, c, h, w], data: to_nchw(tensor).await? })
}

/// Downloads a tensor in its own order.
async fn to_floats_as_is<const D: usize>(tensor: Tensor<D>) -> Result<Floats<D>> {
    Ok(Floats { shape: tensor.dims(), data: to_host(tensor).await? })
}

/// Repeats each row, `[a, b]` to `[a, a, b, b]`.
fn repeat_each<const D: usize>(x: Tensor<D>, times: usize) -> Tensor<D> {
    if times == 1 {
        return x;
    }
    let rows = x.dims()[0];
    let each = (0..rows).flat_map(|row| vec![x.clone().narrow(0, row, 1); times]);
    Tensor::cat(each.collect(), 0)
}

fn stop_if_cancelled(observer: &dyn Observer) -> Result<()> {
    if observer.is_cancelled() { Err(Error::Aborted) } else { Ok(()) }
}

/// Waits until the device has computed `latents`, and tells whether they are finite.
async fn finish(latents: &Tensor<4>) -> Result<bool> {
    let sum = to_host(latents.clone().sum()).await?;
    Ok(sum.iter().all(|x| x.is_finite()))
}
