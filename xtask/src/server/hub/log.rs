//! What was asked for and what was sent, for the tests to look at.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::Origin;

/// One request.
#[derive(Debug)]
pub struct Entry {
    pub number: u64,
    /// Milliseconds since the server started.
    pub at: u64,
    pub origin: Origin,
    pub method: String,
    pub path: String,
    pub query: String,
    /// `owner/name/path` where a file was asked for.
    pub file: OnceLock<String>,
    pub range: Option<String>,
    /// Whether a token came along. Which, no log should say.
    pub authorization: bool,
    /// The headers that a preflight asks for.
    pub asks: Option<String>,
    pub fault: OnceLock<&'static str>,
    /// 0 until there is one.
    pub status: AtomicU16,
    /// Bytes of the body that the socket has taken.
    pub sent: AtomicU64,
    /// Whether the answer has been sent to its end.
    pub done: AtomicBool,
}

impl Entry {
    fn to_json(&self) -> Value {
        json!({
            "n": self.number,
            "at": self.at,
            "origin": self.origin,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "file": self.file.get(),
            "range": self.range,
            "authorization": self.authorization,
            "asks": self.asks,
            "status": self.status.load(Ordering::Relaxed),
            "sent": self.sent.load(Ordering::Relaxed),
            "done": self.done.load(Ordering::Relaxed),
            "fault": self.fault.get(),
        })
    }
}

/// All requests, in the order of their arrival.
#[derive(Default)]
pub struct Log(Vec<Arc<Entry>>);

impl Log {
    /// The number of the next entry.
    pub fn next(&self) -> u64 {
        self.0.len() as u64
    }

    /// Notes a request, whose answer will be filled in.
    pub fn add(&mut self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.0.push(Arc::clone(&entry));
        entry
    }

    /// As the tests read it.
    pub fn to_json(&self) -> Value {
        json!({ "requests": self.0.iter().map(|entry| entry.to_json()).collect::<Vec<_>>() })
    }
}
