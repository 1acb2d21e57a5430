//! Where a model's files come from: addresses, the Hub's listings, ranged reads, retries.

mod api;
#[cfg(not(target_family = "wasm"))]
mod directory;
#[cfg(all(target_family = "wasm", feature = "js"))]
mod fetch;
mod remote;
mod retry;
mod source;
#[cfg(test)]
pub(crate) mod tests;

pub use api::{FileHash, TreeEntry, fetch_commit, fetch_tree};
#[cfg(not(target_family = "wasm"))]
pub use directory::Directory;
#[cfg(all(target_family = "wasm", feature = "js"))]
pub use fetch::{BrowserFetch, sleep};
pub use remote::{MAX_PARALLEL, PARALLEL, Pace, Probe, RemoteFile};
pub use retry::{MAX_ATTEMPTS, retry_delay};
pub use source::{DEFAULT_ENDPOINT, Hub, ModelSource, Token};

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};

use crate::error::Result;

/// How long a connection may send nothing before it is given up.
pub const STALL: Duration = Duration::from_secs(20);

/// A GET request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    /// The absolute address.
    pub url: String,
    /// The bytes asked for; all when absent.
    pub range: Option<Range<u64>>,
    /// A token for gated models.
    pub token: Option<Token>,
    /// Whether the browser's own HTTP cache is to keep out: what the model cache keeps need not be on
    /// the disk twice.
    pub no_store: bool,
}

/// An answer with a status of success; other statuses are errors.
pub struct Response {
    /// The whole file's length in bytes, where the server tells.
    pub total: Option<u64>,
    /// Whether the body is the range asked for (206) rather than the whole file (200).
    pub partial: bool,
    /// The first byte of the body within the file, where the server tells.
    pub start: Option<u64>,
    /// Where redirects led; empty where the platform does not tell.
    pub url: String,
    /// The `Content-Type`, where the server tells.
    pub content_type: Option<String>,
    /// The `ETag`, or else the `Last-Modified`, where the server tells.
    pub validator: Option<String>,
    /// The next page of a listing (`Link` with `rel="next"`).
    pub next: Option<String>,
    /// The bytes as they arrive.
    pub body: Box<dyn Body>,
}

/// A body that is still arriving. Dropping it ends the request.
pub trait Body {
    /// The next bytes; `None` at the end.
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>>;
}

/// Reads over HTTP, or from what stands in for it.
pub trait Fetch {
    /// Starts a request and waits for the answer's head. Dropping the future ends the request.
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>>;

    /// Waits, between retries and for connections that say nothing.
    ///
    /// # Errors
    /// [`Error::Aborted`](crate::Error::Aborted) as soon as the load is.
    fn wait(&self, duration: Duration) -> LocalBoxFuture<'_, Result<()>>;

    /// Fails when the load was aborted.
    ///
    /// # Errors
    /// [`Error::Aborted`](crate::Error::Aborted).
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How long a connection may send nothing.
    fn stall(&self) -> Duration {
        STALL
    }
}

/// How many bytes have arrived, all files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the network (or from where the files were given).
    pub fetched: u64,
    /// From the cache.
    pub cached: u64,
}

impl Traffic {
    /// All bytes.
    pub fn total(self) -> u64 {
        self.fetched + self.cached
    }
}

/// The files of one model, wherever they are kept.
pub trait ModelFiles {
    /// Reads a small file whole.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when the model has no such file; network errors;
    /// [`Error::HashMismatch`](crate::Error::HashMismatch).
    fn read<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Vec<u8>>>;

    /// Opens a large file. Of files that are read side by side, those opened first come first.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn open<'a>(&'a self, path: &str) -> LocalBoxFuture<'a, Result<Box<dyn FileReader + 'a>>>;

