//! Diffusion exponential integrator sampler: polynomials in the logarithm of the noise level.
//!
//! Follows `scheduling_deis_multistep.py`; "Fast Sampling of Diffusion Models with Exponential
//! Integrator" (2204.13902).

use super::config::{AlgorithmType, Settings};
use super::solver::{Solver, Update};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps};
use crate::error::Result;

/// `DEISMultistepScheduler`.
#[derive(Debug)]
pub(super) struct DeisMultistep {
    solver: Solver,
}

impl DeisMultistep {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        // The algorithms of the DPM solvers are replaced by DEIS, except for those of the SDE.
        let asked = settings.algorithm_type;
        if matches!(asked, AlgorithmType::SdeDpmSolver | AlgorithmType::SdeDpmSolverPlusPlus) {
            return Err(settings.refuse(format_args!("algorithm_type {asked:?}")));
        }
        Ok(Self { solver: Solver::new(settings, false)? })
    }

    /// Coefficients of the sample and of the newest outputs.
    fn coefficients(&self, index: usize, order: usize) -> (f64, Vec<f64>) {
        let (from, to) = (self.solver.level(index), self.solver.level(index + 1));
        if order == 1 {
            let update = Update::new(AlgorithmType::Deis, from, to);
            return (update.sample, vec![update.d0]);
        }
        // The logarithm of rho, which is sigma over alpha, is minus lambda.
        let logs: Vec<_> = (0..order).map(|back| -self.solver.level(index - back).lambda).collect();
        let (start, end) = (-from.lambda, -to.lambda);
        let integrals = (0..order).map(|k| {
            let others: Vec<_> = (0..order).filter(|&j| j != k).map(|j| logs[j]).collect();
            to.alpha
                * (antiderivative(end, logs[k], &others) - antiderivative(start, logs[k], &others))
        });
        (to.alpha / from.alpha, integrals.collect())
    }
}

/// The antiderivative in rho, at `exp(x)`, of the polynomial in log-rho that is one at `at` and
/// zero at `others`.
fn antiderivative(x: f64, at: f64, others: &[f64]) -> f64 {
    let norm: f64 = others.iter().map(|other| at - other).product();
    let polynomial = match others {
        [c] => x - c - 1.0,
        [c, d] => (x - c) * (x - d) - (x - c) - (x - d) + 2.0,
        _ => unreachable!("orders two and three have one and two other nodes"),
    };
    x.exp() * polynomial / norm
}

impl Scheduler for DeisMultistep {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.solver.set_timesteps(timesteps)
    }

    fn table(&self) -> &Table {
        &self.solver.table
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let index = self.solver.table.advance()?;
        let output = self.solver.convert(index, &input);
        let solver_order = self.solver.settings.solver_order;
        self.solver.outputs.push(output, solver_order);
        let order = self.solver.multistep_order(index, false);
        let (sample, outputs) = self.coefficients(index, order);
        let prev_sample = self.solver.sum((sample, input.sample), &outputs, None);
        Ok(StepOutput { prev_sample, pred_original_sample: None })
    }
}
