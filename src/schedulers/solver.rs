//! What the exponential integrators share: the table, the conversion of the model's output, the
//! coefficients of an update and the choice of its order.
//!
//! Follows `set_timesteps`, `convert_model_output`, `_sigma_to_alpha_sigma_t` and the updates as
//! they recur in `scheduling_dpmsolver_multistep.py`, `scheduling_dpmsolver_singlestep.py`,
//! `scheduling_deis_multistep.py` and `scheduling_unipc_multistep.py`.
//!
//! Papers: "DPM-Solver" (2206.00927) and "DPM-Solver++" (2211.01095).

use burn::tensor::Tensor;

use super::betas::NoiseSchedule;
use super::config::{
    AlgorithmType, BetaSchedule, FinalSigmasType, PredictionType, Settings, SolverType,
    VarianceType,
};
use super::k_diffusion::{final_sigma, refuse_spread};
use super::prediction::{Affine, Limit, weighted_sum};
use super::sigmas::{Levels, Spread};
use super::table::History;
use super::{SchedulerClass, StepInput, Table, Timesteps, spacing};
use crate::error::Result;

/// The schedule and the table of a solver, and the converted outputs of the last steps.
#[derive(Debug)]
pub(super) struct Solver {
    pub(super) settings: Settings,
    schedule: NoiseSchedule,
    limit: Limit,
    /// Whether the model's output is converted to the denoised sample rather than to the noise.
    predicts_original: bool,
    pub(super) table: Table,
    pub(super) outputs: History,
}

impl Solver {
    pub(super) fn new(settings: Settings, predicts_original: bool) -> Result<Self> {
        let class = settings.class;
        let mut known =
            vec![PredictionType::Epsilon, PredictionType::Sample, PredictionType::VPrediction];
        // DEIS goes by way of the denoised sample.
        if predicts_original || class == SchedulerClass::DeisMultistep {
            known.push(PredictionType::FlowPrediction);
        }
        settings.expect_prediction(&known)?;
        if settings.solver_order == 0 {
            return Err(settings.refuse("solver_order is 0"));
        }
        spread(&settings)?;
        let limit = match class {
            SchedulerClass::UniPcMultistep if !predicts_original => Limit::None,
            _ => Limit::thresholding(&settings),
        };
        let schedule = NoiseSchedule::new(&settings)?;
        let (table, outputs) = (Table::default(), History::default());
        Ok(Self { settings, schedule, limit, predicts_original, table, outputs })
    }

    /// Makes the table anew and forgets earlier outputs.
    pub(super) fn set_timesteps(&mut self, timesteps: &Timesteps) -> Result<()> {
        let (settings, trained) = (&self.settings, self.schedule.sigmas());
        let spread = spread(settings)?;
        let (timesteps, count) = self.timesteps(timesteps, spread)?;
        let (lowest, highest) = (f64::from(trained[0]), f64::from(trained[trained.len() - 1]));
        let spread_levels = spread.levels(settings, (highest, lowest), count, &trained);
        let levels = spread_levels.unwrap_or_else(|| Levels::at(timesteps, &trained));

        let class = settings.class;
        let repeats_lowest = spread != Spread::Timesteps
            && matches!(class, SchedulerClass::DeisMultistep | SchedulerClass::UniPcMultistep);
        let lowest = if repeats_lowest { levels.sigmas[levels.sigmas.len() - 1] } else { lowest };
        let last = match class {
            SchedulerClass::DeisMultistep => lowest,
            _ => final_sigma(settings, lowest),
        };
        let (mut timesteps, sigmas) = levels.ending_at(last);
        // Where the cosine schedule is steep, DPM-Solver cuts fractions off rather than round.
        let rounds = class != SchedulerClass::DpmSolverMultistep
            || settings.beta_schedule != BetaSchedule::SquaredcosCapV2;
        if matches!(spread, Spread::Karras | Spread::Lu) && rounds {
            timesteps = spacing::rounded(timesteps);
        }
        let timesteps = timesteps.into_iter().map(f64::trunc).collect();
        self.table = Table::new(timesteps, sigmas, 1.0);
        self.outputs.clear();
        Ok(())
    }

