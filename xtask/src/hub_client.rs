//! The Hub's own Python client, which downloads from the stand-in for the Hub: the proof that this
//! speaks the protocol.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, thread};

use crate::browser::{apt, can_apt};
use crate::files;
use crate::process::{self, Result};
use crate::server::hub::{HubServer, MAIN};

/// The oldest Python that the client runs on.
const PYTHON: (u32, u32) = (3, 10);

/// What the model is called.
const ID: &str = "tests/tiny";

/// A stage of the gate.
pub fn run() -> Result {
    let target = process::metadata()?.target;
    let python = environment(&target.join("hub-client"))?;
    let model = process::root().join("www").join("models").join("tiny-random");
    let server = HubServer::bind(0)?;
    server.publish(ID, MAIN, &model)?;
    let said = server.description();
    let field = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (endpoint, commit) = (field(&said["hub"]), field(&said["models"][ID][MAIN]));
    // It ends with this process.
    thread::spawn(move || server.run());
    let scratch = target.join("hub-client-downloads");
    files::empty_folder(&scratch)?;
    let mut client = process::command(python);
    client.arg(folder().join("client.py")).arg(ID).arg(&model).arg(commit);
    // Nothing of the user's own, such as a token, and nothing sent anywhere else.
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"] {
        client.env_remove(name);
    }
    client.env("HF_ENDPOINT", endpoint).env("HF_HOME", &scratch).env("NO_PROXY", "127.0.0.1");
    client.env("HF_HUB_DISABLE_TELEMETRY", "1").env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
    process::run(&mut client)
}

/// The client's program and its pinned requirements.
fn folder() -> PathBuf {
    process::root().join("tests").join("hub")
}

/// The Python of a virtual environment with the requirements, made anew when these have changed.
fn environment(place: &Path) -> Result<PathBuf> {
    let requirements = folder().join("requirements.txt");
    let wanted = files::read(&requirements)?;
    let bin = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = place.join(bin).join("python");
    // Written last of all, so that what was interrupted is not taken for done.
    let installed = place.join("installed.txt");
    let starts = || process::output(Command::new(&python).arg("--version")).is_ok();
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) && starts() {
        return Ok(python);
    }
    println!("installing the Hub's client from {}", requirements.display());
    files::empty_folder(place)?;
    let base = base_python()?;
    let make = || process::output(Command::new(base).args(["-m", "venv"]).arg(place));
    if let Err(error) = make() {
        // Debian has the module in a package of its own.
        if !can_apt() {
            return Err(format!("{error}; on Debian and Ubuntu, install python3-venv").into());
        }
        apt(&["update"])?;
        apt(&["install", "-y", "python3-venv"])?;
        make()?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    process::run(pip.arg(&requirements))?;
    files::write(&installed, &wanted)?;
    Ok(python)
}

fn base_python() -> Result<&'static str> {
    let advice = format!("Python {}.{} or later is needed", PYTHON.0, PYTHON.1);
    let mut said = String::new();
    for name in ["python3", "python"] {
        let version = process::output(Command::new(name).arg("--version"));
        said = match version {
            Ok(version) if numbers(&version).is_some_and(|found| found >= PYTHON) => {
                return Ok(name);
            }
            Ok(version) => format!("this is {}", version.trim()),
            Err(error) => error.to_string(),
        };
    }
    Err(format!("{advice}: {said}").into())
}

/// 3 and 11 of `Python 3.11.7`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().strip_prefix("Python ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{PYTHON, numbers};

    #[test]
    fn versions_of_python() {
        assert_eq!(numbers("Python 3.11.7\n"), Some((3, 11)));
        assert_eq!(numbers("3.11"), None);
        assert!(numbers("Python 3.9.1") < Some(PYTHON));
    }
}
