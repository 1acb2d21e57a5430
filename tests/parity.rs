//! The parity runner: `cargo xtask parity DIR [--dtype float16] [--weights int8] [--gpu] [--only NAME]...`, and without arguments a test on
//! the fixtures of the repository.

mod oracle;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use oracle::Verdict;
use oracle::cases::Precision;

/// With the kernels of large GPUs, even where the CPU plays one: what it uses instead is compared in browsers.
#[cfg(feature = "tuning")]
fn on_the_gpu(run: impl FnOnce() -> Verdict) -> Verdict {
    instruct_pix2pix::kernels::as_wide(run)
}

#[cfg(not(feature = "tuning"))]
fn on_the_gpu(run: impl FnOnce() -> Verdict) -> Verdict {
    run()
}

fn main() -> ExitCode {
    let mut folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle"));
    let mut only = Vec::new();
    let mut precision = Precision::FLOAT32;
    let mut gpu = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--gpu" => gpu = true,
            "--only" => only.extend(arguments.next()),
            "--dtype" => match arguments.next().as_deref() {
                Some("float32") => precision = Precision::FLOAT32,
                Some("float16") => precision = Precision::FLOAT16,
                other => {
                    eprintln!("--dtype: {other:?} is neither float32 nor float16");
                    return ExitCode::FAILURE;
                }
            },
            "--weights" => match arguments.next().as_deref() {
                Some("int8") => precision = Precision::INT8,
                Some("int4") => precision = Precision::INT4,
                other => {
                    eprintln!("--weights: {other:?} is neither int8 nor int4");
                    return ExitCode::FAILURE;
                }
            },
            // What cargo and nextest pass to every test binary.
            flag if flag.starts_with('-') => {}
            path => folder = PathBuf::from(path),
        }
    }
    precision.gpu = gpu;
    let cases = match oracle::all(&folder, precision) {
        Ok(cases) => cases,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in cases {
        let wanted = only.is_empty() || only.iter().any(|name| case.name.starts_with(name));
        if !wanted {
            continue;
        }
        let start = Instant::now();
        let verdict = if gpu { on_the_gpu(case.run) } else { (case.run)() };
        let seconds = start.elapsed().as_secs_f32();
        match verdict {
            Verdict::Passed(figures) => {
                passed += 1;
                println!("ok   {}: {figures} [{seconds:.1} s]", case.name);
            }
            Verdict::Failed(why) => {
                failed += 1;
                println!("FAIL {}: {why} [{seconds:.1} s]", case.name);
            }
            Verdict::Unsupported(what) => {
                skipped += 1;
                println!("skip {}: unsupported: {what}", case.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 || passed + skipped == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
