//! Euler's method, as k-diffusion has it.
//!
//! Follows `scheduling_euler_discrete.py`; algorithm 2 of "Elucidating the Design Space of
//! Diffusion-Based Generative Models" (2206.00364).

use burn::tensor::Tensor;

use super::betas::{NoiseSchedule, linspace_f32};
use super::config::{InterpolationType, PredictionType, Settings, TimestepType};
use super::k_diffusion::{
    Requested, churn, churned_euler, final_sigma, init_noise_sigma, levels, scale, spread_levels,
};
use super::prediction::Affine;
use super::sigmas::{Levels, Spread, as_f32, ln_f32, timesteps_of_f32};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing, table};
use crate::error::{Error, Result};

/// `EulerDiscreteScheduler`.
#[derive(Debug)]
pub(super) struct EulerDiscrete {
    settings: Settings,
    schedule: NoiseSchedule,
    table: Table,
    options: StepOptions,
}

impl EulerDiscrete {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::VPrediction,
            PredictionType::Sample,
        ])?;
        Spread::of(&settings)?;
        let schedule = NoiseSchedule::new(&settings)?;
        let (table, options) = (Table::default(), StepOptions::default());
        Ok(Self { settings, schedule, table, options })
    }

    /// Whether the model is told the noise level rather than a timestep.
    fn is_continuous(&self) -> bool {
        self.settings.timestep_type == TimestepType::Continuous
            && self.settings.prediction_type == PredictionType::VPrediction
    }

    fn levels(&self, timesteps: &Timesteps) -> Result<(Vec<f64>, Vec<f64>)> {
        if self.is_continuous() && matches!(timesteps, Timesteps::Custom(_)) {
            let message = "timestep_type \"continuous\" takes no custom timesteps";
            return Err(Error::argument("timesteps", message));
        }
        let trained = self.schedule.sigmas();
        if let Timesteps::Sigmas(sigmas) = timesteps {
            let sigmas = as_f32(spacing::custom_values("sigmas", sigmas)?.to_vec());
            if sigmas.len() < 2 {
                return Err(Error::argument("sigmas", "expected the final level, too"));
            }
            let timesteps = timesteps_of_f32(&sigmas[..sigmas.len() - 1], &trained);
            return Ok((timesteps, sigmas));
        }
        let spread = Spread::of(&self.settings)?;
        let requested = Requested::custom_or_counted(&self.settings, timesteps, spread)?;
        let levels = match self.settings.interpolation_type {
            InterpolationType::Linear => levels(&self.settings, &self.schedule, requested),
            InterpolationType::LogLinear => {
                let Requested { timesteps, count, spread } = requested;
                let ends = (trained[trained.len() - 1], trained[0]);
                let logs = linspace_f32(ln_f32(ends.0), ln_f32(ends.1), count + 1);
                let sigmas = logs.iter().map(|&log| f64::from(log).exp()).collect();
                let even = Levels { timesteps, sigmas: as_f32(sigmas) };
                spread_levels(&self.settings, &trained, even, (count, spread))
            }
        };
        let last = final_sigma(&self.settings, f64::from(trained[0]));
        Ok(levels.ending_at(last))
    }

    /// The raised noise level of a step.
    fn sigma_hat(&self, sigma: f64) -> f64 {
        sigma * (1.0 + churn(self.options, sigma, self.table.sigmas().len() - 1))
    }
}

impl Scheduler for EulerDiscrete {
    fn set_timesteps(&mut self, timesteps: &Timesteps, options: StepOptions) -> Result<()> {
        let (mut timesteps, sigmas) = self.levels(timesteps)?;
        if self.is_continuous() {
            timesteps = sigmas[..sigmas.len() - 1].iter().map(|sigma| 0.25 * sigma.ln()).collect();
        }
        let init = init_noise_sigma(&self.settings, &sigmas);
        self.table = Table::new(as_f32(timesteps), sigmas, init);
        self.options = options;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        scale(&sample, self.table.next_sigma())
    }

    fn needs_noise(&self) -> bool {
        let sigma = self.table.next_sigma();
        self.table.next_index() < self.table.len() && self.sigma_hat(sigma) > sigma
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.table.advance()?;
        let (sigma, next) = (self.table.sigmas()[index], self.table.sigmas()[index + 1]);
        let sigma_hat = self.sigma_hat(sigma);
        // diffusers takes the unraised level for v_prediction.
        let level = match self.settings.prediction_type {
            PredictionType::VPrediction => sigma,
            _ => sigma_hat,
        };
        let original = Affine::original_of_exploding(self.settings.prediction_type, level);
        let levels = (sigma, sigma_hat, next);
        Ok(churned_euler(&input, noise, self.options.s_noise, levels, original))
    }
}
