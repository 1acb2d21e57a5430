//! Latent consistency models: jump to the denoised sample, and noise it to the next level.
//!
//! Follows `scheduling_lcm.py`; "Latent Consistency Models" (2310.04378).

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::prediction::{Affine, Limit, weighted_sum};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, distilled, table};
use crate::error::Result;

/// Standard deviation of the data in the boundary condition.
const SIGMA_DATA: f64 = 0.5;

/// `LCMScheduler`.
#[derive(Debug)]
pub(super) struct Lcm {
    settings: Settings,
    schedule: NoiseSchedule,
    limit: Limit,
    table: Table,
}

impl Lcm {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ])?;
        let (schedule, limit) = (NoiseSchedule::new(&settings)?, Limit::of(&settings));
        Ok(Self { settings, schedule, limit, table: Table::default() })
    }
}

impl Scheduler for Lcm {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.table = Table::of_timesteps(distilled::timesteps(&self.settings, timesteps)?);
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn needs_noise(&self) -> bool {
        self.table.next_index() + 1 < self.table.len()
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let timestep = self.table.timestep(index);
        let alpha_prod = self.schedule.alpha(timestep)?;
        let (alpha, sigma) = (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt());
        let original = Affine::original(self.settings.prediction_type, alpha, sigma);
        let original = self.limit.apply(original.of(&input));

        let scaled = timestep as f64 * self.settings.timestep_scaling;
        let norm = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / norm, scaled / norm.sqrt());
        let denoised = weighted_sum(&[(c_out, &original), (c_skip, input.sample)]);
        let prev_sample = match noise {
            Some(noise) => {
                let next = self.schedule.alpha(self.table.timestep(index + 1))?;
                weighted_sum(&[(next.sqrt(), &denoised), ((1.0 - next).sqrt(), noise)])
            }
            None => denoised.clone(),
        };
        Ok(StepOutput { prev_sample, pred_original_sample: Some(denoised) })
    }
}
