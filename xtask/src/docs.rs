//! `cargo xtask docs`: pages of the package's types, by typedoc, and of the crate.

use crate::args::Args;
use crate::process::{self, Result};
use crate::{browser, gate, package};

/// `cargo xtask docs`.
pub fn run(args: Args) -> Result<u8> {
    args.none()?;
    browser::npm_packages()?;
    let mut node = process::command("node");
    // The template has all of the types: nothing need be built for their pages.
    node.env("PKG", package::template()).env(gate::FULL_VARIABLE, "1");
    node.args(["--test", "--test-reporter=spec"]).arg(browser::folder().join("docs.test.mjs"));
    process::run(&mut node)?;
    gate::documentation()?;
    let app = browser::folder().join("output").join("apps").join("typedoc");
    println!("the package: {}", app.join("docs").join("index.html").display());
    let pages = process::metadata()?.target.join("doc").join("instruct_pix2pix");
    println!("the crate: {}", pages.join("index.html").display());
    Ok(0)
}
