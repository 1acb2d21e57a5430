//! Child processes, and where the project's things are.

use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::{env, io};

use serde_json::Value;

/// An error is a message for the person at the terminal: what went wrong and what to do.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// The name of the package that is built for the browser.
pub const PACKAGE: &str = "instruct-pix2pix-web";

/// The features of native builds: the same for all, so that one build of the dependencies does.
pub const FEATURES: &str = "tuning";

static THIS_EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();

/// To be called first of all: once cargo has replaced the file (a test build may), Linux reports
/// another path.
pub fn remember_this_executable() {
    if let Ok(path) = env::current_exe() {
        THIS_EXECUTABLE.get_or_init(|| path);
    }
}

/// The running xtask, for the tests that need its server.
pub fn this_executable() -> Result<&'static Path> {
    let path = THIS_EXECUTABLE.get().ok_or("the path of the running xtask is not known")?;
    Ok(path)
}

/// The repository that cargo runs xtask for. Checkouts may share a target folder, so the one that this was compiled in
/// may be another.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let xtask =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&xtask).parent().unwrap_or(Path::new(&xtask)).to_owned()
    });
    &ROOT
}

/// `program` in the repository.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs this xtask, or the one on PATH.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end with our own output; the exit code (1 when a signal ended it).
pub fn exit_code(command: &mut Command) -> Result<u8> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    Ok(status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1)))
}

/// Runs to the end with our own output; anything but success is an error.
pub fn run(command: &mut Command) -> Result {
    match exit_code(command)? {
        0 => Ok(()),
        code => Err(format!("`{}` failed (exit code {code})", line(command)).into()),
    }
}

/// Runs quietly; the standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` failed: {}", line(command), said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What `cargo metadata` says of the package and of the build.
pub struct Metadata {
    /// The version in `Cargo.toml`.
    pub version: String,
    /// `CARGO_TARGET_DIR`, or wherever else cargo's settings put it.
    pub target: PathBuf,
}

/// Asks cargo, because settings and environment both may move the target folder.
pub fn metadata() -> Result<Metadata> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let json: Value = serde_json::from_str(&text)?;
    let packages = json["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let package = packages.iter().find(|package| package["name"] == PACKAGE);
    let version = package.and_then(|package| package["version"].as_str());
    match (version, json["target_directory"].as_str()) {
        (Some(version), Some(target)) => {
            Ok(Metadata { version: version.to_owned(), target: target.into() })
        }
        _ => Err(format!("`cargo metadata` does not name {PACKAGE} and a target folder").into()),
    }
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command, error: &io::Error) -> String {
    format!("cannot run `{}`: {error}", line(command))
}
