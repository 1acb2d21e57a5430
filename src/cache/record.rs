//! What is written down of models and their contents, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a model consists of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRecord {
    /// [`ModelSource::name`](crate::hub::ModelSource::name).
    pub model: String,
    /// The commit, where the Hub tells.
    pub commit: Option<String>,
    /// Branches and tags that stood for the commit when they were looked up last.
    pub revisions: BTreeSet<String>,
    /// Whether `files` is all that the repository has.
    pub listed: bool,
    /// The files by their paths.
    pub files: BTreeMap<String, FileRecord>,
    /// Paths that the server does not have, where there is no listing.
    pub absent: BTreeSet<String>,
    /// Whether the model was loaded once, so that it can be loaded from the cache alone.
    pub complete: bool,
    /// Whether a part of it was read for something else, as its configurations are for a checkpoint in one file, so that the
    /// same can be read from the cache alone.
    pub in_part: bool,
    /// When it was loaded last, milliseconds since 1970.
    pub used: f64,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// The content's id.
    pub content: String,
}

/// How much of a content is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRecord {
    /// Bytes in all.
    pub size: u64,
    /// Bytes of each chunk but the last.
    pub chunk_bytes: u64,
    /// Chunks from the first on whose bytes are in `state`.
    pub hashed: u32,
    /// SHA-256 over them.
    pub state: Option<[u32; 8]>,
    /// Whether the whole hash was found right.
    pub complete: bool,
}

/// A model in the cache, as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedModel {
    /// The model's name.
    pub model: String,
    /// The commit, where there is one.
    pub commit: Option<String>,
    /// Bytes in the cache. Files that several models share count for each.
    pub bytes: u64,
    /// Whether it can be loaded from the cache alone.
    pub complete: bool,
    /// When it was loaded last, milliseconds since 1970.
    pub used: f64,
}

impl ContentRecord {
    /// How many chunks there are.
    pub(super) fn count(&self) -> u32 {
        self.size.div_ceil(self.chunk_bytes) as u32
    }
}

impl ModelRecord {
    pub(super) fn key(&self) -> String {
        format!("model/{}@{}", self.model, self.commit.as_deref().unwrap_or("-"))
    }

    /// Whether the record is what `revision` stood for last.
    pub(super) fn answers(&self, model: &str, revision: Option<&str>) -> bool {
        let is_revision = |revision: &str| {
            self.commit.as_deref() == Some(revision) || self.revisions.contains(revision)
        };
        self.model == model && revision.is_none_or(is_revision)
    }
}

/// The lock of the model whose record is at `key`.
pub(super) fn lock_name(key: &str) -> String {
    format!("instruct-pix2pix-web {key}")
}

pub(super) fn content_key(id: &str) -> String {
    format!("content/{id}")
}

pub(super) fn chunk_key(id: &str, index: u32) -> String {
    format!("chunk/{id}/{index:05}")
}

/// A chunk's length in a content of `size` bytes.
pub(super) fn chunk_length(size: u64, chunk_bytes: u64, index: u32) -> u64 {
    size.saturating_sub(u64::from(index) * chunk_bytes).min(chunk_bytes)
}

/// The content and the place of a whole chunk.
pub(super) fn parse_chunk_key(key: &str) -> Option<(&str, u32)> {
    let (id, index) = key.strip_prefix("chunk/")?.rsplit_once('/')?;
    Some((id, index.parse().ok()?))
}
