//! Trajectory consistency distillation: jump below the next level, and noise back up to it.
//!
//! Follows `scheduling_tcd.py`; "Trajectory Consistency Distillation" (2402.19159), algorithm 4.

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::prediction::{Affine, weighted_sum};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, distilled, table};
use crate::error::{Error, Result};

/// `TCDScheduler`.
#[derive(Debug)]
pub(super) struct Tcd {
    settings: Settings,
    schedule: NoiseSchedule,
    table: Table,
    eta: f64,
}

impl Tcd {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::Sample,
            PredictionType::VPrediction,
        ])?;
        let schedule = NoiseSchedule::new(&settings)?;
        Ok(Self { settings, schedule, table: Table::default(), eta: 0.0 })
    }
}

impl Scheduler for Tcd {
    fn set_timesteps(&mut self, timesteps: &Timesteps, options: StepOptions) -> Result<()> {
        if !(0.0..=1.0).contains(&options.eta) {
            let message = format!("{}; TCD takes 0 to 1", options.eta);
            return Err(Error::argument("eta", message));
        }
        self.table = Table::of_timesteps(distilled::timesteps(&self.settings, timesteps)?);
        self.eta = options.eta;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn needs_noise(&self) -> bool {
        self.eta > 0.0 && self.table.next_index() + 1 < self.table.len()
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let next = self.timesteps().get(index + 1).copied().unwrap_or(0.0);
        // In float32, as torch multiplies a whole number by a Python float.
        let below = ((1.0 - self.eta) as f32 * next as f32).floor();
        let alpha_prod = self.schedule.alpha(self.table.timestep(index))?;
        let alpha_prod_next = self.schedule.alpha(next as i64)?;
        let alpha_prod_below = self.schedule.alpha(below as i64)?;

        let (alpha, sigma) = (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt());
        let prediction = self.settings.prediction_type;
        let original = Affine::original(prediction, alpha, sigma);
        let epsilon = Affine::epsilon(prediction, alpha, sigma);
        let (keep, add) = (alpha_prod_below.sqrt(), (1.0 - alpha_prod_below).sqrt());
        let noised = Affine {
            sample: keep * original.sample + add * epsilon.sample,
            output: keep * original.output + add * epsilon.output,
        }
        .of(&input);
        let prev_sample = match noise {
            Some(noise) => {
                let ratio = alpha_prod_next / alpha_prod_below;
                weighted_sum(&[(ratio.sqrt(), &noised), ((1.0 - ratio).max(0.0).sqrt(), noise)])
            }
            None => noised.clone(),
        };
        Ok(StepOutput { prev_sample, pred_original_sample: Some(noised) })
    }
}