    /// The timesteps before their noise levels are spread, and their number.
    fn timesteps(&self, timesteps: &Timesteps, spread: Spread) -> Result<(Vec<f64>, usize)> {
        let settings = &self.settings;
        let is_dpm_solver = is_dpm_solver(settings.class);
        if let (Timesteps::Custom(custom), true) = (timesteps, is_dpm_solver) {
            refuse_spread(spread)?;
            return Ok((spacing::custom_whole(custom)?, custom.len()));
        }
        let count = spacing::count_only(settings, timesteps)?;
        let mut last = settings.num_train_timesteps;
        if is_dpm_solver {
            last = last.saturating_sub(self.schedule.clipped(settings.lambda_min_clipped));
        }
        if last == 0 {
            return Err(settings.refuse("lambda_min_clipped leaves no timestep"));
        }
        let timesteps = match settings.class {
            SchedulerClass::DpmSolverSinglestep => spacing::open_linspace(last, count),
            _ => spacing::open(settings, last, count)?,
        };
        Ok((timesteps, count))
    }

    /// The noise level at an index of the table.
    pub(super) fn level(&self, index: usize) -> Level {
        let sigma = self.table.sigmas()[index];
        let alpha = match self.settings.use_flow_sigmas {
            true => 1.0 - sigma,
            false => 1.0 / (sigma * sigma + 1.0).sqrt(),
        };
        let sigma = if self.settings.use_flow_sigmas { sigma } else { sigma * alpha };
        Level { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }

    /// What the solver integrates, from the model's output at an index.
    pub(super) fn convert(&self, index: usize, input: &StepInput<'_>) -> Tensor<4> {
        let Level { alpha, sigma, .. } = self.level(index);
        let prediction = self.settings.prediction_type;
        let original = match prediction {
            // The whole noise level, even where the sample is scaled to keep its variance.
            PredictionType::FlowPrediction => {
                Affine::original(prediction, alpha, self.table.sigmas()[index])
            }
            _ => Affine::original(prediction, alpha, sigma),
        };
        if self.predicts_original {
            return self.limit.apply(original.of(input));
        }
        if !self.limit.is_none() {
            let original = self.limit.apply(original.of(input));
            return weighted_sum(&[(1.0 / sigma, input.sample), (-alpha / sigma, &original)]);
        }
        match prediction {
            PredictionType::FlowPrediction => original.noise(alpha, sigma).of(input),
            _ => Affine::epsilon(prediction, alpha, sigma).of(input),
        }
    }

    /// The order of a multistep update at `index`, whose output is already in the history.
    pub(super) fn multistep_order(&self, index: usize, euler_at_final: bool) -> usize {
        let (steps, settings) = (self.table.len(), &self.settings);
        let few = settings.lower_order_final && steps < 15;
        let order = settings.solver_order.min(self.outputs.len()).min(3);
        match steps - 1 - index {
            0 if few || euler_at_final => 1,
            1 if few => order.min(2),
            _ => order,
        }
    }

    /// `sample` and the newest outputs with their coefficients, and noise.
    pub(super) fn sum(
        &self,
        sample: (f64, &Tensor<4>),
        outputs: &[f64],
        noise: Option<(f64, &Tensor<4>)>,
    ) -> Tensor<4> {
        let mut terms = vec![sample];
        terms.extend(self.outputs.weighted(outputs.iter().copied()));
        terms.extend(noise);
        weighted_sum(&terms)
    }
}

/// A noise level with what the updates make of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) alpha: f64,
    pub(super) sigma: f64,
    /// Half the logarithm of the signal to noise ratio.
    pub(super) lambda: f64,
}

/// Coefficients of an exact solution for an output that is a polynomial in lambda: of the sample,
/// the output, its first two derivatives, and the noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    pub(super) h: f64,
    pub(super) sample: f64,
    pub(super) d0: f64,
    /// The first derivative's, approximated as of the middle of the step.
    pub(super) d1_midpoint: f64,
    pub(super) d1: f64,
    pub(super) d2: f64,
    pub(super) noise: f64,
}

