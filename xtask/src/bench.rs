//! `cargo xtask bench`: the benchmarks, natively or in Chromium.

use crate::args::Args;
use crate::browser::Browser;
use crate::package;
use crate::process::{self, Result};

/// `cargo xtask bench [--browser [--software]] [--f16] [--weights TYPE] [--only NAME] [--json FILE]
/// [--in-turn]`.
pub fn run(mut args: Args) -> Result<u8> {
    let in_browser = args.flag("--browser");
    let mut options = Vec::new();
    for flag in ["--f16", "--software", "--in-turn"] {
        if args.flag(flag) {
            options.push(flag.to_owned());
        }
    }
    for name in ["--weights", "--only", "--json"] {
        if let Some(value) = args.values(name)?.pop() {
            options.extend([name.to_owned(), value]);
        }
    }
    args.none()?;
    let mut command = if in_browser {
        let package = package::build_benchmarks()?;
        let mut node = Browser::set_up()?.node_with(&package)?;
        node.arg("tests/browser/bench.mjs");
        node
    } else {
        // As the gate builds, so that its dependencies serve.
        let mut cargo = process::cargo();
        cargo.args(["build", "--workspace", "--features", process::FEATURES]);
        process::run(cargo.args(["--example", "bench"]))?;
        let target = process::metadata()?.target;
        let name = format!("bench{}", std::env::consts::EXE_SUFFIX);
        process::command(target.join("debug").join("examples").join(name))
    };
    process::exit_code(command.args(options))
}
