//! What the Hub and its CDN answer when nothing goes wrong.
//!
//! Source: the clients that speak the protocol: `huggingface_hub` 2.4 (`file_download.py`,
//! `hf_api.py`, `utils/_http.py`), and the Hub's answers as issues of theirs show them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::http::{Request, percent_decode};
use super::answer::{Answer, CDN_EXPOSED, HUB_EXPOSED};
use super::repository::{Content, MAIN, Repository, Snapshot, hex};
use super::{Origin, World};

/// A request's address in parts.
pub struct Target {
    /// Decoded; an escaped slash is part of its segment.
    pub segments: Vec<String>,
    /// Without the question mark, as it came.
    pub query: String,
}

impl Target {
    /// None where it is no path that a server could have.
    pub fn parse(target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/')?;
        let segments = path.split('/').map(percent_decode).collect::<Option<_>>()?;
        Some(Self { segments, query: query.to_owned() })
    }

    /// The path, decoded.
    pub fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|pair| pair.0 == name).and_then(|pair| percent_decode(pair.1))
    }
}

/// Answers a request to either origin, with what lets pages read the answer.
pub fn answer(origin: Origin, request: &Request, target: &Target, world: &World) -> Answer {
    let answer = match request.method.as_str() {
        "OPTIONS" => Answer::preflight(request),
        "GET" | "HEAD" => match origin {
            Origin::Hub => hub(request, target, world),
            Origin::Cdn => cdn(target, world),
        },
        _ => Answer::text(405, "Method Not Allowed").with("Allow", "GET, HEAD, OPTIONS"),
    };
    cors(origin, request, answer)
}

/// What each origin lets pages read.
pub fn cors(origin: Origin, request: &Request, answer: Answer) -> Answer {
    match origin {
        Origin::Hub => {
            let page = request.header("origin").unwrap_or("https://huggingface.co");
            answer
                .with("Access-Control-Allow-Origin", page)
                .with("Access-Control-Expose-Headers", HUB_EXPOSED)
                .with("Vary", "Origin")
        }
        Origin::Cdn => answer
            .with("Access-Control-Allow-Origin", "*")
            .with("Access-Control-Expose-Headers", CDN_EXPOSED),
    }
}

fn hub(request: &Request, target: &Target, world: &World) -> Answer {
    let parts: Vec<&str> = target.segments.iter().map(String::as_str).collect();
    match parts[..] {
        // The end of a loop would be none.
        ["_loop", turn] => {
            let turn = turn.parse::<u64>().unwrap_or_default().wrapping_add(1);
            Answer::redirect(302, format!("/_loop/{turn}"))
        }
        ["api", "models", owner, name, ref rest @ ..] => {
            let id = format!("{owner}/{name}");
            let Some(repository) = world.models.get(&id) else {
                return no_repository(request);
            };
            // What is gated may be listed by all.
            let (revision, tree) = match *rest {
                [] => (MAIN, None),
                ["revision", revision] => (revision, None),
                ["tree", revision, ref folder @ ..] => (revision, Some(folder.join("/"))),
                _ => return nothing(),
            };
            match (repository.find(revision), tree) {
                (None, _) => no_revision(revision),
                (Some(snapshot), None) => info(&id, snapshot, target, world),
                (Some(snapshot), Some(folder)) => tree_page(snapshot, &folder, target, world),
            }
        }
        ["api", "resolve-cache", "models", owner, name, commit, ref path @ ..] => {
            let id = format!("{owner}/{name}");
            find(&id, commit, &path.join("/"), request, world).map_or_else(
                |error| error,
                |(snapshot, path, content)| {
                    served(content)
                        .about(format!("{id}/{path}"))
                        .with("ETag", format!("\"{}\"", content.oid))
                        .with("X-Repo-Commit", &snapshot.commit)
                        .with("Content-Disposition", disposition(&path))
                },
            )
        }
        [owner, name, kind @ ("resolve" | "raw"), revision, ref path @ ..] => {
            let id = format!("{owner}/{name}");
            match find(&id, revision, &path.join("/"), request, world) {
                Err(error) => error,
                Ok((snapshot, path, content)) => {
                    let answer = match kind {
                        "raw" => raw(content),
                        _ => resolve(&id, snapshot, &path, content, target, world),
                    };
                    answer.about(format!("{id}/{path}")).with("X-Repo-Commit", &snapshot.commit)
                }
            }
        }
        _ => nothing(),
    }
}

