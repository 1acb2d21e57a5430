//! The protocol and each fault, through real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::tests::Answer;
use super::fault::glob;
use super::repository::hex;
use super::{HubServer, MAIN, Shared, lock};
use crate::files::tests::Scratch;

const ID: &str = "tests/model";
const WEIGHTS: &str = "unet/model.safetensors";
const CONFIG: &str = "unet/config.json";

/// A hub over one model.
struct Site {
    hub: SocketAddr,
    cdn: SocketAddr,
    folder: Scratch,
    weights: Vec<u8>,
    commit: String,
    shared: Arc<Shared>,
}

fn site() -> Site {
    let weights: Vec<u8> = (0..200_000_u32).map(|i| (i / 3) as u8).collect();
    let folder = Scratch::new()
        .with("model_index.json", b"hello\n")
        .with(CONFIG, b"{}")
        .with(WEIGHTS, &weights)
        .with("empty.txt", b"")
        .with(".git/config", b"not part of it");
    let server = HubServer::bind(0).expect("bound");
    server.publish(ID, MAIN, folder.path()).expect("published");
    let said = server.description();
    let address = |name: &str| {
        let url = said[name].as_str().and_then(|url| url.strip_prefix("http://"));
        url.and_then(|address| address.parse().ok()).expect("an address")
    };
    let (hub, cdn) = (address("hub"), address("cdn"));
    let commit = said["models"][ID][MAIN].as_str().expect("a commit").to_owned();
    let shared = Arc::clone(&server.shared);
    thread::spawn(move || server.run());
    Site { hub, cdn, folder, weights, commit, shared }
}

/// Reads to the end of the connection, whatever the length that was announced.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).ok()?;
    let mut stream = BufReader::new(stream);
    let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}");
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    stream.get_mut().write_all(format!("{head}{length}\r\n{body}").as_bytes()).ok()?;
    // Nothing, and then the end.
    if stream.fill_buf().map_or(true, <[u8]>::is_empty) {
        return None;
    }
    let mut answer = Answer::read_head(&mut stream);
    // A reset at the end is an end.
    let _ = stream.read_to_end(&mut answer.body);
    Some(answer)
}

impl Site {
    fn get(&self, path: &str, headers: &str) -> Answer {
        ask(self.hub, "GET", path, headers, "").expect("an answer")
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path, "");
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    fn control(&self, body: Value) -> Answer {
        ask(self.hub, "POST", "/_control", "", &body.to_string()).expect("an answer")
    }

    /// Makes one rule.
    fn fault(&self, fault: Value) {
        self.rule(json!({ "path": format!("*{WEIGHTS}"), "origin": "cdn", "fault": fault }));
    }

    fn rule(&self, rule: Value) {
        assert_eq!(self.control(json!({ "reset": true, "rules": [rule] })).status, 200);
    }

    fn log(&self) -> Vec<Value> {
        self.json("/_log")["requests"].as_array().expect("requests").clone()
    }

    /// The address of the weights on the CDN, as a path there.
    fn signed(&self, headers: &str) -> String {
        let answer = self.get(&format!("/{ID}/resolve/main/{WEIGHTS}"), headers);
        assert_eq!(answer.status, 302);
        let location = answer.header("Location");
        let path = location.strip_prefix(&format!("http://{}", self.cdn));
        path.expect("an address on the CDN").to_owned()
    }

    fn cdn_get(&self, headers: &str) -> Answer {
        ask(self.cdn, "GET", &self.signed(""), headers, "").expect("an answer")
    }
}

