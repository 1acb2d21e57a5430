//! Euler's method in the formulation of EDM, as CosXL wants it.
//!
//! Follows `scheduling_edm_euler.py`; "Elucidating the Design Space of Diffusion-Based Generative
//! Models" (2206.00364), algorithm 2 and table 1.

use burn::tensor::Tensor;

use super::betas::linspace_f32;
use super::config::{PredictionType, Settings, SigmaSchedule};
use super::k_diffusion::{churn, churned_euler, final_sigma};
use super::prediction::Affine;
use super::sigmas::{as_f32, karras};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing, table};
use crate::error::{Error, Result};
use crate::kernels::combine;

/// `EDMEulerScheduler`.
#[derive(Debug)]
pub(super) struct EdmEuler {
    settings: Settings,
    sigma_min: f64,
    sigma_max: f64,
    table: Table,
    options: StepOptions,
}

impl EdmEuler {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[PredictionType::Epsilon, PredictionType::VPrediction])?;
        let sigma_min = settings.sigma_min.unwrap_or(0.002);
        let sigma_max = settings.sigma_max.unwrap_or(80.0);
        let (table, options) = (Table::default(), StepOptions::default());
        Ok(Self { settings, sigma_min, sigma_max, table, options })
    }

    fn sigmas(&self, ramp: &[f64]) -> Vec<f64> {
        let (max, min) = (self.sigma_max, self.sigma_min);
        as_f32(match self.settings.sigma_schedule {
            SigmaSchedule::Karras => {
                ramp.iter().map(|&r| karras(r, max, min, self.settings.rho)).collect()
            }
            SigmaSchedule::Exponential => {
                let logs = linspace_f32(min.ln() as f32, max.ln() as f32, ramp.len());
                logs.into_iter().rev().map(|log| f64::from(log).exp()).collect()
            }
        })
    }

    /// The denoised sample at a noise level: `precondition_outputs`.
    fn original(&self, sigma: f64) -> Affine {
        let data = self.settings.sigma_data;
        let variance = sigma * sigma + data * data;
        let output = sigma * data / variance.sqrt();
        let output = match self.settings.prediction_type {
            PredictionType::VPrediction => -output,
            _ => output,
        };
        Affine { sample: data * data / variance, output }
    }

    fn sigma_hat(&self, sigma: f64) -> f64 {
        sigma * (1.0 + churn(self.options, sigma, self.table.len()))
    }
}

impl Scheduler for EdmEuler {
    fn set_timesteps(&mut self, timesteps: &Timesteps, options: StepOptions) -> Result<()> {
        let ramp = match timesteps {
            Timesteps::Sigmas(ramp) => spacing::custom_values("sigmas", ramp)?.to_vec(),
            other => spacing::linspace(0.0, 1.0, spacing::count_only(&self.settings, other)?),
        };
        if ramp.iter().any(|place| !(0.0..=1.0).contains(place)) {
            let message = "EDM's custom sigmas are places between 0, the noisiest, and 1";
            return Err(Error::argument("sigmas", message));
        }
        let mut sigmas = self.sigmas(&ramp);
        let timesteps = sigmas.iter().map(|sigma| 0.25 * sigma.ln()).collect();
        sigmas.push(final_sigma(&self.settings, sigmas[sigmas.len() - 1]));
        let init = (self.sigma_max * self.sigma_max + 1.0).sqrt();
        self.table = Table::new(as_f32(timesteps), sigmas, init);
        self.options = options;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        combine(&[(1.0 / self.table.next_sigma().hypot(self.settings.sigma_data), &sample)])
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
        let levels = (sigma, sigma_hat, next);
        let original = self.original(sigma_hat);
        Ok(churned_euler(&input, noise, self.options.s_noise, levels, original))
    }
}
