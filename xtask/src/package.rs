//! `cargo xtask package`: cargo, wasm-bindgen, wasm-opt, and the template over it, in `pkg/`.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

use crate::args::Args;
use crate::process::{self, Metadata, PACKAGE, Result};
use crate::scripts::{self, Scripts};
use crate::{files, licences, wasm_opt};

const TARGET: &str = "wasm32-unknown-unknown";
/// The name of the library, of the glue and, with `_bg`, of the wasm.
const NAME: &str = "instruct_pix2pix";

/// `cargo xtask package [--dev]`.
pub fn run(mut args: Args) -> Result<u8> {
    let dev = args.flag("--dev");
    args.none()?;
    build(dev)?;
    Ok(0)
}

/// Where the package is.
pub fn folder() -> PathBuf {
    process::root().join("pkg")
}

/// What becomes the package around the wasm.
pub fn template() -> PathBuf {
    process::root().join("pkg-template")
}

/// Most bytes of the wasm, and of what a server that compresses would send.
const BUDGET: [usize; 2] = [12_000_000, 3_000_000];

/// Most bytes of the hand-written scripts that a page with the worker loads, compressed.
const SCRIPTS_BUDGET: usize = 15_000;

/// The features that the wasm is built with.
const FEATURES: &str = "js";

/// Builds wasm and glue with the benchmarks in them, beside the target folder's package; where.
pub fn build_benchmarks() -> Result<PathBuf> {
    check_versions()?;
    ensure_target()?;
    let metadata = process::metadata()?;
    compile("js,tuning")?;
    let stage = metadata.target.join("package-bench");
    files::empty_folder(&stage)?;
    bind(&metadata, &stage)?;
    Ok(stage)
}

/// Builds `pkg/`. With `dev` the wasm stays as rustc made it, which saves minutes.
pub fn build(dev: bool) -> Result {
    check_versions()?;
    ensure_target()?;
    let metadata = process::metadata()?;
    compile(FEATURES)?;
    // Put together elsewhere, so that a failure half way leaves the package of before.
    let stage = metadata.target.join("package");
    files::empty_folder(&stage)?;
    bind(&metadata, &stage)?;
    if !dev {
        wasm_opt::optimise(&stage.join(wasm_name()), &metadata.target.join("wasm-opt"))?;
    }
    let glue = files::list(&stage)?.into_iter().filter(|name| is_script(name)).collect::<Vec<_>>();
    let scripts = fill(&metadata.version, &stage)?;
    files::mirror(&stage, &folder())?;
    let sizes = report(&stage, &scripts, &glue, dev)?;
    scripts_within_budget(sizes.scripts)?;
    // What rustc makes is a fifth larger than what wasm-opt leaves.
    if dev { Ok(()) } else { within_budget(sizes.wasm) }
}

fn scripts_within_budget(compressed: usize) -> Result {
    if compressed <= SCRIPTS_BUDGET {
        return Ok(());
    }
    Err(format!(
        "the hand-written scripts of a page and its worker take {} with gzip, over their budget of {}: \
         what not every page needs belongs into an entry point of its own",
        size(compressed),
        size(SCRIPTS_BUDGET),
    )
    .into())
}

fn within_budget([raw, compressed]: [usize; 2]) -> Result {
    if raw <= BUDGET[0] && compressed <= BUDGET[1] {
        return Ok(());
    }
    Err(format!(
        "the wasm is over its budget of {}, gzip {}: find what it has grown by (`twiggy top` on a \
         build with names)",
        size(BUDGET[0]),
        size(BUDGET[1]),
    )
    .into())
}

fn wasm_name() -> String {
    format!("{NAME}_bg.wasm")
}

