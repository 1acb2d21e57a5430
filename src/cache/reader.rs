//! A file whose chunks arrive side by side, are handed out as they come, and are hashed in their order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, Stream};

use super::digest::{FileHasher, Sha256, chunk_hash};
use super::repository::{Found, Repository, check_hash};
use super::rounded::{Rounded, whole_values};
use super::slots::{Slot, WINDOW_BYTES};
use super::{ContentRecord, FileRecord, chunk_length, content_key};
use crate::error::{Error, Result};
use crate::hub::{FileHash, FileReader, OnArrival, Piece, RemoteFile};

/// A file whose size and content are known.
pub(super) struct OpenFile {
    pub path: String,
    pub entry: FileRecord,
    /// The whole file's hash, where there is one.
    hash: Option<FileHash>,
    pub content: RefCell<ContentRecord>,
    pub remote: RemoteFile,
    /// Chunks in the cache.
    pub present: RefCell<BTreeSet<u32>>,
    /// Those of them that are there rounded.
    pub rounded: RefCell<BTreeMap<u32, Rounded>>,
    /// Chunks of which the cache has a rounded form that is not used.
    pub stale_rounded: RefCell<BTreeSet<u32>>,
    /// Whether chunks may be rounded.
    rounds: bool,
    /// Where values are that may be.
    values: RefCell<Vec<Range<u64>>>,
    /// Chunks that are to be rounded when they are hashed.
    to_round: RefCell<BTreeSet<u32>>,
    /// Chunks from the first on that were hashed.
    hashed: Cell<u32>,
    /// Bytes that are not stored in the end, as chunks are rounded.
    pub spared: Cell<u64>,
    /// Other chunks of which the cache has a beginning, of so many bytes.
    pub parts: RefCell<BTreeMap<u32, u64>>,
    /// Whether the cache may have a beginning of others, which is not used.
    pub has_stale_parts: bool,
    /// Chunks in the cache that are fetched anew.
    replaced: BTreeSet<u32>,
    /// Bytes that have arrived.
    pub arrived: Cell<u64>,
}

impl OpenFile {
    /// A file with what the cache has of it.
    pub fn new(
        path: &str,
        entry: FileRecord,
        hash: Option<FileHash>,
        remote: RemoteFile,
        content: ContentRecord,
        found: Found,
        rounds: bool,
    ) -> Self {
        let Found { present, rounded, stale_rounded, parts, has_stale_parts, replaced, .. } = found;
        let (content, present) = (RefCell::new(content), RefCell::new(present));
        let (path, parts, arrived) = (path.to_owned(), RefCell::new(parts), Cell::default());
        Self {
            path,
            entry,
            hash,
            content,
            remote,
            present,
            rounded: RefCell::new(rounded),
            stale_rounded: RefCell::new(stale_rounded),
            rounds,
            values: RefCell::default(),
            to_round: RefCell::default(),
            hashed: Cell::new(0),
            spared: Cell::default(),
            parts,
            has_stale_parts,
            replaced,
            arrived,
        }
    }

    /// Whether its chunks may be rounded.
    pub fn rounds(&self) -> bool {
        self.rounds
    }

    /// Whether nothing says what its bytes have to be.
    pub fn has_no_hash(&self) -> bool {
        self.hash.is_none()
    }

