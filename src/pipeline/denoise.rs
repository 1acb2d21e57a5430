//! The denoising loop, and what comes after it.

use std::ops::ControlFlow;

use burn::tensor::{DType, Tensor, TensorData};

use super::base::{Job, PipelineBase};
use super::text::Conditions;
use super::{
    Floats, NoiseSource, Observer, OutputImages, OutputType, Step, StepTensors, Tap, from_nchw,
    to_host, to_nchw,
};
use crate::error::{Error, Result};
use crate::image::{RgbImage, VaeImageProcessor, to_u8, watermark};
use crate::kernels::combine;
use crate::models::{AddedConditions, TextKeys};
use crate::schedulers::{Scheduler, StepInput};

/// What the loop steps through.
pub(super) struct Start {
    pub latents: Tensor<4>,
    pub image_latents: Tensor<4>,
    pub conditions: Conditions,
    /// The timesteps to go, which may be fewer than the sampler's.
    pub timesteps: Vec<f64>,
}

/// Which model calls end an inference step: not all do where a step takes several.
struct InferenceSteps {
    warm_up: usize,
    order: usize,
    count: usize,
}

impl InferenceSteps {
    /// The number of the inference step that model call `index` ends.
    fn ended_by(&self, index: usize) -> Option<usize> {
        let Self { warm_up, order, count } = *self;
        let ends = index + 1 == count || (index + 1 > warm_up && (index + 1).is_multiple_of(order));
        ends.then_some(index / order)
    }
}

/// The conditions of samples that pass through the UNet together.
struct Group {
    first: usize,
    rows: usize,
    keys: TextKeys,
    added: Option<AddedConditions>,
}

impl PipelineBase {
    /// The conditions of all samples, in groups of as many as the device's buffers hold: what the text and the picture
    /// are for is in rows of one batch, but they do not know of each other.
    fn groups(
        &self,
        text: &Tensor<3>,
        added: Option<&AddedConditions>,
        at_once: usize,
    ) -> Vec<Group> {
        let [all, ..] = text.dims();
        let at_once = at_once.min(all);
        let group = |first| {
            let rows = at_once.min(all - first);
            Group {
                first,
                rows,
                keys: self.unet.text_keys(&text.clone().narrow(0, first, rows)),
                added: added.map(|added| AddedConditions {
                    text_embeds: added.text_embeds.clone().narrow(0, first, rows),
                    time_ids: added.time_ids[first..first + rows].to_vec(),
                }),
            }
        };
        (0..all).step_by(at_once).map(group).collect()
    }

