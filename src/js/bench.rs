//! Benchmarks and kernel tests in a browser; only in builds with the feature `tuning`.

use burn::tensor::DType;
use js_sys::{Array, Float32Array, Function};
use wasm_bindgen::prelude::*;

use super::convert;
use super::error::JsResult;
use super::gpu::request_gpu;
use crate::bench::cases::{self, Case, Side};
use crate::bench::{BenchOptions, run};
use crate::device::Gpu;
use crate::kernels::{Pretended, pretend};
use crate::pipeline::to_host;

/// Runs the benchmarks, calling `on_line` with each line of the table; the report as JSON.
#[wasm_bindgen]
pub async fn bench(options: JsValue, on_line: Function) -> JsResult<String> {
    let options: BenchOptions = convert::parse(options, "options")?;
    let gpu = request_gpu().await?;
    let mut show = |line: &str| {
        // What the page makes of a line is its own affair.
        let _ = on_line.call1(&JsValue::UNDEFINED, &line.into());
    };
    let report = run(&gpu, &options, &mut show).await?;
    Ok(serde_json::to_string(&report).expect("plain values"))
}

/// The kernels' small runs, on one device.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Kernels {
    gpu: Gpu,
    cases: Vec<Case>,
}

#[wasm_bindgen]
impl Kernels {
    /// Asks for a device.
    pub async fn request() -> JsResult<Kernels> {
        Ok(Self { gpu: request_gpu().await?, cases: cases::all() })
    }

    /// Whether there are halves.
    #[wasm_bindgen(getter)]
    pub fn half(&self) -> bool {
        self.gpu.f16
    }

    /// The names of the runs.
    #[wasm_bindgen(getter)]
    pub fn names(&self) -> Array {
        self.cases.iter().map(|case| JsValue::from_str(&case.name)).collect()
    }

    /// The numbers of a run, computed in halves or not, with weights in pairs of halves; with the kernels for a large GPU
    /// if `wide`, and those for one without subgroups if not `subgroups`.
    pub async fn run(
        &self,
        index: usize,
        half: bool,
        wide: bool,
        subgroups: bool,
    ) -> JsResult<Float32Array> {
        let dtype = if half { DType::F16 } else { DType::F32 };
        let side = Side::new(self.gpu.device.clone(), dtype, true);
        let device = Pretended { wide, no_subgroups: !subgroups, ..Pretended::default() };
        let values = to_host(pretend(device, || self.cases[index].run(side))).await?;
        Ok(Float32Array::from(values.as_slice()))
    }
}