/// The file that an address names, if the request may have it.
fn find<'w>(
    id: &str,
    revision: &str,
    path: &str,
    request: &Request,
    world: &'w World,
) -> Result<(&'w Arc<Snapshot>, String, &'w Content), Answer> {
    let repository: &Repository = world.models.get(id).ok_or_else(|| no_repository(request))?;
    if let Some(token) = world.gates.get(id) {
        let given = request.header("authorization");
        if given.is_none() {
            return Err(gated(401, id, "You must be authenticated to access it. Please log in."));
        }
        if given.and_then(|given| given.strip_prefix("Bearer ")) != Some(token) {
            return Err(gated(403, id, "Your token is not in its authorized list."));
        }
    }
    let snapshot = repository.find(revision).ok_or_else(|| no_revision(revision))?;
    let content =
        snapshot.files.get(path).ok_or_else(|| refusal(404, "EntryNotFound", "Entry not found"))?;
    Ok((snapshot, path.to_owned(), content))
}

fn resolve(
    id: &str,
    snapshot: &Snapshot,
    path: &str,
    content: &Content,
    target: &Target,
    world: &World,
) -> Answer {
    let (answer, etag) = match &content.lfs {
        Some(lfs) => {
            let location = world.sign(&lfs.sha256, &format!("{id}/{path}"));
            (Answer::redirect(302, location), &lfs.sha256)
        }
        // What git holds itself stays with the Hub, at an address for the commit.
        None => {
            let (commit, from) = (&snapshot.commit, escape(&target.path(), false));
            let (path, oid) = (escape(path, true), &content.oid);
            let location =
                format!("/api/resolve-cache/models/{id}/{commit}/{path}?{from}=&etag=%22{oid}%22");
            (Answer::redirect(307, location), oid)
        }
    };
    answer
        .with("X-Linked-Size", content.size.to_string())
        .with("X-Linked-ETag", format!("\"{etag}\""))
        .with("Accept-Ranges", "bytes")
}

fn raw(content: &Content) -> Answer {
    let answer = match &content.lfs {
        Some(lfs) => Answer::pointer(&lfs.pointer),
        None => served(content),
    };
    answer.with("ETag", format!("\"{}\"", content.oid))
}

fn served(content: &Content) -> Answer {
    Answer::file(content.source.clone(), content.size)
}

fn cdn(target: &Target, world: &World) -> Answer {
    let parts: Vec<&str> = target.segments.iter().map(String::as_str).collect();
    let ["repos", _, _, sha256] = parts[..] else {
        return match parts[..] {
            ["_loop", turn] => {
                let turn = turn.parse::<u64>().unwrap_or_default().wrapping_add(1);
                Answer::redirect(302, format!("/_loop/{turn}"))
            }
            _ => Answer::text(404, "Not Found"),
        };
    };
    let parameter = |name| target.parameter(name).unwrap_or_default();
    let (name, expires) = (parameter("X-File"), parameter("Expires"));
    let late = expires.parse::<u128>().is_ok_and(|expires| expires < now_ms());
    if late || parameter("Signature") != world.signature(sha256, &name, &expires) {
        return denied();
    }
    let objects = world.models.values().flat_map(Repository::objects);
    let Some((_, content)) = objects.into_iter().find(|object| object.0 == sha256) else {
        return Answer::text(404, "Not Found");
    };
    // Not the hash that the Hub calls ETag: a client that compares the two is to fail here too.
    let etag = hex(&Sha256::digest(sha256)[..16]);
    served(content)
        .about(name.clone())
        .with("Content-Type", "application/octet-stream")
        .with("Content-Disposition", disposition(&name))
        .with("ETag", format!("\"{etag}\""))
}

/// What the CDN says where a signature is missing, wrong or too old.
pub fn denied() -> Answer {
    let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    Answer::text(403, text).with("Content-Type", "application/xml")
}

impl World {
    /// An address on the CDN that is good for some time.
    fn sign(&self, sha256: &str, name: &str) -> String {
        let expires = (now_ms() + u128::from(self.signature_ms)).to_string();
        let signature = self.signature(sha256, name, &expires);
        let (a, b) = (&sha256[..2], &sha256[2..4]);
        let (cdn, name) = (self.cdn, escape(name, false));
        format!(
            "http://{cdn}/repos/{a}/{b}/{sha256}?X-File={name}&Expires={expires}&Signature={signature}"
        )
    }

