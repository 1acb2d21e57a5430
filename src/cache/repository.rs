//! A model's files, read through the cache.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use futures_util::future::LocalBoxFuture;

use super::chunks::Arriving;
use super::digest::{FileHasher, Sha256};
use super::reader::{ChunkReader, OpenFile};
use super::rounded::{LEAST_CHUNKS, Rounded};
use super::slots::Slots;
use super::{CHUNK_BYTES, MEMORY_BYTES, chunk_length, git_blob};
use super::{Cache, ContentRecord, FileRecord, ModelRecord, StoreError, StoreResult, content_key};
use crate::error::{Error, Result};
use crate::hub::{
    Fetch, FileHash, FileReader, ModelFiles, ModelSource, Pace, RemoteFile, Request, Traffic,
};

/// What the user may want to know while a model is read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// Something is not as it should be, and loading goes on.
    Warning {
        /// A stable name: `storage` when nothing can be stored, `offline` when the Hub could not be
        /// reached or no longer has the model and the cached version is used, `corrupt` when a
        /// chunk of the cache was found damaged and is fetched again.
        code: &'static str,
        /// What happened.
        message: String,
    },
    /// How much is going to be stored.
    Storage {
        /// Bytes still to be stored.
        needed: u64,
        /// Bytes that can be stored, where the platform tells.
        free: Option<u64>,
    },
    /// Another tab is loading the same model; this one waits for it.
    Waiting,
}

/// What of the cache may be read, and whether the network may be asked for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// Nothing but the cache is asked (`local_files_only`).
    Only,
    /// Everything that is there, also of files that are not whole.
    #[default]
    Resume,
    /// Whole files; of others, everything is fetched anew (`resume_download=False`).
    WholeFiles,
    /// Everything is fetched anew, and takes the place of what is there (`force_download`).
    Refetch,
}

/// A model's files: from the cache what is there, else from the server and into the cache.
pub struct Repository<'a> {
    pub(super) fetch: &'a dyn Fetch,
    pub(super) source: ModelSource,
    pub(super) cache: Option<&'a Cache>,
    pub(super) policy: CachePolicy,
    /// The server cannot be reached.
    offline: Cell<bool>,
    /// Whether new bytes go to the cache.
    pub(super) storing: Cell<bool>,
    /// Whether anything is missing from the cache.
    pub(super) incomplete: Cell<bool>,
    /// Why nothing is stored any more.
    not_kept: RefCell<Option<String>>,
    /// Whether it is an error when nothing can be stored.
    must_keep: bool,
    pub(super) record: RefCell<ModelRecord>,
    pub(super) pace: Pace,
    pub(super) traffic: Cell<Traffic>,
    pub(super) slots: Slots,
    /// Chunks on their way from the network, by their contents and numbers.
    pub(super) arriving: RefCell<BTreeMap<(String, u32), Arriving>>,
    /// The large files that are open, or were.
    opened: RefCell<Vec<Weak<OpenFile>>>,
    /// The contents that were read or stored, with the number of their chunks.
    pub(super) used: RefCell<BTreeMap<String, u32>>,
    pub(super) chunk_bytes: u64,
    pub(super) notify: Box<dyn Fn(Notice) + 'a>,
    pub(super) lock: RefCell<Option<Box<dyn Any>>>,
    /// Whether `lock` is for this repository alone.
    pub(super) exclusive: Cell<bool>,
    /// Whether no more is wanted of the model than some of its files.
    pub(super) wants_part: bool,
}