    /// Takes what the cache has by now, unless that came in other pieces.
    pub fn found_again(&self, found: Found) {
        if found.content.is_none_or(|content| content.chunk_bytes == self.chunk_bytes()) {
            // Those that came as they were served meanwhile are there, too.
            self.rounded.borrow_mut().retain(|index, _| !found.present.contains(index));
            self.present.borrow_mut().extend(found.present);
            self.rounded.borrow_mut().extend(found.rounded);
            self.stale_rounded.borrow_mut().extend(found.stale_rounded);
            self.parts.borrow_mut().extend(found.parts);
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

    /// The values of a chunk that may be rounded, of which the file's head has nothing.
    pub fn values(&self, index: u32) -> Vec<Range<usize>> {
        let (values, range) = (self.values.borrow(), self.range(index));
        match values.first() {
            Some(first) if first.start <= range.start => whole_values(&values, range),
            _ => Vec::new(),
        }
    }

    /// Whether a chunk that has arrived may be stored rounded: what is not hashed from memory soon has to be read again
    /// as it was served.
    pub fn rounds_now(&self, index: u32) -> bool {
        let early = WINDOW_BYTES / 2 / self.chunk_bytes();
        self.rounds && u64::from(index) <= u64::from(self.hashed.get()) + early
    }

    /// Has a chunk that is stored as it was served be rounded when it is hashed.
    pub fn round_later(&self, index: u32) {
        if self.rounds && index >= self.hashed.get() {
            self.to_round.borrow_mut().insert(index);
        }
    }

    /// Bytes of storage for what is not in the cache.
    pub fn missing_storage(&self) -> u64 {
        let missing = self.missing();
        let size = u128::from(self.entry.size.max(1));
        missing - (u128::from(self.spared.get()) * u128::from(missing) / size) as u64
    }

    /// Bytes that are not in the cache.
    pub fn missing(&self) -> u64 {
        let (present, parts) = (self.present.borrow(), self.parts.borrow());
        let missing = (0..self.count()).filter(|i| !present.contains(i));
        missing.map(|i| self.length(i) - parts.get(&i).unwrap_or(&0)).sum()
    }

    /// Bytes in the cache whose place others take.
    pub fn replaced(&self) -> u64 {
        let count = self.count();
        self.replaced.iter().filter(|i| **i < count).map(|i| self.length(*i)).sum()
    }
}

/// A chunk that has arrived.
struct Chunk<'a> {
    index: u32,
    bytes: Rc<Vec<u8>>,
    /// Whether it was fetched.
    fetched: bool,
    slot: Option<Slot<'a>>,
}

/// A chunk that was handed out before it was its turn to be hashed.
enum Early<'a> {
    /// Its bytes, and their place.
    Held(Rc<Vec<u8>>, #[expect(dead_code, reason = "it is there to be dropped")] Option<Slot<'a>>),
    /// It is in the cache, to be read from there: the fast hash of what was handed out.
    Left(u64),
}

type ChunkFuture<'a> = LocalBoxFuture<'a, Result<Chunk<'a>>>;

/// What a reader waits for.
enum Event<'a> {
    /// A chunk has arrived.
    Arrived(Chunk<'a>),
    /// The next chunk to be hashed was read from the cache once more.
    ReadBack(Vec<u8>),
    /// There are no more chunks.
    End,
}

/// See [`FileReader`].
pub(super) struct ChunkReader<'a> {
    repository: &'a Repository<'a>,
    file: Rc<OpenFile>,
    /// Its place among the model's files.
    number: u32,
    /// Chunks on their way.
    window: FuturesUnordered<ChunkFuture<'a>>,
    /// Chunks that the header is in, which were not handed out yet.
    ahead: VecDeque<Chunk<'a>>,
    /// Chunks asked for.
    started: u32,
    /// Whether chunks are handed out.
    is_begun: bool,
    hasher: Option<FileHasher>,
    /// Chunks from the first on that `hasher` has seen.
    hashed: u32,
    /// Chunks from the first on that were hashed in an earlier load.
    hashed_before: u32,
    /// Whether bytes that had been hashed in an earlier load were fetched anew.
    replaced: bool,
    /// Chunks that nobody has a use for, and that need not be hashed or kept.
    left_out: BTreeSet<u32>,
    early: BTreeMap<u32, Early<'a>>,
    /// The next chunk to be hashed, on its way from the cache.
    read_back: Option<LocalBoxFuture<'a, Result<Vec<u8>>>>,
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
        file.hashed.set(match hasher {
            Some(_) => hashed_before,
            // Nothing is to be hashed.
            None => u32::MAX,
        });
        Self {
            repository,
            file,
            number: repository.slots.number(),
            window: FuturesUnordered::new(),
            ahead: VecDeque::new(),
            started: 0,
            is_begun: false,
            hasher,
            hashed: hashed_before,
            hashed_before,
            replaced: false,
            left_out: BTreeSet::new(),
            early: BTreeMap::new(),
            read_back: None,
        }
    }

    /// The next chunk to arrive, which is hashed if it is its turn; `None` when all are there and
    /// hashed.
    async fn arrive(&mut self, on_arrival: &mut OnArrival<'_>) -> Result<Option<Chunk<'a>>> {
        loop {
            let file = self.file.clone();
            let mut arrived = file.arrived.get();
            let event = poll_fn(|context| {
                let poll = self.poll_event(context);
                let now = file.arrived.get();
                if std::mem::replace(&mut arrived, now) != now {
                    on_arrival();
                }
                poll
            });
            match event.await? {
                Event::Arrived(chunk) => return Ok(Some(chunk)),
                Event::ReadBack(bytes) => {
                    let known = self.early.remove(&self.hashed);
                    let found = chunk_hash(&bytes, self.hashed);
                    if !matches!(known, Some(Early::Left(hash)) if hash == found) {
                        // It had to be fetched once more.
                        let message = "other bytes than before".into();
                        let url = self.file.remote.url().into();
                        return Err(Error::InvalidResponse { url, message });
                    }
                    self.hash(&bytes).await;
                    self.hash_early().await;
                    self.keep_state().await;
                }
                Event::End => return Ok(None),
            }
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Event<'a>>> {
        self.start(context);
        if let Poll::Ready(Some(arrived)) = Pin::new(&mut self.window).poll_next(context) {
            return Poll::Ready(arrived.map(Event::Arrived));
        }
        if self.read_back.is_none() && matches!(self.early.get(&self.hashed), Some(Early::Left(_)))
        {
            let (repository, file, index) = (self.repository, self.file.clone(), self.hashed);
            let read = async move { repository.chunk_again(&file, index).await };
            self.read_back = Some(Box::pin(read));
        }
        if let Some(read) = &mut self.read_back {
            let poll = read.as_mut().poll(context).map_ok(Event::ReadBack);
            if poll.is_ready() {
                self.read_back = None;
            }
            return poll;
        }
        match self.window.is_empty() && self.started == self.file.count() {
            true => Poll::Ready(Ok(Event::End)),
            false => Poll::Pending,
        }
    }

    /// Asks for as many chunks as may be on their way. Where one is late, those that came after it
    /// are left to the cache, so that their hash does not hold up the rest of the file.
    fn start(&mut self, context: &Context<'_>) {
        let (file, repository) = (&self.file, self.repository);
        let held = self.early.values().map(|early| match early {
            Early::Held(bytes, _) => bytes.len() as u64,
            Early::Left(_) => 0,
        });
        if held.sum::<u64>() * 2 > WINDOW_BYTES {
            let (present, rounded) = (file.present.borrow(), file.rounded.borrow());
            for (index, early) in &mut self.early {
                if let Early::Held(bytes, _) = early
                    && present.contains(index)
                    && !rounded.contains_key(index)
                {
                    *early = Early::Left(chunk_hash(bytes, *index));
                }
            }
        }
        // The first by itself: it holds the header, and the files of a model are opened all before
        // one is read on. And where every answer is the whole file, one is read to its end.
        let is_single = !self.is_begun || file.remote.sends_whole();
        while self.started < file.count() && (self.window.is_empty() || !is_single) {
            if self.left_out.contains(&self.started) {
                self.started += 1;
                continue;
            }
            let (file, index) = (file.clone(), self.started);
            let (limit, length) = (repository.pace.limit(), file.length(index));
            let slot = repository.slots.take(self.number, length, limit, context.waker());
            let Some(mut slot) = slot else { return };
            self.window.push(Box::pin(async move {
                let (bytes, fetched) = repository.chunk(&file, index).await?;
                slot.arrived();
                Ok(Chunk { index, bytes: Rc::new(bytes), fetched, slot: Some(slot) })
            }));
            self.started += 1;
        }
        repository.slots.leave(self.number);
    }

    /// Hands a chunk out, and hashes it now or later.
    async fn hand_out(&mut self, chunk: Chunk<'a>) -> Piece {
        let Chunk { index, bytes, fetched, slot } = chunk;
        let piece = Piece { start: self.file.range(index).start, bytes };
        if index < self.hashed_before {
            self.replaced |= fetched;
        } else if index == self.hashed {
            self.hash(&piece.bytes).await;
            self.hash_early().await;
            self.keep_state().await;
        } else if self.hasher.is_some() {
            self.early.insert(index, Early::Held(piece.bytes.clone(), slot));
        }
        piece
    }

    /// Hashes the next chunk, of which less is kept from then on.
    async fn hash(&mut self, bytes: &[u8]) {
        let Some(hasher) = &mut self.hasher else { return };
        hasher.update(bytes);
        let index = self.hashed;
        self.hashed += 1;
        self.file.hashed.set(self.hashed);
        let is_left = self.file.to_round.borrow_mut().remove(&index);
        if is_left {
            self.repository.store_rounded(&self.file, index, bytes).await;
        }
    }

    /// Hashes those that are held and whose turn has come.
    async fn hash_early(&mut self) {
        while let Some(Early::Held(bytes, _)) = self.early.get(&self.hashed) {
            let (index, bytes) = (self.hashed, bytes.clone());
            self.hash(&bytes).await;
            self.early.remove(&index);
        }
    }

    /// Keeps how far the file is hashed.
    async fn keep_state(&self) {
        let Some(FileHasher::Sha256(hasher)) = &self.hasher else { return };
        let (Some(state), true) = (hasher.state(), self.repository.storing.get()) else { return };
        let content = {
            let mut content = self.file.content.borrow_mut();
            content.hashed = self.hashed;
            content.state = Some(state);
            content.clone()
        };
        let key = content_key(&self.file.entry.content);
        self.repository.store(async |cache| cache.put_json(&key, &content).await).await;
    }

    /// Removes the beginnings of chunks that were never needed.
    async fn drop_parts(&self) {
        let (file, repository) = (&self.file, self.repository);
        let Some(cache) = repository.storing() else { return };
        if file.has_stale_parts || !file.parts.take().is_empty() {
            repository.stored(cache.drop_all_parts(&file.entry.content).await);
        }
        // Of what was about to be rounded when a page ended.
        for index in file.stale_rounded.take() {
            repository.stored(cache.drop_rounded(&file.entry.content, index, None).await);
        }
    }

    async fn verify(&mut self) -> Result<()> {
        let (file, repository) = (&self.file, self.repository);
        let result = match &file.hash {
            Some(hash) if self.replaced => {
                // Chunks hashed in an earlier load were damaged, and what came in their place has
                // not been hashed: all once more, without counting them as arrived.
                let mut hasher = FileHasher::new(hash, file.entry.size);
                for index in 0..file.count() {
                    hasher.update(&repository.chunk_as_served(file, index).await?);
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
            repository.forget(cache, &file.entry.content).await;
            return Err(error);
        }
        self.drop_parts().await;
        let was_complete = std::mem::replace(&mut file.content.borrow_mut().complete, true);
        if repository.storing().is_some() && (!was_complete || self.replaced) {
            let content = file.content.borrow().clone();
            let key = content_key(&file.entry.content);
            repository.store(async |cache| cache.put_json(&key, &content).await).await;
        }
        Ok(())
    }
}

impl Drop for ChunkReader<'_> {
    fn drop(&mut self) {
        self.repository.slots.leave(self.number);
    }
}

impl FileReader for ChunkReader<'_> {
    fn size(&self) -> u64 {
        self.file.entry.size
    }

    fn head<'a>(
        &'a mut self,
        length: u64,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            if length > self.size() {
                let message = format!("it ended after fewer than its {} bytes", self.size());
                return Err(Error::Network { url: self.file.remote.url().into(), message });
            }
            let mut bytes = Vec::with_capacity(length as usize);
            let mut chunks = 0;
            while (bytes.len() as u64) < length {
                if chunks == self.ahead.len() {
                    let Some(mut chunk) = self.arrive(on_arrival).await? else { break };
                    // All headers of a model are there before anything is handed out: they must not
                    // wait for each other's places.
                    chunk.slot = None;
                    self.ahead.push_back(chunk);
                }
                let chunk = &self.ahead[chunks].bytes;
                let rest = (length as usize - bytes.len()).min(chunk.len());
                bytes.extend_from_slice(&chunk[..rest]);
                chunks += 1;
            }
            Ok(bytes)
        })
    }

    fn round(&mut self, values: Vec<Range<u64>>) {
        self.file.values.replace(values);
    }

    fn expect_rounded(&mut self, bytes: u64) {
        if self.file.rounds {
            // The first chunk has the head, and stays as it is.
            let others = u128::from(self.file.entry.size - self.file.length(0));
            let size = u128::from(self.file.entry.size.max(1));
            self.file.spared.set((u128::from(bytes) * others / size) as u64);
        }
    }

    fn only(&mut self, ranges: &[Range<u64>]) {
        let file = &self.file;
        // What is in the cache was proven when it came, unless that is still under way; where nothing is kept, nothing may be
        // left to be proven.
        let is_complete = file.content.borrow().complete && file.missing() == 0;
        let is_proven = self.hasher.is_none() && is_complete;
        if !(is_proven || self.repository.cache.is_none() && file.has_no_hash()) {
            return;
        }
        let has_use = |index: &u32| {
            let chunk = file.range(*index);
            let next = ranges.partition_point(|range| range.end <= chunk.start);
            ranges.get(next).is_some_and(|range| range.start < chunk.end)
        };
        self.left_out = (self.started..file.count()).filter(|index| !has_use(index)).collect();
    }

    fn next<'a>(
        &'a mut self,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Option<Piece>>> {
        Box::pin(async move {
            self.is_begun = true;
            let chunk = match self.ahead.pop_front() {
                Some(chunk) => chunk,
                None => match self.arrive(on_arrival).await? {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                },
            };
            Ok(Some(self.hand_out(chunk).await))
        })
    }

    fn finish<'a>(
        &'a mut self,
        on_arrival: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(async move {
            while self.next(on_arrival).await?.is_some() {}
            self.verify().await
        })
    }

    fn reject(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            let id = &self.file.entry.content;
            if let Some(cache) = self.repository.cache
                && !self.file.content.borrow().complete
            {
                self.repository.forget(cache, id).await;
            }
        })
    }
}
