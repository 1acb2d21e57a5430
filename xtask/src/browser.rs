//! What the browser tests need: Node, their npm packages, a Chromium.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::process::{self, Result};
use crate::{files, package};

/// The oldest Node whose test runner does what the tests ask of it.
const NODE: u32 = 20;

/// The names that Chromium goes by on PATH, the better maintained first.
const NAMES: &[&str] = &["google-chrome", "google-chrome-stable", "chromium", "chromium-browser"];

/// The folder of the browser tests, with their package.json.
pub fn folder() -> PathBuf {
    process::root().join("tests").join("browser")
}

/// All set up.
pub struct Browser {
    chrome: PathBuf,
}

impl Browser {
    /// Installs what is missing.
    pub fn set_up() -> Result<Self> {
        npm_packages()?;
        Ok(Self { chrome: chrome()? })
    }

    /// The executable.
    pub fn chrome(&self) -> &Path {
        &self.chrome
    }

    /// `node`, in the repository, told where things are.
    pub fn node(&self) -> Result<Command> {
        self.node_with(&package::folder())
    }

    /// `node` with another package than the built one.
    pub fn node_with(&self, package: &Path) -> Result<Command> {
        let mut node = process::command("node");
        node.env("CHROME", &self.chrome);
        node.env("XTASK", process::this_executable()?);
        node.env("PKG", package);
        Ok(node)
    }
}

/// `npm ci`, unless the packages are there and no older than the lock file.
pub fn npm_packages() -> Result {
    check_node()?;
    let lock = folder().join("package-lock.json");
    // npm writes this one last.
    let installed = folder().join("node_modules").join(".package-lock.json");
    if is_newer(&installed, &lock) {
        return Ok(());
    }
    println!("installing the npm packages of the browser tests");
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let mut npm = process::command(npm);
    // None of the packages needs its scripts, and none may download a browser.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder());
    process::run(&mut npm)?;
    // npm keeps the file's old time when the packages were right already.
    touch(&installed)
}

fn touch(path: &Path) -> Result {
    let bytes = files::read(path)?;
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(())
}

fn is_newer(path: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    matches!((time(path), time(than)), (Ok(path), Ok(than)) if path >= than)
}

fn check_node() -> Result {
    let said = process::output(process::command("node").arg("--version"))
        .map_err(|error| format!("Node {NODE} or later, with npm, is needed: {error}"))?;
    match major(&said) {
        Some(major) if major >= NODE => Ok(()),
        _ => Err(format!("Node {NODE} or later is needed, this is {}", said.trim()).into()),
    }
}

/// 20 of `v20.1.2`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn chrome() -> Result<PathBuf> {
    if let Some(given) = env::var_os("CHROME").filter(|given| !given.is_empty()) {
        return on_path(&given)
            .or_else(|| Some(PathBuf::from(&given)).filter(|path| path.is_file()))
            .ok_or_else(|| format!("CHROME={}: there is no such file", given.display()).into());
    }
    if let Some(found) = installed() {
        return Ok(found);
    }
    let advice = "install Chrome or Chromium, or name one: CHROME=/path/to/chrome";
    if !can_apt() {
        return Err(format!("no Chrome or Chromium was found: {advice}").into());
    }
    println!("installing Chromium");
    let failed = |error| format!("{error}\nChromium could not be installed: {advice}");
    apt(&["update"]).map_err(failed)?;
    apt(&["install", "-y", "chromium"]).map_err(failed)?;
    installed().ok_or_else(|| format!("the package chromium brought no Chromium: {advice}").into())
}

fn installed() -> Option<PathBuf> {
    NAMES.iter().filter_map(on_path).chain(usual_places()).find(|path| starts(path))
}

/// Where the installers of macOS and Windows put it.
fn usual_places() -> impl Iterator<Item = PathBuf> {
    let macos = ["/".into(), env::var_os("HOME").unwrap_or_default()]
        .into_iter()
        .flat_map(|home| ["Google Chrome", "Chromium"].map(|name| (home.clone(), name)))
        .map(|(home, name)| {
            Path::new(&home).join(format!("Applications/{name}.app/Contents/MacOS/{name}"))
        });
    let windows = ["ProgramFiles", "ProgramFiles(x86)", "LocalAppData"]
        .into_iter()
        .filter_map(env::var_os)
        .flat_map(|base| {
            [r"Google\Chrome", "Chromium"]
                .map(|name| Path::new(&base).join(name).join(r"Application\chrome.exe"))
        });
    macos.filter(|_| cfg!(target_os = "macos")).chain(windows.filter(|_| cfg!(windows)))
}

/// Ubuntu's chromium-browser is a script that asks for a snap; so a name alone proves nothing.
fn starts(path: &Path) -> bool {
    if cfg!(windows) {
        // Chrome opens a window there, whatever it is asked.
        return path.is_file();
    }
    let mut version = Command::new(path);
    version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// The file that a bare name stands for.
fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref());
    if name.components().count() != 1 {
        return None;
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whether [`apt`] may install anything.
pub fn can_apt() -> bool {
    let root = process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    root && Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

/// Runs apt-get, which asks nothing.
pub fn apt(args: &[&str]) -> Result {
    let mut apt = Command::new("apt-get");
    process::run(apt.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::{is_newer, major, on_path};
    use crate::files::tests::Scratch;

    #[test]
    fn versions_of_node() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("20"), None);
        assert_eq!(major(""), None);
    }

    #[test]
    fn packages_that_are_missing_are_not_new() {
        let scratch = Scratch::new().with("lock", b"");
        let (lock, absent) = (scratch.path().join("lock"), scratch.path().join("absent"));
        assert!(is_newer(&lock, &lock));
        assert!(!is_newer(&absent, &lock));
    }

    #[test]
    #[cfg(unix)]
    fn only_bare_names_are_looked_up() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert!(on_path("./sh").is_none());
        assert!(on_path("no-such-program").is_none());
    }
}
