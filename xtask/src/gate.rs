//! `cargo xtask test`: the stages that must all pass.

use std::path::PathBuf;
use std::time::Instant;

use crate::args::Args;
use crate::browser::{self, Browser};
use crate::process::{self, Result};
use crate::{files, hub_client, package, parity, vulkan};

/// One row of the gate.
struct Stage {
    name: &'static str,
    /// Stages without whose success this one has nothing to say.
    needs: &'static [&'static str],
    when: When,
    run: fn() -> Result,
}

/// Which gate a stage belongs to.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// Left to a longer stage in `--full`.
    Short,
    Full,
}

use When::{Always, Full, Short};

const STAGES: &[Stage] = &[
    Stage { name: "format", needs: &[], when: Full, run: format },
    Stage { name: "clippy", needs: &[], when: Full, run: clippy },
    Stage { name: "documentation", needs: &[], when: Full, run: documentation },
    Stage { name: "Vulkan set-up", needs: &[], when: Always, run: vulkan::set_up },
    Stage { name: "native tests", needs: &["Vulkan set-up"], when: Always, run: native_tests },
    Stage { name: "parity in float16", needs: &["Vulkan set-up"], when: Full, run: half_parity },
    Stage { name: "hostile input, whole", needs: &[], when: Full, run: hostile_input },
    Stage { name: "Hub's own client", needs: &[], when: Always, run: hub_client::run },
    Stage { name: "package", needs: &[], when: Always, run: || package::build(false) },
    Stage { name: "browser set-up", needs: &[], when: Always, run: browser_set_up },
    Stage { name: "kernels in the browser", needs: SET_UP, when: Always, run: browser_kernels },
    Stage { name: "browser tests", needs: BROWSER, when: Short, run: || browser_tests(false) },
    Stage { name: "browser tests, whole", needs: BROWSER, when: Full, run: || browser_tests(true) },
    Stage { name: "browser parity", needs: BROWSER, when: Short, run: some_browser_parity },
    Stage { name: "browser parity, whole", needs: BROWSER, when: Full, run: browser_parity },
];

/// What tells tests that they may take their time.
const FULL_VARIABLE: &str = "FULL";

const BROWSER: &[&str] = &["package", "browser set-up"];
const SET_UP: &[&str] = &["browser set-up"];

/// What became of a stage.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

use Outcome::{Failed, Passed, Skipped};

/// `cargo xtask test [--full]`.
pub fn run(mut args: Args) -> Result<u8> {
    let full = args.flag("--full");
    args.none()?;
    let rows = run_stages(STAGES, full);
    println!("\n== summary");
    for (name, outcome, seconds) in &rows {
        let outcome = format!("{outcome:?}").to_lowercase();
        println!("{outcome:<8} {seconds:>7.1} s  {name}");
    }
    let count = |wanted| rows.iter().filter(|(_, outcome, _)| *outcome == wanted).count();
    println!("{} passed, {} failed, {} skipped", count(Passed), count(Failed), count(Skipped));
    Ok(u8::from(count(Failed) > 0))
}

/// Runs what can be run, whatever else fails: name, outcome and seconds of each.
fn run_stages(stages: &[Stage], full: bool) -> Vec<(&'static str, Outcome, f64)> {
    let leave_out = if full { Short } else { Full };
    let mut rows: Vec<(&str, Outcome, f64)> = Vec::new();
    for stage in stages.iter().filter(|stage| stage.when != leave_out) {
        println!("\n== {}", stage.name);
        let failed = |need: &&&str| rows.iter().any(|row| row.0 == **need && row.1 != Passed);
        let start = Instant::now();
        let outcome = if let Some(need) = stage.needs.iter().find(failed) {
            println!("skipped: {need} did not pass");
            Skipped
        } else if let Err(error) = (stage.run)() {
            eprintln!("error: {error}");
            Failed
        } else {
            Passed
        };
        let seconds = start.elapsed().as_secs_f64();
        println!("-- {}: {} in {seconds:.1} s", stage.name, format!("{outcome:?}").to_lowercase());
        rows.push((stage.name, outcome, seconds));
    }
    rows
}

fn native_tests() -> Result {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast", "--features", process::FEATURES]);
    process::run(&mut cargo)
}

