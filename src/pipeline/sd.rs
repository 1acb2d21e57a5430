//! `StableDiffusionInstructPix2PixPipeline`.
//!
//! Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing
//! Instructions"; diffusers
//! `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py`.

use burn::tensor::{DType, Device, Tensor, TensorData};
use web_time::Instant;

use super::adapters::Adapters;
use super::{
    EditRequest, Guidance, LoadOptions, NoiseSource, Observer, Output, SafetyCheck, Step, Tap,
    Timings, from_nchw, to_host, to_nchw,
};
use crate::error::{Error, Result};
use crate::image::{RgbImage, VaeImageProcessor, to_u8};
use crate::kernels::combine;
use crate::models::{AutoencoderKL, ClipTextModel, FreeU, UNet2DConditionModel};
use crate::schedulers::{
    Scheduler, SchedulerConfig, StepInput, StepOptions, Timesteps, from_config,
};
use crate::tokenizer::ClipTokenizer;
use crate::weights::textual_inversion::LearntWords;

/// Edits pictures by instruction, with Stable Diffusion 1.5 or a model of its family.
///
/// A clone shares its tensors with the original, but has its own adapters, words and sampler.
#[derive(Debug, Clone)]
pub struct StableDiffusionInstructPix2PixPipeline {
    pub(super) tokenizer: ClipTokenizer,
    pub(super) text_encoder: ClipTextModel,
    vae: AutoencoderKL,
    pub(super) unet: UNet2DConditionModel,
    scheduler: SchedulerConfig,
    safety_checker: Option<SafetyCheck>,
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

    /// The model's own sampler.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
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
        let mut scheduler = self.make_scheduler(request)?;
        let options = StepOptions { eta: request.eta, ..StepOptions::default() };
        scheduler.set_timesteps(&Timesteps::Count(request.num_inference_steps), options)?;
        observer.tap("timesteps", Tap::Values(scheduler.timesteps()));
        observer.tap("sigmas", Tap::Values(scheduler.sigmas()));

        stop_if_cancelled(observer)?;
        // Pictures first: they may be too small, and that is to be said before anything is computed.
        let image_latents = self.encode_images(request, guidance)?;
        observer.tap("image_latents", Tap::Latents(&image_latents));
        stop_if_cancelled(observer)?;
        let text = self.encode_prompt(request, guidance, observer)?;
        let latents =
            self.initial_latents(request, &image_latents, &*scheduler, noise, guidance)?;
        observer.tap("latents_scaled", Tap::Latents(&latents));
        finish(&latents).await?;
        let encoded = Instant::now();

        let latents = self
            .denoise(latents, &image_latents, &text, &mut *scheduler, guidance, noise, observer)
            .await?;
        let denoised = Instant::now();

