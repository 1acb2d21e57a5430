//! `cargo xtask test`: the stages that must all pass.
//!
//! With `--full` it takes more than an hour; what has passed in a clean checkout is written down in [`Record`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::args::Args;
use crate::browser::{self, Browser};
use crate::process::{self, Result};
use crate::record::{Reads, Record};
use crate::{files, hub_client, package, parity, vulkan};

/// One row of the gate.
struct Stage {
    name: String,
    /// Stages without whose success this one has nothing to say.
    needs: &'static [&'static str],
    when: When,
    reads: Reads,
    run: Box<dyn Fn() -> Result>,
}

impl Stage {
    fn reads(self, reads: Reads) -> Self {
        Self { reads, ..self }
    }
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

fn stage(
    name: impl Into<String>,
    needs: &'static [&'static str],
    when: When,
    run: impl Fn() -> Result + 'static,
) -> Stage {
    Stage { name: name.into(), needs, when, reads: Reads::Sources, run: Box::new(run) }
}

fn stages() -> Result<Vec<Stage>> {
    let mut stages = vec![
        stage("format", &[], Full, format),
        stage("clippy", &[], Full, clippy),
        stage("documentation", &[], Full, documentation),
        stage("Vulkan set-up", &[], Always, vulkan::set_up),
        stage("native tests", VULKAN, Always, native_tests),
        stage("parity in float16", VULKAN, Full, half_parity),
        stage("parity in integers", VULKAN, Full, integer_parity),
        stage("hostile input, whole", &[], Full, hostile_input),
        stage("integers on 20 edits", &[], Full, built_in),
        stage("Hub's own client", &[], Always, hub_client::run),
        stage("package", &[], Always, || package::build(false)),
        stage("browser set-up", &[], Always, browser_set_up),
        stage("kernels in the browser", SET_UP, Always, browser_kernels),
        stage("browser tests", BROWSER, Short, || {
            let mut files = test_files()?;
            files.retain(|name| !LONG.iter().any(|long| name == Path::new(long)));
            browser_tests(&files, false)
        }),
        stage("browser parity", BROWSER, Short, some_browser_parity),
    ];
    // A stage for each, so that not all is lost with one.
    for file in test_files()? {
        let name = format!("browser: {}", file.display());
        let reads = match READING.iter().any(|reading| file == Path::new(reading)) {
            true => Reads::All,
            false => Reads::Browser(Some(file.clone())),
        };
        let run = move || browser_tests(std::slice::from_ref(&file), true);
        stages.push(stage(name, BROWSER, Full, run).reads(reads));
    }
    for group in parity_groups(&oracle())? {
        let name = format!("browser parity: {}", group.join(" "));
        let run = move || process::run(&mut parity::browser(&oracle(), &group)?);
        stages.push(stage(name, BROWSER, Full, run).reads(Reads::Browser(None)));
    }
    Ok(stages)
}

/// What tells tests that they may take their time.
pub const FULL_VARIABLE: &str = "FULL";

const VULKAN: &[&str] = &["Vulkan set-up"];
const BROWSER: &[&str] = &["package", "browser set-up"];
const SET_UP: &[&str] = &["browser set-up"];

/// Browser tests that `--full` alone runs, so that the gate stays under an hour where nothing is built yet.
const LONG: &[&str] = &[
    "diffusers.test.mjs",
    "examples.test.mjs",
    "habits.test.mjs",
    "integers.test.mjs",
    "node.test.mjs",
    "readme.test.mjs",
];

/// Browser tests that look into the others, or at the front page.
const READING: &[&str] = &["package.test.mjs", "readme.test.mjs", "types.test.mjs"];

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
    let mut record = if full { Record::of_this_checkout()? } else { Record::default() };
    let rows = run_stages(&stages()?, full, &mut record);
    println!("\n== summary");
    for (name, outcome, seconds) in &rows {
        let outcome = format!("{outcome:?}").to_lowercase();
        println!("{outcome:<8} {seconds:>7.1} s  {name}");
    }
    let count = |wanted| rows.iter().filter(|(_, outcome, _)| *outcome == wanted).count();
    println!("{} passed, {} failed, {} skipped", count(Passed), count(Failed), count(Skipped));
    let minutes = rows.iter().map(|row| row.2).sum::<f64>() / 60.0;
    println!("{minutes:.0} minutes in all {}", record.commit());
    Ok(u8::from(count(Failed) > 0))
}

