//! A file read from front to back while its chunks arrive side by side.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};

use super::digest::{FileHasher, Sha256};
use super::repository::{Found, Repository, check_hash};
use super::{ContentRecord, FileRecord, chunk_length, content_key};
use crate::error::{Error, Result};
use crate::hub::{FileHash, FileReader, OnArrival, RemoteFile};

/// Bytes of chunks held at a time, those on their way included. Small chunks are no more at a time
/// than [`Pace`](crate::hub::Pace) allows.
const WINDOW_BYTES: u64 = if cfg!(test) { 6 * (64 << 10) } else { 48 << 20 };

/// A file whose size and content are known.
pub(super) struct OpenFile {
    pub path: String,
    pub entry: FileRecord,
    /// The whole file's hash, where there is one.
    hash: Option<FileHash>,
    content: RefCell<ContentRecord>,
    pub remote: RemoteFile,
    /// Chunks in the cache.
    pub present: RefCell<BTreeSet<u32>>,
    /// Chunks in the cache that are fetched anew.
    replaced: BTreeSet<u32>,
}

impl OpenFile {
    pub fn new(
        path: &str,
        entry: FileRecord,
        hash: Option<FileHash>,
        content: ContentRecord,
        remote: RemoteFile,
        present: BTreeSet<u32>,
        replaced: BTreeSet<u32>,
    ) -> Self {
        let (content, present) = (RefCell::new(content), RefCell::new(present));
        Self { path: path.to_owned(), entry, hash, content, remote, present, replaced }
    }

    /// Takes what the cache has by now, unless that came in other pieces.
    pub fn found_again(&self, found: Found) {
        if found.content.is_none_or(|content| content.chunk_bytes == self.chunk_bytes()) {
            self.present.borrow_mut().extend(found.present);
        }
    }

    fn chunk_bytes(&self) -> u64 {
        self.content.borrow().chunk_bytes
    }

    /// Its chunks.
    pub fn count(&self) -> u32 {
        self.entry.size.div_ceil(self.chunk_bytes()) as u32
    }

    pub fn length(&self, index: u32) -> u64 {
        chunk_length(self.entry.size, self.chunk_bytes(), index)
    }

    pub fn range(&self, index: u32) -> Range<u64> {
        let start = u64::from(index) * self.chunk_bytes();
        start..start + self.length(index)
    }

    /// Bytes that are not in the cache.
    pub fn missing(&self) -> u64 {
        let present = self.present.borrow();
        (0..self.count()).filter(|i| !present.contains(i)).map(|i| self.length(i)).sum()
    }

    /// Bytes in the cache whose place others take.
    pub fn replaced(&self) -> u64 {
        let count = self.count();
        self.replaced.iter().filter(|i| **i < count).map(|i| self.length(*i)).sum()
    }
}

/// Gives the chunk's number, its bytes, and whether they were fetched.
type ChunkFuture<'a> = LocalBoxFuture<'a, Result<(u32, Vec<u8>, bool)>>;

/// A chunk that has arrived before its turn.
struct Early {
    /// Nothing where they are in the cache, to be read from there.
    bytes: Option<Vec<u8>>,
    /// Whether it was fetched.
    fetched: bool,
}

/// See [`FileReader`].
pub(super) struct ChunkReader<'a> {
    repository: &'a Repository<'a>,
    file: Rc<OpenFile>,
    /// Chunks on their way.
    window: FuturesUnordered<ChunkFuture<'a>>,
    early: BTreeMap<u32, Early>,
    /// Chunks asked for.
    started: u32,
    /// Chunks that were handed on, in the file's order.
    delivered: u32,
    chunk: Vec<u8>,
    /// How much of `chunk` has been read.
    offset: usize,
    position: u64,
    hasher: Option<FileHasher>,
    /// Chunks from the first on that `hasher` has seen in an earlier load.
    hashed_before: u32,
    /// Whether bytes that had been hashed in an earlier load were fetched anew.
    replaced: bool,
}