        stop_if_cancelled(observer)?;
        let mut images = self.decode(&latents, observer).await?;
        let nsfw_content_detected = match &self.safety_checker {
            Some(check) => Some(check.apply(&mut images, &self.options).await?),
            None => None,
        };
        let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let end = Instant::now();
        let [b, h, w, c] = latents.dims();
        Ok(Output {
            images,
            nsfw_content_detected,
            latents: to_nchw(latents).await?,
            latents_shape: [b, c, h, w],
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

    /// The embeddings that the UNet attends to: `[text, negative, negative]` with guidance, each
    /// row of it as many times as there are results for a prompt.
    fn encode_prompt(
        &self,
        request: &EditRequest,
        guidance: Guidance,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<3>> {
        let mut embed = |texts: &[&str], name: &'static str| {
            let ids = texts
                .iter()
                .map(|text| self.tokenizer.encode_padded(text))
                .collect::<Result<Vec<_>>>()?;
            observer.tap(name, Tap::Ids(&ids));
            let output = self.text_encoder.forward(&ids, self.options.dtype)?;
            Ok::<_, Error>(repeat_each(output.last_hidden_state, request.num_images_per_prompt))
        };
        let prompts: Vec<&str> = request.prompts.iter().map(String::as_str).collect();
        let mut text = embed(&prompts, "input_ids.0")?;
        if guidance.is_on() {
            let negatives: Vec<&str> = match &request.negative_prompts {
                Some(negatives) => {
                    (0..prompts.len()).map(|i| negatives[i % negatives.len()].as_str()).collect()
                }
                None => vec![""; prompts.len()],
            };
            let negative = embed(&negatives, "input_ids.1")?;
            text = Tensor::cat(vec![text, negative.clone(), negative], 0);
        }
        observer.tap("prompt_embeds", Tap::Text(&text));
        Ok(text)
    }

    /// The pictures' latents, not scaled: `[z, z, 0]` with guidance. A single picture serves every
    /// prompt; several keep to their prompts, also where there are several results for each
    /// (diffusers mixes them up then).
    fn encode_images(&self, request: &EditRequest, guidance: Guidance) -> Result<Tensor<4>> {
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let mut samples = Vec::new();
        let mut size = [0; 2];
        for image in &request.images {
            let (processed, values) = processor.preprocess(image, None)?;
            size = processed;
            samples.extend(values);
        }
        let shape = [request.images.len(), size[0], size[1], 3];
        let data = TensorData::new(samples, shape);
        let pictures = Tensor::<4>::from_data(data, (self.device(), DType::F32));
        let latents = self.vae_encode(pictures.cast(self.options.dtype));
        let each = if request.images.len() == 1 {
            request.prompts.len() * request.num_images_per_prompt
        } else {
            request.num_images_per_prompt
        };
        let latents = repeat_each(latents, each);
        if !guidance.is_on() {
            return Ok(latents);
        }
        let zeros = latents.zeros_like();
        Ok(Tensor::cat(vec![latents.clone(), latents, zeros], 0))
    }

    fn initial_latents(
        &self,
        request: &EditRequest,
        image_latents: &Tensor<4>,
        scheduler: &dyn Scheduler,
        noise: &mut dyn NoiseSource,
        guidance: Guidance,
    ) -> Result<Tensor<4>> {
        let [rows, height, width, image_channels] = image_latents.dims();
        let batch = if guidance.is_on() { rows / 3 } else { rows };
        let channels = self.vae.config().latent_channels;
        let expected = self.unet.config().in_channels;
        if channels + image_channels != expected {
            return Err(Error::unsupported(format!(
                "a UNet of {expected} input channels with {channels} noisy and {image_channels} \
                 image latent channels; InstructPix2Pix's has 8"
            )));
        }
        let shape = [batch, channels, height, width];
        let count: usize = shape.iter().product();
        let values = match &request.latents {
            Some(values) if values.len() == count => values.clone(),
            Some(values) => {
                let message = format!("{} values for shape {shape:?}", values.len());
                return Err(Error::argument("latents", message));
            }
            None => noise.randn(count)?,
        };
        let latents = from_nchw(values, shape, self.device());
        Ok(latents.mul_scalar(scheduler.init_noise_sigma()))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that the loop steps through")]
    async fn denoise(
        &self,
        mut latents: Tensor<4>,
        image_latents: &Tensor<4>,
        text: &Tensor<3>,
        scheduler: &mut dyn Scheduler,
        guidance: Guidance,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>> {
        let timesteps = scheduler.timesteps().to_vec();
        let count = timesteps.len();
        for (index, timestep) in timesteps.into_iter().enumerate() {
            stop_if_cancelled(observer)?;
            let scaled = scheduler.scale_model_input(latents.clone()).cast(self.options.dtype);
            let rows = if guidance.is_on() { 3 } else { 1 };
            let input = Tensor::cat(vec![scaled; rows], 0);
            let input = Tensor::cat(vec![input, image_latents.clone()], 3);
            let prediction = self.unet.forward(input, &[timestep], text, None).cast(DType::F32);
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
            if observer.step(Step { index, count, timestep }).is_break() {
                return Err(Error::Aborted);
            }
        }
        Ok(latents)
    }

    async fn decode(
        &self,
        latents: &Tensor<4>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<RgbImage>> {
        let scaled = combine(&[(1.0 / self.vae.config().scaling_factor, latents)]);
        observer.tap("decode_in", Tap::Latents(&scaled));
        let pictures = self.vae_decode(scaled.cast(self.options.dtype)).cast(DType::F32);
        observer.tap("decoded", Tap::Latents(&pictures));
        let [_, height, width, _] = pictures.dims();
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let samples = to_host(pictures).await?;
        samples
            .chunks_exact(height * width * 3)
            .map(|picture| RgbImage::new(width, height, to_u8(&processor.denormalize(picture))))
            .collect()
    }
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
