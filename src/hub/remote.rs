//! One file on a server: asked for in ranges, again and again until it is there.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::pin::pin;

use futures_util::future::{Either, LocalBoxFuture, select};

use super::retry::jitter;
use super::{Body, Fetch, Request, Response, retry_delay};
use crate::error::{Error, Result};

/// Range requests under way at once, when all goes well, unless asked otherwise.
pub const PARALLEL: usize = 6;

/// The most that may be asked for.
pub const MAX_PARALLEL: usize = 16;

/// A small file may not be larger, bytes: it is read whole.
const MAX_WHOLE_BYTES: u64 = (64 << 20) - 64;

/// An answer that gets this far before it breaks off is no failed attempt, bytes.
const PROGRESS_BYTES: usize = 256 << 10;

/// A stalled connection is looked for this many times within the time that it may say nothing.
const TICKS: u32 = 4;

/// Room behind the bytes of a range, for the hash that the cache writes there: a vector that has to
/// grow doubles.
const SPARE_BYTES: usize = 8;

/// How many requests may be under way at once: fewer after each failure, more again after
/// successes.
#[derive(Debug)]
pub struct Pace {
    now: Cell<f32>,
    most: f32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(PARALLEL)
    }
}

impl Pace {
    /// `most` requests, as long as all goes well.
    ///
    /// # Panics
    /// When `most` is not from 1 to [`MAX_PARALLEL`].
    pub fn new(most: usize) -> Self {
        assert!((1..=MAX_PARALLEL).contains(&most));
        let most = most as f32;
        Self { now: Cell::new(most), most }
    }

    /// Requests that may be under way.
    pub fn limit(&self) -> usize {
        self.now.get() as usize
    }

    fn failed(&self) {
        self.now.set((self.now.get() / 2.0).max(1.0));
    }

    fn succeeded(&self) {
        self.now.set((self.now.get() + 0.25).min(self.most));
    }
}

/// What a server says about a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Bytes.
    pub size: u64,
    /// The validator of this version of the file, if it has one.
    pub validator: Option<String>,
}

/// A file on a server.
///
/// The Hub redirects to an address that is signed and expires. Where the platform tells where a
/// redirect led, further ranges are asked for there, without the token; when that fails, the Hub is
/// asked again.
///
/// A server that knows no ranges answers with the whole file each time. Of such an answer, what comes
/// behind the range is left to the next range, which goes on there.
pub struct RemoteFile {
    request: Request,
    direct: RefCell<Option<String>>,
    /// An answer with the whole file that was read up to a range's end.
    rest: RefCell<Option<Rest>>,
    /// Whether the last answer was the whole file.
    sends_whole: Cell<bool>,
}

/// What is left of an answer.
struct Rest {
    /// The first byte of `piece` within the file.
    position: u64,
    /// Bytes that have arrived.
    piece: Vec<u8>,
    body: Box<dyn Body>,
}

impl RemoteFile {
    /// The file that `request` asks for; its range does not matter.
    pub fn new(request: Request) -> Self {
        Self {
            request: Request { range: None, ..request },
            direct: RefCell::default(),
            rest: RefCell::default(),
            sends_whole: Cell::default(),
        }
    }

    /// Whether the server answers with the whole file, so that ranges had better be read one after
    /// the other, in order.
    pub fn sends_whole(&self) -> bool {
        self.sends_whole.get()
    }

    /// The file's own address.
    pub fn url(&self) -> &str {
        &self.request.url
    }