impl<'a> ChunkReader<'a> {
    pub fn new(repository: &'a Repository<'a>, file: Rc<OpenFile>) -> Self {
        let content = file.content.borrow().clone();
        let (hasher, hashed_before) = match (&file.hash, content.state) {
            (None, _) => (None, 0),
            (Some(_), _) if content.complete => (None, file.count()),
            (Some(FileHash::Sha256(_)), Some(state)) => {
                // The last chunk may be shorter than the others.
                let bytes = (u64::from(content.hashed) * content.chunk_bytes).min(content.size);
                (Some(FileHasher::Sha256(Sha256::resume(state, bytes))), content.hashed)
            }
            (Some(hash), _) => (Some(FileHasher::new(hash, content.size)), 0),
        };
        Self {
            repository,
            file,
            window: FuturesUnordered::new(),
            early: BTreeMap::new(),
            started: 0,
            delivered: 0,
            chunk: Vec::new(),
            offset: 0,
            position: 0,
            hasher,
            hashed_before,
            replaced: false,
        }
    }

    /// Puts the next chunk into `self.chunk`.
    async fn next(&mut self, on_arrival: &mut OnArrival<'_>) -> Result<()> {
        let (file, repository) = (&self.file, self.repository);
        let count = file.count();
        if self.delivered == count {
            let message = format!("it has no more than {} bytes", file.entry.size);
            return Err(Error::Network { url: file.remote.url().into(), message });
        }
        // The old chunk goes before a new one comes.
        self.chunk = Vec::new();
        self.offset = 0;
        loop {
            self.start();
            let has_next = self.early.contains_key(&self.delivered);
            let window = &mut self.window;
            let traffic = Cell::new(repository.traffic.get());
            // Also when the next one is there already, so that those after it come on.
            let arrived = poll_fn(|context| {
                let poll = Pin::new(&mut *window).poll_next(context);
                if traffic.replace(repository.traffic.get()) != traffic.get() {
                    on_arrival();
                }
                if has_next && poll.is_pending() { Poll::Ready(None) } else { poll }
            });
            let arrived = arrived.await.transpose()?;
            let ended = arrived.is_none();
            if let Some((index, bytes, fetched)) = arrived {
                self.early.insert(index, Early { bytes: Some(bytes), fetched });
            }
            if let Some(Early { bytes, fetched }) = self.early.remove(&self.delivered) {
                let bytes = match bytes {
                    Some(bytes) => bytes,
                    None => repository.chunk_again(&self.file, self.delivered).await?,
                };
                self.deliver(bytes, fetched).await;
                return Ok(());
            }
            if ended {
                let message = "the chunks ended too early".into();
                return Err(Error::Network { url: self.file.remote.url().into(), message });
            }
        }
    }

    /// Asks for as many chunks as may be on their way. Where one is late, those that came after it
    /// are left to the cache, so that it does not hold up the rest of the file.
    fn start(&mut self) {
        let (file, repository) = (&self.file, self.repository);
        let fitting = (WINDOW_BYTES / file.chunk_bytes()).max(1) as usize;
        let held = self.early.values().filter(|early| early.bytes.is_some()).count();
        let mut room = fitting.saturating_sub(held);
        if held * 2 > fitting {
            let present = file.present.borrow();
            for (index, early) in &mut self.early {
                if *index != self.delivered
                    && present.contains(index)
                    && early.bytes.take().is_some()
                {
                    room += 1;
                }
            }
        }
        // The first by itself: it holds the header, and the files of a model are opened all before
        // one is read on. And where every answer is the whole file, one is read to its end.
        let limit = match self.delivered == 0 || file.remote.sends_whole() {
            true => 1,
            false => repository.pace.limit(),
        };
        while self.started < file.count() && self.window.len() < limit.min(room) {
            let (file, index) = (file.clone(), self.started);
            self.window.push(Box::pin(async move {
                let (bytes, fetched) = repository.chunk(&file, index).await?;
                Ok((index, bytes, fetched))
            }));
            self.started += 1;
        }
    }

