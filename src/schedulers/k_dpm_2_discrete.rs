//! DPM-Solver-2 as k-diffusion has it: two model calls per step, the second at the geometric
//! middle.
//!
//! Follows `scheduling_k_dpm_2_discrete.py`, and `scheduling_k_dpm_2_ancestral_discrete.py` where
//! the two are the same; algorithm 2 of "Elucidating the Design Space of Diffusion-Based Generative
//! Models" (2206.00364) and "DPM-Solver" (2206.00927).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{PredictionType, Settings};
use super::k_diffusion::{Requested, derivative, euler, init_noise_sigma, levels, scale};
use super::prediction::{Affine, weighted_sum};
use super::sigmas::{Spread, ln_f32, timesteps_of_f32};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, spacing, table};
use crate::error::Result;

/// One step: from a noise level by way of a middle one down to a target, and perhaps up again by
/// fresh noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) sigma: f64,
    pub(super) middle: f64,
    pub(super) target: f64,
    pub(super) up: Option<f64>,
}

/// The two classes' common part. `stage` makes a [`Stage`] of a noise level and the next.
#[derive(Debug)]
pub(super) struct TwoCalls {
    settings: Settings,
    schedule: NoiseSchedule,
    stage: fn(f64, f64) -> Stage,
    stages: Vec<Stage>,
    table: Table,
    /// The sample before the first call of a step, while the second is due.
    start: Option<Tensor<4>>,
}

impl TwoCalls {
    pub(super) fn new(settings: Settings, stage: fn(f64, f64) -> Stage) -> Result<Self> {
        settings.expect_prediction(&[PredictionType::Epsilon, PredictionType::VPrediction])?;
        Spread::of(&settings)?;
        let schedule = NoiseSchedule::new(&settings)?;
        let (stages, table, start) = (Vec::new(), Table::default(), None);
        Ok(Self { settings, schedule, stage, stages, table, start })
    }

    fn coming(&self) -> Option<Stage> {
        self.stages.get(self.table.next_index() / 2).copied()
    }
}

impl Scheduler for TwoCalls {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        let spread = Spread::of(&self.settings)?;
        let requested = Requested::counted(&self.settings, timesteps, spread)?;
        let levels = levels(&self.settings, &self.schedule, requested);
        let (mut timesteps, sigmas) = levels.ending_at(0.0);
        if spread == Spread::Karras {
            timesteps = spacing::rounded(timesteps);
        }
        self.stages = sigmas.windows(2).map(|pair| (self.stage)(pair[0], pair[1])).collect();
        // The last step goes down to zero, where there is no second call.
        let middles: Vec<_> =
            self.stages[..self.stages.len() - 1].iter().map(|stage| stage.middle).collect();
        let middles = timesteps_of_f32(&middles, &self.schedule.sigmas());
        let pairs = middles.iter().zip(&timesteps[1..]).flat_map(|(&middle, &next)| [middle, next]);
        let interleaved = std::iter::once(timesteps[0]).chain(pairs).collect();
        let sigmas = [&sigmas[..1], &spacing::twice(&sigmas[1..]), &[0.0]].concat();
        let init = init_noise_sigma(&self.settings, &sigmas);
        self.table = Table::new(interleaved, sigmas, init);
        self.start = None;
        Ok(())
    }

    fn table(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        let sigma = match (self.coming(), &self.start) {
            (Some(stage), None) => stage.sigma,
            (Some(stage), Some(_)) => stage.middle,
            (None, _) => 0.0,
        };
        scale(&sample, sigma)
    }

    fn needs_noise(&self) -> bool {
        self.start.is_some() && self.coming().is_some_and(|stage| stage.up.is_some())
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let stage = self.stages.get(self.table.advance()? / 2).copied();
        let stage = stage.expect("there is a stage for every two timesteps");
        let Stage { sigma, middle, target, up } = stage;
        let level = if self.start.is_some() { middle } else { sigma };
        let original = Affine::original_of_exploding(self.settings.prediction_type, level);
        let original = original.of(&input);
        let prev_sample = match self.start.take() {
            None => {
                self.start = Some(input.sample.clone());
                euler((input.sample, &original), (sigma, middle), None)
            }
            Some(start) => {
                let derivative = derivative(input.sample, &original, middle);
                let mut terms = vec![(1.0, &start), (target - sigma, &derivative)];
                terms.extend(up.zip(noise));
                weighted_sum(&terms)
            }
        };
        Ok(StepOutput { prev_sample, pred_original_sample: Some(original) })
    }
}

/// The geometric mean of two noise levels, by way of float32 logarithms as in diffusers.
pub(super) fn middle(from: f64, to: f64) -> f64 {
    if from == 0.0 || to == 0.0 {
        return 0.0;
    }
    let (from, to) = (ln_f32(from as f32), ln_f32(to as f32));
    f64::from(f64::from(to - (to - from) * 0.5).exp() as f32)
}

/// `KDPM2DiscreteScheduler`.
pub(super) struct Kdpm2Discrete;

impl Kdpm2Discrete {
    /// Goes straight to the next level.
    #[expect(clippy::new_ret_no_self, reason = "the class is only a choice of stages")]
    pub(super) fn new(settings: Settings) -> Result<TwoCalls> {
        TwoCalls::new(settings, |sigma, next| Stage {
            sigma,
            middle: middle(next, sigma),
            target: next,
            up: None,
        })
    }
}