impl<'a> Repository<'a> {
    /// A model without a cache and without a listing: what its address has.
    pub fn uncached(fetch: &'a dyn Fetch, source: ModelSource) -> Self {
        Self {
            fetch,
            source,
            cache: None,
            policy: CachePolicy::default(),
            offline: Cell::new(false),
            storing: Cell::new(false),
            incomplete: Cell::new(false),
            not_kept: RefCell::default(),
            must_keep: false,
            record: RefCell::default(),
            pace: Pace::default(),
            traffic: Cell::default(),
            slots: Slots::default(),
            arriving: RefCell::default(),
            opened: RefCell::default(),
            used: RefCell::default(),
            chunk_bytes: CHUNK_BYTES,
            notify: Box::new(|_| ()),
            lock: RefCell::default(),
            exclusive: Cell::new(false),
            wants_part: false,
        }
    }

    /// Finds out which version of the model is meant and what it consists of, waiting for another
    /// tab that downloads it.
    ///
    /// # Errors
    /// [`Error::NotCached`] with [`CachePolicy::Only`]; network errors, unless a complete version is cached.
    pub async fn open(
        fetch: &'a dyn Fetch,
        source: ModelSource,
        cache: Option<&'a Cache>,
        policy: CachePolicy,
        notify: impl Fn(Notice) + 'a,
    ) -> Result<Self> {
        Self::uncached(fetch, source).open_in(cache, policy, notify).await
    }

