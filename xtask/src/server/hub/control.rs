//! How a test tells the server what is to go wrong, and asks what was requested.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::http::Request;
use super::answer::{Answer, Shape};
use super::fault::Rule;
use super::route::{self, Target};
use super::{MAIN, Origin, Shared, lock};

/// Bytes of a body at most.
const LONGEST: u64 = 1 << 20;

/// What a test asks for; all of it may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Control {
    /// First of all: away with rules, log, gates and settings.
    reset: bool,
    rules: Vec<Rule>,
    signature_ms: Option<u64>,
    page_size: Option<usize>,
    gate: BTreeMap<String, Option<String>>,
    publish: Vec<Publish>,
    /// Last of all, when the answer is on its way.
    restart_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    repo: String,
    #[serde(default = "main_branch")]
    revision: String,
    folder: PathBuf,
}

fn main_branch() -> String {
    MAIN.to_owned()
}

/// What part of this a request is for, if any.
pub fn name(origin: Origin, target: &Target) -> Option<&str> {
    match &target.segments[..] {
        [name] if origin == Origin::Hub && (name == "_control" || name == "_log") => Some(name),
        _ => None,
    }
}

/// Answers it; whether another request may follow.
pub fn answer(
    name: &str,
    request: &Request,
    reader: &mut impl Read,
    stream: &TcpStream,
    shared: &Shared,
) -> io::Result<bool> {
    let mut restart = None;
    let answer = match (name, request.method.as_str()) {
        (_, "OPTIONS") => Answer::preflight(request),
        ("_log", "GET") => Answer::json(&lock(&shared.world).log.to_json()),
        ("_control", "GET") => Answer::json(&lock(&shared.world).to_json()),
        ("_control", "POST") => {
            let length = request.header("content-length").and_then(|length| length.parse().ok());
            let mut body = Vec::new();
            reader.take(length.unwrap_or(0).min(LONGEST)).read_to_end(&mut body)?;
            match obey(&body, shared) {
                Ok(ms) => {
                    restart = ms.map(Duration::from_millis);
                    Answer::json(&lock(&shared.world).to_json())
                }
                Err(error) => {
                    let text = json!({ "error": error.to_string() }).to_string();
                    Answer::text(400, text).with("Content-Type", "application/json")
                }
            }
        }
        _ => Answer::text(405, "Method Not Allowed"),
    };
    let answer = route::cors(Origin::Hub, request, answer);
    let keep = answer.send(request, &Shape::default(), stream, None)?;
    if let Some(time) = restart {
        shared.restart(time);
    }
    Ok(keep)
}

/// Returns for how long the server is to be down.
fn obey(body: &[u8], shared: &Shared) -> crate::process::Result<Option<u64>> {
    let control: Control = serde_json::from_slice(body)?;
    // Before the world is locked, since files are read; and first, since it may fail.
    for Publish { repo, revision, folder } in &control.publish {
        shared.publish(repo, revision, folder)?;
    }
    let world = &mut *lock(&shared.world);
    if control.reset {
        world.reset();
    }
    world.rules.extend(control.rules);
    world.signature_ms = control.signature_ms.unwrap_or(world.signature_ms);
    world.page_size = control.page_size.unwrap_or(world.page_size).max(1);
    for (id, token) in control.gate {
        match token {
            Some(token) => world.gates.insert(id, token),
            None => world.gates.remove(&id),
        };
    }
    Ok(control.restart_ms)
}
