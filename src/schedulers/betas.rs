//! The training schedule: betas and what is left of the sample after each timestep.
//!
//! Follows the `__init__` of the classes in `diffusers/schedulers`, which work in float32. So does
//! this file: one minus an alpha near one loses most of its digits, and the noise levels inherit
//! whichever are left.
//!
//! Papers: "Denoising Diffusion Probabilistic Models" (2006.11239), "Improved Denoising Diffusion
//! Probabilistic Models" (2102.09672), "Common Diffusion Noise Schedules and Sample Steps are
//! Flawed" (2305.08891).

use std::f64::consts::FRAC_PI_2;

use super::SchedulerClass;
use super::config::{BetaSchedule, Settings};
use crate::error::{Error, Result};

/// What takes the place of a last cumulative alpha of zero, so that its noise level stays finite:
/// the smallest float16, 2^-24.
const NEARLY_ZERO: f32 = 1.0 / 16_777_216.0;

/// The cumulative products of the alphas, by training timestep.
#[derive(Debug)]
pub(super) struct NoiseSchedule {
    alphas_cumprod: Vec<f32>,
    set_alpha_to_one: bool,
}

impl NoiseSchedule {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let mut betas = betas(settings)?;
        let rescale = settings.rescale_betas_zero_snr && settings.class.rescales_betas();
        if rescale {
            betas = rescale_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
        if let Some(last) = alphas_cumprod.last_mut()
            && rescale
            && settings.class.needs_finite_sigmas()
        {
            *last = NEARLY_ZERO;
        }
        Ok(Self { alphas_cumprod, set_alpha_to_one: settings.set_alpha_to_one })
    }

    /// How many timesteps there are.
    pub(super) fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The cumulative alpha at a timestep. A negative one counts from the end, as in Python:
    /// trailing spacing of some step counts ends at -1.
    pub(super) fn alpha(&self, timestep: i64) -> Result<f64> {
        let len = self.len();
        let index = if timestep < 0 { timestep + len as i64 } else { timestep };
        let found = usize::try_from(index).ok().and_then(|index| self.alphas_cumprod.get(index));
        found.map(|&alpha| f64::from(alpha)).ok_or_else(|| {
            Error::argument("timesteps", format!("{timestep} is not one of the model's {len}"))
        })
    }

    /// The cumulative alpha that the last step of a discrete scheduler ends at.
    pub(super) fn final_alpha(&self) -> f64 {
        if self.set_alpha_to_one { 1.0 } else { f64::from(self.alphas_cumprod[0]) }
    }

    /// The cumulative alpha after a step; below timestep 0 it is the final one.
    pub(super) fn alpha_after(&self, timestep: i64) -> Result<f64> {
        if timestep >= 0 { self.alpha(timestep) } else { Ok(self.final_alpha()) }
    }

    /// The noise levels in the variance exploding parametrization, ascending.
    pub(super) fn sigmas(&self) -> Vec<f32> {
        let sigma = |&alpha: &f32| match alpha {
            // The root lies just below the middle of two floats, and torch's goes up.
            NEARLY_ZERO => NEARLY_ZERO.sqrt().recip(),
            _ => ((1.0 - alpha) / alpha).sqrt(),
        };
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// How many of the noisiest timesteps have a log-SNR below the limit.
    pub(super) fn clipped(&self, lambda_min: f64) -> usize {
        let lambda = |&alpha: &f32| f64::from(alpha.sqrt().ln() - (1.0 - alpha).sqrt().ln());
        self.alphas_cumprod.iter().filter(|alpha| lambda(alpha) < lambda_min).count()
    }
}

/// `torch.linspace` in float32: from each end to the middle, with fused multiply-adds.
pub(super) fn linspace_f32(start: f32, end: f32, steps: usize) -> Vec<f32> {
    let step = (end - start) / steps.saturating_sub(1).max(1) as f32;
    // The product is exact in f64, which makes this the fused operation.
    let along = |from: f32, by: f32, i: usize| (f64::from(from) + f64::from(by) * i as f64) as f32;
    let at = |i| {
        if i < steps / 2 || steps == 1 {
            along(start, step, i)
        } else {
            along(end, -step, steps - 1 - i)
        }
    };
    (0..steps).map(at).collect()
}

fn betas(settings: &Settings) -> Result<Vec<f32>> {
    if let Some(betas) = &settings.trained_betas {
        if betas.is_empty() {
            return Err(settings.refuse("trained_betas is empty"));
        }
        return Ok(betas.iter().map(|&beta| beta as f32).collect());
    }
    let steps = settings.num_train_timesteps;
    if steps == 0 {
        return Err(settings.refuse("num_train_timesteps is 0"));
    }
    let (start, end) = (settings.beta_start, settings.beta_end);
    Ok(match settings.beta_schedule {
        BetaSchedule::Linear => linspace_f32(start as f32, end as f32, steps),
        BetaSchedule::ScaledLinear => {
            let roots = linspace_f32(start.sqrt() as f32, end.sqrt() as f32, steps);
            roots.iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredcosCapV2 => {
            betas_for_alpha_bar(steps, |t| ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2))
        }
        BetaSchedule::Exp if settings.class == SchedulerClass::HeunDiscrete => {
            betas_for_alpha_bar(steps, |t| (t * -12.0).exp())
        }
        BetaSchedule::Sigmoid if settings.class == SchedulerClass::Ddpm => {
            let logistic = |x: &f32| 1.0 / (1.0 + (-x).exp());
            let scale = |y: f32| y * (end - start) as f32 + start as f32;
            linspace_f32(-6.0, 6.0, steps).iter().map(logistic).map(scale).collect()
        }
        other => return Err(settings.refuse(format_args!("beta_schedule {other:?}"))),
    })
}

fn betas_for_alpha_bar(steps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / steps as f64);
    (0..steps).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let cumulative = cumulative_product(betas.iter().map(|beta| 1.0 - beta));
    let roots: Vec<f32> = cumulative.iter().map(|alpha| alpha.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let bars: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
    let alphas = std::iter::once(bars[0]).chain(bars.windows(2).map(|pair| pair[1] / pair[0]));
    alphas.map(|alpha| 1.0 - alpha).collect()
}

/// `torch.cumprod` on a CPU, whose running product is an `f64`.
fn cumulative_product(factors: impl Iterator<Item = f32>) -> Vec<f32> {
    factors
        .scan(1.0_f64, |product, factor| {
            *product *= f64::from(factor);
            Some(*product as f32)
        })
        .collect()
}
