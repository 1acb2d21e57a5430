//! Linear multistep: integrates the polynomial through the last four derivatives.
//!
//! Follows `scheduling_lms_discrete.py`; equation 3 of "Elucidating the Design Space of
//! Diffusion-Based Generative Models" (2206.00364) by the method of Adams and Bashforth.

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::k_diffusion::{Requested, derivative, init_noise_sigma, levels, scale};
use super::prediction::{Affine, weighted_sum};
use super::sigmas::{Spread, as_f32};
use super::table::History;
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps};
use crate::error::Result;

/// How many derivatives a step uses.
const ORDER: usize = 4;

/// `LMSDiscreteScheduler`.
#[derive(Debug)]
pub(super) struct LmsDiscrete {
    settings: Settings,
    schedule: NoiseSchedule,
    table: Table,
    derivatives: History,
}

impl LmsDiscrete {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[
            PredictionType::Epsilon,
            PredictionType::VPrediction,
            PredictionType::Sample,
        ])?;
        Spread::of(&settings)?;
        let schedule = NoiseSchedule::new(&settings)?;
        Ok(Self { settings, schedule, table: Table::default(), derivatives: History::default() })
    }

    /// The weight of the derivative `back` steps ago: the integral of its Lagrange polynomial over
    /// the step from noise level `index`.
    fn coefficient(&self, index: usize, order: usize, back: usize) -> f64 {
        let sigmas = self.table.sigmas();
        let polynomial = |tau: f64| -> f64 {
            let others = (0..order).filter(|&k| k != back);
            let at = sigmas[index - back];
            others.map(|k| (tau - sigmas[index - k]) / (at - sigmas[index - k])).product()
        };
        // Two points of Gauss and Legendre integrate a cubic exactly.
        let (from, to) = (sigmas[index], sigmas[index + 1]);
        let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
        let offset = half / 3.0_f64.sqrt();
        half * (polynomial(middle - offset) + polynomial(middle + offset))
    }
}

impl Scheduler for LmsDiscrete {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        let spread = Spread::of(&self.settings)?;
        let requested = Requested::counted(&self.settings, timesteps, spread)?;
        let levels = levels(&self.settings, &self.schedule, requested);
        let (timesteps, sigmas) = levels.ending_at(0.0);
        let init = init_noise_sigma(&self.settings, &sigmas);
        self.table = Table::new(as_f32(timesteps), sigmas, init);
        self.derivatives.clear();
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        scale(&sample, self.table.next_sigma())
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let index = self.table.advance()?;
        let sigma = self.table.sigmas()[index];
        let original =
            Affine::original_of_exploding(self.settings.prediction_type, sigma).of(&input);
        self.derivatives.push(derivative(input.sample, &original, sigma), ORDER);
        let order = ORDER.min(index + 1);
        let coefficients = (0..order).map(|back| self.coefficient(index, order, back));
        let mut terms = vec![(1.0, input.sample)];
        terms.extend(self.derivatives.weighted(coefficients));
        let prev_sample = weighted_sum(&terms);
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}