/// Runs what can be run, whatever else fails: name, outcome and seconds of each.
fn run_stages(stages: &[Stage], full: bool, record: &mut Record) -> Vec<(String, Outcome, f64)> {
    let leave_out = if full { Short } else { Full };
    let mut rows: Vec<(String, Outcome, f64)> = Vec::new();
    for stage in stages.iter().filter(|stage| stage.when != leave_out) {
        println!("\n== {}", stage.name);
        // What others need is made again: it is not in the record but in folders.
        let before = record.find(&stage.name, &stage.reads).filter(|_| stage.when == Full);
        if let Some((commit, seconds)) = before {
            println!("-- {}: passed in {seconds:.1} s, of the same files in {commit}", stage.name);
            rows.push((stage.name.clone(), Passed, seconds));
            continue;
        }
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
        if outcome == Passed {
            record.add(&stage.name, &stage.reads, seconds);
        }
        rows.push((stage.name.clone(), outcome, seconds));
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
    whole("hostile")
}

/// Ten times the edits that the native tests compare with those of weights in integers.
fn built_in() -> Result {
    whole("built_in")
}

/// A native test that takes its time.
fn whole(test: &str) -> Result {
    let mut cargo = process::cargo();
    cargo.args(["test", "--workspace", "--features", process::FEATURES, "--test", test]);
    process::run(cargo.env(FULL_VARIABLE, "1"))
}

fn browser_set_up() -> Result {
    println!("Chromium: {}", Browser::set_up()?.chrome().display());
    Ok(())
}

/// The names of the browser tests.
fn test_files() -> Result<Vec<PathBuf>> {
    let folder = browser::folder();
    let mut names = files::names(&folder)?;
    // Dot-files are somebody's scratch.
    names.retain(|name| {
        name.to_str().is_some_and(|name| name.ends_with(".test.mjs") && !name.starts_with('.'))
    });
    match names.is_empty() {
        true => Err(format!("there is no *.test.mjs in {}", folder.display()).into()),
        false => Ok(names),
    }
}

fn browser_tests(names: &[PathBuf], full: bool) -> Result {
    let mut node = Browser::set_up()?.node()?;
    if full {
        node.env(FULL_VARIABLE, "1");
    }
    // One after the other: software rendering takes every core that there is.
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]);
    process::run(node.args(names.iter().map(|name| browser::folder().join(name))))
}

/// Cases that are compared in the browser in one go.
const GROUP: usize = 16;

/// Beginnings of the names of a folder's cases, which between them are all, in groups of about so many.
fn parity_groups(folder: &Path) -> Result<Vec<Vec<String>>> {
    let json = files::read(&folder.join("cases.json"))?;
    // As Python writes it.
    let json =
        String::from_utf8_lossy(&json).replace("-Infinity", "null").replace("Infinity", "null");
    let cases: Value = serde_json::from_str(&json.replace("NaN", "null"))?;
    let cases = cases["cases"].as_array().ok_or("cases.json has no list `cases`")?;
    let names = cases.iter().filter_map(|case| case["name"].as_str());
    Ok(grouped(&names.collect::<Vec<_>>()))
}

