//! UniPC: a multistep predictor, and a corrector that needs no further model call.
//!
//! Follows `scheduling_unipc_multistep.py`; "UniPC: A Unified Predictor-Corrector Framework for
//! Fast Sampling of Diffusion Models" (2302.04867).

use burn::tensor::Tensor;

use super::config::{AlgorithmType, FinalSigmasType, Settings, SolverType};
use super::solver::{Solver, Update};
use super::{Scheduler, StepInput, StepOptions, StepOutput, Table, Timesteps};
use crate::error::Result;

/// `UniPCMultistepScheduler`.
#[derive(Debug)]
pub(super) struct UniPcMultistep {
    solver: Solver,
    /// The sample that the last prediction started from, and its order.
    last: Option<(Tensor<4>, usize)>,
}

/// An update from one noise level to the next, before the differences of outputs.
#[derive(Debug)]
struct Base {
    update: Update,
    /// The argument of the phi functions.
    hh: f64,
    /// `B(h)`.
    b_h: f64,
    /// The factor of the differences' weighted sum.
    residual: f64,
    /// Where the earlier levels lie, in units of the step from the start.
    places: Vec<f64>,
}

impl UniPcMultistep {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        if settings.solver_p.is_some() {
            return Err(settings.refuse("solver_p"));
        }
        let predict_x0 = settings.predict_x0;
        if !predict_x0 && settings.final_sigmas_type == FinalSigmasType::Zero {
            // diffusers multiplies zero by infinity.
            let message =
                "predict_x0 = false with final_sigmas_type \"zero\"; choose \"sigma_min\"";
            return Err(settings.refuse(message));
        }
        Ok(Self { solver: Solver::new(settings, predict_x0)?, last: None })
    }

    /// An update of some order from the level at an index to the next.
    fn base(&self, index: usize, order: usize) -> Base {
        let (from, to) = (self.solver.level(index), self.solver.level(index + 1));
        let settings = &self.solver.settings;
        let (algorithm, scale, sign) = match settings.predict_x0 {
            true => (AlgorithmType::DpmSolverPlusPlus, to.alpha, -1.0),
            false => (AlgorithmType::DpmSolver, to.sigma, 1.0),
        };
        let update = Update::new(algorithm, from, to);
        let hh = sign * update.h;
        let b_h = if settings.solver_type == SolverType::Bh1 { hh } else { hh.exp_m1() };
        let lambda = |back: usize| self.solver.level(index - back).lambda;
        let places = (1..order).map(|back| (lambda(back) - from.lambda) / update.h).collect();
        Base { update, hh, b_h, residual: -scale * b_h, places }
    }

    fn predict(&self, index: usize, order: usize, sample: &Tensor<4>) -> Tensor<4> {
        let base = self.base(index, order);
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => base.weights(&base.places),
        };
        let outputs = base.coefficients(&weights);
        self.solver.sum((base.update.sample, sample), &outputs, None)
    }

    /// Takes the last step again, now that the output at its end is known.
    fn correct(
        &self,
        index: usize,
        (start, order): &(Tensor<4>, usize),
        output: &Tensor<4>,
    ) -> Tensor<4> {
        let base = self.base(index - 1, *order);
        let weights = match order {
            1 => vec![0.5],
            _ => base.weights(&[&base.places[..], &[1.0]].concat()),
        };
        let (end, earlier) = weights.split_last().expect("there is one weight for the end");
        let mut outputs = base.coefficients(earlier);
        let end = base.residual * end;
        outputs[0] -= end;
        self.solver.sum((base.update.sample, start), &outputs, Some((end, output)))
    }
}

impl Base {
    /// Coefficients of the outputs, newest first, given the weights of their differences.
    fn coefficients(&self, weights: &[f64]) -> Vec<f64> {
        let slopes = weights.iter().zip(&self.places).map(|(w, place)| self.residual * w / place);
        let mut coefficients = vec![self.update.d0];
        coefficients.extend(slopes);
        coefficients[0] -= coefficients[1..].iter().sum::<f64>();
        coefficients
    }

    /// The weights that make polynomials exact up to the number of places.
    fn weights(&self, places: &[f64]) -> Vec<f64> {
        let mut phi = self.hh.exp_m1() / self.hh - 1.0;
        let mut factorial = 1.0;
        let rows = (0..places.len()).map(|power| {
            let mut row: Vec<_> = places.iter().map(|place| place.powi(power as i32)).collect();
            row.push(phi * factorial / self.b_h);
            factorial *= (power + 2) as f64;
            phi = phi / self.hh - 1.0 / factorial;
            row
        });
        solve(rows.collect())
    }
}

/// Gauss' elimination of rows whose last column is the right side.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let pivot = (column..count)
            .max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))
            .expect("there are rows left");
        rows.swap(column, pivot);
        let pivot = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(&pivot).for_each(|(value, top)| *value -= factor * top);
        }
    }
    rows.iter().enumerate().map(|(index, row)| row[count] / row[index]).collect()
}

impl Scheduler for UniPcMultistep {
    fn set_timesteps(&mut self, timesteps: &Timesteps, _: StepOptions) -> Result<()> {
        self.last = None;
        self.solver.set_timesteps(timesteps)
    }

    fn table(&self) -> &Table {
        &self.solver.table
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput> {
        let index = self.solver.table.advance()?;
        let output = self.solver.convert(index, &input);
        let settings = &self.solver.settings;
        let corrected =
            self.last.take().filter(|_| !settings.disable_corrector.contains(&(index - 1)));
        let corrected = corrected.map(|last| self.correct(index, &last, &output));
        let sample = corrected.unwrap_or_else(|| input.sample.clone());
        self.solver.outputs.push(output, settings.solver_order);

        let mut order = settings.solver_order.min(self.solver.outputs.len());
        if settings.lower_order_final {
            order = order.min(self.solver.table.len() - index);
        }
        let prev_sample = self.predict(index, order, &sample);
        self.last = Some((sample, order));
        Ok(StepOutput { prev_sample, pred_original_sample: None })
    }
}
