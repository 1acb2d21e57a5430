//! What the pipelines of all classes do alike.
//!
//! Source: diffusers `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py` and
//! `pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_instruct_pix2pix.py`.

use burn::tensor::{DType, Device, Tensor};
use web_time::Instant;

use super::adapters::Adapters;
use super::denoise::{Start, finish, stop_if_cancelled, to_floats};
use super::pictures::ImageInput;
use super::text::{Conditions, TextEncoder};
use super::turns::{Storage, Turn, Turns};
use super::{
    EditRequest, Guidance, LoadOptions, NoiseSource, Observer, Output, OutputImages, OutputType,
    PipelineClass, Room, SafetyCheck, Tap, Timings, XlConfig,
};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::kernels::combine;
use crate::models::{AutoencoderKL, FreeU, Network, UNet2DConditionModel};
use crate::schedulers::{Scheduler, SchedulerConfig, StepOptions, from_config};

/// A pipeline of any class, as far as the classes do not differ.
///
/// A clone shares its tensors with the original, but has its own adapters, words and sampler.
#[derive(Debug, Clone)]
pub struct PipelineBase {
    /// In the order in which their features stand side by side.
    pub(super) texts: Vec<TextEncoder>,
    // Boxed, because models are large on their own, and futures that hold them fill a small stack.
    pub(super) vae: Box<AutoencoderKL>,
    pub(super) unet: Box<UNet2DConditionModel>,
    pub(super) scheduler: SchedulerConfig,
    pub(super) safety_checker: Option<Box<SafetyCheck>>,
    vae_tiling: bool,
    vae_slicing: bool,
    /// Where the models come from, if they are on the device only in their turn.
    pub(super) in_turn: Option<Storage>,
    /// What only SDXL's class has.
    pub(super) xl: Option<XlConfig>,
    pub(super) options: LoadOptions,
    pub(super) adapters: Adapters,
}

/// An edit, as a class of pipelines asks for it.
pub(super) struct Job<'a> {
    pub request: &'a EditRequest,
    pub guidance: Guidance,
    /// Height and width that pictures are brought to; their own when absent.
    pub size: Option<[usize; 2]>,
    /// What the pictures' latents are multiplied by.
    pub image_scale: f64,
    /// The share of the sampler's way to go; all of it when absent.
    pub denoising_end: Option<f64>,
    /// Encodes the instructions with the text encoders that it is given.
    pub conditions: &'a dyn Fn(&PipelineBase, &mut dyn Observer) -> Result<Conditions>,
    /// Whether `conditions` needs the text encoders at all: not for embeddings that are given.
    pub needs_texts: bool,
    /// The model's files, where models take turns.
    pub files: Option<&'a dyn ModelFiles>,
}

impl PipelineBase {
    /// Of loaded components, as Stable Diffusion 1.5 uses them.
    pub(super) fn new(
        texts: Vec<TextEncoder>,
        vae: Box<AutoencoderKL>,
        unet: Box<UNet2DConditionModel>,
        scheduler: SchedulerConfig,
        options: LoadOptions,
    ) -> Self {
        Self {
            texts,
            vae,
            unet,
            scheduler,
            safety_checker: None,
            vae_tiling: false,
            vae_slicing: false,
            in_turn: None,
            xl: None,
            options,
            adapters: Adapters::default(),
        }
    }

