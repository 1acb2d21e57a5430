//! Pseudo numerical methods: a few steps of Runge and Kutta, or none, then linear multistep.
//!
//! Follows `scheduling_pndm.py`; formulas (9) to (13) of "Pseudo Numerical Methods for Diffusion
//! Models on Manifolds" (2202.09778).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::prediction::{Affine, weighted_sum};
use super::table::History;
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing};
use crate::error::{Error, Result};

/// Outputs that a multistep step uses, and steps that start with Runge and Kutta.
const ORDER: usize = 4;
/// Model calls of one Runge-Kutta step.
const CALLS: usize = 4;

/// `PNDMScheduler`.
#[derive(Debug)]
pub(super) struct Pndm {
    settings: Settings,
    schedule: NoiseSchedule,
    table: Table,
    /// Training timesteps per step.
    ratio: i64,
    /// How many of the timesteps belong to Runge and Kutta.
    prk_len: usize,
    ets: History,
    /// The outputs of the current Runge-Kutta step.
    calls: History,
    /// The sample that a step of several calls started from.
    start: Option<Tensor<4>>,
}

impl Pndm {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        settings.expect_prediction(&[PredictionType::Epsilon, PredictionType::VPrediction])?;
        let schedule = NoiseSchedule::new(&settings)?;
        Ok(Self {
            settings,
            schedule,
            table: Table::default(),
            ratio: 0,
            prk_len: 0,
            ets: History::default(),
            calls: History::default(),
            start: None,
        })
    }

    /// Timesteps of the Runge-Kutta steps: start, middle twice, end, which is the next start.
    fn prk_timesteps(&self, timesteps: &[f64]) -> Result<Vec<f64>> {
        if timesteps.len() < ORDER {
            let message = format!("PNDM with Runge-Kutta steps takes at least {ORDER} steps");
            return Err(Error::argument("numInferenceSteps", message));
        }
        let half = (self.ratio / 2) as f64;
        // Ascending: each of the noisiest timesteps and its upper middle, then all but the outer
        // ones twice.
        let noisiest = timesteps[..ORDER].iter().rev();
        let halves: Vec<_> = noisiest.flat_map(|&t| [t, t + half]).collect();
        let doubled = spacing::twice(&halves[..halves.len() - 1]);
        Ok(doubled[1..doubled.len() - 1].iter().rev().copied().collect())
    }

    fn step_prk(&mut self, index: usize, input: &StepInput<'_>) -> Result<Tensor<4>> {
        let down = if index.is_multiple_of(2) { self.ratio / 2 } else { 0 };
        let prev_timestep = self.table.timestep(index) - down;
        let call = index % CALLS;
        let timestep = self.table.timestep(index - call);
        if call == 0 {
            self.ets.push(input.model_output.clone(), ORDER);
            self.start = Some(input.sample.clone());
            self.calls.clear();
        }
        self.calls.push(input.model_output.clone(), CALLS);
        let weights = match call {
            3 => [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
            _ => [1.0, 0.0, 0.0, 0.0],
        };
        let sample = self.start.as_ref().unwrap_or(input.sample);
        let output: Vec<_> = self.calls.weighted(weights).collect();
        self.prev_sample(sample, timestep, prev_timestep, &output)
    }

    fn step_plms(&mut self, index: usize, input: &StepInput<'_>) -> Result<Tensor<4>> {
        let mut timestep = self.table.timestep(index);
        let mut prev_timestep = timestep - self.ratio;
        if index == 1 {
            // The second call repeats the first step with a better slope.
            prev_timestep = timestep;
            timestep += self.ratio;
            let start = self.start.take().expect("the first step keeps its sample");
            let mut output: Vec<_> = self.ets.weighted([0.5]).collect();
            output.push((0.5, input.model_output));
            return self.prev_sample(&start, timestep, prev_timestep, &output);
        }
        if index == 0 {
            self.start = Some(input.sample.clone());
        }
        self.ets.push(input.model_output.clone(), ORDER);
        let weights: &[f64] = match self.ets.len() {
            1 => &[1.0],
            2 => &[3.0 / 2.0, -1.0 / 2.0],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        let output: Vec<_> = self.ets.weighted(weights.iter().copied()).collect();
        self.prev_sample(input.sample, timestep, prev_timestep, &output)
    }

    /// Formula (9), for a weighted sum of outputs.
    fn prev_sample(
        &self,
        sample: &Tensor<4>,
        timestep: i64,
        prev_timestep: i64,
        output: &[(f64, &Tensor<4>)],
    ) -> Result<Tensor<4>> {
        let alpha_prod = self.schedule.alpha(timestep)?;
        let alpha_prod_prev = self.schedule.alpha_after(prev_timestep)?;
        let (beta_prod, beta_prod_prev) = (1.0 - alpha_prod, 1.0 - alpha_prod_prev);
        let slope = (alpha_prod_prev - alpha_prod)
            / (alpha_prod * beta_prod_prev.sqrt()
                + (alpha_prod * beta_prod * alpha_prod_prev).sqrt());
        let (alpha, sigma) = (alpha_prod.sqrt(), beta_prod.sqrt());
        let epsilon = Affine::epsilon(self.settings.prediction_type, alpha, sigma);
        let scale = (alpha_prod_prev / alpha_prod).sqrt();
        let mut terms = vec![(scale - slope * epsilon.sample, sample)];
        terms.extend(output.iter().map(|(weight, x)| (-slope * epsilon.output * weight, *x)));
        Ok(weighted_sum(&terms))
    }
}

impl Scheduler for Pndm {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        let count = spacing::count_only(&self.settings, timesteps)?;
        self.ratio = (self.settings.num_train_timesteps / count) as i64;
        let spaced = spacing::rounded(spacing::closed(&self.settings, count)?);
        let (prk, plms) = if self.settings.skip_prk_steps {
            // The second timestep comes twice, the first time to improve the first step.
            let second = if spaced.len() > 1 { &spaced[1..2] } else { &[] };
            (Vec::new(), [&spaced[..1], second, &spaced[1..]].concat())
        } else {
            (self.prk_timesteps(&spaced)?, spaced[ORDER - 1..].to_vec())
        };
        self.prk_len = prk.len();
        self.table = Table::of_timesteps([prk, plms].concat());
        self.ets.clear();
        self.start = None;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let index = self.table.advance()?;
        let prev_sample = match index < self.prk_len {
            true => self.step_prk(index, &input)?,
            false => self.step_plms(index, &input)?,
        };
        Ok(StepOutput { prev_sample, pred_original_sample: None })
    }
}
