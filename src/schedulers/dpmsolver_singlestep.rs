//! DPM-Solver and DPM-Solver++ as singlestep methods: every few steps start afresh.
//!
//! Follows `scheduling_dpmsolver_singlestep.py`; "DPM-Solver" (2206.00927) and "DPM-Solver++"
//! (2211.01095).

use burn::tensor::Tensor;

use super::config::{AlgorithmType, FinalSigmasType, Settings, SolverType};
use super::solver::{Solver, Update, dpm_algorithm, is_stochastic, predicts_original};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps, table};
use crate::error::Result;

/// `DPMSolverSinglestepScheduler`.
#[derive(Debug)]
pub(super) struct DpmSolverSinglestep {
    solver: Solver,
    algorithm: AlgorithmType,
    /// The order of every step.
    orders: Vec<usize>,
    /// The sample of the last step of order one.
    start: Option<Tensor<4>>,
}

impl DpmSolverSinglestep {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        let algorithm = dpm_algorithm(
            &settings,
            &[
                AlgorithmType::DpmSolver,
                AlgorithmType::DpmSolverPlusPlus,
                AlgorithmType::SdeDpmSolverPlusPlus,
            ],
        )?;
        if settings.solver_order > 3 {
            return Err(settings.refuse("solver_order is above 3"));
        }
        let solver = Solver::new(settings, predicts_original(algorithm))?;
        Ok(Self { solver, algorithm, orders: Vec::new(), start: None })
    }

    /// The orders 1, 2, .. of every group of steps, and lower ones where the last group is cut.
    fn orders(&mut self, steps: usize) -> Vec<usize> {
        let settings = &mut self.solver.settings;
        let order = settings.solver_order;
        let ends_at_zero = settings.final_sigmas_type == FinalSigmasType::Zero;
        let is_full = steps.is_multiple_of(order);
        // For good, as in diffusers: a later number of steps finds it changed.
        settings.lower_order_final |= !is_full || ends_at_zero;
        let mut orders: Vec<_> = (0..steps).map(|i| i % order + 1).collect();
        if settings.lower_order_final && is_full {
            // The last full group loses its highest order.
            orders[steps - 1] = 1;
        }
        if ends_at_zero {
            orders[steps - 1] = 1;
        }
        orders
    }

    /// Coefficients of the newest outputs. The update starts `order - 1` levels before `index`.
    fn coefficients(&self, update: &Update, index: usize, order: usize) -> Vec<f64> {
        let start = self.solver.level(index + 1 - order).lambda;
        let place = |back: usize| (self.solver.level(index - back).lambda - start) / update.h;
        let (d0, solver_type) = (update.d0, self.solver.settings.solver_type);
        match order {
            1 => vec![d0],
            2 => {
                let slope = update.d1_of(solver_type) / place(0);
                vec![slope, d0 - slope]
            }
            _ => {
                let (r0, r1) = (place(0), place(1));
                let (far, near) = if solver_type == SolverType::Heun {
                    let twice = 2.0 * update.d2;
                    let gap = r0 - r1;
                    ((twice - update.d1 * r1) / gap / r0, (update.d1 * r0 - twice) / gap / r1)
                } else {
                    (update.d1 / r0, 0.0)
                };
                vec![far, near, d0 - far - near]
            }
        }
    }
}

impl Scheduler for DpmSolverSinglestep {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.solver.set_timesteps(timesteps)?;
        self.orders = self.orders(self.solver.table.len());
        self.start = None;
        Ok(())
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
        let solver_order = self.solver.settings.solver_order;
        self.solver.outputs.push(output, solver_order);
        let order = self.orders[index].min(self.solver.outputs.len());
        if order == 1 {
            self.start = Some(input.sample.clone());
        }
        let start = self.start.as_ref().unwrap_or(input.sample);
        let (from, to) = (self.solver.level(index + 1 - order), self.solver.level(index + 1));
        let update = Update::new(self.algorithm, from, to);
        let outputs = self.coefficients(&update, index, order);
        let noise = noise.map(|noise| (update.noise, noise));
        let prev_sample = self.solver.sum((update.sample, start), &outputs, noise);
        Ok(StepOutput { prev_sample, pred_original_sample: None })
    }
}
