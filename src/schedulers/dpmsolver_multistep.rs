//! DPM-Solver and DPM-Solver++ as multistep methods, for the ODE and the SDE.
//!
//! Follows `scheduling_dpmsolver_multistep.py`; "DPM-Solver" (2206.00927) and "DPM-Solver++"
//! (2211.01095).

use super::config::{AlgorithmType, FinalSigmasType, Settings};
use super::solver::{Solver, Update, dpm_algorithm, is_stochastic, predicts_original};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, table};
use crate::error::Result;

/// `DPMSolverMultistepScheduler`.
#[derive(Debug)]
pub(super) struct DpmSolverMultistep {
    solver: Solver,
    algorithm: AlgorithmType,
}

impl DpmSolverMultistep {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        let algorithm = dpm_algorithm(
            &settings,
            &[
                AlgorithmType::DpmSolver,
                AlgorithmType::DpmSolverPlusPlus,
                AlgorithmType::SdeDpmSolver,
                AlgorithmType::SdeDpmSolverPlusPlus,
            ],
        )?;
        if algorithm == AlgorithmType::SdeDpmSolver && settings.solver_order > 2 {
            return Err(settings.refuse("algorithm_type \"sde-dpmsolver\" has no third order"));
        }
        Ok(Self { solver: Solver::new(settings, predicts_original(algorithm))?, algorithm })
    }

    /// Coefficients of the newest outputs.
    fn coefficients(&self, update: &Update, index: usize, order: usize) -> Vec<f64> {
        let lambda = |back: usize| self.solver.level(index - back).lambda;
        let d0 = update.d0;
        match order {
            1 => vec![d0],
            2 => {
                let d1 = update.d1_of(self.solver.settings.solver_type);
                let slope = d1 * update.h / (lambda(0) - lambda(1));
                vec![d0 + slope, -slope]
            }
            _ => {
                let r0 = (lambda(0) - lambda(1)) / update.h;
                let r1 = (lambda(1) - lambda(2)) / update.h;
                // The derivatives in terms of the two difference quotients.
                let bend = (update.d1 * r0 + update.d2) / (r0 + r1);
                let (newer, older) = ((update.d1 + bend) / r0, -bend / r1);
                vec![d0 + newer, older - newer, -older]
            }
        }
    }
}

impl Scheduler for DpmSolverMultistep {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.solver.set_timesteps(timesteps)
    }

    fn table(&self) -> &Table {
        &self.solver.table
    }

    fn needs_noise(&self) -> bool {
        is_stochastic(self.algorithm)
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let noise = table::noise(self.needs_noise(), &input)?;
        let index = self.solver.table.advance()?;
        let output = self.solver.convert(index, &input);
        let settings = &self.solver.settings;
        let euler_at_final =
            settings.euler_at_final || settings.final_sigmas_type == FinalSigmasType::Zero;
        self.solver.outputs.push(output, settings.solver_order);
        let order = self.solver.multistep_order(index, euler_at_final);
        let (from, to) = (self.solver.level(index), self.solver.level(index + 1));
        let update = Update::new(self.algorithm, from, to);
        let outputs = self.coefficients(&update, index, order);
        let noise = noise.map(|noise| (update.noise, noise));
        let prev_sample = self.solver.sum((update.sample, input.sample), &outputs, noise);
        Ok(StepOutput { prev_sample, pred_original_sample: None })
    }
}