    /// The same where no more is wanted of the model than some of its files, such as its configurations, which end with
    /// [`finish_part`](ModelFiles::finish_part): without a network, a version serves of which these were read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_part(
        fetch: &'a dyn Fetch,
        source: ModelSource,
        cache: Option<&'a Cache>,
        policy: CachePolicy,
        notify: impl Fn(Notice) + 'a,
    ) -> Result<Self> {
        let this = Self { wants_part: true, ..Self::uncached(fetch, source) };
        this.open_in(cache, policy, notify).await
    }

    async fn open_in(
        self,
        cache: Option<&'a Cache>,
        policy: CachePolicy,
        notify: impl Fn(Notice) + 'a,
    ) -> Result<Self> {
        let mut this = self;
        this.cache = cache;
        this.policy = policy;
        this.storing.set(cache.is_some() && !this.local_only());
        this.chunk_bytes = cache.map_or(CHUNK_BYTES, |cache| cache.chunk_bytes);
        if cache.is_some_and(Cache::is_in_memory) {
            // Who opened it has said so.
            this.not_kept.replace(Some("there is only memory".into()));
        }
        this.notify = Box::new(notify);
        let revision = match &this.source {
            ModelSource::Hub(hub) => Some(hub.revision.clone()),
            ModelSource::Base(_) => None,
        };
        let record = this.resolve(revision.as_deref()).await?;
        this.record.replace(record);
        this.take_lock().await?;
        if let Err(error) = this.list(revision.as_deref()).await {
            this.fall_back(error, revision.as_deref()).await?;
        }
        this.save_record().await;
        Ok(this)
    }

    /// Makes it an error when nothing can be stored: [`Error::Storage`], as soon as that is known.
    #[must_use]
    pub fn must_keep(mut self) -> Self {
        self.must_keep = true;
        self
    }

    /// Has at most `most` range requests under way at once, and fewer after failures.
    ///
    /// # Panics
    /// When `most` is not from 1 to [`MAX_PARALLEL`](crate::hub::MAX_PARALLEL).
    #[must_use]
    pub fn with_parallel(mut self, most: usize) -> Self {
        self.pace = Pace::new(most);
        self
    }

    /// The commit that is read, where the Hub told.
    pub fn commit(&self) -> Option<String> {
        self.record.borrow().commit.clone()
    }

    /// Whether everything read so far is in the cache, or in memory.
    pub fn is_kept(&self) -> bool {
        let is_written = self.storing.get() || self.not_kept.borrow().is_none();
        self.cache.is_some() && !self.incomplete.get() && is_written
    }

    pub(super) fn local_only(&self) -> bool {
        self.policy == CachePolicy::Only
    }

    pub(super) fn sends_nothing(&self) -> bool {
        self.local_only() || self.offline.get()
    }

    /// The cache, where it may be read.
    fn readable(&self) -> Option<&'a Cache> {
        // Without a network, what is there is better than nothing.
        self.cache.filter(|_| self.policy != CachePolicy::Refetch || self.offline.get())
    }

    pub(super) fn go_offline(&self, error: &Error) {
        self.offline.set(true);
        let message = format!("{error}; the version in the cache is used");
        (self.notify)(Notice::Warning { code: "offline", message });
    }

    pub(super) fn not_cached(&self, file: &str) -> Error {
        Error::NotCached { model: self.source.name(), file: file.into() }
    }

    pub(super) fn give_up_storing(&self, error: &StoreError) {
        if self.storing.replace(false) {
            self.warn_not_kept(error, || {
                format!(
                    "the model is not kept, and will be downloaded again the next time: {error}"
                )
            });
        }
    }

    /// Says once why not all of the model is stored.
    fn warn_not_kept(&self, error: &StoreError, message: impl Fn() -> String) {
        if self.not_kept.borrow().is_none() {
            (self.notify)(Notice::Warning { code: "storage", message: message() });
            self.not_kept.replace(Some(error.to_string()));
        }
    }

    /// The store has failed: what follows goes to memory, if all that is missing of the model has room
    /// there, and else nowhere.
    pub(super) async fn go_over(&self, cache: &Cache, error: &StoreError) {
        let record = self.record.borrow().clone();
        if !cache.go_over(self.missing_storage(), &record.key()).await {
            return self.give_up_storing(error);
        }
        self.warn_not_kept(error, || in_memory_text(error));
        // Before its contents, so that they are not taken for nobody's.
        self.stored(cache.put_json(&record.key(), &record).await);
    }

    /// Fails when nothing is stored although it must be.
    pub(super) fn check_kept(&self) -> Result<()> {
        match (self.must_keep, &*self.not_kept.borrow()) {
            (true, Some(message)) => Err(Error::Storage { message: message.clone() }),
            _ => Ok(()),
        }
    }

    pub(super) fn storing(&self) -> Option<&'a Cache> {
        self.cache.filter(|_| self.storing.get())
    }

    /// Writes to the cache, and where that has no room, to memory. Tells whether it is there.
    pub(super) async fn store(
        &self,
        mut write: impl AsyncFnMut(&Cache) -> StoreResult<()>,
    ) -> bool {
        while let Some(cache) = self.storing() {
            let was_in_memory = cache.is_in_memory();
            match write(cache).await {
                Ok(()) => return true,
                Err(error) if was_in_memory => self.give_up_storing(&error),
                // Another one that failed may have been as fast.
                Err(_) if cache.is_in_memory() => {}
                Err(error) => self.go_over(cache, &error).await,
            }
        }
        self.incomplete.set(true);
        false
    }

    /// The outcome of writing to the cache: a failure ends writing, not loading.
    pub(super) fn stored(&self, result: StoreResult<()>) {
        if let Err(error) = result {
            self.incomplete.set(true);
            self.give_up_storing(&error);
        }
    }

    pub(super) fn count(&self, fetched: u64, cached: u64) {
        let mut traffic = self.traffic.get();
        traffic.fetched += fetched;
        traffic.cached += cached;
        self.traffic.set(traffic);
    }

    fn remote(&self, path: &str) -> RemoteFile {
        RemoteFile::new(Request {
            url: self.source.url(path),
            token: self.source.token().cloned(),
            range: None,
            no_store: self.storing.get(),
        })
    }

    /// What the record knows of a file. `None` where the server must be asked.
    fn entry(&self, path: &str) -> Result<Option<FileRecord>> {
        let record = self.record.borrow();
        let known = record.files.get(path).cloned();
        if self.sends_nothing() || record.listed {
            if known.is_none() && (record.listed || record.absent.contains(path)) {
                return Err(Error::NotFound { url: self.source.url(path) });
            }
            if known.is_none() {
                return Err(self.not_cached(path));
            }
            return Ok(known);
        }
        Ok(None)
    }

    async fn read_whole(&self, path: &str) -> Result<Vec<u8>> {
        if let Some(entry) = self.entry(path)? {
            return self.read_known(path, &entry).await;
        }
        match self.fetch_whole(path, None).await {
            Ok(bytes) => {
                let content = format!("git-{}", git_blob(&bytes));
                let entry = FileRecord { size: bytes.len() as u64, content };
                self.remember(path, Some(entry.clone()));
                self.keep_whole(&entry, bytes).await
            }
            Err(error @ Error::NotFound { .. }) => {
                self.remember(path, None);
                Err(error)
            }
            // Without a network, a model that was loaded once is read as it was then.
            Err(error @ Error::Network { .. }) if self.serves_alone(&self.record.borrow()) => {
                self.go_offline(&error);
                let entry = self.entry(path)?.ok_or(error)?;
                self.read_known(path, &entry).await
            }
            Err(error) => Err(error),
        }
    }

    /// A small file of known content.
    async fn read_known(&self, path: &str, entry: &FileRecord) -> Result<Vec<u8>> {
        self.used.borrow_mut().insert(entry.content.clone(), 1);
        if let Some(cache) = self.readable() {
            match cache.chunk(&entry.content, 0, entry.size).await {
                Ok(Some(bytes)) => {
                    self.count(0, entry.size);
                    return Ok(bytes);
                }
                Ok(None) => {}
                Err(error) => self.give_up_storing(&error),
            }
        }
        if self.local_only() {
            return Err(self.not_cached(path));
        }
        let bytes = self.fetch_whole(path, Some(entry.size)).await?;
        if let Some(hash) = file_hash(&entry.content) {
            let mut hasher = FileHasher::new(&hash, entry.size);
            hasher.update(&bytes);
            check_hash(path, &hash, hasher)?;
        }
        self.keep_whole(entry, bytes).await
    }

    async fn fetch_whole(&self, path: &str, size: Option<u64>) -> Result<Vec<u8>> {
        let arrived = |bytes| self.count(bytes, 0);
        self.remote(path).whole(self.fetch, size, &arrived).await
    }

    async fn keep_whole(&self, entry: &FileRecord, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.storing().is_some() {
            let record = ContentRecord {
                size: entry.size,
                chunk_bytes: entry.size.max(1),
                hashed: 1,
                state: None,
                complete: true,
            };
            self.used.borrow_mut().insert(entry.content.clone(), 1);
            let (id, key) = (&entry.content, content_key(&entry.content));
            self.store(async |cache| cache.put_chunk(id, 0, &mut bytes).await).await;
            self.store(async |cache| cache.put_json(&key, &record).await).await;
        }
        self.check_kept()?;
        Ok(bytes)
    }

    fn remember(&self, path: &str, entry: Option<FileRecord>) {
        let mut record = self.record.borrow_mut();
        match entry {
            Some(entry) => {
                record.absent.remove(path);
                record.files.insert(path.to_owned(), entry);
            }
            None => {
                record.files.remove(path);
                record.absent.insert(path.to_owned());
            }
        }
    }

    async fn open_large(&self, path: &str, rounds: bool) -> Result<ChunkReader<'_>> {
        let remote = self.remote(path);
        let entry = match self.entry(path)? {
            Some(entry) => entry,
            None => match remote.probe(self.fetch).await {
                Ok(probe) => {
                    let entry = FileRecord {
                        size: probe.size,
                        content: url_id(remote.url(), probe.size, probe.validator.as_deref()),
                    };
                    self.remember(path, Some(entry.clone()));
                    // Before its chunks, so that they are not taken for nobody's.
                    self.save_record().await;
                    entry
                }
                Err(error @ Error::NotFound { .. }) => {
                    self.remember(path, None);
                    return Err(error);
                }
                Err(error) => return Err(error),
            },
        };
        let mut found = Found::default();
        if let Some(cache) = self.cache {
            match self.find(cache, &entry, rounds).await {
                Ok(there) => found = there,
                Err(error) => self.give_up_storing(&error),
            }
        }
        let content = found.content.take().unwrap_or(ContentRecord {
            size: entry.size,
            chunk_bytes: self.chunk_bytes,
            hashed: 0,
            state: None,
            complete: false,
        });
        let hash = file_hash(&entry.content);
        let rounds = rounds && may_round(&entry, content.chunk_bytes);
        let file = OpenFile::new(path, entry, hash, remote, content, found, rounds);
        self.used.borrow_mut().insert(file.entry.content.clone(), file.count());
        let file = Rc::new(file);
        self.opened.borrow_mut().push(Rc::downgrade(&file));
        Ok(ChunkReader::new(self, file))
    }

    /// What the cache has of a file that may be used.
    async fn find(&self, cache: &Cache, entry: &FileRecord, rounds: bool) -> StoreResult<Found> {
        let content = cache.content(&entry.content).await?;
        let content = content.filter(|record| record.size == entry.size);
        let chunks = cache.chunks(&entry.content).await?;
        let (mut present, mut rounded) = (chunks.clone(), cache.rounded(&entry.content).await?);
        let mut stale_rounded: BTreeSet<u32> = rounded.keys().copied().collect();
        // Those that were not hashed yet cannot be any more: the page ended in between.
        let hashed = match (&content, file_hash(&entry.content)) {
            (Some(record), Some(_)) if !record.complete => record.hashed,
            (Some(_), _) => u32::MAX,
            (None, _) => 0,
        };
        rounded.retain(|index, _| rounds && *index < hashed && !chunks.contains(index));
        stale_rounded.retain(|index| !rounded.contains_key(index));
        present.extend(rounded.keys());
        let mut parts = cache.parts(&entry.content).await?;
        let whole = content.as_ref().is_some_and(|record| record.complete);
        let usable = whole || self.policy != CachePolicy::WholeFiles;
        Ok(match self.readable() {
            Some(_) if usable => {
                // Without the record nothing says where a chunk begins.
                let length = |index| {
                    let content = content.as_ref()?;
                    Some(chunk_length(content.size, content.chunk_bytes, index))
                };
                let all = parts.len();
                parts.retain(|index, bytes| {
                    !present.contains(index) && length(*index).is_some_and(|all| *bytes < all)
                });
                let has_stale_parts = parts.len() < all;
                Found {
                    content,
                    present,
                    rounded,
                    stale_rounded,
                    parts,
                    has_stale_parts,
                    ..Found::default()
                }
            }
            _ => {
                stale_rounded.extend(rounded.into_keys());
                let has_stale_parts = !parts.is_empty();
                Found { replaced: chunks, stale_rounded, has_stale_parts, ..Found::default() }
            }
        })
    }

    /// The large files that are open, each content once.
    pub(super) fn open_files(&self) -> Vec<Rc<OpenFile>> {
        let mut opened = self.opened.borrow_mut();
        opened.retain(|file| file.strong_count() > 0);
        let mut contents = BTreeSet::new();
        let files = opened.iter().filter_map(Weak::upgrade);
        files.filter(|file| contents.insert(file.entry.content.clone())).collect()
    }

    /// Looks once more for what the cache has of the open files: another tab had the time to store it.
    pub(super) async fn look_again(&self, cache: &Cache) {
        for file in self.open_files() {
            match self.find(cache, &file.entry, file.rounds()).await {
                Ok(found) => file.found_again(found),
                Err(error) => self.give_up_storing(&error),
            }
        }
    }
}