/// The glue only understands what a macro of the very same release wrote into the wasm.
fn check_versions() -> Result {
    let lock = files::read_text(&process::root().join("Cargo.lock"))?;
    let locked = locked_version(&lock, "wasm-bindgen")
        .ok_or("Cargo.lock has no wasm-bindgen: run `cargo fetch`")?;
    let ours = wasm_bindgen_shared::version();
    if locked == ours {
        return Ok(());
    }
    Err(format!(
        "this xtask holds wasm-bindgen-cli-support {ours}, but Cargo.lock has wasm-bindgen \
         {locked}: run `cargo update --package wasm-bindgen-cli-support --precise {locked}`"
    )
    .into())
}

fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\""))?;
    rest.split('"').nth(1)
}

/// Asks rustc rather than rustup, which a distribution's Rust does without.
fn ensure_target() -> Result {
    let rustc = || process::command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = process::output(rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    println!("adding the target {TARGET}");
    process::run(process::command("rustup").args(["target", "add", TARGET])).map_err(|error| {
        let rustc = process::output(rustc().arg("--version")).unwrap_or_default();
        format!(
            "Rust's standard library for {TARGET} is missing, and adding it failed: {error}\n\
             Install it for {}, then run this again:\n  \
             - with rustup: `rustup target add {TARGET}` (needs https://static.rust-lang.org, or \
             a mirror named in RUSTUP_DIST_SERVER)\n  \
             - without: the archive rust-std-VERSION-{TARGET}.tar.xz from \
             https://static.rust-lang.org/dist/, whose install.sh takes --prefix=\"$(rustc --print \
             sysroot)\"\n  \
             - Debian's Rust: the package libstd-rust-dev-wasm32",
            rustc.trim(),
        )
        .into()
    })
}

fn compile(features: &str) -> Result {
    let mut cargo = process::cargo();
    cargo.args(["build", "--lib", "--package", PACKAGE, "--profile", "wasm"]);
    cargo.args(["--target", TARGET, "--no-default-features", "--features", features]);
    // These would replace the flags of .cargo/config.toml, without which getrandom does not build.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut cargo)
}

fn bind(metadata: &Metadata, stage: &Path) -> Result {
    let wasm = metadata.target.join(TARGET).join("wasm").join(format!("{NAME}.wasm"));
    Bindgen::new()
        .input_path(&wasm)
        .out_name(NAME)
        .web(true)
        .map_err(bindgen_failed)?
        .typescript(false)
        // As the command line tool does: `init()` alone finds the wasm beside the glue.
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .generate(stage)
        .map_err(bindgen_failed)
}

/// The error type is anyhow's, whose causes only show in the alternate form.
fn bindgen_failed(error: impl std::fmt::Display) -> Box<dyn std::error::Error> {
    format!("wasm-bindgen failed: {error:#}").into()
}

/// Lays the template and the licences over what was built.
fn fill(version: &str, stage: &Path) -> Result<Scripts> {
    let root = process::root();
    let template = template();
    for name in files::list(&template)?.iter().filter(|name| !scripts::is_bundled(name)) {
        files::write(&stage.join(name), &files::read(&template.join(name))?)?;
    }
    let scripts = scripts::bundle(&template, stage)?;
    let manifest = stage.join("package.json");
    let text = with_version(&files::read_text(&manifest)?, version)?;
    files::write(&manifest, text.as_bytes())?;
    let is_licence = |name: &&PathBuf| name.to_string_lossy().starts_with("LICENSE");
    for name in files::names(root)?.iter().filter(is_licence) {
        files::write(&stage.join(name), &files::read(&root.join(name))?)?;
    }
    files::write(&stage.join(licences::FILE), licences::text(TARGET, FEATURES)?.as_bytes())?;
    Ok(scripts)
}

/// Replaces the version in the text, so that the rest stays as it was written.
fn with_version(manifest: &str, version: &str) -> Result<String> {
    let json: Value = serde_json::from_str(manifest)
        .map_err(|error| format!("pkg-template/package.json is not JSON: {error}"))?;
    let old = json["version"].as_str().ok_or("pkg-template/package.json has no \"version\"")?;
    let text = manifest.replacen(
        &format!("\"version\": \"{old}\""),
        &format!("\"version\": \"{version}\""),
        1,
    );
    let json: Value = serde_json::from_str(&text)?;
    if json["version"] == version {
        return Ok(text);
    }
    Err("pkg-template/package.json must have `\"version\": \"...\"` before any other".into())
}

fn is_script(name: &Path) -> bool {
    name.extension().is_some_and(|end| end == "js")
}

/// Bytes of what browsers load.
struct Sizes {
    wasm: [usize; 2],
    /// Compressed.
    scripts: usize,
}

/// Prints the sizes that the README quotes.
fn report(stage: &Path, scripts: &Scripts, glue: &[PathBuf], dev: bool) -> Result<Sizes> {
    let wasm = files::read(&stage.join(wasm_name()))?;
    let sizes =
        Sizes { wasm: [wasm.len(), gzip(&wasm)?], scripts: gzip_all(stage, &scripts.core)? };
    println!("{}", folder().display());
    println!(
        "  wasm                     {}, gzip {}{}",
        size(sizes.wasm[0]),
        size(sizes.wasm[1]),
        if dev { " (without wasm-opt)" } else { "" },
    );
    println!("  JavaScript, hand-written gzip {}", size(sizes.scripts));
    for extra in &scripts.extras {
        let compressed = gzip(&files::read(&stage.join(extra))?)?;
        println!("    and of {:<17} gzip {}", extra.display(), size(compressed));
    }
    println!("  JavaScript, wasm-bindgen gzip {}", size(gzip_all(stage, glue)?));
    Ok(sizes)
}

fn gzip_all(folder: &Path, names: &[PathBuf]) -> Result<usize> {
    names.iter().map(|name| gzip(&files::read(&folder.join(name))?)).sum()
}

/// The size that a server which compresses would send.
fn gzip(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        BUDGET, SCRIPTS_BUDGET, gzip, locked_version, scripts_within_budget, size, with_version,
        within_budget,
    };

    #[test]
    fn the_lock_names_exactly_this_package() {
        let lock = "[[package]]\nname = \"wasm-bindgen-shared\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.130\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked_version(&lock.replace('\n', "\r\n"), "wasm-bindgen"), Some("0.2.130"));
        assert_eq!(locked_version(lock, "wasm"), None);
    }

    #[test]
    fn this_build_and_the_lock_agree() {
        super::check_versions().expect("the same release of wasm-bindgen");
    }

    #[test]
    fn only_the_version_of_the_package_changes() {
        let text = "{\n  \"name\": \"a\",\n  \"version\": \"0.0.0\",\n  \"type\": \"module\"\n}\n";
        let wanted = text.replace("0.0.0", "1.2.3");
        assert_eq!(with_version(text, "1.2.3").expect("replaced"), wanted);
        assert!(with_version("{}", "1.2.3").is_err());
        assert!(with_version("{", "1.2.3").is_err());
        let hidden = "{\"a\": {\"version\": \"0.0.0\"}, \"version\": \"0.0.0\"}";
        assert!(with_version(hidden, "1.2.3").is_err());
    }

    #[test]
    fn too_much_of_either_is_over_the_budget() {
        within_budget(BUDGET).expect("just so");
        let error = within_budget([BUDGET[0] + 1, 0]).expect_err("too large").to_string();
        assert!(error.contains("over its budget of 12.00 MB, gzip 3.00 MB"), "{error}");
        assert!(within_budget([0, BUDGET[1] + 1]).is_err());
        scripts_within_budget(SCRIPTS_BUDGET).expect("just so");
        let error = scripts_within_budget(SCRIPTS_BUDGET + 1).expect_err("too large").to_string();
        assert!(error.contains("over their budget of 15.0 kB"), "{error}");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(1_234), "1.2 kB");
        assert_eq!(size(12_345_678), "12.35 MB");
        assert!(gzip(&[0; 100_000]).expect("memory") < 200);
    }
}
