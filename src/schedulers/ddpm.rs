//! Denoising diffusion probabilistic models.
//!
//! Follows `scheduling_ddpm.py`; formulas (6), (7) and (15) of "Denoising Diffusion Probabilistic
//! Models" (2006.11239).

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings, VarianceType};
use super::prediction::{Affine, Limit, weighted_sum};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing, table};
use crate::error::Result;

/// `DDPMScheduler`.
#[derive(Debug)]
pub(super) struct Ddpm {
    settings: Settings,
    schedule: NoiseSchedule,
    limit: Limit,
    /// Whether the variance is beta rather than the posterior's.
    large_variance: bool,
    table: Table,
}

impl Ddpm {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ])?;
        let large_variance = match settings.variance_type.unwrap_or(VarianceType::FixedSmall) {
            VarianceType::FixedSmall | VarianceType::FixedSmallLog => false,
            VarianceType::FixedLarge => true,
            // The square root of a logarithm below zero: diffusers' samples are not numbers.
            VarianceType::FixedLargeLog => {
                return Err(settings.refuse("variance_type \"fixed_large_log\" has no real root"));
            }
            VarianceType::Learned | VarianceType::LearnedRange => {
                let message = "a learned variance_type needs a model that predicts it";
                return Err(settings.refuse(message));
            }
        };
        let (schedule, limit) = (NoiseSchedule::new(&settings)?, Limit::of(&settings));
        Ok(Self { settings, schedule, limit, large_variance, table: Table::default() })
    }
}

impl Scheduler for Ddpm {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.table = Table::of_timesteps(match timesteps {
            Timesteps::Custom(custom) => spacing::custom_descending(&self.settings, custom)?,
            other => {
                let count = spacing::count_up_to_training(&self.settings, other)?;
                spacing::rounded(spacing::closed(&self.settings, count)?)
            }
        });
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn needs_noise(&self) -> bool {
        self.timesteps().get(self.table.next_index()).is_some_and(|&timestep| timestep > 0.0)
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let alpha_prod = self.schedule.alpha(self.table.timestep(index))?;
        // After the last timestep nothing of the noise is left, whatever set_alpha_to_one says.
        let alpha_prod_prev = match self.timesteps().get(index + 1) {
            Some(&next) if next >= 0.0 => self.schedule.alpha(next as i64)?,
            _ => 1.0,
        };
        let (beta_prod, beta_prod_prev) = (1.0 - alpha_prod, 1.0 - alpha_prod_prev);
        let alpha = alpha_prod / alpha_prod_prev;
        let beta = 1.0 - alpha;

        let prediction = self.settings.prediction_type;
        let original = Affine::original(prediction, alpha_prod.sqrt(), beta_prod.sqrt());
        let original = self.limit.apply(original.of(&input));

        let posterior = (beta_prod_prev / beta_prod * beta).max(1e-20);
        let variance = if self.large_variance { beta } else { posterior };
        let mut terms = vec![
            (alpha_prod_prev.sqrt() * beta / beta_prod, &original),
            (alpha.sqrt() * beta_prod_prev / beta_prod, input.sample),
        ];
        terms.extend(noise.map(|noise| (variance.sqrt(), noise)));
        let prev_sample = weighted_sum(&terms);
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}