    /// What the UNet predicts, in `f32`.
    fn predict(&self, input: &Tensor<4>, timestep: f64, groups: &[Group]) -> Tensor<4> {
        let parts = groups.iter().map(|group| {
            let Group { first, rows, keys, added } = group;
            let input = input.clone().narrow(0, *first, *rows);
            self.unet.forward_to(input, &[timestep], keys, added.as_ref())
        });
        let mut parts: Vec<_> = parts.collect();
        let prediction = match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(parts, 0),
        };
        prediction.cast(DType::F32)
    }

    pub(super) async fn denoise(
        &self,
        job: &Job<'_>,
        start: Start,
        scheduler: &mut dyn Scheduler,
        noise: &mut dyn NoiseSource,
        observer: &mut dyn Observer,
    ) -> Result<Tensor<4>> {
        let Start { mut latents, mut image_latents, conditions, timesteps } = start;
        let Conditions { mut text, added } = conditions;
        let guidance = job.guidance;
        let count = timesteps.len();
        let order = scheduler.order();
        let asked = job.request.inference_steps();
        let warm_up = scheduler.timesteps().len().saturating_sub(asked * order);
        let inference_steps = InferenceSteps { warm_up, order, count };
        let [_, height, width, _] = latents.dims();
        let at_once = self.samples_at_once([height, width]);
        let mut groups = self.groups(&text, added.as_ref(), at_once);
        for (index, timestep) in timesteps.into_iter().enumerate() {
            stop_if_cancelled(observer)?;
            let scaled = scheduler.scale_model_input(latents.clone()).cast(self.options.dtype);
            let rows = if guidance.is_on() { 3 } else { 1 };
            let input = Tensor::cat(vec![scaled; rows], 0);
            let input = Tensor::cat(vec![input, image_latents.clone()], 3);
            let prediction = self.predict(&input, timestep, &groups);
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
            let inference_step = inference_steps.ended_by(index);
            let step = Step { index, count, timestep, inference_step };
            let ControlFlow::Continue(changed) = observer.step(step, seen).await else {
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
                text = self.upload(&changed);
                groups = self.groups(&text, added.as_ref(), at_once);
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

    /// Latents as the decoder takes them.
    fn unscale(&self, latents: &Tensor<4>) -> Tensor<4> {
        let config = self.vae.config();
        let scaled = combine(&[(1.0 / config.scaling_factor, latents)]);
        // The class of Stable Diffusion 1.5 does not look at them.
        let Some([mean, std]) = config.statistics().filter(|_| self.xl.is_some()) else {
            return scaled;
        };
        let [mean, std] = [mean, std].map(|values| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            let data = TensorData::new(values, [1, 1, 1, config.latent_channels]);
            Tensor::<4>::from_data(data, (self.device(), DType::F32))
        });
        scaled.mul(std).add(mean)
    }

    pub(super) async fn decode(
        &self,
        latents: &Tensor<4>,
        output: OutputType,
        observer: &mut dyn Observer,
    ) -> Result<(OutputImages, Option<Vec<bool>>)> {
        let unscaled = self.unscale(latents);
        observer.tap("decode_in", Tap::Latents(&unscaled));
        let pictures = self.vae_decode(unscaled.cast(self.vae_dtype())).cast(DType::F32);
        observer.tap("decoded", Tap::Latents(&pictures));
        let [rows, height, width, _] = pictures.dims();
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let mut decoded = to_host(pictures).await?;
        let picture_length = height * width * 3;
        if self.xl.is_some_and(|config| config.add_watermarker) {
            for picture in decoded.chunks_exact_mut(picture_length) {
                picture.iter_mut().for_each(|x| *x = 255.0 * (*x / 2.0 + 0.5));
                let is_large = watermark(picture, [height, width]);
                picture.iter_mut().for_each(|x| *x = 2.0 * (*x / 255.0 - 0.5));
                if !is_large {
                    observer.warn(format!(
                        "addWatermarker: {width} x {height} pixels are too few; there is no watermark"
                    ));
                }
            }
        }
        let mut samples = processor.denormalize(&decoded);
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
pub(super) async fn to_floats(tensor: Tensor<4>) -> Result<Floats<4>> {
    let [b, h, w, c] = tensor.dims();
    Ok(Floats { shape: [b, c, h, w], data: to_nchw(tensor).await? })
}

/// Downloads a tensor in its own order.
pub(super) async fn to_floats_as_is<const D: usize>(tensor: Tensor<D>) -> Result<Floats<D>> {
    Ok(Floats { shape: tensor.dims(), data: to_host(tensor).await? })
}

pub(super) fn stop_if_cancelled(observer: &dyn Observer) -> Result<()> {
    if observer.is_cancelled() { Err(Error::Aborted) } else { Ok(()) }
}

/// Waits until the device has computed `latents`, and tells whether they are finite.
pub(super) async fn finish<const D: usize>(latents: &Tensor<D>) -> Result<bool> {
    let sum = to_host(latents.clone().sum()).await?;
    Ok(sum.iter().all(|x| x.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(warm_up: usize, order: usize, count: usize) -> Vec<Option<usize>> {
        let steps = InferenceSteps { warm_up, order, count };
        (0..count).map(|index| steps.ended_by(index)).collect()
    }

    #[test]
    fn second_order_samplers_take_two_calls_a_step() {
        let step = Some;
        // Heun, 4 steps: the last has one call only.
        assert_eq!(ended(0, 2, 7), [None, step(0), None, step(1), None, step(2), step(3)]);
        // PNDM, 3 steps: the first has two calls.
        assert_eq!(ended(1, 1, 4), [None, step(1), step(2), step(3)]);
    }
}
