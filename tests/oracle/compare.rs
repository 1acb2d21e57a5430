//! Differences against tolerances.

use std::fmt::Write as _;

use burn::tensor::Tensor;
use instruct_pix2pix::pipeline::{to_host, to_nchw};

use super::Verdict;
use super::tensors::Golden;

/// Collects comparisons in the order in which things are computed, so that the first that fails is
/// where the difference starts.
#[derive(Debug, Default)]
pub struct Comparison {
    passed: Vec<(String, Figures)>,
    failed: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    peak: f64,
    rmse: f64,
    tolerance: f64,
}

/// How a difference is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Against the golden's greatest absolute value.
    Relative(f64),
    /// As it is.
    Absolute(f64),
}

impl Comparison {
    /// Compares values.
    pub fn values(&mut self, name: &str, ours: &[f32], golden: &[f32], tolerance: Tolerance) {
        if ours.len() != golden.len() {
            let message = format!("{name}: {} values, golden has {}", ours.len(), golden.len());
            self.failed.push(message);
            return;
        }
        let greatest = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(0.0f64, |max, x| if x.is_nan() { f64::NAN } else { max.max(x) })
        };
        let differences = || ours.iter().zip(golden).map(|(a, b)| f64::from(*a) - f64::from(*b));
        let (scale, tolerance) = match tolerance {
            Tolerance::Absolute(tolerance) => (1.0, tolerance),
            Tolerance::Relative(tolerance) => {
                let max = greatest(&mut golden.iter().map(|x| f64::from(x.abs())));
                (if max == 0.0 { 1.0 } else { max }, tolerance)
            }
        };
        // `max` drops NaN, so a NaN among ours has to be looked for.
        let finite = ours.iter().all(|x| x.is_finite() || golden.iter().any(|y| y == x));
        let peak =
            greatest(&mut differences().map(|d| if d.is_nan() { 0.0 } else { d.abs() })) / scale;
        let squares: f64 = differences().map(|d| d * d).sum();
        let rmse = (squares / golden.len().max(1) as f64).sqrt() / scale;
        let figures = Figures { peak, rmse, tolerance };
        if finite && peak <= tolerance {
            self.passed.push((name.to_owned(), figures));
        } else {
            self.failed
                .push(format!("{name}: {figures}{}", if finite { "" } else { ", not finite" }));
        }
    }

    /// Compares timesteps: whole ones exactly.
    pub fn timesteps(&mut self, name: &str, ours: &[f32], golden: &[f32]) {
        if golden.iter().all(|timestep| timestep.fract() == 0.0) {
            self.equal(name, &ours, &golden);
        } else {
            self.values(name, ours, golden, Tolerance::Relative(1e-6));
        }
    }

    /// Compares a tensor with a golden of the same axes.
    pub fn tensor<const D: usize>(
        &mut self,
        name: &str,
        ours: &Tensor<D>,
        golden: &Golden<f32>,
        tolerance: f64,
    ) {
        if ours.dims().to_vec() != golden.shape {
            let message = format!("{name}: shape {:?}, golden {:?}", ours.dims(), golden.shape);
            self.failed.push(message);
            return;
        }
        let ours = pollster::block_on(to_host(ours.clone())).expect("readable");
        self.values(name, &ours, &golden.values, Tolerance::Relative(tolerance));
    }

    /// Compares channels-last activations with a golden `[B, C, H, W]`.
    pub fn picture(&mut self, name: &str, ours: &Tensor<4>, golden: &Golden<f32>, tolerance: f64) {
        let [b, h, w, c] = ours.dims();
        if golden.shape != [b, c, h, w] {
            let message = format!("{name}: shape {:?}, golden {:?}", [b, c, h, w], golden.shape);
            self.failed.push(message);
            return;
        }
        let ours = pollster::block_on(to_nchw(ours.clone())).expect("readable");
        self.values(name, &ours, &golden.values, Tolerance::Relative(tolerance));
    }

    /// Whether channels-last activations match a golden `[B, C, H, W]`; records nothing.
    pub fn is_close(&self, ours: &Tensor<4>, golden: &Golden<f32>, tolerance: f64) -> bool {
        let mut trial = Self::default();
        trial.picture("", ours, golden, tolerance);
        trial.failed.is_empty()
    }

    /// Compares what has to be equal.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, ours: &T, golden: &T) {
        if ours == golden {
            let figures = Figures { peak: 0.0, rmse: 0.0, tolerance: 0.0 };
            self.passed.push((name.to_owned(), figures));
        } else {
            let mut message = format!("{name}: {ours:?}, golden {golden:?}");
            message.truncate(400);
            self.failed.push(message);
        }
    }

    /// The outcome: the comparison nearest to its tolerance, or all that failed.
    pub fn verdict(self) -> Verdict {
        if !self.failed.is_empty() {
            return Verdict::Failed(self.failed.join("; "));
        }
        let share = |figures: &Figures| figures.peak / figures.tolerance.max(f64::MIN_POSITIVE);
        let worst = self.passed.iter().max_by(|a, b| share(&a.1).total_cmp(&share(&b.1)));
        let mut text = format!("{} comparisons", self.passed.len());
        if let Some((name, figures)) = worst.filter(|(_, figures)| figures.tolerance > 0.0) {
            let _ = write!(text, ", nearest to its bound {name}: {figures}");
        }
        Verdict::Passed(text)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { peak, rmse, tolerance } = self;
        write!(f, "peak {peak:.1e} rmse {rmse:.1e} (tolerance {tolerance:.0e})")
    }
}