/// A million inputs for each parser, in place of the ten thousand among the native tests.
fn hostile_input() -> Result {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--features", process::FEATURES, "--test", "hostile"]);
    process::run(cargo.env(FULL_VARIABLE, "1"))
}

fn browser_set_up() -> Result {
    println!("Chromium: {}", Browser::set_up()?.chrome().display());
    Ok(())
}

fn browser_tests(full: bool) -> Result {
    let folder = browser::folder();
    let mut names = files::names(&folder)?;
    // Dot-files are somebody's scratch.
    names.retain(|name| {
        name.to_str().is_some_and(|name| name.ends_with(".test.mjs") && !name.starts_with('.'))
    });
    if names.is_empty() {
        return Err(format!("there is no *.test.mjs in {}", folder.display()).into());
    }
    let mut node = Browser::set_up()?.node()?;
    if full {
        node.env(FULL_VARIABLE, "1");
    }
    // One after the other: software rendering takes every core that there is.
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]);
    process::run(node.args(names.iter().map(|name| folder.join(name))))
}

fn browser_kernels() -> Result {
    let package = package::build_benchmarks()?;
    process::run(Browser::set_up()?.node_with(&package)?.arg("tests/browser/kernels.mjs"))
}

fn oracle() -> PathBuf {
    process::root().join("tests").join("fixtures").join("oracle")
}

/// On the CPU, and with the kernels of the project's own, which in float32 the browser proves.
fn half_parity() -> Result {
    [false, true].into_iter().try_for_each(|gpu| {
        let only = ["sd_".to_owned(), "xl_".to_owned()];
        process::run(&mut parity::native(&oracle(), &["float16".to_owned()], gpu, &only))
    })
}

fn some_browser_parity() -> Result {
    let only = ["sd_default_euler_a", "sd_ddim"].map(str::to_owned);
    process::run(&mut parity::browser(&oracle(), &only)?)
}

fn browser_parity() -> Result {
    process::run(&mut parity::browser(&oracle(), &[])?)
}

fn clippy() -> Result {
    let mut cargo = process::cargo();
    process::run(cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        process::FEATURES,
        "--",
        "-D",
        "warnings",
    ]))
}

fn format() -> Result {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn documentation() -> Result {
    let mut cargo = process::cargo();
    process::run(
        cargo
            .args(["doc", "--workspace", "--no-deps", "--features", process::FEATURES])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

#[cfg(test)]
mod tests {
    use super::{Always, Failed, Full, Passed, STAGES, Short, Skipped, Stage, When, run_stages};
    use crate::process::Result;

    const fn stage(
        name: &'static str,
        needs: &'static [&'static str],
        when: When,
        run: fn() -> Result,
    ) -> Stage {
        Stage { name, needs, when, run }
    }

    const fn passes() -> Result {
        Ok(())
    }

    fn fails() -> Result {
        Err("as it should".into())
    }

    #[test]
    fn a_failure_stops_only_what_needs_it() {
        let stages = [
            stage("first", &[], Always, fails),
            stage("needs first", &["first"], Always, passes),
            stage("needs the second", &["needs first"], Always, passes),
            stage("other", &[], Always, passes),
            stage("needs other", &["other"], Always, passes),
        ];
        let outcomes = run_stages(&stages, false).iter().map(|row| row.1).collect::<Vec<_>>();
        assert_eq!(outcomes, [Failed, Skipped, Skipped, Passed, Passed]);
    }

    #[test]
    fn each_gate_has_its_stages() {
        let stages = [
            stage("always", &[], Always, passes),
            stage("short", &[], Short, passes),
            stage("full", &[], Full, passes),
        ];
        let names = |full| run_stages(&stages, full).iter().map(|row| row.0).collect::<Vec<_>>();
        assert_eq!(names(false), ["always", "short"]);
        assert_eq!(names(true), ["always", "full"]);
    }

    /// A misspelt need would never be missed.
    #[test]
    fn needs_are_earlier_stages_of_every_gate() {
        for (index, stage) in STAGES.iter().enumerate() {
            for need in stage.needs {
                let named = |earlier: &Stage| earlier.name == *need && earlier.when == Always;
                assert!(STAGES[..index].iter().any(named), "{} needs {need}", stage.name);
            }
        }
    }
}
