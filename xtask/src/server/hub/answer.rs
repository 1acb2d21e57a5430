//! Answers, and how they are sent: whole, in part, slowly, wrongly.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::http::{self, Range, Request};
use super::log::Entry;
use super::repository::Source;

/// Bytes handed to the socket at once.
const PIECE_BYTES: u64 = 64 * 1024;

/// How often a slow answer is written to, each second.
const SLOW_PIECES: u64 = 20;

/// What the Hub lets pages read.
pub const HUB_EXPOSED: &str = "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,\
     X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag,X-Xet-Hash";

/// What its CDN lets them read.
pub const CDN_EXPOSED: &str = "Accept-Ranges,Content-Range,ETag";

/// An answer as it would be for the whole of what was asked for.
pub struct Answer {
    pub status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
    /// Whether parts of it may be had.
    ranges: bool,
    /// Whether it is what was asked for, rather than an error or another address.
    pub wanted: bool,
    /// `owner/name/path` of the file that it is about.
    pub file: Option<String>,
}

enum Body {
    Bytes(Vec<u8>),
    File { source: Source, size: u64 },
}

/// What is done to an answer on its way out.
#[derive(Default)]
pub struct Shape {
    /// The connection ends after so many bytes of the body.
    pub cut: Option<u64>,
    /// Bytes that are turned over: the first (or the answer's first), and how many.
    pub flip: Option<(Option<u64>, u64)>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// Bytes after which nothing comes for so long, and then the end.
    pub stall: Option<(u64, Duration)>,
    /// Bytes that the file has more, or fewer.
    pub delta: i64,
    /// Ranges are ignored.
    pub whole: bool,
    /// Compressed.
    pub gzip: bool,
}

impl Answer {
    /// Any status with some text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let body = Body::Bytes(text.into().into_bytes());
        Self { status, headers: Vec::new(), body, ranges: false, wanted: false, file: None }
            .with("Content-Type", "text/plain; charset=utf-8")
    }

    /// Success, with some JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        let mut answer = Self::text(200, value.to_string());
        answer.wanted = true;
        answer.with("Content-Type", "application/json; charset=utf-8")
    }

    /// A file.
    pub fn file(source: Source, size: u64) -> Self {
        let name = match &source {
            Source::File(place) => place.to_string_lossy(),
            // Weights have no type of their own.
            Source::Generated(_) => "".into(),
        };
        let answer = Self::text(200, "").with("Content-Type", http::content_type(&name));
        let body = Body::File { source, size };
        Self { body, ranges: true, wanted: true, ..answer }.with("Accept-Ranges", "bytes")
    }

    /// A text that stands for a file.
    pub fn pointer(text: &str) -> Self {
        Self { wanted: true, ..Self::text(200, text) }
    }

    /// A preflight's.
    pub fn preflight(request: &Request) -> Self {
        let asked = request.header("access-control-request-headers").unwrap_or_default();
        Self::text(204, "")
            .with("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
            .with("Access-Control-Allow-Headers", asked)
            .with("Access-Control-Max-Age", "86400")
    }

    /// Another address.
    pub fn redirect(status: u16, location: String) -> Self {
        Self::text(status, format!("Redirecting to {location}")).with("Location", location)
    }

    /// Names the file, as `owner/name/path`.
    pub fn about(self, file: String) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Sets a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|header| header.0 != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Takes away all that lets pages read it.
    pub fn without_cors(mut self) -> Self {
        self.headers.retain(|(name, _)| !name.starts_with("Access-Control-"));
        self
    }

    fn size(&self) -> u64 {
        match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { size, .. } => *size,
        }
    }

    /// The first byte and the last of what is to be sent; none of what is empty.
    pub fn range(&self, request: &Request) -> Option<(u64, u64)> {
        let size = self.size();
        match self.part(request, size) {
            Range::Part(first, last) => Some((first, last)),
            Range::Whole => Some((0, size.checked_sub(1)?)),
            Range::Unsatisfiable => None,
        }
    }

    fn part(&self, request: &Request, size: u64) -> Range {
        let etag = self.headers.iter().find(|header| header.0 == "ETag");
        let wanted = request
            .header("if-range")
            .is_none_or(|wanted| etag.is_some_and(|etag| etag.1 == wanted));
        let header = request.header("range");
        let header = header.filter(|_| wanted && self.ranges && request.method == "GET");
        http::range(header, size)
    }

    /// Sends it; whether another request may follow.
    pub fn send(
        mut self,
        request: &Request,
        shape: &Shape,
        stream: &TcpStream,
        entry: Option<&Entry>,
    ) -> io::Result<bool> {
        let size = self.size().saturating_add_signed(shape.delta);
        let range = match shape {
            Shape { whole: false, gzip: false, .. } => self.part(request, size),
            _ => Range::Whole,
        };
        let (first, length) = match range {
            Range::Whole => (0, size),
            Range::Part(first, last) => {
                self.status = 206;
                self = self.with("Content-Range", format!("bytes {first}-{last}/{size}"));
                (first, last - first + 1)
            }
            Range::Unsatisfiable => {
                self.status = 416;
                self = self.with("Content-Range", format!("bytes */{size}"));
                self.body = Body::Bytes(Vec::new());
                (0, 0)
            }
        };
        let mut body = self.body.open(first, length)?;
        if let Some((at, count)) = shape.flip {
            let at = at.unwrap_or(first);
            body.flipped = at..at.saturating_add(count);
        }
        if shape.gzip {
            return self.send_packed(body, stream, entry);
        }
        // HEAD announces what GET would send, and 204 has no length.
        if self.status != 204 {
            self = self.with("Content-Length", length.to_string());
        }
        let shortened = shape.cut.is_some_and(|cut| cut < length) || shape.stall.is_some();
        let keep = request.keeps_alive() && !shortened;
        self.send_head(stream, keep, entry)?;
        if request.method != "HEAD" {
            body.send(stream, shape, entry)?;
        }
        let done = !shortened || request.method == "HEAD";
        if let Some(entry) = entry {
            entry.done.store(done, Ordering::Relaxed);
        }
        Ok(keep)
    }

    /// Sends the answer to what was no request, after which nothing can follow.
    pub fn send_bare(self, mut stream: &TcpStream) -> io::Result<()> {
        let length = self.size().to_string();
        self.with("Content-Length", length).send_head(stream, false, None)?;
        stream.flush()
    }

    fn send_packed(
        self,
        mut body: Opened,
        mut stream: &TcpStream,
        entry: Option<&Entry>,
    ) -> io::Result<bool> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        while let Some(piece) = body.next_piece(PIECE_BYTES)? {
            packed.write_all(&piece)?;
        }
        let packed = packed.finish()?;
        let etag = self.headers.iter().find(|header| header.0 == "ETag").cloned();
        let mut answer = self.with("Content-Encoding", "gzip").with("Transfer-Encoding", "chunked");
        answer.headers.retain(|header| header.0 != "Accept-Ranges");
        if let Some((name, etag)) = etag {
            answer = answer.with(name, format!("W/{etag}"));
        }
        answer.send_head(stream, false, entry)?;
        write!(stream, "{:x}\r\n", packed.len())?;
        stream.write_all(&packed)?;
        stream.write_all(b"\r\n0\r\n\r\n")?;
        if let Some(entry) = entry {
            entry.sent.store(packed.len() as u64, Ordering::Relaxed);
            entry.done.store(true, Ordering::Relaxed);
        }
        Ok(false)
    }

    fn send_head(
        &self,
        mut stream: &TcpStream,
        keep: bool,
        entry: Option<&Entry>,
    ) -> io::Result<()> {
        if let Some(entry) = entry {
            entry.status.store(self.status, Ordering::Relaxed);
        }
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, http::reason(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        // Unlike the Hub's: what a browser takes from its own cache, no test would see.
        head += "Cache-Control: no-store\r\n";
        head += if keep { "Connection: keep-alive" } else { "Connection: close" };
        stream.write_all(format!("{head}\r\n\r\n").as_bytes())
    }
}