    /// Asks for the file's size, with a range of one byte.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::HttpStatus`], [`Error::Network`] or
    /// [`Error::InvalidResponse`].
    pub async fn probe(&self, fetch: &dyn Fetch) -> Result<Probe> {
        self.with_retries(fetch, async || {
            let request = Request { range: Some(0..1), ..self.request.clone() };
            let mut response = self.get(fetch, request).await?;
            if response.partial && response.total.is_none() {
                // Another origin that does not expose `Content-Range`; `Content-Length` always is.
                response = self.get(fetch, self.request.clone()).await?;
            }
            self.refuse_html(&response)?;
            let validator = response.validator.take();
            let size = match response.total {
                Some(size) => size,
                None => {
                    let mut body = Watched::new(fetch, self.url(), response.body);
                    let mut size = 0;
                    while let Some(bytes) = body.next().await? {
                        size += bytes.len() as u64;
                    }
                    size
                }
            };
            Ok(Probe { size, validator })
        })
        .await
    }

    /// Reads the file whole; `arrived` is told how many bytes each piece has.
    ///
    /// # Errors
    /// [`Error::InvalidResponse`] when it has another size than `size`; as [`probe`](Self::probe).
    pub async fn whole(
        &self,
        fetch: &dyn Fetch,
        size: Option<u64>,
        arrived: &dyn Fn(u64),
    ) -> Result<Vec<u8>> {
        if let Some(size) = size.filter(|size| *size > MAX_WHOLE_BYTES) {
            return Err(self.unexpected(format!("{size} bytes, over {MAX_WHOLE_BYTES}")));
        }
        let (bytes, _) =
            self.with_retries(fetch, async || self.read_all(fetch, size).await).await?;
        arrived(bytes.len() as u64);
        Ok(bytes)
    }

    /// Reads a page of a listing, and the address of the next.
    pub(super) async fn page(&self, fetch: &dyn Fetch) -> Result<(Vec<u8>, Option<String>)> {
        self.with_retries(fetch, async || self.read_all(fetch, None).await).await
    }

    /// Reads a range of the file of `size` bytes into `bytes`, which may have the beginning of it. What
    /// has arrived when a connection breaks is not asked for again, and stays there in the end.
    ///
    /// # Errors
    /// [`Error::InvalidResponse`] when the server has something else than that file; as
    /// [`probe`](Self::probe).
    pub async fn range(
        &self,
        fetch: &dyn Fetch,
        range: Range<u64>,
        size: u64,
        pace: &Pace,
        arrived: &dyn Fn(u64),
        bytes: &RefCell<Vec<u8>>,
    ) -> Result<()> {
        let length = (range.end - range.start) as usize;
        let missing = length.saturating_sub(bytes.borrow().len());
        if missing == 0 {
            return Ok(());
        }
        bytes.borrow_mut().reserve_exact(missing + SPARE_BYTES);
        let mut attempt = 1;
        loop {
            let before = bytes.borrow().len();
            let direct = self.direct.borrow().clone();
            let was_direct = direct.is_some();
            let result = self.read_on(fetch, direct, &range, size, bytes, arrived).await;
            let Err(error) = result else {
                pace.succeeded();
                return Ok(());
            };
            let error = self.named(error);
            if was_direct {
                self.direct.replace(None);
                if has_expired(&error) {
                    continue;
                }
            }
            if bytes.borrow().len() - before >= PROGRESS_BYTES {
                attempt = 1;
            }
            pace.failed();
            match retry_delay(&error, attempt, jitter()) {
                Some(delay) => fetch.wait(delay).await?,
                None => return Err(error),
            }
            attempt += 1;
        }
    }

