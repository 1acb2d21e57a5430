//! A file read once from front to back, a range at a time.

use std::collections::VecDeque;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{self, LocalBoxStream, StreamExt};

use super::{Body, Fetch, ModelSource, Request, Response, retry_delay};
use crate::error::{Error, Result};

/// Bytes of one range request.
pub const CHUNK_BYTES: u64 = 8 << 20;

/// Range requests under way at once.
const PARALLEL: usize = 6;

/// A file of a model, read in order.
///
/// Ranges of [`CHUNK_BYTES`] come in parallel and are handed on in order, so what is held in memory
/// is a few of them and the tensor being put together, whatever the file's size.
pub struct FileReader<'a> {
    fetch: &'a dyn Fetch,
    request: Request,
    size: u64,
    position: u64,
    chunks: Option<LocalBoxStream<'a, Result<Vec<u8>>>>,
    buffered: VecDeque<Vec<u8>>,
}

impl<'a> FileReader<'a> {
    /// Asks for the file's size, with a range of one byte.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::HttpStatus`] or [`Error::Network`].
    pub async fn open(fetch: &'a dyn Fetch, source: &ModelSource, path: &str) -> Result<Self> {
        let mut request = request(source, path);
        request.range = Some(0..1);
        let mut response = get(fetch, &request).await?;
        request.range = None;
        if response.partial && response.total.is_none() {
            // Another origin that does not expose `Content-Range`; `Content-Length` always is.
            response = get(fetch, &request).await?;
        }
        let size = match response.total {
            Some(size) => size,
            None => read_all(response.body).await?.len() as u64,
        };
        Ok(Self { fetch, request, size, position: 0, chunks: None, buffered: VecDeque::new() })
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How far the file has been read, bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads on for exactly `length` bytes.
    ///
    /// # Errors
    /// [`Error::Network`] when the file ends before, else as [`open`](Self::open).
    pub async fn read(&mut self, length: u64) -> Result<Vec<u8>> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(self.cut_off());
        }
        let length = length as usize;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let mut chunk = match self.buffered.pop_front() {
                Some(chunk) => chunk,
                None => self.next_chunk().await?.ok_or_else(|| self.cut_off())?,
            };
            let missing = length - bytes.len();
            if chunk.len() > missing {
                self.buffered.push_front(chunk.split_off(missing));
            }
            bytes.extend_from_slice(&chunk);
        }
        self.position += length as u64;
        Ok(bytes)
    }

    fn cut_off(&self) -> Error {
        let message = format!("it ended after fewer than its {} bytes", self.size);
        Error::Network { url: self.request.url.clone(), message }
    }

    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let chunks = self.chunks.get_or_insert_with(|| {
            let (fetch, request, size) = (self.fetch, self.request.clone(), self.size);
            let starts = (0..size).step_by(CHUNK_BYTES as usize);
            let ranges = starts.map(move |start| {
                let range = start..(start + CHUNK_BYTES).min(size);
                read_range(fetch, Request { range: Some(range), ..request.clone() })
            });
            stream::iter(ranges).buffered(PARALLEL).boxed_local()
        });
        chunks.next().await.transpose()
    }
}

/// Reads a small file whole.
///
/// # Errors
/// As [`FileReader::open`].
pub async fn read_file(fetch: &dyn Fetch, source: &ModelSource, path: &str) -> Result<Vec<u8>> {
    with_retries(fetch, || async {
        let response = fetch.get(request(source, path)).await?;
        read_all(response.body).await
    })
    .await
}

fn request(source: &ModelSource, path: &str) -> Request {
    Request { url: source.url(path), range: None, token: source.token().map(str::to_owned) }
}

async fn get(fetch: &dyn Fetch, request: &Request) -> Result<Response> {
    with_retries(fetch, || fetch.get(request.clone())).await
}

/// One range as bytes, asked for again when the connection breaks.
fn read_range(fetch: &dyn Fetch, request: Request) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
    Box::pin(async move {
        let range = request.range.clone().unwrap_or(0..0);
        let length = (range.end - range.start) as usize;
        with_retries(fetch, || async {
            let response = fetch.get(request.clone()).await?;
            // A server that ignores ranges sends the whole file: skip what comes before.
            let mut skip = if response.partial { 0 } else { range.start as usize };
            let mut body = response.body;
            let mut bytes = Vec::with_capacity(length);
            while bytes.len() < length {
                let Some(chunk) = body.next_chunk().await? else {
                    let url = request.url.clone();
                    return Err(Error::Network { url, message: "the answer was cut off".into() });
                };
                let from = skip.min(chunk.len());
                skip -= from;
                let to = chunk.len().min(from + length - bytes.len());
                bytes.extend_from_slice(&chunk[from..to]);
            }
            Ok(bytes)
        })
        .await
    })
}

