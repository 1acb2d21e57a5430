//! Benchmarks: the kernels on every distinct shape of Stable Diffusion 1.5, and whole models with
//! random weights made on the device. `cargo xtask bench` runs them natively, `cargo xtask bench
//! --browser` in Chromium.
//!
//! Timed by the host's clock, around many repetitions and a wait for the device.

pub mod cases;
mod models;
mod shapes;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, Tensor};
use cubecl::launched::LaunchedKernels;
use cubecl::logging::{LaunchObservation, LaunchObserver};
pub use models::Held;
use serde::{Deserialize, Serialize};
use web_time::Instant;

use crate::device::Gpu;
use crate::error::Result;
use crate::models::WeightDtype;
use crate::pipeline::to_host;

/// Seconds of repetitions behind a figure.
const SECONDS: f64 = 0.1;
/// Rounds of which the best counts.
const ROUNDS: usize = 3;
/// Runs that tell how many make a round.
const FEW: usize = 3;

/// What to measure.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BenchOptions {
    /// In halves, where the adapter has them.
    pub half: bool,
    /// How whole models keep their weights.
    pub weights: WeightDtype,
    /// Only what has this in its name.
    pub only: Option<String>,
}

/// A figure.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Milliseconds of one run.
    pub ms: f64,
    /// 10^12 floating-point operations a second, where they were counted.
    pub tflops: Option<f64>,
    /// Runs in a step of the UNet at batch 3; none for anything else.
    pub count: usize,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The adapter's name.
    pub adapter: String,
    /// `float32` or `float16`.
    pub dtype: &'static str,
    /// The figures.
    pub rows: Vec<Row>,
    /// Counts and bytes by their names.
    pub counts: Vec<(String, u64)>,
}

/// Where benchmarks run, and what they found.
struct Bench<'a> {
    device: Device,
    dtype: DType,
    weights: WeightDtype,
    only: Option<String>,
    report: Report,
    on_line: &'a mut dyn FnMut(&str),
}

/// Runs the benchmarks, and calls `on_line` with each line of the table.
///
/// # Errors
/// [`Error::Gpu`](crate::Error::Gpu) when the device fails.
pub async fn run(
    gpu: &Gpu,
    options: &BenchOptions,
    on_line: &mut dyn FnMut(&str),
) -> Result<Report> {
    let half = options.half && gpu.f16;
    let dtype = if half { DType::F16 } else { DType::F32 };
    let name = if half { "float16" } else { "float32" };
    on_line(&format!("{}, {name}", gpu.name));
    let mut bench = Bench {
        device: gpu.device.clone(),
        dtype,
        weights: options.weights,
        only: options.only.clone(),
        report: Report {
            adapter: gpu.name.clone(),
            dtype: name,
            rows: Vec::new(),
            counts: Vec::new(),
        },
        on_line,
    };
    for case in shapes::all() {
        if bench.wants(&case.name()) {
            case.measure(&mut bench).await?;
        }
    }
    let rows = &bench.report.rows;
    let step: f64 = rows.iter().map(|row| row.ms * row.count as f64).sum();
    if step > 0.0 {
        bench.line(&format!("all kernels of a step at batch 3: {step:.1} ms"));
    }
    models::all(&mut bench).await?;
    Ok(bench.report)
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn line(&mut self, line: &str) {
        (self.on_line)(line);
    }

    /// Waits until the device has done everything so far.
    async fn wait(&self) -> Result<()> {
        to_host(Tensor::<1>::zeros([1], (&self.device, DType::F32))).await.map(drop)
    }

    /// Milliseconds of one run, at best of some rounds.
    async fn time<T>(&self, mut run: impl FnMut() -> T) -> Result<f64> {
        // Pipelines are made in the first.
        self.seconds(&mut run, 1).await?;
        // A wait by itself takes as long as many a kernel.
        let mut wait = f64::INFINITY;
        for _ in 0..ROUNDS {
            wait = wait.min(self.seconds(&mut run, 0).await?);
        }
        let few = self.seconds(&mut run, FEW).await? - wait;
        let count = ((SECONDS * FEW as f64 / few.max(1e-6)) as usize).clamp(1, 500);
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            best = best.min(self.seconds(&mut run, count).await? - wait);
        }
        Ok(best.max(0.0) / count as f64 * 1e3)
    }

    /// Seconds of `count` runs and a wait.
    async fn seconds<T>(&self, run: &mut impl FnMut() -> T, count: usize) -> Result<f64> {
        self.wait().await?;
        let start = Instant::now();
        for _ in 0..count {
            run();
        }
        self.wait().await?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn row(&mut self, name: impl Into<String>, ms: f64, operations: f64, count: usize) {
        let name = name.into();
        let tflops = (operations > 0.0).then(|| operations / ms / 1e9);
        let mut line = format!("{name:46} {ms:9.3} ms");
        if let Some(tflops) = tflops {
            line += &format!(" {tflops:6.1} TFLOP/s");
        }
        if count > 0 {
            line += &format!("   x{count:<3} {:7.2} ms", ms * count as f64);
        }
        self.line(&line);
        self.report.rows.push(Row { name, ms, tflops, count });
    }

    fn count(&mut self, name: impl Into<String>, value: u64) {
        let name = name.into();
        self.line(&format!("{name:46} {value:9}"));
        self.report.counts.push((name, value));
    }
}

/// What `work` launches, or under a dry run would: a name for each kernel.
pub fn launched<T>(work: impl FnOnce() -> T) -> (HashSet<String>, T) {
    let kernels = LaunchedKernels::new();
    let result = work();
    let kernels = kernels.finish().into_iter().map(|hash| format!("{hash:?}")).collect();
    (kernels, result)
}

/// How many kernels `work` launches.
pub fn launches<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let launches = Launches::watch();
    let result = work();
    (launches.count(), result)
}

/// Counts what is launched for as long as it lives.
struct Launches {
    counter: Arc<Counter>,
    _observation: LaunchObservation,
}

#[derive(Default)]
struct Counter(AtomicUsize);

impl LaunchObserver for Counter {
    fn launched(&self, _kernel: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Launches {
    fn watch() -> Self {
        let counter = Arc::new(Counter::default());
        Self { _observation: LaunchObservation::new(counter.clone()), counter }
    }

    fn count(&self) -> u64 {
        self.counter.0.load(Ordering::Relaxed) as u64
    }
}
