//! Where a model's files come from: addresses, ranged reads, retries.

#[cfg(not(target_family = "wasm"))]
mod directory;
#[cfg(all(target_family = "wasm", feature = "js"))]
mod fetch;
mod reader;
mod retry;
mod source;

#[cfg(not(target_family = "wasm"))]
pub use directory::Directory;
#[cfg(all(target_family = "wasm", feature = "js"))]
pub use fetch::{BrowserFetch, sleep};
pub use reader::{CHUNK_BYTES, FileReader, read_file};
pub use retry::{MAX_ATTEMPTS, retry_delay};
pub use source::{Hub, ModelSource};

use std::ops::Range;

use futures_util::future::LocalBoxFuture;

use crate::error::Result;

/// A GET request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The absolute address.
    pub url: String,
    /// The bytes asked for; all when absent.
    pub range: Option<Range<u64>>,
    /// A token for gated models. Never logged.
    pub token: Option<String>,
}

/// An answer with a status of success; other statuses are errors.
pub struct Response {
    /// The whole file's length in bytes, where the server tells.
    pub total: Option<u64>,
    /// Whether the body is the range asked for (206) rather than the whole file (200).
    pub partial: bool,
    /// The bytes as they arrive.
    pub body: Box<dyn Body>,
}

/// A body that is still arriving.
pub trait Body {
    /// The next bytes; `None` at the end.
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>>;
}

/// Reads over HTTP, or from what stands in for it.
pub trait Fetch {
    /// Starts a request and waits for the answer's head.
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>>;

    /// Waits, between retries.
    fn wait(&self, duration: std::time::Duration) -> LocalBoxFuture<'_, ()>;
}