impl Body {
    /// So many bytes from `first` on; nothing is left of a body in memory.
    fn open(&mut self, first: u64, length: u64) -> io::Result<Opened> {
        let (source, size): (Box<dyn Read>, _) = match self {
            Self::Bytes(bytes) => {
                let size = bytes.len() as u64;
                let mut source = io::Cursor::new(std::mem::take(bytes));
                source.set_position(first);
                (Box::new(source), size)
            }
            Self::File { source, size } => (source.open(first)?, *size),
        };
        Ok(Opened { source, size, at: first, end: first + length, flipped: 0..0 })
    }
}

/// A body that is being sent.
struct Opened {
    source: Box<dyn Read>,
    /// Bytes of the source; zeros follow.
    size: u64,
    at: u64,
    end: u64,
    flipped: std::ops::Range<u64>,
}

impl Opened {
    fn next_piece(&mut self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let length = most.min(self.end - self.at);
        if length == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; length as usize];
        let real = length.min(self.size.saturating_sub(self.at)) as usize;
        self.source.read_exact(&mut piece[..real])?;
        let inside = |at: u64| at.clamp(self.at, self.at + length) - self.at;
        let flipped = inside(self.flipped.start) as usize..inside(self.flipped.end) as usize;
        for byte in &mut piece[flipped] {
            *byte = !*byte;
        }
        self.at += length;
        Ok(Some(piece))
    }

    fn send(
        mut self,
        mut stream: &TcpStream,
        shape: &Shape,
        entry: Option<&Entry>,
    ) -> io::Result<()> {
        let stop = shape.cut.into_iter().chain(shape.stall.map(|(after, _)| after)).min();
        let stop = stop.map(|after| self.at.saturating_add(after));
        self.end = stop.map_or(self.end, |stop| stop.min(self.end));
        let most = match shape.rate {
            Some(rate) => (rate / SLOW_PIECES).clamp(1, PIECE_BYTES),
            None => PIECE_BYTES,
        };
        let start = Instant::now();
        let mut sent = 0;
        while let Some(piece) = self.next_piece(most)? {
            stream.write_all(&piece)?;
            sent += piece.len() as u64;
            if let Some(entry) = entry {
                entry.sent.store(sent, Ordering::Relaxed);
            }
            if let Some(rate) = shape.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
        }
        match shape.stall {
            Some((_, silence)) => be_silent(stream, silence),
            None => Ok(()),
        }
    }
}

/// Keeps the connection and says nothing, until the client has gone.
pub fn be_silent(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    const GLANCE: Duration = Duration::from_millis(20);
    let end = Instant::now() + silence;
    stream.set_read_timeout(Some(GLANCE))?;
    while Instant::now() < end {
        match stream.peek(&mut [0]) {
            Ok(0) => break,
            // Another request, which will not be answered either.
            Ok(_) => thread::sleep(GLANCE),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}