impl ModelFiles for Repository<'_> {
    fn read<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.read_whole(path))
    }

    fn open<'a>(&'a self, path: &str) -> LocalBoxFuture<'a, Result<Box<dyn FileReader + 'a>>> {
        let path = path.to_owned();
        Box::pin(async move {
            let reader: Box<dyn FileReader + 'a> = Box::new(self.open_large(&path, false).await?);
            Ok(reader)
        })
    }

    fn open_rounded<'a>(
        &'a self,
        path: &str,
    ) -> LocalBoxFuture<'a, Result<Box<dyn FileReader + 'a>>> {
        let path = path.to_owned();
        Box::pin(async move {
            let reader: Box<dyn FileReader + 'a> = Box::new(self.open_large(&path, true).await?);
            Ok(reader)
        })
    }

    fn address(&self, path: &str) -> String {
        self.source.url(path)
    }

    fn paths(&self) -> Vec<String> {
        let record = self.record.borrow();
        if record.listed { record.files.keys().cloned().collect() } else { Vec::new() }
    }

    fn prepare(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.begin())
    }

    fn finish(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.complete(true))
    }

    fn finish_part(&self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(self.complete(false))
    }

    fn stop(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.keep_beginnings())
    }

    fn missing(&self) -> u64 {
        self.missing_bytes()
    }

    fn storage(&self) -> u64 {
        self.missing_storage()
    }

    fn traffic(&self) -> Traffic {
        self.traffic.get()
    }
}