    /// One request for what `bytes` lacks of `range`.
    async fn read_on(
        &self,
        fetch: &dyn Fetch,
        direct: Option<String>,
        range: &Range<u64>,
        size: u64,
        bytes: &RefCell<Vec<u8>>,
        arrived: &dyn Fn(u64),
    ) -> Result<()> {
        let start = range.start + bytes.borrow().len() as u64;
        // Not an answer that is further already.
        let rest = self.rest.take().filter(|rest| rest.position <= start);
        let (rest, partial) = match rest {
            Some(rest) => (rest, false),
            None => self.start(fetch, direct, start..range.end, size).await?,
        };
        let Rest { mut position, mut piece, body } = rest;
        let mut body = Watched::new(fetch, self.url(), body);
        loop {
            // A server that ignores ranges sends the whole file: skip what comes before.
            let wanted = range.start + bytes.borrow().len() as u64;
            let from = (wanted - position).min(piece.len() as u64) as usize;
            let to = piece.len().min(from + (range.end - wanted) as usize);
            bytes.borrow_mut().extend_from_slice(&piece[from..to]);
            arrived((to - from) as u64);
            position += to as u64;
            if wanted + (to - from) as u64 == range.end {
                // Not where others find out meanwhile that ranges are known after all.
                if !partial && self.sends_whole.get() && range.end < size {
                    piece.drain(..to);
                    self.rest.replace(Some(Rest { position, piece, body: body.body }));
                }
                return Ok(());
            }
            piece = body.next().await?.ok_or_else(|| Error::Network {
                url: self.url().into(),
                message: "the answer was cut off".into(),
            })?;
        }
    }

    /// Asks for a range of the file of `size` bytes. Tells whether the answer is no more than that.
    async fn start(
        &self,
        fetch: &dyn Fetch,
        direct: Option<String>,
        range: Range<u64>,
        size: u64,
    ) -> Result<(Rest, bool)> {
        let start = range.start;
        let range = Some(range);
        let resolving = direct.is_none();
        let request = match direct {
            Some(url) => Request { url, range, token: None, ..self.request.clone() },
            None => Request { range, ..self.request.clone() },
        };
        let response = self.get(fetch, request).await?;
        self.refuse_html(&response)?;
        if let Some(total) = response.total.filter(|total| *total != size) {
            return Err(self.unexpected(format!("a file of {total} bytes, and not of {size}")));
        }
        if response.partial && response.start.is_some_and(|found| found != start) {
            return Err(self.unexpected(format!("bytes from another place than {start}")));
        }
        if resolving && !response.url.is_empty() && origin(&response.url) != origin(self.url()) {
            self.direct.replace(Some(response.url.clone()));
        }
        self.sends_whole.set(!response.partial);
        if response.partial {
            self.rest.take();
        }
        let position = if response.partial { start } else { 0 };
        Ok((Rest { position, piece: Vec::new(), body: response.body }, response.partial))
    }