    /// Checks every picture from now on, or none.
    pub fn set_safety_checker(&mut self, safety_checker: Option<SafetyCheck>) {
        self.safety_checker = safety_checker.map(Box::new);
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

    /// The most values of a type that an activation can have, where the device says so.
    fn most_values(&self, dtype: DType) -> Option<usize> {
        let values = Room::of(self.device()).largest_buffer? / dtype.size() as u64;
        Some(values.try_into().unwrap_or(usize::MAX))
    }

    /// Of a UNet's samples with latents of this height and width, how many the device's buffers hold at once; never none.
    pub(super) fn samples_at_once(&self, size: [usize; 2]) -> usize {
        let one = self.unet.config().largest_activation(size).max(1);
        self.most_values(self.options.dtype).map_or(usize::MAX, |most| (most / one).max(1))
    }

    /// The side of tiles in which the VAE works on pictures of this height and width because no buffer of the device is
    /// large enough for a whole one.
    fn vae_tile_by_need(&self, network: Network, size: [usize; 2]) -> Option<usize> {
        self.vae.config().tile_within(self.most_values(self.vae_dtype())?, network, size)
    }

    /// The side of tiles in which the VAE works, if it does.
    fn vae_tile(&self, network: Network, size: [usize; 2]) -> Option<usize> {
        let asked = self.vae_tiling.then_some(self.vae.config().sample_size);
        asked.into_iter().chain(self.vae_tile_by_need(network, size)).min()
    }

    /// Applies one of the VAE's networks to pictures of this height and width one by one, if slicing is on or no buffer
    /// of the device is large enough for all, or at once.
    fn in_slices(
        &self,
        x: Tensor<4>,
        network: Network,
        size: [usize; 2],
        run: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<4> {
        let rows = x.dims()[0];
        let all = rows * self.vae.config().largest_activation(network, size);
        let fits = self.most_values(self.vae_dtype()).is_none_or(|most| all <= most);
        if rows == 1 || fits && !self.vae_slicing {
            return run(x);
        }
        let slices = (0..rows).map(|row| run(x.clone().narrow(0, row, 1)));
        Tensor::cat(slices.collect(), 0)
    }

    pub(super) fn vae_encode(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let size = [height, width];
        self.in_slices(x, Network::Encoder, size, |x| match self.vae_tile(Network::Encoder, size) {
            Some(side) => self.vae.encode_tiled(x, side).mode(),
            None => self.vae.encode(x).mode(),
        })
    }

    pub(super) fn vae_decode(&self, z: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = z.dims();
        let size = [height, width].map(|side| side * self.vae.config().scale_factor());
        self.in_slices(z, Network::Decoder, size, |z| match self.vae_tile(Network::Decoder, size) {
            Some(side) => self.vae.decode_tiled(z, side),
            None => self.vae.decode(z),
        })
    }

    /// The type of the VAE's activations.
    pub(super) fn vae_dtype(&self) -> DType {
        let class = if self.xl.is_some() { PipelineClass::Xl } else { PipelineClass::Sd };
        class.vae_dtype(self.vae.config(), self.options.dtype)
    }

    pub(super) fn device(&self) -> &Device {
        &self.options.placement.device
    }

    /// Does a job that has been checked.
    pub(super) async fn run(
        &self,
        job: Job<'_>,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Output> {
        let Job { request, guidance, size, .. } = job;
        let start = Instant::now();
        let _tidy = Tidy(self.device());
        if guidance.text > 1.0 && !guidance.is_on() {
            observer.warn(format!(
                "imageGuidanceScale {} is below 1: guidance is off, so guidanceScale and the negative prompt are \
                 ignored, as in diffusers",
                guidance.image
            ));
        }
        let mut turns = Turns::new(self, job.files)?;
        let (mut scheduler, config) = self.make_scheduler(request)?;
        let options = StepOptions { eta: request.eta, ..StepOptions::default() };
        scheduler.set_timesteps(&request.schedule(), options)?;
        observer.tap("timesteps", Tap::Values(scheduler.timesteps()));
        observer.tap("sigmas", Tap::Values(scheduler.sigmas()));

        stop_if_cancelled(observer)?;
        // Pictures first: they may be too small, and that is to be said before anything is computed.
        let pictures = self.image_input(&request.images, size)?;
        self.check_latents(request, &pictures, size, noise)?;
        self.warn_of_tiles(&pictures, observer);
        // What is given as the model would make it needs no turn of that model.
        let encodes = matches!(pictures, ImageInput::Pictures(_));
        if encodes {
            turns.begin(Turn::Vae).await?;
        }
        let image_latents = turns.base().image_latents(pictures, &request.text, guidance);
        let image_latents = match job.image_scale {
            1.0 => image_latents,
            scale => combine(&[(scale, &image_latents)]),
        };
        observer.tap("image_latents", Tap::Latents(&image_latents));
        if encodes {
            if self.takes_turns() {
                finish(&image_latents).await?;
            }
            turns.end(Turn::Vae);
        }
        stop_if_cancelled(observer)?;
        if job.needs_texts {
            turns.begin(Turn::Texts).await?;
        }
        let conditions = (job.conditions)(turns.base(), observer)?;
        self.check_conditions(&conditions)?;
        if job.needs_texts {
            if self.takes_turns() {
                finish(&conditions.text).await?;
            }
            turns.end(Turn::Texts);
        }
        observer.tap("prompt_embeds", Tap::Text(&conditions.text));
        let latents = self.initial_latents(request, &image_latents, noise)?;
        let latents = latents.mul_scalar(scheduler.init_noise_sigma());
        observer.tap("latents_scaled", Tap::Latents(&latents));
        finish(&latents).await?;
        let encoded = Instant::now();

        let mut timesteps = scheduler.timesteps().to_vec();
        if let Some(end) = job.denoising_end {
            timesteps.truncate(steps_until(end, &timesteps, config.train_timesteps()));
        }
        turns.begin(Turn::UNet).await?;
        let way = Start { latents, image_latents, conditions, timesteps };
        let latents = turns.base().denoise(&job, way, &mut *scheduler, noise, observer).await?;
        turns.end(Turn::UNet);
        let denoised = Instant::now();

        stop_if_cancelled(observer)?;
        let (images, nsfw_content_detected) = match request.output {
            OutputType::Latent => (OutputImages::None, None),
            output => {
                turns.begin(Turn::Vae).await?;
                let decoded = turns.base().decode(&latents, output, observer).await?;
                turns.end(Turn::Vae);
                decoded
            }
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

    /// Says when the VAE will work in tiles that nobody asked for.
    fn warn_of_tiles(&self, pictures: &ImageInput, observer: &mut dyn Observer) {
        let size = pictures.size(self.vae.config().scale_factor());
        let side = self.vae_tile_by_need(Network::Decoder, size);
        let Some(side) = side.filter(|_| !self.vae_tiling) else { return };
        observer.warn(format!(
            "this GPU's buffers are too small for a picture of this size at once: the VAE works in tiles of {side} x \
             {side} pixels, which changes the result a little; a smaller picture, or `dtype: 'float16'` where there \
             is `shader-f16`, needs none"
        ));
    }

    /// The sampler of an edit, and what it is made by.
    fn make_scheduler<'a>(
        &'a self,
        request: &'a EditRequest,
    ) -> Result<(Box<dyn Scheduler>, &'a SchedulerConfig)> {
        let choice = request.scheduler.as_ref();
        let config = choice.and_then(|choice| choice.config.as_ref()).unwrap_or(&self.scheduler);
        let class = match choice {
            Some(choice) => &choice.class_name,
            None => self.scheduler.class_name.as_deref().ok_or_else(|| {
                Error::config("scheduler/scheduler_config.json", "no `_class_name`")
            })?,
        };
        Ok((from_config(class, config)?, config))
    }

    /// Refuses a UNet that was made for another class of pipelines.
    fn check_conditions(&self, conditions: &Conditions) -> Result<()> {
        let config = self.unet.config();
        let [_, _, found] = conditions.text.dims();
        let expected = config.text_channels();
        if found != expected {
            return Err(Error::unsupported(format!(
                "text encoders that give {found} numbers for a token with a UNet that takes {expected}"
            )));
        }
        if config.addition_embed_type.is_some() != conditions.added.is_some() {
            return Err(Error::unsupported(format!(
                "a UNet with `addition_embed_type` {:?} in a pipeline of this class; that of SDXL has `text_time`, \
                 that of Stable Diffusion 1.5 none",
                config.addition_embed_type
            )));
        }
        Ok(())
    }
}

/// Gives the memory of activations back to the GPU in the end, however that comes: between edits a model holds its
/// weights.
pub(super) struct Tidy<'a>(pub &'a Device);

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        #[cfg(feature = "wgpu")]
        crate::kernels::release_memory(self.0);
    }
}

/// How many of `timesteps` lie before a share `end` of the whole way.
fn steps_until(end: f64, timesteps: &[f64], train_timesteps: usize) -> usize {
    let all = train_timesteps as f64;
    let cutoff = (all - end * all).round_ties_even();
    timesteps.iter().filter(|timestep| **timestep >= cutoff).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_way_ends_at_its_timestep() {
        let timesteps = [901.0, 601.0, 301.0, 1.0];
        for (end, expected) in [(0.1, 1), (0.398, 1), (0.399, 2), (0.7, 3), (0.999, 4)] {
            assert_eq!(steps_until(end, &timesteps, 1000), expected, "{end}");
        }
        // A half goes to the even neighbour, as Python rounds: 2.5 to 2.
        assert_eq!(steps_until(0.5, &[2.0], 5), 1);
    }
}
