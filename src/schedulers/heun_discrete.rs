//! Heun's method: two model calls per step, as k-diffusion has it.
//!
//! Follows `scheduling_heun_discrete.py`; algorithm 1 of "Elucidating the Design Space of
//! Diffusion-Based Generative Models" (2206.00364).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::k_diffusion::{Requested, derivative, init_noise_sigma, levels, scale};
use super::prediction::{Affine, Limit, weighted_sum};
use super::sigmas::{Spread, as_f32};
use super::spacing::twice;
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps};
use crate::error::Result;

/// `HeunDiscreteScheduler`.
#[derive(Debug)]
pub(super) struct HeunDiscrete {
    settings: Settings,
    schedule: NoiseSchedule,
    limit: Limit,
    table: Table,
    half: Option<HalfStep>,
}

/// What the first model call of a step leaves to the second.
#[derive(Debug)]
struct HalfStep {
    sample: Tensor<4>,
    derivative: Tensor<4>,
    dt: f64,
}

impl HeunDiscrete {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::VPrediction,
            PredictionType::Sample,
        ])?;
        Spread::of(&settings)?;
        let (schedule, limit) = (NoiseSchedule::new(&settings)?, Limit::clipping(&settings));
        Ok(Self { settings, schedule, limit, table: Table::default(), half: None })
    }
}

impl Scheduler for HeunDiscrete {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        let spread = Spread::of(&self.settings)?;
        let requested = Requested::custom_or_counted(&self.settings, timesteps, spread)?;
        let levels = levels(&self.settings, &self.schedule, requested);
        let (timesteps, sigmas) = levels.ending_at(0.0);
        // Both calls of a step count as one entry each; the last step has one call.
        let inner = &sigmas[1..sigmas.len() - 1];
        let sigmas = [&sigmas[..1], &twice(inner), &sigmas[sigmas.len() - 1..]].concat();
        let timesteps = [&timesteps[..1], &twice(&timesteps[1..])].concat();
        let init = init_noise_sigma(&self.settings, &sigmas);
        self.table = Table::new(as_f32(timesteps), sigmas, init);
        self.half = None;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        scale(&sample, self.table.next_sigma())
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let index = self.table.advance()?;
        // In the second call of a step this is the level that the first one went to.
        let sigma = self.table.sigmas()[index];
        let original = Affine::original_of_exploding(self.settings.prediction_type, sigma);
        let original = self.limit.apply(original.of(&input));
        let prev_sample = match self.half.take() {
            None => {
                let derivative = derivative(input.sample, &original, sigma);
                let dt = self.table.sigmas()[index + 1] - sigma;
                let prev_sample = weighted_sum(&[(1.0, input.sample), (dt, &derivative)]);
                self.half = Some(HalfStep { sample: input.sample.clone(), derivative, dt });
                prev_sample
            }
            Some(HalfStep { sample, derivative, dt }) => {
                let half = dt / 2.0;
                weighted_sum(&[
                    (1.0, &sample),
                    (half, &derivative),
                    (half / sigma, input.sample),
                    (-half / sigma, &original),
                ])
            }
        };
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}