impl Update {
    pub(super) fn new(algorithm: AlgorithmType, from: Level, to: Level) -> Self {
        let h = to.lambda - from.lambda;
        let (alpha, sigma) = (to.alpha, to.sigma);
        match algorithm {
            AlgorithmType::DpmSolverPlusPlus => {
                let e = (-h).exp_m1();
                Self {
                    h,
                    sample: sigma / from.sigma,
                    d0: -alpha * e,
                    d1_midpoint: -0.5 * alpha * e,
                    d1: alpha * (e / h + 1.0),
                    d2: -alpha * ((e + h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::DpmSolver | AlgorithmType::Deis => {
                let e = h.exp_m1();
                Self {
                    h,
                    sample: alpha / from.alpha,
                    d0: -sigma * e,
                    d1_midpoint: -0.5 * sigma * e,
                    d1: -sigma * (e / h - 1.0),
                    d2: -sigma * ((e - h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::SdeDpmSolverPlusPlus => {
                let (h2, e) = (2.0 * h, (-2.0 * h).exp_m1());
                Self {
                    h,
                    sample: sigma / from.sigma * (-h).exp(),
                    d0: -alpha * e,
                    d1_midpoint: -0.5 * alpha * e,
                    d1: alpha * (e / h2 + 1.0),
                    d2: -alpha * ((e + h2) / (h2 * h2) + 0.5),
                    noise: sigma * (-e).sqrt(),
                }
            }
            AlgorithmType::SdeDpmSolver => {
                let e = h.exp_m1();
                Self {
                    h,
                    sample: alpha / from.alpha,
                    d0: -2.0 * sigma * e,
                    d1_midpoint: -sigma * e,
                    d1: -2.0 * sigma * (e / h - 1.0),
                    // diffusers has no third order of this kind; the classes refuse it.
                    d2: 0.0,
                    noise: sigma * (2.0 * h).exp_m1().sqrt(),
                }
            }
        }
    }

    /// The first derivative's coefficient in a second order update.
    pub(super) fn d1_of(&self, solver_type: SolverType) -> f64 {
        if solver_type == SolverType::Heun { self.d1 } else { self.d1_midpoint }
    }
}

fn is_dpm_solver(class: SchedulerClass) -> bool {
    matches!(class, SchedulerClass::DpmSolverMultistep | SchedulerClass::DpmSolverSinglestep)
}

/// How noise levels are spread, with the kinds that only solvers know.
fn spread(settings: &Settings) -> Result<Spread> {
    let is_multistep = settings.class == SchedulerClass::DpmSolverMultistep;
    Ok(match Spread::of(settings)? {
        Spread::Karras => Spread::Karras,
        _ if settings.use_lu_lambdas && is_multistep => Spread::Lu,
        Spread::Timesteps if settings.use_flow_sigmas => Spread::Flow,
        other => other,
    })
}

/// The algorithm of a DPM solver; `None` is what `settings` may not ask for.
pub(super) fn dpm_algorithm(settings: &Settings, known: &[AlgorithmType]) -> Result<AlgorithmType> {
    let algorithm = match settings.algorithm_type {
        AlgorithmType::Deis => AlgorithmType::DpmSolverPlusPlus,
        other => other,
    };
    let asked = settings.algorithm_type;
    if !known.contains(&algorithm) {
        return Err(settings.refuse(format_args!("algorithm_type {asked:?}")));
    }
    // By the name asked for: diffusers refuses "deis" here, too, though it would replace it.
    let ends_at_zero = settings.final_sigmas_type == FinalSigmasType::Zero;
    if ends_at_zero && !predicts_original(asked) {
        return Err(settings.refuse(format_args!(
            "algorithm_type {asked:?} with final_sigmas_type \"zero\"; choose \"sigma_min\""
        )));
    }
    if let Some(VarianceType::Learned | VarianceType::LearnedRange) = settings.variance_type {
        return Err(settings.refuse("a learned variance_type needs a model that predicts it"));
    }
    Ok(algorithm)
}

/// Whether an algorithm integrates the denoised sample.
pub(super) fn predicts_original(algorithm: AlgorithmType) -> bool {
    matches!(algorithm, AlgorithmType::DpmSolverPlusPlus | AlgorithmType::SdeDpmSolverPlusPlus)
}

/// Whether an algorithm adds noise.
pub(super) fn is_stochastic(algorithm: AlgorithmType) -> bool {
    matches!(algorithm, AlgorithmType::SdeDpmSolver | AlgorithmType::SdeDpmSolverPlusPlus)
}