fn grouped(names: &[&str]) -> Vec<Vec<String>> {
    let beginning = |name: &str| name.chars().take(4).collect::<String>();
    let beginnings: BTreeSet<String> = names.iter().map(|name| beginning(name)).collect();
    let mut groups: Vec<(usize, Vec<String>)> = Vec::new();
    for each in beginnings {
        let count = names.iter().filter(|name| beginning(name) == each).count();
        match groups.last_mut() {
            Some((size, group)) if *size + count <= GROUP => {
                *size += count;
                group.push(each);
            }
            _ => groups.push((count, vec![each])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
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
    native_parity(&["--dtype", "float16"])
}

/// Weights of 8 bits and of 4.
fn integer_parity() -> Result {
    ["int8", "int4"].into_iter().try_for_each(|weights| native_parity(&["--weights", weights]))
}

fn native_parity(precision: &[&str]) -> Result {
    let edits = ["sd_", "xl_"].map(str::to_owned);
    [&[][..], &["--gpu"]].into_iter().try_for_each(|gpu| {
        let options: Vec<_> = precision.iter().chain(gpu).map(|x| (*x).to_owned()).collect();
        process::run(&mut parity::native(&oracle(), &options, &edits))
    })
}

fn some_browser_parity() -> Result {
    let only = ["sd_default_euler_a", "sd_ddim"].map(str::to_owned);
    process::run(&mut parity::browser(&oracle(), &only)?)
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

/// The crate's pages, without a warning.
pub fn documentation() -> Result {
    let mut cargo = process::cargo();
    process::run(
        cargo
            .args(["doc", "--workspace", "--no-deps", "--features", process::FEATURES])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        Always, Failed, Full, LONG, Passed, READING, Record, Short, Skipped, Stage, grouped,
        run_stages, stage, stages, test_files,
    };
    use crate::process::Result;

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
        let rows = run_stages(&stages, false, &mut Record::default());
        let outcomes = rows.iter().map(|row| row.1).collect::<Vec<_>>();
        assert_eq!(outcomes, [Failed, Skipped, Skipped, Passed, Passed]);
    }

    #[test]
    fn each_gate_has_its_stages() {
        let stages = [
            stage("always", &[], Always, passes),
            stage("short", &[], Short, passes),
            stage("full", &[], Full, passes),
        ];
        let names = |full| {
            let rows = run_stages(&stages, full, &mut Record::default());
            rows.into_iter().map(|row| row.0).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["always", "short"]);
        assert_eq!(names(true), ["always", "full"]);
    }

    #[test]
    fn what_has_passed_is_not_run_again() {
        let folder = std::env::temp_dir().join(format!("xtask-gate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let record = |files: &str| {
            let head = Box::new(|| Some("abc".to_owned()));
            Record::open(&folder.join("passed.json"), "abc", files.into(), head)
        };
        let first = [stage("long", &[], Full, passes), stage("broken", &[], Full, fails)];
        run_stages(&first, true, &mut record("some"));
        // They would turn out otherwise now.
        let second = [stage("long", &[], Full, fails), stage("broken", &[], Full, passes)];
        let outcomes = |files| {
            let rows = run_stages(&second, true, &mut record(files));
            rows.iter().map(|row| row.1).collect::<Vec<_>>()
        };
        assert_eq!(outcomes("some"), [Passed, Passed]);
        assert_eq!(outcomes("others"), [Failed, Passed]);
        std::fs::remove_dir_all(&folder).expect("it was made");
    }

    /// A misspelt need would never be missed.
    #[test]
    fn needs_are_earlier_stages_of_every_gate() {
        let stages = stages().expect("there are some");
        for (index, stage) in stages.iter().enumerate() {
            for need in stage.needs {
                let named = |earlier: &Stage| earlier.name == *need && earlier.when == Always;
                assert!(stages[..index].iter().any(named), "{} needs {need}", stage.name);
            }
        }
    }

    #[test]
    fn what_is_long_is_there() {
        let files = test_files().expect("there are some");
        let mut named = LONG.iter().chain(READING);
        assert!(named.all(|named| files.iter().any(|file| file == Path::new(named))));
    }

    #[test]
    fn groups_of_cases_are_all_of_them() {
        let names: Vec<String> = (0..40)
            .map(|i| format!("{}_{}x", ["sd", "xl"][i % 2], (b'a' + (i / 4) as u8) as char))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let groups = grouped(&names);
        assert!(groups.len() >= 3, "{groups:?}");
        for name in names {
            let of = groups
                .iter()
                .filter(|group| group.iter().any(|each| name.starts_with(each.as_str())));
            assert_eq!(of.count(), 1, "{name}");
        }
    }
}
