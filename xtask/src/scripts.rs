//! The package's own scripts, as esbuild puts them together and Terser makes them small for browsers.
//!
//! What stands in folders of the template runs in Node, and is left as it was written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::process::{self, Result};
use crate::{browser, files};

/// What a page imports, and its worker.
const CORE: &[&str] = &["index.js", "worker.js"];
/// What both of these need.
const SHARED: &str = "shared.js";
/// What `index.js` imports when it is asked for something that few pages need.
const ON_DEMAND: &[&str] = &["single-file.js", "support.js"];
/// What a page imports besides, if it wants it. It stands on `index.js`.
const EXTRAS: &[&str] = &["element.js", "react.js"];

const OPTIONS: &[&str] = &[
    "--bundle",
    "--splitting",
    "--format=esm",
    "--platform=browser",
    "--target=es2022",
    "--minify-syntax",
    "--log-level=warning",
    "--chunk-names=shared",
];

/// The glue is as large as all else, and a page with the worker does not need it.
const GLUE: &str = "*/instruct_pix2pix.js";

/// Names of files in the package.
pub struct Scripts {
    /// What a page with the worker loads, the worker's script included.
    pub core: Vec<PathBuf>,
    /// What it may load besides.
    pub extras: Vec<PathBuf>,
}

/// Writes the scripts of `template` to `stage`, small.
pub fn bundle(template: &Path, stage: &Path) -> Result<Scripts> {
    browser::npm_packages()?;
    let demanded: Vec<String> = ON_DEMAND.iter().map(|name| format!("*/{name}")).collect();
    let outside: Vec<&str> = demanded.iter().map(String::as_str).chain([GLUE]).collect();
    let mut core = esbuild(template, stage, CORE, &outside)?;
    core.sort();
    let wanted: BTreeSet<PathBuf> =
        CORE.iter().copied().chain([SHARED]).map(PathBuf::from).collect();
    if !core.iter().eq(&wanted) {
        return Err(format!("esbuild made {core:?} where {wanted:?} were expected").into());
    }
    let mut extras = Vec::new();
    // One by one, so that they share no further file.
    for entry in ON_DEMAND.iter().chain(EXTRAS) {
        extras.extend(esbuild(template, stage, &[entry], &["*/index.js", "react"])?);
    }
    Ok(Scripts { core, extras })
}

/// Whether a file of the template is replaced by what esbuild makes.
pub fn is_bundled(name: &Path) -> bool {
    name.components().count() == 1 && name.extension().is_some_and(|end| end == "js")
}

/// The names of what it made. `outside` stays an import.
fn esbuild(
    template: &Path,
    stage: &Path,
    entries: &[&str],
    outside: &[&str],
) -> Result<Vec<PathBuf>> {
    let before = files::list(stage)?;
    // By node, because Windows cannot start the script itself.
    let mut command = process::command("node");
    let package = browser::folder().join("node_modules").join("esbuild");
    command.arg(package.join("bin").join("esbuild"));
    command.args(entries.iter().map(|entry| template.join(entry)));
    // A pattern is compared with what a script says, which then stays as it is.
    command.args(OPTIONS).args(outside.iter().map(|name| format!("--external:{name}")));
    process::run(command.arg(format!("--outdir={}", stage.display())))?;
    let made: Vec<PathBuf> = files::list(stage)?.difference(&before).cloned().collect();
    made.iter().try_for_each(|name| shorten(&stage.join(name)))?;
    Ok(made)
}

/// Terser makes scripts a little smaller than esbuild does.
fn shorten(script: &Path) -> Result {
    let mut command = process::command("node");
    command.arg(browser::folder().join("node_modules").join("terser").join("bin").join("terser"));
    command.arg(script).args(["--module", "--mangle", "--compress", "passes=2"]);
    process::run(command.arg("--output").arg(script))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_bundled;

    #[test]
    fn only_scripts_at_the_top_are_bundled() {
        assert!(is_bundled(Path::new("client.js")));
        assert!(!is_bundled(Path::new("node/cli.js")));
        assert!(!is_bundled(Path::new("index.d.ts")));
    }
}
