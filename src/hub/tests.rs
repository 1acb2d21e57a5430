//! A server in memory, for the unit tests of everything that fetches.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, pending, ready};

use super::{Body, Fetch, Request, Response};
use crate::error::{Error, Result};

pub use pollster::block_on;

/// What an answer may have wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Another status than success.
    Status(u16),
    /// Status 429, with the seconds to wait.
    RetryAfter(f64),
    /// The connection ends after so many bytes.
    CutAfter(usize),
    /// The connection stays silent after so many bytes.
    StallAfter(usize),
    /// No answer at all.
    Hang,
    /// A web page with status 200.
    Html,
    /// Another length of the whole file than the true one.
    Length(u64),
    /// A range from another place than the one asked for.
    Start(u64),
    /// A bit of the byte at this place of the file is flipped.
    Flip(u64),
    /// There is no network.
    Offline,
}

/// A server in memory: what it holds, whether it knows ranges, and the errors it still makes.
pub struct Memory {
    files: RefCell<BTreeMap<String, Vec<u8>>>,
    /// Whether it knows ranges.
    pub ranges: bool,
    /// Whether `Content-Range` and `Content-Length` can be read.
    pub tells_total: bool,
    /// Whether it redirects to signed addresses.
    pub cdn: bool,
    signature: Cell<u32>,
    faults: RefCell<VecDeque<Fault>>,
    always: Cell<Fault>,
    requests: RefCell<Vec<Request>>,
    waits: RefCell<Vec<Duration>>,
    /// Bytes that arrive together.
    piece: Cell<usize>,
}

impl Memory {
    /// A server of nothing.
    pub fn new() -> Self {
        Self {
            files: RefCell::default(),
            ranges: true,
            tells_total: true,
            cdn: false,
            signature: Cell::default(),
            faults: RefCell::default(),
            always: Cell::new(Fault::None),
            requests: RefCell::default(),
            waits: RefCell::default(),
            piece: Cell::new(100_003),
        }
    }

    /// Adds a file.
    pub fn with(self, path: &str, bytes: Vec<u8>) -> Self {
        self.put(path, bytes);
        self
    }

    /// Adds or replaces a file.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.files.borrow_mut().insert(path.into(), bytes);
    }

    /// A file.
    pub fn file(&self, path: &str) -> Vec<u8> {
        self.files.borrow()[path].clone()
    }

    /// What the next answers have wrong, the next one first.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.replace(faults.into_iter().collect());
    }

    /// What all further answers have wrong.
    pub fn fail_always(&self, fault: Fault) {
        self.always.set(fault);
    }

    /// How many bytes arrive together.
    pub fn pieces_of(&self, bytes: usize) {
        self.piece.set(bytes);
    }

    /// Makes all signed addresses invalid.
    pub fn expire(&self) {
        self.signature.set(self.signature.get() + 1);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.requests.borrow_mut().clear();
    }

    /// The ranges asked for so far.
    pub fn ranges_asked(&self) -> Vec<Range<u64>> {
        self.requests.borrow().iter().filter_map(|request| request.range.clone()).collect()
    }

    /// How long was waited so far.
    pub fn waits(&self) -> Vec<Duration> {
        self.waits.borrow().clone()
    }

    fn answer(&self, request: &Request, fault: Fault) -> Result<Response> {
        let url = &request.url;
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let signature = format!("signature={}", self.signature.get());
        if query.contains("signature") && query != signature {
            return Err(Error::HttpStatus { url: url.clone(), status: 403, retry_after: None });
        }
        let files = self.files.borrow();
        let file = files.get(path).ok_or_else(|| Error::NotFound { url: url.clone() })?;
        let size = file.len() as u64;
        let range = request.range.clone().filter(|_| self.ranges);
        let partial = range.is_some();
        let range = range.unwrap_or(0..size);
        let mut bytes = file[range.start as usize..range.end.min(size) as usize].to_vec();
        let mut response = Response {
            total: self.tells_total.then_some(size).or((!partial && self.ranges).then_some(size)),
            partial,
            start: partial.then_some(range.start),
            url: if self.cdn { format!("http://cdn/{path}?{signature}") } else { url.clone() },
            content_type: None,
            validator: Some(format!("\"{path}-{size}\"")),
            next: None,
            body: Box::new(Chunks { chunks: VecDeque::new(), silent: false }),
        };
        let mut silent = false;
        match fault {
            Fault::Status(404) => return Err(Error::NotFound { url: url.clone() }),
            Fault::Status(status) => {
                return Err(Error::HttpStatus { url: url.clone(), status, retry_after: None });
            }
            Fault::RetryAfter(seconds) => {
                let retry_after = Some(seconds);
                return Err(Error::HttpStatus { url: url.clone(), status: 429, retry_after });
            }
            Fault::Offline => {
                let message = "offline".into();
                return Err(Error::Network { url: url.clone(), message });
            }
            Fault::CutAfter(length) => bytes.truncate(length),
            Fault::StallAfter(length) => {
                bytes.truncate(length);
                silent = true;
            }
            Fault::Html => {
                response.content_type = Some("text/html; charset=utf-8".into());
                response.total = Some(11);
                response.partial = false;
                bytes = b"<html>login".to_vec();
            }
            Fault::Length(length) => response.total = Some(length),
            Fault::Start(start) => response.start = Some(start),
            Fault::Flip(at) => {
                if let Some(byte) = at.checked_sub(range.start).map(|at| at as usize)
                    && byte < bytes.len()
                {
                    bytes[byte] ^= 1;
                }
            }
            Fault::None | Fault::Hang => {}
        }
        let chunks = bytes.chunks(self.piece.get()).map(<[u8]>::to_vec).collect();
        response.body = Box::new(Chunks { chunks, silent });
        Ok(response)
    }
}

struct Chunks {
    chunks: VecDeque<Vec<u8>>,
    silent: bool,
}

impl Body for Chunks {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        match self.chunks.pop_front() {
            None if self.silent => Box::pin(pending()),
            chunk => Box::pin(ready(Ok(chunk))),
        }
    }
}

impl Fetch for Memory {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        self.requests.borrow_mut().push(request.clone());
        let fault = self.faults.borrow_mut().pop_front().unwrap_or(self.always.get());
        if fault == Fault::Hang {
            return Box::pin(pending());
        }
        Box::pin(ready(self.answer(&request, fault)))
    }

    fn wait(&self, duration: Duration) -> LocalBoxFuture<'_, Result<()>> {
        self.waits.borrow_mut().push(duration);
        Box::pin(ready(Ok(())))
    }
}