#[test]
fn files_are_named_as_git_and_lfs_name_them() {
    let site = site();
    let tree = site.json(&format!("/api/models/{ID}/tree/main?recursive=true"));
    let tree = tree.as_array().expect("entries");
    let find = |path: &str| tree.iter().find(|entry| entry["path"] == path).expect(path);
    // `echo hello | git hash-object --stdin`, and the blob of nothing.
    let index = find("model_index.json");
    assert_eq!(index["oid"], "ce013625030ba8dba906f756967f9e9ca394464a");
    assert_eq!((index["type"].as_str(), index["size"].as_u64()), (Some("file"), Some(6)));
    assert_eq!(index.get("lfs"), None);
    assert_eq!(find("empty.txt")["oid"], "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    let weights = find(WEIGHTS);
    let sha256 = hex(&Sha256::digest(&site.weights));
    assert_eq!(weights["lfs"]["oid"], sha256);
    assert_eq!(weights["lfs"]["size"], site.weights.len());
    let pointer = site.get(&format!("/{ID}/raw/main/{WEIGHTS}"), "").body;
    let wanted = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {}\n",
        site.weights.len()
    );
    assert_eq!(String::from_utf8_lossy(&pointer), wanted);
    assert_eq!(weights["lfs"]["pointerSize"], wanted.len());
    assert_ne!(weights["oid"], index["oid"]);
    assert_eq!(find("unet")["type"], "directory");
    assert!(!tree.iter().any(|entry| entry["path"].as_str().is_some_and(|p| p.contains(".git"))));

    let paths = |path: &str| {
        let entries = site.json(&format!("/api/models/{ID}/tree/main{path}"));
        let path = |entry: &Value| entry["path"].as_str().expect("a path").to_owned();
        entries.as_array().expect("entries").iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!(paths(""), ["unet", "empty.txt", "model_index.json"]);
    assert_eq!(paths("/unet"), [CONFIG, WEIGHTS]);
}

#[test]
fn what_a_model_is() {
    let site = site();
    let info = site.json(&format!("/api/models/{ID}"));
    assert_eq!((&info["id"], &info["sha"]), (&json!(ID), &json!(site.commit)));
    assert_eq!(info["siblings"][1], json!({ "rfilename": "model_index.json" }));
    let blobs = site.json(&format!("/api/models/{ID}/revision/main?blobs=true"));
    let weights = &blobs["siblings"][3];
    assert_eq!((&weights["rfilename"], &weights["size"]), (&json!(WEIGHTS), &json!(200_000)));
    assert_eq!(weights["lfs"]["sha256"], hex(&Sha256::digest(&site.weights)));
}

#[test]
fn long_trees_come_in_pages() {
    let site = site();
    site.control(json!({ "pageSize": 2 }));
    let mut path = format!("/api/models/{ID}/tree/main?recursive=true");
    let mut found = Vec::new();
    for page in 1.. {
        let answer = site.get(&path, "");
        let entries: Vec<Value> = serde_json::from_slice(&answer.body).expect("entries");
        found.extend(entries.iter().map(|entry| entry["path"].clone()));
        let link = answer.header("Link");
        if link.is_empty() {
            assert_eq!((page, entries.len()), (3, 1));
            break;
        }
        assert_eq!(entries.len(), 2);
        let start = format!("<http://{}", site.hub);
        let next = link.strip_prefix(&start).and_then(|l| l.strip_suffix(">; rel=\"next\""));
        path = next.expect("an address").to_owned();
    }
    assert_eq!(found, ["unet", "empty.txt", "model_index.json", CONFIG, WEIGHTS]);
}

#[test]
fn large_files_are_on_the_cdn_with_ranges() {
    let site = site();
    let path = format!("/{ID}/resolve/main/{WEIGHTS}");
    let sha256 = hex(&Sha256::digest(&site.weights));
    let head = ask(site.hub, "HEAD", &path, "", "").expect("an answer");
    for answer in [head, site.get(&path, "")] {
        assert_eq!(answer.status, 302);
        assert_eq!(answer.header("X-Repo-Commit"), site.commit);
        assert_eq!(answer.header("X-Linked-Size"), "200000");
        assert_eq!(answer.header("X-Linked-ETag"), format!("\"{sha256}\""));
    }
    let whole = site.cdn_get("");
    assert_eq!((whole.status, whole.body == site.weights), (200, true));
    assert_eq!(whole.header("Accept-Ranges"), "bytes");
    assert!(!whole.header("ETag").contains(&sha256));
    let part = site.cdn_get("Range: bytes=100000-100009\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, &site.weights[100_000..100_010]));
    assert_eq!(part.header("Content-Range"), "bytes 100000-100009/200000");
    assert_eq!(part.header("Content-Length"), "10");
    let beyond = site.cdn_get("Range: bytes=200000-\r\n");
    assert_eq!((beyond.status, beyond.header("Content-Range")), (416, "bytes */200000"));
}

#[test]
fn what_is_made_on_the_fly_is_a_file_like_any_other() {
    let folder = Scratch::new().with(
        "unet/big.safetensors.generated.json",
        br#"{"seed":3,"dtype":"F32","shapes":{"a":[250,99]}}"#,
    );
    let site = site();
    let publish = json!({ "publish": [{ "repo": ID, "folder": folder.path() }] });
    assert_eq!(site.control(publish).status, 200);
    let tree = site.json(&format!("/api/models/{ID}/tree/main?recursive=true"));
    let paths: Vec<_> = tree.as_array().expect("entries").iter().map(|x| &x["path"]).collect();
    assert_eq!(paths, ["unet", "unet/big.safetensors"]);

    let path = format!("/{ID}/resolve/main/unet/big.safetensors");
    let moved = ask(site.hub, "HEAD", &path, "", "").expect("an answer");
    let place = moved.header("Location").strip_prefix(&format!("http://{}", site.cdn));
    let place = place.expect("an address on the CDN");
    let get = |headers: &str| ask(site.cdn, "GET", place, headers, "").expect("an answer");
    let whole = get("").body;
    let header = u64::from_le_bytes(*whole.first_chunk().expect("a length")) as usize;
    assert_eq!(whole.len(), 8 + header + 250 * 99 * 4);
    let size = whole.len().to_string();
    assert_eq!((moved.status, moved.header("X-Linked-Size")), (302, size.as_str()));
    let head = ask(site.cdn, "HEAD", place, "", "").expect("an answer");
    assert_eq!((head.status, head.header("Content-Length")), (200, size.as_str()));
    let sha256 = hex(&Sha256::digest(&whole));
    assert_eq!(moved.header("X-Linked-ETag"), format!("\"{sha256}\""));
    assert_eq!(tree[1]["lfs"], json!({ "oid": sha256, "size": whole.len(), "pointerSize": 130 }));
    for (first, last) in [(0, 49_999), (30_001, 70_002), (69_999, whole.len() - 1)] {
        let part = get(&format!("Range: bytes={first}-{last}\r\n"));
        assert_eq!(part.header("Content-Range"), format!("bytes {first}-{last}/{size}"));
        assert!(part.body == whole[first..=last], "{first} to {last}");
    }

    let wrong = Scratch::new().with("a.generated.json", b"{}");
    let publish = json!({ "publish": [{ "repo": ID, "folder": wrong.path() }] });
    assert_eq!(site.control(publish).status, 400);
}

#[test]
fn small_files_stay_with_the_hub() {
    let site = site();
    for revision in ["main", &site.commit] {
        let moved = site.get(&format!("/{ID}/resolve/{revision}/{CONFIG}"), "");
        assert_eq!(moved.status, 307);
        assert_eq!(moved.header("X-Linked-Size"), "2");
        let place = moved.header("Location");
        let wanted = format!("/api/resolve-cache/models/{ID}/{}/{CONFIG}?", site.commit);
        assert!(place.starts_with(&wanted), "{place}");
        let answer = site.get(place, "Range: bytes=1-\r\n");
        assert_eq!((answer.status, answer.body.as_slice()), (206, &b"}"[..]));
        assert_eq!(answer.header("X-Repo-Commit"), site.commit);
        assert_eq!(answer.header("ETag"), moved.header("X-Linked-ETag"));
    }
    assert_eq!(site.get(&format!("/{ID}/raw/main/{CONFIG}"), "").body, b"{}");
}

#[test]
fn a_commit_follows_from_the_contents_and_outlives_its_branch() {
    let (site, same) = (site(), site());
    assert_eq!(site.commit, same.commit);
    assert_eq!(site.commit.len(), 40);
    let newer = Scratch::new().with("model_index.json", b"newer");
    let publish = json!({ "publish": [{ "repo": ID, "folder": newer.path() }] });
    let said = site.control(publish);
    let said: Value = serde_json::from_slice(&said.body).expect("JSON");
    let commit = said["models"][ID][MAIN].as_str().expect("a commit").to_owned();
    assert_ne!(commit, site.commit);
    let text =
        |revision: &str| site.get(&format!("/{ID}/raw/{revision}/model_index.json"), "").body;
    assert_eq!((text("main"), text(&commit)), (b"newer".to_vec(), b"newer".to_vec()));
    assert_eq!(text(&site.commit), b"hello\n");
    // A branch may have a slash, and a model more than one.
    let folder = site.folder.path();
    let publish = json!({ "repo": ID, "revision": "refs/pr/1", "folder": folder });
    assert_eq!(site.control(json!({ "publish": [publish] })).status, 200);
    assert_eq!(text("refs%2Fpr%2F1"), b"hello\n");
}

#[test]
fn errors_are_the_hubs() {
    let site = site();
    let error = |path: &str, headers: &str| {
        let answer = site.get(path, headers);
        assert!(!answer.header("X-Error-Message").is_empty(), "{path}");
        (answer.status, answer.header("X-Error-Code").to_owned())
    };
    let token = "Authorization: Bearer hf_other\r\n";
    let refused = |status, code: &str| (status, code.to_owned());
    for path in ["/api/models/no/model", "/no/model/resolve/main/a", "/no/model/raw/main/a"] {
        assert_eq!(error(path, ""), refused(401, "RepoNotFound"));
        assert_eq!(error(path, token), refused(404, "RepoNotFound"));
    }
    for path in [
        format!("/api/models/{ID}/revision/no"),
        format!("/api/models/{ID}/tree/no"),
        format!("/{ID}/resolve/no/{CONFIG}"),
        format!("/{ID}/resolve/{}/{CONFIG}", "0".repeat(40)),
    ] {
        assert_eq!(error(&path, ""), refused(404, "RevisionNotFound"));
    }
    for path in [
        format!("/{ID}/resolve/main/absent"),
        format!("/{ID}/resolve/main/unet"),
        format!("/{ID}/resolve/main/../{CONFIG}"),
        format!("/{ID}/raw/main/..%2F..%2Fsecret"),
        format!("/api/models/{ID}/tree/main/absent"),
    ] {
        assert_eq!(error(&path, ""), refused(404, "EntryNotFound"), "{path}");
    }
    assert_eq!(error("/", ""), refused(404, ""));
    let bad = site.get("/%zz", "");
    assert_eq!(bad.status, 400);

    site.control(json!({ "gate": { ID: "hf_right" } }));
    let path = format!("/{ID}/resolve/main/{CONFIG}");
    assert_eq!(error(&path, ""), refused(401, "GatedRepo"));
    assert_eq!(error(&path, token), refused(403, "GatedRepo"));
    assert_eq!(site.get(&path, "Authorization: Bearer hf_right\r\n").status, 307);
    assert_eq!(site.json(&format!("/api/models/{ID}"))["gated"], "auto");
    // What the CDN is given needs no token.
    let signed = site.signed("Authorization: Bearer hf_right\r\n");
    assert_eq!(ask(site.cdn, "GET", &signed, "", "").expect("an answer").status, 200);
    site.control(json!({ "gate": { ID: null } }));
    assert_eq!(site.get(&path, "").status, 307);
}

#[test]
fn signatures_expire_and_cannot_be_changed() {
    let site = site();
    let get = |path: &str| ask(site.cdn, "GET", path, "", "").expect("an answer");
    let signed = site.signed("");
    assert_eq!(get(&signed).status, 200);
    assert_eq!(get(&signed.replace("Signature=", "Signature=0")).status, 403);
    assert_eq!(get(&signed.replace("Expires=1", "Expires=2")).status, 403);
    assert_eq!(get(signed.split_once('?').expect("a query").0).status, 403);
    site.control(json!({ "signatureMs": 60 }));
    let signed = site.signed("");
    assert_eq!(get(&signed).status, 200);
    thread::sleep(Duration::from_millis(80));
    let late = get(&signed);
    assert_eq!((late.status, late.header("Access-Control-Allow-Origin")), (403, "*"));
    assert!(String::from_utf8_lossy(&late.body).contains("<Code>AccessDenied</Code>"));
}

#[test]
fn pages_may_read_what_the_hub_lets_them() {
    let site = site();
    let origin = "Origin: http://127.0.0.1:1\r\n";
    let moved = site.get(&format!("/{ID}/resolve/main/{WEIGHTS}"), origin);
    assert_eq!(moved.header("Access-Control-Allow-Origin"), "http://127.0.0.1:1");
    let exposed = moved.header("Access-Control-Expose-Headers");
    assert!(exposed.contains("X-Error-Code") && exposed.contains("Content-Range"), "{exposed}");
    assert!(!exposed.contains("Retry-After"));
    assert_eq!(site.cdn_get("Origin: null\r\n").header("Access-Control-Allow-Origin"), "*");
    let error = site.get(&format!("/{ID}/resolve/main/absent"), origin);
    assert_eq!(error.header("Access-Control-Allow-Origin"), "http://127.0.0.1:1");
    let asks = "Access-Control-Request-Method: GET\r\n\
                Access-Control-Request-Headers: authorization,range\r\n";
    let path = format!("/{ID}/resolve/main/{WEIGHTS}");
    let preflight = ask(site.hub, "OPTIONS", &path, asks, "").expect("an answer");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("Access-Control-Allow-Headers"), "authorization,range");
    assert_eq!(site.log().last().expect("logged")["asks"], "authorization,range");
}

#[test]
fn the_log_tells_what_was_sent_to_whom() {
    let site = site();
    site.control(json!({ "reset": true }));
    let path = site.signed("Authorization: Bearer hf_secret\r\n");
    ask(site.cdn, "GET", &path, "Range: bytes=5-9\r\n", "").expect("an answer");
    let log = site.log();
    let field = |index: usize, name: &str| log[index][name].clone();
    assert_eq!(log.len(), 2);
    assert_eq!((field(0, "origin"), field(1, "origin")), (json!("hub"), json!("cdn")));
    assert_eq!((field(0, "authorization"), field(1, "authorization")), (json!(true), json!(false)));
    assert_eq!((field(0, "status"), field(1, "status")), (json!(302), json!(206)));
    assert_eq!((field(1, "range"), field(1, "sent")), (json!("bytes=5-9"), json!(5)));
    assert_eq!((field(1, "done"), field(1, "fault")), (json!(true), Value::Null));
    for index in 0..2 {
        assert_eq!(field(index, "file"), json!(format!("{ID}/{WEIGHTS}")));
    }
    assert!(!json!(log).to_string().contains("hf_secret"));
}

#[test]
fn bodies_are_cut_at_any_byte() {
    let site = site();
    for after in [0, 1, 70_000, 199_999] {
        site.fault(json!({ "kind": "cut", "after": after }));
        let cut = site.cdn_get("");
        assert_eq!((cut.status, cut.header("Content-Length")), (200, "200000"));
        assert!(cut.body == site.weights[..after], "{after}: {} bytes", cut.body.len());
        let log = site.log();
        let entry = &log[1];
        assert_eq!((&entry["sent"], &entry["done"]), (&json!(after), &json!(false)));
        assert_eq!(entry["fault"], "cut");
        assert!(site.cdn_get("").body == site.weights, "the rule is for one request");
    }
}

#[test]
fn other_statuses() {
    let site = site();
    for status in [404, 429, 500, 503] {
        site.fault(json!({ "kind": "status", "status": status }));
        let answer = site.cdn_get("");
        assert_eq!((answer.status, answer.header("Retry-After")), (status, ""));
    }
    site.fault(json!({ "kind": "status", "status": 429, "retryAfter": 7 }));
    let answer = site.cdn_get("");
    assert_eq!(answer.header("Retry-After"), "7");
    assert!(!answer.header("Access-Control-Expose-Headers").contains("Retry-After"));
    site.fault(json!({ "kind": "status", "status": 429, "retryAfter": 7, "expose": true }));
    assert_eq!(site.cdn_get("").header("Access-Control-Expose-Headers"), "Retry-After");
}

#[test]
fn wrong_lengths_and_wrong_bytes() {
    let site = site();
    site.fault(json!({ "kind": "length", "delta": 3 }));
    let longer = site.cdn_get("");
    assert_eq!(longer.header("Content-Length"), "200003");
    assert!(longer.body.starts_with(&site.weights) && longer.body.ends_with(&[0, 0, 0]));
    site.rule(json!({ "origin": "cdn", "fault": { "kind": "length", "delta": -10 } }));
    let shorter = site.cdn_get("Range: bytes=199980-199999\r\n");
    assert_eq!(shorter.header("Content-Range"), "bytes 199980-199989/199990");
    assert_eq!(shorter.body.len(), 10);

    let wrong = |fault: Value, range: &str| {
        site.fault(fault);
        let body = site.cdn_get(&format!("Range: bytes={range}\r\n")).body;
        let first: usize = range.split('-').next().and_then(|at| at.parse().ok()).expect("first");
        let differ =
            |(at, byte): (usize, &u8)| (*byte != site.weights[first + at]).then_some(first + at);
        body.iter().enumerate().filter_map(differ).collect::<Vec<_>>()
    };
    assert_eq!(wrong(json!({ "kind": "bytes" }), "50-60"), [50]);
    assert_eq!(wrong(json!({ "kind": "bytes", "at": 55, "count": 2 }), "50-60"), [55, 56]);
    assert_eq!(wrong(json!({ "kind": "bytes", "at": 70_000 }), "0-199999"), [70_000]);
    assert_eq!(wrong(json!({ "kind": "bytes", "at": 61 }), "50-60"), [0; 0]);
}

#[test]
fn other_answers_than_asked_for() {
    let site = site();
    site.fault(json!({ "kind": "html" }));
    let html = site.cdn_get("Range: bytes=0-9\r\n");
    assert_eq!((html.status, html.header("Content-Type")), (200, "text/html; charset=utf-8"));
    site.fault(json!({ "kind": "ignore-range" }));
    let whole = site.cdn_get("Range: bytes=0-9\r\n");
    assert_eq!((whole.status, whole.body.len()), (200, 200_000));
    site.fault(json!({ "kind": "expired" }));
    assert_eq!(site.cdn_get("").status, 403);
    site.fault(json!({ "kind": "no-cors" }));
    assert_eq!(site.cdn_get("").header("Access-Control-Allow-Origin"), "");
    site.fault(json!({ "kind": "redirect-loop" }));
    let mut place = site.cdn_get("").header("Location").to_owned();
    for _ in 0..30 {
        let next = ask(site.cdn, "GET", &place, "", "").expect("an answer");
        assert_eq!((next.status, next.header("Access-Control-Allow-Origin")), (302, "*"));
        assert_ne!(next.header("Location"), place);
        place = next.header("Location").to_owned();
    }
}

#[test]
fn texts_may_come_packed() {
    let site = site();
    let fault = json!({ "path": "*config.json", "fault": { "kind": "gzip" } });
    site.rule(fault);
    let moved = site.get(&format!("/{ID}/resolve/main/{CONFIG}"), "");
    assert_eq!(moved.status, 307, "no body, no fault");
    let packed = site.get(moved.header("Location"), "Range: bytes=0-0\r\n");
    assert_eq!((packed.status, packed.header("Content-Encoding")), (200, "gzip"));
    assert_eq!(packed.header("Content-Length"), "");
    assert!(packed.header("ETag").starts_with("W/\""));
    let body = &packed.body;
    let start = body.windows(2).position(|two| two == b"\r\n").expect("a chunk's length") + 2;
    let mut text = String::new();
    let mut unpacked = GzDecoder::new(&body[start..]);
    unpacked.read_to_string(&mut text).expect("packed");
    assert_eq!(text, "{}");
}

#[test]
fn slow_and_silent() {
    let site = site();
    let start = Instant::now();
    site.fault(json!({ "kind": "slow", "bytesPerSecond": 1_000_000 }));
    assert!(site.cdn_get("").body == site.weights);
    assert!(start.elapsed() >= Duration::from_millis(200));

    site.fault(json!({ "kind": "stall", "after": 1000, "ms": 100 }));
    let start = Instant::now();
    assert_eq!(site.cdn_get("").body.len(), 1000);
    assert!(start.elapsed() >= Duration::from_millis(100));

    site.fault(json!({ "kind": "hang", "ms": 100 }));
    let path = site.signed("");
    let start = Instant::now();
    assert!(ask(site.cdn, "GET", &path, "", "").is_none());
    assert!(start.elapsed() >= Duration::from_millis(100));
}

/// Otherwise a thread would wait for each client that gave up.
#[test]
fn a_silence_ends_when_the_client_goes() {
    let site = site();
    site.fault(json!({ "kind": "stall", "after": 10 }));
    let path = site.signed("");
    let mut stream = TcpStream::connect(site.cdn).expect("connected");
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).expect("sent");
    stream.read_exact(&mut [0; 100]).expect("a beginning");
    let open = || lock(&site.shared.connections).len();
    let start = Instant::now();
    while open() > 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "those that are done are still open");
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(open(), 1, "the silence has ended too early");
    drop(stream);
    while open() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "the silence goes on");
    }
}