    async fn deliver(&mut self, bytes: Vec<u8>, fetched: bool) {
        let index = self.delivered;
        self.delivered += 1;
        if index < self.hashed_before {
            self.replaced |= fetched;
        } else if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
            let state = match hasher {
                FileHasher::Sha256(hasher) => hasher.state(),
                FileHasher::GitBlob(_) => None,
            };
            if let Some(state) = state
                && let Some(cache) = self.repository.storing()
            {
                let content = {
                    let mut content = self.file.content.borrow_mut();
                    content.hashed = index + 1;
                    content.state = Some(state);
                    content.clone()
                };
                let key = content_key(&self.file.entry.content);
                self.repository.stored(cache.put_json(&key, &content).await);
            }
        }
        self.chunk = bytes;
        self.offset = 0;
    }

    /// Reads on for `length` bytes and hands them out in pieces.
    async fn pieces(
        &mut self,
        length: u64,
        on_arrival: &mut OnArrival<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.file.entry.size);
        let Some(end) = end else {
            let message = format!("it ended after fewer than its {} bytes", self.file.entry.size);
            return Err(Error::Network { url: self.file.remote.url().into(), message });
        };
        while self.position < end {
            if self.offset == self.chunk.len() {
                self.next(on_arrival).await?;
            }
            let rest = &self.chunk[self.offset..];
            let piece = &rest[..rest.len().min((end - self.position) as usize)];
            take(piece);
            self.offset += piece.len();
            self.position += piece.len() as u64;
        }
        Ok(())
    }

    async fn verify(&mut self) -> Result<()> {
        let (file, repository) = (&self.file, self.repository);
        let result = match &file.hash {
            Some(hash) if self.replaced => {
                // Chunks hashed in an earlier load were damaged, and what came in their place has
                // not been hashed: all once more, without counting them as arrived.
                let mut hasher = FileHasher::new(hash, file.entry.size);
                for index in 0..file.count() {
                    hasher.update(&repository.chunk_again(file, index).await?);
                }
                check_hash(&file.path, hash, hasher)
            }
            Some(hash) => match self.hasher.take() {
                Some(hasher) => check_hash(&file.path, hash, hasher),
                None => Ok(()),
            },
            None => Ok(()),
        };
        let Some(cache) = repository.cache else { return result };
        if let Err(error) = result {
            repository.stored(cache.forget(&file.entry.content).await);
            return Err(error);
        }
        let was_complete = std::mem::replace(&mut file.content.borrow_mut().complete, true);
        if repository.storing().is_some() && (!was_complete || self.replaced) {
            let content = file.content.borrow().clone();
            let key = content_key(&file.entry.content);
            repository.stored(cache.put_json(&key, &content).await);
        }
        Ok(())
    }
}

impl FileReader for ChunkReader<'_> {
    fn size(&self) -> u64 {
        self.file.entry.size
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn read<'a>(
        &'a mut self,
        length: u64,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            // Before room is made for them: the length may be a lie.
            let left = self.size() - self.position;
            let mut bytes = Vec::with_capacity(length.min(left) as usize);
            self.pieces(length, on_arrival, |piece| bytes.extend_from_slice(piece)).await?;
            Ok(bytes)
        })
    }

    fn skip<'a>(
        &'a mut self,
        length: u64,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(self.pieces(length, on_arrival, |_| ()))
    }

    fn finish<'a>(
        &'a mut self,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let left = self.size() - self.position;
            self.pieces(left, on_arrival, |_| ()).await?;
            self.verify().await
        })
    }

    fn reject(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            let id = &self.file.entry.content;
            if let Some(cache) = self.repository.cache
                && !self.file.content.borrow().complete
            {
                self.repository.stored(cache.forget(id).await);
            }
        })
    }
}
