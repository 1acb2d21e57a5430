//! Euler's method with fresh noise at every step, as k-diffusion has it.
//!
//! Follows `scheduling_euler_ancestral_discrete.py`; the split of a step is that of "Denoising
//! Diffusion Probabilistic Models" (2006.11239) and "Score-Based Generative Modeling through
//! Stochastic Differential Equations" (2011.13456).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::k_diffusion::{Requested, ancestral, euler, init_noise_sigma, levels, scale};
use super::prediction::Affine;
use super::sigmas::Spread;
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, table};
use crate::error::Result;

/// `EulerAncestralDiscreteScheduler`.
#[derive(Debug)]
pub(super) struct EulerAncestralDiscrete {
    settings: Settings,
    schedule: NoiseSchedule,
    table: Table,
}

impl EulerAncestralDiscrete {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[PredictionType::Epsilon, PredictionType::VPrediction])?;
        let schedule = NoiseSchedule::new(&settings)?;
        Ok(Self { settings, schedule, table: Table::default() })
    }
}

impl Scheduler for EulerAncestralDiscrete {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        let requested = Requested::counted(&self.settings, timesteps, Spread::Timesteps)?;
        let levels = levels(&self.settings, &self.schedule, requested);
        let (timesteps, sigmas) = levels.ending_at(0.0);
        let init = init_noise_sigma(&self.settings, &sigmas);
        self.table = Table::new(timesteps, sigmas, init);
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        scale(&sample, self.table.next_sigma())
    }

    fn needs_noise(&self) -> bool {
        true
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let (sigma, next) = (self.table.sigmas()[index], self.table.sigmas()[index + 1]);
        let (down, up) = ancestral(sigma, next);
        let original =
            Affine::original_of_exploding(self.settings.prediction_type, sigma).of(&input);
        let noise = noise.map(|noise| (up, noise));
        let prev_sample = euler((input.sample, &original), (sigma, down), noise);
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}