    fn signature(&self, sha256: &str, name: &str, expires: &str) -> String {
        let text = format!("{}\n{sha256}\n{name}\n{expires}", self.secret);
        hex(&Sha256::digest(text)[..16])
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

fn info(id: &str, snapshot: &Snapshot, target: &Target, world: &World) -> Answer {
    let blobs = target.parameter("blobs").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let siblings = snapshot.files.iter().map(|(path, content)| {
        if !blobs {
            return json!({ "rfilename": path });
        }
        let mut file = json!({ "rfilename": path, "size": content.size, "blobId": content.oid });
        if let Some(lfs) = &content.lfs {
            file["lfs"] = json!({
                "sha256": lfs.sha256, "size": content.size, "pointerSize": lfs.pointer.len(),
            });
        }
        file
    });
    let gated = if world.gates.contains_key(id) { json!("auto") } else { json!(false) };
    Answer::json(&json!({
        "_id": snapshot.commit[..24],
        "id": id,
        "modelId": id,
        "author": id.split('/').next(),
        "sha": snapshot.commit,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "lastModified": "2026-01-01T00:00:00.000Z",
        "private": false,
        "gated": gated,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings.collect::<Vec<_>>(),
    }))
}

fn tree_page(snapshot: &Snapshot, folder: &str, target: &Target, world: &World) -> Answer {
    let folder = folder.trim_end_matches('/');
    let recursive = target
        .parameter("recursive")
        .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    let folders = snapshot.folders();
    if !folder.is_empty() && !folders.contains(folder) {
        return refusal(404, "EntryNotFound", &format!("{folder} does not exist on \"main\""));
    }
    let below = |path: &str| {
        let path = match folder {
            "" => Some(path),
            folder => path.strip_prefix(folder).and_then(|path| path.strip_prefix('/')),
        };
        path.is_some_and(|path| recursive || !path.contains('/'))
    };
    let folders = folders.into_iter().filter(|path| below(path)).map(|path| {
        let oid = hex(&Sha256::digest(format!("{}{path}", snapshot.commit))[..20]);
        json!({ "type": "directory", "oid": oid, "size": 0, "path": path })
    });
    let files = snapshot.files.iter().filter(|(path, _)| below(path)).map(|(path, content)| {
        let mut file =
            json!({ "type": "file", "oid": content.oid, "size": content.size, "path": path });
        if let Some(lfs) = &content.lfs {
            file["lfs"] = json!({
                "oid": lfs.sha256, "size": content.size, "pointerSize": lfs.pointer.len(),
            });
        }
        file
    });
    let entries: Vec<Value> = folders.chain(files).collect();

    let number = |name| target.parameter(name).and_then(|value| value.parse::<usize>().ok());
    let size = number("limit").unwrap_or(world.page_size).clamp(1, world.page_size);
    let start = number("cursor").unwrap_or_default().min(entries.len());
    let end = (start + size).min(entries.len());
    let answer = Answer::json(&json!(entries[start..end]));
    if end == entries.len() {
        return answer;
    }
    let (hub, path) = (world.hub, escape(&target.path(), true));
    let link = format!("<http://{hub}{path}?recursive={recursive}&limit={size}&cursor={end}>");
    answer.with("Link", format!("{link}; rel=\"next\""))
}

/// An error as the Hub tells it: in headers, and in words.
fn refusal(status: u16, code: &'static str, message: &str) -> Answer {
    Answer::text(status, message).with("X-Error-Code", code).with("X-Error-Message", message)
}

/// Who is not logged in is not told whether there is such a repository.
fn no_repository(request: &Request) -> Answer {
    match request.header("authorization") {
        None => refusal(401, "RepoNotFound", "Invalid username or password."),
        Some(_) => refusal(404, "RepoNotFound", "Repository not found"),
    }
}

fn no_revision(revision: &str) -> Answer {
    refusal(404, "RevisionNotFound", &format!("Invalid rev id: {}", revision.escape_default()))
}

fn gated(status: u16, id: &str, why: &str) -> Answer {
    refusal(status, "GatedRepo", &format!("Access to model {id} is restricted. {why}"))
}

fn nothing() -> Answer {
    let message = "Sorry, we can't find the page you are looking for.";
    Answer::text(404, message).with("X-Error-Message", message)
}

fn disposition(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    format!("inline; filename*=UTF-8''{}; filename=\"file\"", escape(name, false))
}

/// Percent-encoded, but for what an address may hold anywhere.
fn escape(text: &str, keep_slashes: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' if keep_slashes => escaped.push('/'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(byte.into());
            }
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}
