//! Noise schedules and samplers, one file per diffusers class.
//!
//! Tables live on the host in `f64`; a step is a few [`combine`](crate::kernels::combine)s of
//! tensors. Noise is an argument and never drawn here, so that a seed, or a recording, decides it.

mod betas;
mod class;
mod config;
mod ddim;
mod ddpm;
mod deis_multistep;
mod distilled;
mod dpmsolver_multistep;
mod dpmsolver_singlestep;
mod edm_euler;
mod euler_ancestral_discrete;
mod euler_discrete;
mod heun_discrete;
mod k_diffusion;
mod k_dpm_2_ancestral_discrete;
mod k_dpm_2_discrete;
mod lcm;
mod lms_discrete;
mod pndm;
mod prediction;
mod sigmas;
mod solver;
mod spacing;
mod table;
mod tcd;
mod unipc_multistep;

use burn::tensor::Tensor;

pub use class::{SchedulerClass, from_config};
pub use config::{
    AlgorithmType, BetaSchedule, FinalSigmasType, InterpolationType, PredictionType,
    SchedulerConfig, SigmaSchedule, SolverType, TimestepSpacing, TimestepType, VarianceType,
};
pub use table::Table;

use crate::error::Result;

/// How many steps to take, or which.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Timesteps {
    /// That many, spaced as the configuration says (`num_inference_steps`).
    Count(usize),
    /// These timesteps, descending (`timesteps`).
    Custom(Vec<f64>),
    /// These noise levels, descending, the final one included (`sigmas` of Euler); for EDM, which
    /// reads them as places on its own scale, 0 for the noisiest to 1.
    Sigmas(Vec<f64>),
}

/// What one step consumes.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The model's guided output, `[B, H, W, C]`.
    pub model_output: &'a Tensor<4>,
    /// The sample that went through [`Scheduler::scale_model_input`], unscaled, `[B, H, W, C]`.
    pub sample: &'a Tensor<4>,
    /// Standard normal noise of the sample's shape; present when [`Scheduler::needs_noise`] said
    /// so.
    pub noise: Option<&'a Tensor<4>>,
}

/// What one step yields.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// The sample at the next noise level, `[B, H, W, C]`.
    pub prev_sample: Tensor<4>,
    /// The denoised sample as this step predicts it, where diffusers' class returns one; LCM calls
    /// it `denoised`, and TCD returns its partly noised `pred_noised_sample`.
    pub pred_original_sample: Option<Tensor<4>>,
}

/// Per-call knobs of `Scheduler.step` in diffusers. A scheduler ignores those it does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOptions {
    /// Share of fresh noise, 0 to 1 (DDIM, TCD).
    pub eta: f64,
    /// DDIM: recompute the noise from the clipped sample.
    pub use_clipped_model_output: bool,
    /// Euler and Heun of Karras et al.: amount of churn.
    pub s_churn: f64,
    /// Lowest noise level that gets churn.
    pub s_tmin: f64,
    /// Highest noise level that gets churn.
    pub s_tmax: f64,
    /// Standard deviation of the churn.
    pub s_noise: f64,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self {
            eta: 0.0,
            use_clipped_model_output: false,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            s_noise: 1.0,
        }
    }
}

/// A sampler of diffusers: a table of timesteps and a rule that steps along it.
///
/// Calls go in order: [`set_timesteps`](Self::set_timesteps), then for each of
/// [`timesteps`](Self::timesteps) one [`scale_model_input`](Self::scale_model_input), perhaps
/// [`needs_noise`](Self::needs_noise), and one [`step`](Self::step). The scheduler counts the
/// steps itself.
pub trait Scheduler: std::fmt::Debug {
    /// Computes the tables and forgets earlier steps.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) when the algorithm cannot take
    /// that many steps, or takes no custom ones.
    fn set_timesteps(&mut self, timesteps: &Timesteps, options: StepOptions) -> Result<()>;

    /// The table that [`set_timesteps`](Self::set_timesteps) made, and the place in it.
    fn table(&self) -> &Table;

    /// The timesteps to call the model with, in order; one entry per model call.
    fn timesteps(&self) -> &[f64] {
        self.table().timesteps()
    }

    /// The noise levels, at least one more than the timesteps; empty for schedulers without.
    fn sigmas(&self) -> &[f64] {
        self.table().sigmas()
    }

    /// The factor for the initial noise.
    fn init_noise_sigma(&self) -> f64 {
        self.table().init_noise_sigma()
    }

    /// Model calls per inference step: 1, or 2 for second-order methods.
    fn order(&self) -> usize {
        1
    }

    /// Scales the sample for the model's input at the coming step.
    fn scale_model_input(&self, sample: Tensor<4>) -> Tensor<4> {
        sample
    }

    /// Whether the coming [`step`](Self::step) takes noise (diffusers draws it there and then).
    fn needs_noise(&self) -> bool {
        false
    }

    /// Steps once along the table.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) when the noise is missing or the
    /// table is at its end.
    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput>;
}