#[test]
fn a_restarted_server_refuses_and_comes_back() {
    let site = site();
    let mut open = TcpStream::connect(site.cdn).expect("connected");
    assert_eq!(site.control(json!({ "restartMs": 2000 })).status, 200);
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0, "the connection has ended");
    let start = Instant::now();
    let refuses = |address: SocketAddr| TcpStream::connect(address).is_err();
    while !(refuses(site.hub) && refuses(site.cdn)) {
        assert!(start.elapsed() < Duration::from_millis(1500), "it does not go down");
        // Too many at once would wait for one another.
        thread::sleep(Duration::from_millis(10));
    }
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(site.hub).is_err() || TcpStream::connect(site.cdn).is_err() {
        assert!(Instant::now() < end, "it does not come back");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(site.cdn_get("").body == site.weights);

    site.fault(json!({ "kind": "restart", "ms": 50 }));
    let path = site.signed("");
    assert!(ask(site.cdn, "GET", &path, "", "").is_none());
    thread::sleep(Duration::from_millis(150));
    assert_eq!(ask(site.cdn, "GET", &path, "", "").expect("an answer").status, 200);
}

#[test]
fn rules_are_for_some_requests() {
    let site = site();
    let failing = |rule: Value, requests: &[&str]| {
        site.rule(rule);
        let failed =
            |range: &&str| site.cdn_get(&format!("Range: bytes={range}\r\n")).status == 500;
        requests.iter().map(failed).collect::<Vec<_>>()
    };
    let fault = json!({ "kind": "status", "status": 500 });
    let third = json!({ "origin": "cdn", "nth": 3, "fault": fault });
    assert_eq!(failing(third, &["0-"; 4]), [false, false, true, false]);
    let two = json!({ "origin": "cdn", "nth": 2, "times": 2, "fault": fault });
    assert_eq!(failing(two, &["0-"; 4]), [false, true, true, false]);
    let all = json!({ "origin": "cdn", "times": 0, "fault": fault });
    assert_eq!(failing(all, &["0-"; 3]), [true; 3]);
    let covers = json!({ "covers": 100, "times": 0, "fault": fault });
    assert_eq!(failing(covers, &["0-99", "100-", "0-100", "101-"]), [false, true, true, false]);
    let other = json!({ "path": "*.json", "times": 0, "fault": fault });
    assert_eq!(failing(other, &["0-"]), [false]);
    let heads = json!({ "method": "HEAD", "times": 0, "fault": fault });
    assert_eq!(failing(heads, &["0-"]), [false]);
    let state: Value = site.json("/_control");
    assert_eq!((&state["rules"][0]["seen"], &state["rules"][0]["hits"]), (&json!(0), &json!(0)));
    // Rules before others win, and both count.
    let both = json!([{ "origin": "cdn", "fault": fault }, { "origin": "cdn", "times": 0,
        "fault": { "kind": "html" } }]);
    site.control(json!({ "reset": true, "rules": both }));
    assert_eq!((site.cdn_get("").status, site.cdn_get("").status), (500, 200));
    assert_eq!(site.json("/_control")["rules"][1]["hits"], 1);
    assert_eq!(site.json("/_control")["rules"][1]["seen"], 2);
}

