//! Denoising diffusion implicit models.
//!
//! Follows `scheduling_ddim.py`; formulas (12) and (16) of "Denoising Diffusion Implicit Models"
//! (2010.02502).

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::prediction::{Affine, Limit, weighted_sum};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing, table};
use crate::error::Result;

/// `DDIMScheduler`.
#[derive(Debug)]
pub(super) struct Ddim {
    settings: Settings,
    schedule: NoiseSchedule,
    limit: Limit,
    table: Table,
    /// Training timesteps per step.
    ratio: i64,
    options: StepOptions,
}

impl Ddim {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ])?;
        let (schedule, limit) = (NoiseSchedule::new(&settings)?, Limit::of(&settings));
        let (table, options) = (Table::default(), StepOptions::default());
        Ok(Self { settings, schedule, limit, table, ratio: 0, options })
    }
}

impl Scheduler for Ddim {
    fn set_timesteps(&mut self, timesteps: &Timesteps, options: StepOptions) -> Result<()> {
        let count = spacing::count_up_to_training(&self.settings, timesteps)?;
        let timesteps = spacing::rounded(spacing::closed(&self.settings, count)?);
        self.table = Table::of_timesteps(timesteps);
        self.ratio = (self.settings.num_train_timesteps / count) as i64;
        self.options = options;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn needs_noise(&self) -> bool {
        self.options.eta > 0.0
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let timestep = self.table.timestep(index);
        let alpha_prod = self.schedule.alpha(timestep)?;
        let alpha_prod_prev = self.schedule.alpha_after(timestep - self.ratio)?;
        let (alpha, sigma) = (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt());

        let prediction = self.settings.prediction_type;
        let original = Affine::original(prediction, alpha, sigma).of(&input);
        let original = self.limit.apply(original);

        let variance =
            (1.0 - alpha_prod_prev) / (1.0 - alpha_prod) * (1.0 - alpha_prod / alpha_prod_prev);
        let deviation = self.options.eta * variance.sqrt();
        let direction = (1.0 - alpha_prod_prev - deviation * deviation).max(0.0).sqrt();
        let mut terms = vec![(alpha_prod_prev.sqrt(), &original)];
        if self.options.use_clipped_model_output {
            terms.push((direction / sigma, input.sample));
            terms.push((-direction * alpha / sigma, &original));
        } else {
            let epsilon = Affine::epsilon(prediction, alpha, sigma);
            terms.push((direction * epsilon.sample, input.sample));
            terms.push((direction * epsilon.output, input.model_output));
        }
        terms.extend(noise.map(|noise| (deviation, noise)));
        let prev_sample = weighted_sum(&terms);
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}