    /// The same for a file of weights of which nobody needs more than half precision, see [`FileReader::round`].
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn open_rounded<'a>(
        &'a self,
        path: &str,
    ) -> LocalBoxFuture<'a, Result<Box<dyn FileReader + 'a>>> {
        self.open(path)
    }

    /// A file's address, for messages.
    fn address(&self, path: &str) -> String;

    /// The paths of all files, in order, where that is known: a plain folder on a server does not say.
    fn paths(&self) -> Vec<String>;

    /// Called when all files are open and none is read yet: makes room for them.
    ///
    /// # Errors
    /// [`Error::Aborted`](crate::Error::Aborted).
    fn prepare(&self) -> LocalBoxFuture<'_, Result<()>>;

    /// Called when all files have been read to their ends.
    ///
    /// # Errors
    /// [`Error::Aborted`](crate::Error::Aborted).
    fn finish(&self) -> LocalBoxFuture<'_, Result<()>>;

    /// Called when all that is wanted of a model has been read, where that is not all that it takes to load it: its
    /// configurations, for a checkpoint in one file, or a LoRA beside it.
    ///
    /// # Errors
    /// [`Error::Aborted`](crate::Error::Aborted).
    fn finish_part(&self) -> LocalBoxFuture<'_, Result<()>>;

    /// Called when reading has ended before that, and no reader is left: keeps what has arrived.
    fn stop(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    /// Bytes of the files that are open which are not on this machine yet.
    fn missing(&self) -> u64 {
        0
    }

    /// Bytes of this machine's storage that these are going to take.
    fn storage(&self) -> u64 {
        self.missing()
    }

    /// What has arrived so far.
    fn traffic(&self) -> Traffic;
}

/// Says that something has been read which may lie beside a whole model, as a LoRA or a safety checker does: the model is not
/// complete by that.
///
/// # Errors
/// As [`ModelFiles::finish`].
pub async fn finish_beside(files: &dyn ModelFiles) -> Result<()> {
    match files.paths().iter().any(|path| path == "model_index.json") {
        true => files.finish_part().await,
        false => files.finish().await,
    }
}

/// Called when [`ModelFiles::traffic`] has changed.
pub type OnArrival<'a> = dyn FnMut() + 'a;

/// Bytes of a file that have arrived together.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The place of the first of them in the file.
    pub start: u64,
    /// The bytes, which the reader may hold, too.
    pub bytes: Rc<Vec<u8>>,
}

/// A file that is read once. Its bytes are handed out as they arrive, in any order, each once.
pub trait FileReader {
    /// The file's size in bytes.
    fn size(&self) -> u64;

    /// The file's first `length` bytes, before anything is handed out. They are handed out all the
    /// same.
    ///
    /// # Errors
    /// [`Error::Network`](crate::Error::Network) when the file ends before; network errors.
    fn head<'a>(
        &'a mut self,
        length: u64,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>>>;

    /// Says, when the head is known and before anything else is handed out, where values of single precision are whose
    /// reader rounds them to half precision: first and last byte of each tensor, in order. They may be kept as halves,
    /// and come as such with four bytes each from then on. Only files that were
    /// [opened for that](ModelFiles::open_rounded) are.
    fn round(&mut self, _values: Vec<Range<u64>>) {}

    /// Says how many bytes of storage less than its size the file is going to take by [`round`](Self::round), as far
    /// as that is known without its head.
    fn expect_rounded(&mut self, _bytes: u64) {}

    /// Says, when the head is known and before anything else is handed out, that nobody has a use for other bytes than
    /// these: first and last byte of each range, in order. Others may be left out, where they need not be proven to be
    /// right nor kept.
    fn only(&mut self, _ranges: &[Range<u64>]) {}

    /// The next bytes that have arrived; `None` when all were handed out.
    ///
    /// # Errors
    /// Network errors.
    fn next<'a>(
        &'a mut self,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Option<Piece>>>;

    /// Passes over what was not handed out, which is hashed and kept all the same, and compares the
    /// whole file's hash with the one that the Hub says.
    ///
    /// # Errors
    /// [`Error::HashMismatch`](crate::Error::HashMismatch), and nothing of the file stays in the
    /// cache then; as [`next`](Self::next).
    fn finish<'a>(
        &'a mut self,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<()>>;

    /// Called when the bytes make no sense: what was not proven to be right leaves the cache, so
    /// that the next load fetches it anew.
    fn reject(&mut self) -> LocalBoxFuture<'_, ()>;
}
