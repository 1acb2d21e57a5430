//! What the Hub says about a repository: its commit, and its files with sizes and hashes.

use serde::Deserialize;

use super::remote::RemoteFile;
use super::{Fetch, Hub, Request};
use crate::error::{Error, Result};

/// Pages of a listing that are read before it is taken to be endless.
const MAX_PAGES: usize = 100;

/// Answers to a request for a page until it is believed to be wrong.
const PAGE_TRIES: usize = 3;

/// What proves that a file is the one meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileHash {
    /// Of files in LFS or Xet: sha256 of the bytes, in hexadecimal digits.
    Sha256(String),
    /// Of other files: git's blob id, sha1 over `blob SIZE\0` and the bytes.
    GitBlob(String),
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The path inside the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What its content must be.
    pub hash: FileHash,
}

/// The commit that the Hub's revision stands for, 40 hexadecimal digits. Costs nothing when the
/// revision is a commit already.
///
/// # Errors
/// Network errors; [`Error::NotFound`] when the Hub does not know repository or revision.
pub async fn fetch_commit(fetch: &dyn Fetch, hub: &Hub) -> Result<String> {
    if is_hex(&hub.revision, 40) {
        return Ok(hub.revision.clone());
    }
    let url = hub.api("revision");
    Ok(page(fetch, hub, &url, parse_commit).await?.0)
}

/// All files of the repository at `hub.revision`.
///
/// # Errors
/// As [`fetch_commit`].
pub async fn fetch_tree(fetch: &dyn Fetch, hub: &Hub) -> Result<Vec<TreeEntry>> {
    let mut url = format!("{}?recursive=true", hub.api("tree"));
    let mut entries = Vec::new();
    for _ in 0..MAX_PAGES {
        let (page, next) = page(fetch, hub, &url, parse_tree).await?;
        entries.extend(page);
        match next {
            Some(next) => url = next_page(hub, &url, &next)?,
            None => return Ok(entries),
        }
    }
    // Half a listing would have files missing that are there.
    Err(invalid(&url, &format!("a listing of more than {MAX_PAGES} pages")))
}

/// Where a listing goes on: always at the endpoint, because the token goes along. Mirrors may hand on
/// the Hub's own address, or leave its beginning out.
fn next_page(hub: &Hub, url: &str, next: &str) -> Result<String> {
    let path = if next.starts_with('?') {
        let page = url.split('?').next().unwrap_or_default();
        return Ok(format!("{page}{next}"));
    } else {
        next.find("/api/models/").map(|at| &next[at..])
    };
    let path = path.ok_or_else(|| invalid(url, &format!("a listing that goes on at {next}")))?;
    Ok(format!("{}{path}", hub.endpoint))
}

/// What `parse` makes of a page, and the address of the next one. An answer that is none is asked for again: one
/// that was cut where its `Content-Length` says it ends looks whole.
async fn page<T>(
    fetch: &dyn Fetch,
    hub: &Hub,
    url: &str,
    parse: fn(&str, &[u8]) -> Result<T>,
) -> Result<(T, Option<String>)> {
    let mut tries = 1;
    loop {
        let request = Request { url: url.into(), token: hub.token.clone(), ..Request::default() };
        let (body, next) = RemoteFile::new(request).page(fetch).await?;
        match parse(url, &body) {
            Ok(page) => return Ok((page, next)),
            Err(error) if tries == PAGE_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

fn parse_commit(url: &str, json: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Revision {
        sha: String,
    }
    let revision: Revision = serde_json::from_slice(json).map_err(|e| invalid(url, &e))?;
    if !is_hex(&revision.sha, 40) {
        return Err(invalid(url, &format!("`{}` is no commit", revision.sha)));
    }
    Ok(revision.sha)
}

fn parse_tree(url: &str, json: &[u8]) -> Result<Vec<TreeEntry>> {
    #[derive(Deserialize)]
    struct Lfs {
        oid: String,
        size: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Entry {
        r#type: String,
        path: String,
        #[serde(default)]
        oid: String,
        #[serde(default)]
        size: u64,
        lfs: Option<Lfs>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(json).map_err(|e| invalid(url, &e))?;
    let files = entries.into_iter().filter(|entry| entry.r#type == "file");
    files
        .map(|Entry { path, oid, size, lfs, .. }| {
            let (size, hash, valid) = match lfs {
                Some(lfs) => {
                    let valid = is_hex(&lfs.oid, 64);
                    (lfs.size.unwrap_or(size), FileHash::Sha256(lfs.oid), valid)
                }
                None => {
                    let valid = is_hex(&oid, 40);
                    (size, FileHash::GitBlob(oid), valid)
                }
            };
            if !valid {
                return Err(invalid(url, &format!("the hash of {path} is none")));
            }
            Ok(TreeEntry { path, size, hash })
        })
        .collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

fn invalid(url: &str, message: &dyn std::fmt::Display) -> Error {
    Error::InvalidResponse { url: url.into(), message: message.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn commits_are_read() {
        let json = format!(r#"{{"id":"a/b","sha":"{BLOB}","siblings":[]}}"#);
        assert_eq!(parse_commit("u", json.as_bytes()).expect("valid"), BLOB);
        for json in ["{}", "<html>", r#"{"sha":"main"}"#, r#"{"sha":"../../x"}"#] {
            let error = parse_commit("u", json.as_bytes()).expect_err(json);
            assert_eq!(error.code(), "invalid-response");
        }
    }

    #[test]
    fn listings_are_read() {
        let sha = "ab".repeat(32);
        let json = format!(
            r#"[{{"type":"directory","path":"unet","oid":"{BLOB}","size":0}},
                {{"type":"file","path":"model_index.json","oid":"{BLOB}","size":12}},
                {{"type":"file","path":"unet/x.safetensors","oid":"{BLOB}","size":9000000000,
                  "lfs":{{"oid":"{sha}","size":9000000000,"pointerSize":134}},"xetHash":"f"}}]"#
        );
        let entries = parse_tree("u", json.as_bytes()).expect("valid");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].hash, FileHash::GitBlob(BLOB.into()));
        assert_eq!((entries[1].size, &entries[1].hash), (9_000_000_000, &FileHash::Sha256(sha)));
    }

    #[test]
    fn listings_go_on_at_the_endpoint() {
        let hub = Hub {
            repo: "a/b".into(),
            revision: "main".into(),
            endpoint: "https://mirror.org/hub".into(),
            token: None,
        };
        let url = "https://mirror.org/hub/api/models/a/b/tree/main?recursive=true";
        let next = |next| next_page(&hub, url, next).map_err(|error| error.code());
        let wanted = "https://mirror.org/hub/api/models/a/b/tree/main?cursor=x";
        for found in [
            wanted,
            "https://huggingface.co/api/models/a/b/tree/main?cursor=x",
            "/api/models/a/b/tree/main?cursor=x",
            "?cursor=x",
        ] {
            assert_eq!(next(found).as_deref(), Ok(wanted), "{found}");
        }
        assert_eq!(next("https://elsewhere.org/page2"), Err("invalid-response"));
    }

    #[test]
    fn listings_without_hashes_are_refused() {
        for json in [
            r#"[{"type":"file","path":"a","size":1}]"#,
            r#"[{"type":"file","path":"a","size":1,"oid":"","lfs":{"oid":"x"}}]"#,
            r#"[{"type":"file","path":"a","size":-1,"oid":"x"}]"#,
            "{}",
        ] {
            let error = parse_tree("u", json.as_bytes()).expect_err(json);
            assert_eq!(error.code(), "invalid-response");
        }
    }
}