    async fn read_all(
        &self,
        fetch: &dyn Fetch,
        size: Option<u64>,
    ) -> Result<(Vec<u8>, Option<String>)> {
        let mut response = self.get(fetch, self.request.clone()).await?;
        self.refuse_html(&response)?;
        let next = response.next.take();
        let mut body = Watched::new(fetch, self.url(), response.body);
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > size.unwrap_or(MAX_WHOLE_BYTES) {
                break;
            }
        }
        // Only the body's own length counts: `Content-Length` is that of the packed bytes where the
        // server compresses.
        match size {
            Some(size) if bytes.len() as u64 != size => {
                let found = if bytes.len() as u64 > size { "more" } else { "fewer" };
                Err(self.unexpected(format!("{found} than its {size} bytes")))
            }
            None if bytes.len() as u64 > MAX_WHOLE_BYTES => {
                Err(self.unexpected(format!("more than {MAX_WHOLE_BYTES} bytes")))
            }
            _ => Ok((bytes, next)),
        }
    }

    /// The head of an answer, in time.
    async fn get(&self, fetch: &dyn Fetch, request: Request) -> Result<Response> {
        match select(fetch.get(request), fetch.wait(fetch.stall())).await {
            Either::Left((result, _)) => result,
            Either::Right((waited, _)) => {
                waited?;
                Err(stalled(fetch, self.url()))
            }
        }
    }

    fn refuse_html(&self, response: &Response) -> Result<()> {
        let html = response.content_type.as_deref().is_some_and(|t| t.starts_with("text/html"));
        if html { Err(self.unexpected("a web page".into())) } else { Ok(()) }
    }

    fn unexpected(&self, message: String) -> Error {
        Error::InvalidResponse { url: self.url().into(), message }
    }

    /// The error with the file's own address: a signed one is nobody's business.
    fn named(&self, mut error: Error) -> Error {
        if let Error::NotFound { url }
        | Error::HttpStatus { url, .. }
        | Error::Network { url, .. }
        | Error::InvalidResponse { url, .. } = &mut error
        {
            self.url().clone_into(url);
        }
        error
    }

    async fn with_retries<T>(
        &self,
        fetch: &dyn Fetch,
        operation: impl AsyncFn() -> Result<T>,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => match retry_delay(&error, attempt, jitter()) {
                    Some(delay) => fetch.wait(delay).await?,
                    None => return Err(self.named(error)),
                },
            }
            attempt += 1;
        }
    }
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteFile").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// What a CDN answers to an address whose signature has run out.
fn has_expired(error: &Error) -> bool {
    match error {
        Error::NotFound { .. } => true,
        Error::HttpStatus { status, .. } => matches!(status, 400 | 401 | 403 | 410),
        _ => false,
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

fn stalled(fetch: &dyn Fetch, url: &str) -> Error {
    let message = format!("no byte came for {:?}", fetch.stall());
    Error::Network { url: url.into(), message }
}

/// A body that may not stay silent for long.
struct Watched<'a> {
    fetch: &'a dyn Fetch,
    url: &'a str,
    body: Box<dyn Body>,
    timer: LocalBoxFuture<'a, Result<()>>,
}

impl<'a> Watched<'a> {
    fn new(fetch: &'a dyn Fetch, url: &'a str, body: Box<dyn Body>) -> Self {
        Self { fetch, url, body, timer: fetch.wait(fetch.stall() / TICKS) }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        // One timer serves many pieces. While nobody asks for pieces it runs out once at most.
        let mut silent = 0;
        let mut piece = pin!(self.body.next_chunk());
        loop {
            match select(piece.as_mut(), &mut self.timer).await {
                Either::Left((result, _)) => return result,
                Either::Right((waited, _)) => waited?,
            }
            silent += 1;
            if silent > TICKS {
                return Err(stalled(self.fetch, self.url));
            }
            self.timer = self.fetch.wait(self.fetch.stall() / TICKS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hub::tests::{Fault, Memory, block_on};

    fn server(length: usize) -> Memory {
        Memory::new().with("f", (0..length).map(|i| (i * 31 % 251) as u8).collect())
    }

    fn file() -> RemoteFile {
        RemoteFile::new(Request { url: "http://x/f".into(), ..Request::default() })
    }

    fn read(server: &Memory, range: Range<u64>) -> Result<Vec<u8>> {
        read_from(&file(), server, range, server.file("f").len() as u64)
    }

    fn read_from(
        file: &RemoteFile,
        server: &Memory,
        range: Range<u64>,
        size: u64,
    ) -> Result<Vec<u8>> {
        let (pace, bytes) = (Pace::default(), RefCell::default());
        block_on(file.range(server, range, size, &pace, &|_| (), &bytes))?;
        Ok(bytes.take())
    }

    #[test]
    fn ranges_arrive_with_and_without_a_server_that_knows_them() {
        for ranges in [true, false] {
            let mut server = server(3_000_000);
            server.ranges = ranges;
            let bytes = read(&server, 1_000_001..2_500_000).expect("readable");
            assert!(bytes == server.file("f")[1_000_001..2_500_000]);
        }
    }

    #[test]
    fn one_answer_of_a_server_without_ranges_serves_many_ranges() {
        let mut server = server(3_000_000);
        server.ranges = false;
        let file = file();
        let read = |range: Range<u64>| {
            let bytes = read_from(&file, &server, range.clone(), 3_000_000);
            let wanted = &server.file("f")[range.start as usize..range.end as usize];
            assert!(bytes.expect("readable") == wanted, "{range:?}");
            (server.ranges_asked().len(), file.sends_whole())
        };
        assert_eq!(read(0..500_000), (1, true));
        assert_eq!(read(500_000..500_001), (1, true));
        // Over a gap.
        assert_eq!(read(1_000_000..2_900_000), (1, true));
        // Back again: anew.
        assert_eq!(read(600_000..700_000), (2, true));
        assert_eq!(read(700_000..3_000_000), (2, true));
    }

    #[test]
    fn a_server_that_knows_ranges_after_all_is_asked_for_them() {
        let mut server = server(3_000_000);
        let file = file();
        let read = |server: &Memory, range: Range<u64>| {
            read_from(&file, server, range, 3_000_000).expect("readable")
        };
        server.ranges = false;
        read(&server, 0..500_000);
        server.ranges = true;
        // Before what is left, so that a new answer is needed.
        read(&server, 100_000..200_000);
        assert!(!file.sends_whole());
        read(&server, 2_000_000..2_100_000);
        assert_eq!(server.ranges_asked()[2], 2_000_000..2_100_000);
    }

    #[test]
    fn large_files_are_not_read_whole() {
        let server = server(10);
        let error = block_on(file().whole(&server, Some(1 << 40), &|_| ())).expect_err("large");
        assert_eq!((error.code(), server.requests().len()), ("invalid-response", 0));
    }

    #[test]
    fn what_has_arrived_is_not_asked_for_again() {
        let server = server(2_000_000);
        server.fail([Fault::CutAfter(700_000), Fault::Status(503), Fault::CutAfter(300_000)]);
        assert!(read(&server, 0..2_000_000).expect("readable") == server.file("f"));
        let starts: Vec<u64> = server.ranges_asked().iter().map(|range| range.start).collect();
        assert_eq!(starts, [0, 700_000, 700_000, 1_000_000]);
    }

    #[test]
    fn bytes_are_counted_once() {
        let server = server(2_000_000);
        server.fail([Fault::CutAfter(700_000)]);
        let count = Cell::new(0);
        let arrived = |bytes| count.set(count.get() + bytes);
        let (pace, bytes) = (Pace::default(), RefCell::default());
        let read = file();
        let read = read.range(&server, 5..2_000_000, 2_000_000, &pace, &arrived, &bytes);
        block_on(read).expect("there");
        assert_eq!(count.get(), 1_999_995);
    }

    #[test]
    fn what_is_there_already_is_not_asked_for_and_what_has_come_stays() {
        let server = server(2_000_000);
        let (file, pace, count) = (file(), Pace::default(), Cell::new(0));
        let arrived = |bytes| count.set(count.get() + bytes);
        let read = |bytes: &RefCell<Vec<u8>>| {
            block_on(file.range(&server, 100..2_000_000, 2_000_000, &pace, &arrived, bytes))
        };
        let bytes = RefCell::default();
        server.fail([Fault::CutAfter(500_000), Fault::Status(404)]);
        assert_eq!(read(&bytes).expect_err("gone").code(), "not-found");
        assert!(*bytes.borrow() == server.file("f")[100..500_100]);
        read(&bytes).expect("there");
        assert!(*bytes.borrow() == server.file("f")[100..]);
        assert_eq!(count.get(), 1_999_900, "each byte once");
        let asked = server.ranges_asked();
        assert_eq!(asked.last(), Some(&(500_100..2_000_000)));
        // All of it.
        read(&bytes).expect("there");
        assert_eq!(server.ranges_asked(), asked);
    }

    #[test]
    fn final_errors_are_not_retried_and_transient_ones_only_so_often() {
        let server = server(10);
        server.fail([Fault::Status(404)]);
        assert_eq!(read(&server, 0..10).expect_err("missing").code(), "not-found");
        assert_eq!(server.ranges_asked().len(), 1);
        server.fail([Fault::CutAfter(0); 20]);
        assert_eq!(read(&server, 0..10).expect_err("broken").code(), "network");
        assert_eq!(server.ranges_asked().len(), 1 + 5);
    }

    #[test]
    fn servers_are_waited_for_as_they_ask() {
        let server = server(10);
        server.fail([Fault::RetryAfter(9.0)]);
        read(&server, 0..10).expect("readable");
        assert!(server.waits().contains(&Duration::from_secs(9)), "{:?}", server.waits());
    }

    #[test]
    fn silent_connections_are_given_up() {
        for fault in [Fault::Hang, Fault::StallAfter(4)] {
            let server = server(10);
            server.fail([fault]);
            assert_eq!(read(&server, 0..10).expect("the second answers"), server.file("f"));
            assert_eq!(server.ranges_asked().len(), 2);
        }
        let server = server(10);
        server.fail([Fault::Hang; 9]);
        let error = read(&server, 0..10).expect_err("silent");
        assert!(error.to_string().contains("20s"), "{error}");
    }

    #[test]
    fn other_files_are_refused() {
        for fault in [Fault::Html, Fault::Length(11), Fault::Start(3)] {
            let server = server(10);
            server.fail([fault; 9]);
            let error = read(&server, 0..10).expect_err("something else");
            assert_eq!(error.code(), "invalid-response", "{fault:?}");
        }
        let server = server(10);
        let error = block_on(file().whole(&server, Some(9), &|_| ())).expect_err("longer");
        assert_eq!(error.code(), "invalid-response");
    }

    #[test]
    fn signed_addresses_are_used_without_the_token_and_resolved_again() {
        let mut server = server(100);
        server.cdn = true;
        let request = Request {
            url: "http://x/f".into(),
            token: Some(super::super::Token::new("secret")),
            ..Request::default()
        };
        let file = RemoteFile::new(request);
        let read = |range| read_from(&file, &server, range, 100);
        read(0..10).expect("readable");
        read(10..20).expect("readable");
        server.expire();
        read(20..30).expect("readable");
        let asked: Vec<_> =
            server.requests().iter().map(|r| (r.url.clone(), r.token.is_some())).collect();
        let wanted = [
            ("http://x/f", true),
            ("http://cdn/f?signature=0", false),
            ("http://cdn/f?signature=0", false),
            ("http://x/f", true),
        ];
        assert_eq!(asked, wanted.map(|(url, token)| (url.to_owned(), token)));
    }

    #[test]
    fn errors_do_not_show_signed_addresses() {
        let mut server = server(100);
        server.cdn = true;
        let file = file();
        let read = |range| read_from(&file, &server, range, 100);
        read(0..10).expect("readable");
        server.fail([Fault::CutAfter(0); 20]);
        assert!(!read(10..20).expect_err("broken").to_string().contains("signature"));
    }

    #[test]
    fn failures_slow_down_and_successes_speed_up() {
        assert_eq!(Pace::default().limit(), 6);
        for most in [1, 2, 6, MAX_PARALLEL] {
            let pace = Pace::new(most);
            assert_eq!(pace.limit(), most);
            pace.failed();
            assert_eq!(pace.limit(), (most / 2).max(1));
            (0..9).for_each(|_| pace.failed());
            assert_eq!(pace.limit(), 1);
            (0..99).for_each(|_| pace.succeeded());
            assert_eq!(pace.limit(), most);
        }
    }

    #[test]
    fn sizes_are_found_with_one_byte() {
        for (ranges, tells) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut server = server(1234);
            (server.ranges, server.tells_total) = (ranges, tells);
            let probe = block_on(file().probe(&server)).expect("there");
            assert_eq!(probe, Probe { size: 1234, validator: Some("\"f-1234\"".into()) });
        }
    }

    #[test]
    fn origins_end_before_the_path() {
        assert_eq!(origin("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(origin("https://a.b?c"), "https://a.b");
    }
}