#[test]
fn what_control_does_not_understand_is_refused() {
    let site = site();
    for wrong in [
        json!({ "rule": [] }),
        json!({ "rules": [{ "fault": { "kind": "no" } }] }),
        json!({ "rules": [{ "fault": { "kind": "cut" } }] }),
        json!({ "rules": [{ "fault": { "kind": "html", "after": 1 } }] }),
        json!({ "rules": [{ "nht": 1, "fault": { "kind": "html" } }] }),
        json!({ "rules": [{ "origin": "elsewhere", "fault": { "kind": "html" } }] }),
        json!({ "publish": [{ "repo": "no-owner", "folder": site.folder.path() }] }),
        json!({ "publish": [{ "repo": ID, "folder": site.folder.path().join("absent") }] }),
        json!(1),
    ] {
        let answer = site.control(wrong.clone());
        let said: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, said["error"].is_string()), (400, true), "{wrong}");
    }
    assert_eq!(site.json("/_control")["rules"], json!([]));
}

#[test]
fn a_connection_takes_many_requests() {
    let site = site();
    let mut stream = BufReader::new(TcpStream::connect(site.hub).expect("connected"));
    for _ in 0..3 {
        let request = format!("HEAD /{ID}/resolve/main/{CONFIG} HTTP/1.1\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).expect("sent");
        let answer = Answer::read_head(&mut stream);
        assert_eq!((answer.status, answer.header("Connection")), (307, "keep-alive"));
    }
}

#[test]
fn models_are_folders_with_two_names() {
    let server = HubServer::bind(0).expect("bound");
    let folder = Scratch::new();
    for id in ["name", "a/b/c", "/b", "a/", ""] {
        assert!(server.publish(id, MAIN, folder.path()).is_err(), "{id:?}");
    }
    assert!(server.publish("a/b", MAIN, Path::new("/no/such/folder")).is_err());
    assert!(server.publish("a/b", MAIN, folder.path()).is_ok());
}

#[test]
fn stars_stand_for_anything() {
    for (pattern, text) in [
        ("*", ""),
        ("a*", "abc"),
        ("*c", "abc"),
        ("a*c", "abc"),
        ("*b*", "abc"),
        ("a", "a"),
        ("a**c", "ac"),
    ] {
        assert!(glob(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a*", "ba"), ("*c", "cb"), ("a*a", "a"), ("*x*", "abc")] {
        assert!(!glob(pattern, text), "{pattern} {text}");
    }
}