impl std::fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("source", &self.source).finish_non_exhaustive()
    }
}

/// What the cache has of a file.
#[derive(Default)]
pub(super) struct Found {
    /// The content's record, where its chunks may be used.
    pub content: Option<ContentRecord>,
    /// The chunks that may be used.
    pub present: BTreeSet<u32>,
    /// Those of them that are rounded.
    pub rounded: BTreeMap<u32, Rounded>,
    /// Chunks of which there is a rounded form that may not be used.
    pub stale_rounded: BTreeSet<u32>,
    /// Other chunks of which there is a beginning, of so many bytes, that may be used.
    pub parts: BTreeMap<u32, u64>,
    /// Whether there are others, which may not.
    pub has_stale_parts: bool,
    /// The chunks that are fetched anew all the same.
    pub replaced: BTreeSet<u32>,
}

/// Whether a file's chunks may be rounded: not of a small one, nor where its hash is known at its end alone.
fn may_round(entry: &FileRecord, chunk_bytes: u64) -> bool {
    let is_large = entry.size.div_ceil(chunk_bytes) >= u64::from(LEAST_CHUNKS);
    is_large && !matches!(file_hash(&entry.content), Some(FileHash::GitBlob(_)))
}

/// The hash that a content's id names, if it does.
pub(super) fn file_hash(id: &str) -> Option<FileHash> {
    let sha256 = id.strip_prefix("sha256-").map(|hash| FileHash::Sha256(hash.into()));
    sha256.or_else(|| id.strip_prefix("git-").map(|hash| FileHash::GitBlob(hash.into())))
}

fn url_id(url: &str, size: u64, validator: Option<&str>) -> String {
    let mut hasher = Sha256::default();
    hasher.update(format!("{url}\n{size}\n{}", validator.unwrap_or_default()).as_bytes());
    format!("url-{}", &hasher.finish()[..32])
}

pub(super) fn check_hash(path: &str, expected: &FileHash, hasher: FileHasher) -> Result<()> {
    let (FileHash::Sha256(expected) | FileHash::GitBlob(expected)) = expected;
    let found = hasher.finish();
    if found == *expected {
        return Ok(());
    }
    Err(Error::HashMismatch { file: path.into(), expected: expected.clone(), found })
}

/// What a user is told of a model that only memory has room for, and not more of it than there is.
pub fn in_memory_text(error: &StoreError) -> String {
    format!(
        "up to {} of the model are kept, in the memory of this page or worker alone, and the next one will \
         download it again: {error}",
        bytes_text(MEMORY_BYTES as u64)
    )
}

/// Bytes for people: `2.1 GB`.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
