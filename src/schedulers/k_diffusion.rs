//! What the samplers of k-diffusion share: the table of noise levels, the scaling of the model's
//! input, Euler's step, churn and ancestral noise.
//!
//! Follows `set_timesteps`, `init_noise_sigma`, `scale_model_input` and `step` as they recur in
//! `scheduling_euler_discrete.py`, `scheduling_euler_ancestral_discrete.py`,
//! `scheduling_lms_discrete.py`, `scheduling_heun_discrete.py`,
//! `scheduling_k_dpm_2(_ancestral)_discrete.py` and `scheduling_edm_euler.py`.
//!
//! Paper: "Elucidating the Design Space of Diffusion-Based Generative Models" (2206.00364).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{FinalSigmasType, Settings, TimestepSpacing};
use super::prediction::{Affine, weighted_sum};
use super::sigmas::{Levels, Spread, as_f32};
use super::spacing;
use super::{StepInput, StepOptions, StepOutput, Timesteps};
use crate::error::{Error, Result};
use crate::kernels::combine;

/// The noise levels at `timesteps`, or `count` spread between the first and the last of them.
pub(super) fn levels(
    settings: &Settings,
    schedule: &NoiseSchedule,
    Requested { timesteps, count, spread }: Requested,
) -> Levels {
    let trained = schedule.sigmas();
    spread_levels(settings, &trained, Levels::at(as_f32(timesteps), &trained), (count, spread))
}

/// Spreads noise levels anew.
pub(super) fn spread_levels(
    settings: &Settings,
    trained: &[f32],
    from: Levels,
    (count, spread): (usize, Spread),
) -> Levels {
    let ends = (from.sigmas[0], from.sigmas[from.sigmas.len() - 1]);
    spread.levels(settings, ends, count, trained).unwrap_or(from)
}

/// The noise level after the last step.
pub(super) fn final_sigma(settings: &Settings, lowest: f64) -> f64 {
    match settings.final_sigmas_type {
        FinalSigmasType::Zero => 0.0,
        FinalSigmasType::SigmaMin => lowest,
    }
}

/// What `set_timesteps` was asked for.
#[derive(Debug)]
pub(super) struct Requested {
    pub(super) timesteps: Vec<f64>,
    /// The number of steps; some ratios of trailing spacing yield one more timestep.
    pub(super) count: usize,
    pub(super) spread: Spread,
}

impl Requested {
    /// As many timesteps as asked for.
    pub(super) fn counted(
        settings: &Settings,
        timesteps: &Timesteps,
        spread: Spread,
    ) -> Result<Self> {
        let count = spacing::count_only(settings, timesteps)?;
        Ok(Self { timesteps: spacing::closed(settings, count)?, count, spread })
    }

    /// The same, or custom timesteps.
    pub(super) fn custom_or_counted(
        settings: &Settings,
        timesteps: &Timesteps,
        spread: Spread,
    ) -> Result<Self> {
        let Timesteps::Custom(custom) = timesteps else {
            return Self::counted(settings, timesteps, spread);
        };
        refuse_spread(spread)?;
        let timesteps = spacing::custom_values("timesteps", custom)?.to_vec();
        Ok(Self { count: timesteps.len(), timesteps, spread })
    }
}

/// Custom timesteps and a table that makes its own exclude each other.
pub(super) fn refuse_spread(spread: Spread) -> Result<()> {
    if matches!(spread, Spread::Timesteps | Spread::Flow) {
        return Ok(());
    }
    let message = format!("custom timesteps cannot be combined with sigmas spread as {spread:?}");
    Err(Error::argument("timesteps", message))
}

/// The standard deviation that the initial noise needs.
pub(super) fn init_noise_sigma(settings: &Settings, sigmas: &[f64]) -> f64 {
    let max = sigmas.iter().copied().fold(0.0, f64::max) as f32;
    f64::from(match settings.timestep_spacing {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => max,
        TimestepSpacing::Leading => (max * max + 1.0).sqrt(),
    })
}

/// Scales a sample of noise level `sigma` to unit variance.
pub(super) fn scale(sample: &Tensor<4>, sigma: f64) -> Tensor<4> {
    combine(&[(1.0 / (sigma * sigma + 1.0).sqrt(), sample)])
}

/// The slope of the sample over the noise level.
pub(super) fn derivative(sample: &Tensor<4>, original: &Tensor<4>, sigma: f64) -> Tensor<4> {
    combine(&[(1.0 / sigma, sample), (-1.0 / sigma, original)])
}

/// Euler's step from one noise level to another, and `up` of fresh noise.
///
/// By way of the derivative, as diffusers does it, so that errors of rounding are the same: they
/// count where the levels are far apart, as with `rescale_betas_zero_snr`.
pub(super) fn euler(
    (sample, original): (&Tensor<4>, &Tensor<4>),
    (from, to): (f64, f64),
    noise: Option<(f64, &Tensor<4>)>,
) -> Tensor<4> {
    let derivative = derivative(sample, original, from);
    let mut terms = vec![(1.0, sample), (to - from, &derivative)];
    terms.extend(noise);
    weighted_sum(&terms)
}

/// How far `step` raises the noise level before it lowers it: the gamma of algorithm 2.
pub(super) fn churn(options: StepOptions, sigma: f64, steps: usize) -> f64 {
    if options.s_tmin <= sigma && sigma <= options.s_tmax {
        (options.s_churn / steps as f64).min(2.0_f64.sqrt() - 1.0)
    } else {
        0.0
    }
}

/// One step of Euler with churn, given how the denoised sample follows from the raised one.
pub(super) fn churned_euler(
    input: &StepInput<'_>,
    noise: Option<&Tensor<4>>,
    s_noise: f64,
    (sigma, sigma_hat, sigma_next): (f64, f64, f64),
    original: Affine,
) -> StepOutput {
    let raised = noise.map(|noise| {
        let amount = s_noise * (sigma_hat * sigma_hat - sigma * sigma).sqrt();
        combine(&[(1.0, input.sample), (amount, noise)])
    });
    let sample = raised.as_ref().unwrap_or(input.sample);
    let original = original.at(sample, input.model_output);
    let prev_sample = euler((sample, &original), (sigma_hat, sigma_next), None);
    StepOutput { prev_sample, pred_original_sample: Some(original) }
}

/// Splits a step down to a noise level into a deterministic part and fresh noise: `(down, up)`.
///
/// In float32, as diffusers has it: where the next level is much lower, `down` is the difference of
/// near equals, and timesteps are made from it.
pub(super) fn ancestral(from: f64, to: f64) -> (f64, f64) {
    let (from, to) = (from as f32, to as f32);
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    let down = (to * to - up * up).sqrt();
    (f64::from(down), f64::from(up))
}
