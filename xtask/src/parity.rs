//! `cargo xtask parity`: the reference cases of a folder, natively or in headless Chromium.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;
use crate::browser::Browser;
use crate::package;
use crate::process::{self, Result};

/// `cargo xtask parity DIR [--dtype float16] [--weights TYPE] [--gpu] [--browser [--no-build]] [--only NAME]...`.
pub fn run(mut args: Args) -> Result<u8> {
    let only = args.values("--only")?;
    let mut precision = Vec::new();
    for name in ["--dtype", "--weights"] {
        precision.extend(args.values(name)?.into_iter().flat_map(|value| [name.to_owned(), value]));
    }
    let in_browser = args.flag("--browser");
    let build = !args.flag("--no-build");
    if args.flag("--gpu") {
        precision.push("--gpu".to_owned());
    }
    let folder = PathBuf::from(args.one("folder of cases")?);
    let folder = folder
        .canonicalize()
        .map_err(|error| format!("there is no folder {}: {error}", folder.display()))?;
    if !in_browser {
        return process::exit_code(&mut native(&folder, &precision, &only));
    }
    if !precision.is_empty() {
        let message =
            "--gpu, --dtype, --weights: in a browser, parity is measured in float32 on its GPU";
        return Err(message.into());
    }
    if build {
        package::build(false)?;
    }
    process::exit_code(&mut browser(&folder, &only)?)
}

/// The test binary does the comparing, so that it is built as the tests are; on the CPU, or with the
/// project's kernels on the GPU.
pub fn native(folder: &Path, precision: &[String], only: &[String]) -> Command {
    let mut cargo = process::cargo();
    // As the gate builds, so that its dependencies serve.
    cargo.args(["test", "--quiet", "--workspace", "--features", process::FEATURES]);
    cargo.args(["--test", "parity", "--"]);
    cargo.args(precision);
    with_cases(&mut cargo, folder, only);
    cargo
}

/// The comparison through the package that is in `pkg/`.
pub fn browser(folder: &Path, only: &[String]) -> Result<Command> {
    let mut node = Browser::set_up()?.node()?;
    node.arg("tests/browser/parity.mjs");
    with_cases(&mut node, folder, only);
    Ok(node)
}

fn with_cases(command: &mut Command, folder: &Path, only: &[String]) {
    command.arg(folder);
    for name in only {
        command.args(["--only", name]);
    }
}