async fn read_all(mut body: Box<dyn Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn with_retries<T, F>(fetch: &dyn Fetch, mut operation: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut attempt = 1;
    loop {
        match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => match retry_delay(&error, attempt) {
                Some(delay) => fetch.wait(delay).await,
                None => return Err(error),
            },
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    /// A server in memory: what it holds, whether it knows ranges, and the errors it still makes.
    struct Memory {
        file: Vec<u8>,
        ranges: bool,
        faults: RefCell<Vec<Fault>>,
        requests: RefCell<usize>,
    }

    #[derive(Clone, Copy)]
    enum Fault {
        Status(u16),
        CutAfter(usize),
    }

    struct Chunks(VecDeque<Vec<u8>>);

    impl Body for Chunks {
        fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
            Box::pin(std::future::ready(Ok(self.0.pop_front())))
        }
    }

    impl Fetch for Memory {
        fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
            *self.requests.borrow_mut() += 1;
            let fault = self.faults.borrow_mut().pop();
            let range = request.range.filter(|_| self.ranges);
            let partial = range.is_some();
            let range = range.unwrap_or(0..self.file.len() as u64);
            let mut bytes = self.file[range.start as usize..range.end as usize].to_vec();
            let answer = match fault {
                Some(Fault::Status(404)) => Err(Error::NotFound { url: request.url }),
                Some(Fault::Status(status)) => Err(Error::HttpStatus { url: request.url, status }),
                other => {
                    if let Some(Fault::CutAfter(length)) = other {
                        bytes.truncate(length);
                    }
                    let chunks = bytes.chunks(1_000_003).map(<[u8]>::to_vec).collect();
                    let total = Some(self.file.len() as u64);
                    Ok(Response { total, partial, body: Box::new(Chunks(chunks)) })
                }
            };
            Box::pin(std::future::ready(answer))
        }

        fn wait(&self, _: Duration) -> LocalBoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn server(length: usize, ranges: bool) -> Memory {
        let file = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        Memory { file, ranges, faults: RefCell::default(), requests: RefCell::default() }
    }

    fn source() -> ModelSource {
        ModelSource::Base("http://x".into())
    }

    fn read_in_pieces(server: &Memory) -> Result<Vec<u8>> {
        pollster::block_on(async {
            let mut reader = FileReader::open(server, &source(), "f").await?;
            let mut all = Vec::new();
            for piece in [8, 1_000, 9_000_000, 0, 1].into_iter().cycle() {
                let left = reader.size() - reader.position();
                if left == 0 {
                    return Ok(all);
                }
                all.extend(reader.read(left.min(piece)).await?);
            }
            unreachable!("the pieces repeat")
        })
    }

    #[test]
    fn a_file_arrives_whole_with_and_without_ranges() {
        for ranges in [true, false] {
            let server = server(20_000_000, ranges);
            assert!(read_in_pieces(&server).expect("readable") == server.file);
        }
    }

    #[test]
    fn transient_faults_are_survived() {
        let server = server(20_000_000, true);
        *server.faults.borrow_mut() =
            vec![Fault::CutAfter(12), Fault::Status(500), Fault::CutAfter(0), Fault::Status(503)];
        assert!(read_in_pieces(&server).expect("readable") == server.file);
        // Two for the size, whose byte nobody reads; three ranges, two of them asked for again.
        assert_eq!(*server.requests.borrow(), 7);
    }

    #[test]
    fn a_missing_file_is_asked_for_once() {
        let server = server(10, true);
        *server.faults.borrow_mut() = vec![Fault::Status(404)];
        assert_eq!(read_in_pieces(&server).expect_err("missing").code(), "not-found");
        assert_eq!(*server.requests.borrow(), 1);
    }

    #[test]
    fn a_connection_that_always_breaks_is_an_error() {
        let server = server(1_000, true);
        *server.faults.borrow_mut() = vec![Fault::CutAfter(10); 20];
        assert_eq!(read_in_pieces(&server).expect_err("broken").code(), "network");
    }
}
