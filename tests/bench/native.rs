//! `cargo xtask bench`: the benchmarks of `src/bench`, natively, as a table and, with `--json FILE`,
//! as JSON. `--f16` computes in halves; `--weights int8` (or int4, float32) keeps weights so; `--only TEXT` measures only what has TEXT in its name.
//! `--in-turn` measures edits of SDXL whose models take turns, and nothing else.

mod turns;

use burn::tensor::DType;
use instruct_pix2pix::bench::{BenchOptions, run};
use instruct_pix2pix::device::Gpu;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).cloned()
    };
    let half = arguments.iter().any(|argument| argument == "--f16");
    let gpu = pollster::block_on(Gpu::request()).expect("a GPU");
    assert!(!half || gpu.f16, "the adapter has no shader-f16");
    let weights = after("--weights").map_or_else(Default::default, |name| {
        serde_json::from_value(name.into()).expect("float16, float32, int8 or int4")
    });
    if arguments.iter().any(|argument| argument == "--in-turn") {
        turns::run(&gpu, if half { DType::F16 } else { DType::F32 }, weights);
        return;
    }
    let options = BenchOptions { half, weights, only: after("--only") };
    let report = pollster::block_on(run(&gpu, &options, &mut |line| println!("{line}")));
    let report = report.expect("the device computes");
    if let Some(file) = after("--json") {
        let json = serde_json::to_string_pretty(&report).expect("plain values");
        std::fs::write(&file, json).expect("the file can be written");
    }
}
