//! Models kept on this machine: what is there, how much room it takes, and reading a model through
//! it.
//!
//! A model is a record that names its files and their contents; a content is a record and chunks, and
//! may belong to several models. Names of entries:
//!
//! | key | holds |
//! | --- | --- |
//! | `version` | the layout's version |
//! | `model/NAME@COMMIT` | a `ModelRecord`; `-` in place of the commit where there is none |
//! | `content/ID` | a `ContentRecord`, written after the chunks that it speaks of |
//! | `chunk/ID/INDEX` | bytes, then their fast hash in eight bytes |
//! | `chunk/ID/INDEX+LENGTH` | the same of a chunk's beginning, where its download was stopped |
//! | `chunk/ID/INDEX~LENGTH~HASH` | a chunk in place of the whole one, its values of single precision as halves: so many bytes, of what had that fast hash when it was served |
//!
//! `ID` is `sha256-…` or `git-…` by the Hub's hash, or `url-…` by address, size and validator where
//! there is none. A store may hold other entries, which are left alone.

mod archive;
mod chunks;
mod digest;
#[cfg(all(target_family = "wasm", feature = "js"))]
mod indexed_db;
mod part;
mod reader;
mod record;
mod repository;
mod rounded;
mod slots;
mod store;
#[cfg(test)]
mod tests;
mod version;

pub use archive::{Archive, MANIFEST, Member};
pub use digest::{chunk_hash, git_blob};
#[cfg(all(target_family = "wasm", feature = "js"))]
pub use indexed_db::{BrowserHost, IndexedDb, PageHost};
pub use record::{CachedModel, ContentRecord, FileRecord, ModelRecord};
use record::{chunk_key, chunk_length, content_key, lock_name, parse_chunk_key};
pub use repository::{CachePolicy, Notice, Repository, bytes_text, in_memory_text};
use store::Overflow;
pub use store::{MemoryStore, Store, StoreError, StoreResult};

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, ready};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Bytes of one range request, and of one chunk, unless asked otherwise.
pub const CHUNK_BYTES: u64 = 8 << 20;

/// The largest entry, bytes: browsers limit one value of their databases.
pub const MAX_ENTRY_BYTES: u64 = 64 << 20;

/// The largest chunk, bytes: a multiple of 64 that fits into an entry with its hash.
pub const MAX_CHUNK_BYTES: u64 = MAX_ENTRY_BYTES - 64;

/// Bytes kept in memory where nothing can be stored: a small model, or what is small of a large one. A
/// browser's tab has no more than that to spare.
pub const MEMORY_BYTES: usize = 48 << 20;

/// What the names of entries begin with, those first that others belong to.
const PREFIXES: [&str; 3] = ["model/", "content/", "chunk/"];

/// The entry that holds the layout's version.
const VERSION_KEY: &str = "version";

/// The layout of entries that this code reads and writes.
const VERSION: u32 = 1;

/// Turns entries of one version into those of the next; the first one starts from version 0.
type Migration = for<'a> fn(&'a dyn Store) -> LocalBoxFuture<'a, StoreResult<()>>;

/// One for each version before [`VERSION`].
const MIGRATIONS: [Migration; VERSION as usize] = [forget_everything];

/// Version 0 is what has no version: nothing that was ever released wrote it.
fn forget_everything(store: &dyn Store) -> LocalBoxFuture<'_, StoreResult<()>> {
    Box::pin(async move {
        for prefix in PREFIXES {
            for key in store.keys(prefix).await? {
                store.delete(&key).await?;
            }
        }
        Ok(())
    })
}

/// What the cache needs of its surroundings.
pub trait Host {
    /// Milliseconds since 1970.
    fn now(&self) -> f64;

    /// Waits until no other tab holds the lock `name`, or only shared ones when `exclusive` is
    /// false; calls `on_wait` when it has to wait. The lock is held until the result is dropped.
    ///
    /// # Errors
    /// [`Error::Aborted`] when the load is aborted while it waits.
    fn lock<'a>(
        &'a self,
        name: &'a str,
        exclusive: bool,
        on_wait: &'a dyn Fn(),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Any>>>;

    /// The lock `name` for oneself, if nobody else has it now.
    fn try_lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Option<Box<dyn Any>>>;

    /// Bytes that can still be stored, where the platform tells.
    fn free(&self) -> LocalBoxFuture<'_, Option<u64>>;
}

/// A single user with no clock and endless room.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Host for Alone {
    fn now(&self) -> f64 {
        0.0
    }

    fn lock<'a>(
        &'a self,
        _: &'a str,
        _: bool,
        _: &'a dyn Fn(),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Any>>> {
        Box::pin(ready(Ok(Box::new(()) as Box<dyn Any>)))
    }

    fn try_lock<'a>(&'a self, _: &'a str) -> LocalBoxFuture<'a, Option<Box<dyn Any>>> {
        Box::pin(ready(Some(Box::new(()) as Box<dyn Any>)))
    }

    fn free(&self) -> LocalBoxFuture<'_, Option<u64>> {
        Box::pin(ready(None))
    }
}

/// Models in a store.
#[derive(Clone)]
pub struct Cache {
    store: Rc<dyn Store>,
    host: Rc<dyn Host>,
    limit: Option<u64>,
    chunk_bytes: u64,
    spare: Option<Spare>,
}

/// Memory, for what the store has no room for.
#[derive(Clone)]
struct Spare {
    /// What is there, by itself.
    cache: Rc<Cache>,
    /// Whether all that is written goes there.
    is_over: Rc<Cell<bool>>,
}

impl Cache {
    /// Opens the cache in `store`, bringing entries of older versions up to date. Whole models that
    /// have not been used for longest are removed when new ones would exceed `limit` bytes.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails, or a newer version of this code has written to it.
    pub async fn open(
        store: Rc<dyn Store>,
        host: Rc<dyn Host>,
        limit: Option<u64>,
    ) -> StoreResult<Self> {
        migrate(&*store, &MIGRATIONS).await?;
        Ok(Self { store, host, limit, chunk_bytes: CHUNK_BYTES, spare: None })
    }

    /// Opens a cache that is in `memory` alone, since there is no other store.
    ///
    /// # Errors
    /// [`StoreError::Full`] where not even a record has room there.
    pub async fn open_in(
        memory: Rc<MemoryStore>,
        host: Rc<dyn Host>,
        limit: Option<u64>,
    ) -> StoreResult<Self> {
        let limit = limit.into_iter().chain(room_in(&memory)).min();
        let mut cache = Self::open(memory, host, limit).await?;
        let is_over = Rc::new(Cell::new(true));
        cache.spare = Some(Spare { cache: Rc::new(cache.clone()), is_over });
        Ok(cache)
    }

    /// Has what the store has no room for go to `memory`, for as long as that is there. What is there
    /// already is read from there.
    #[must_use]
    pub fn with_memory(mut self, memory: Rc<MemoryStore>) -> Self {
        let limit = room_in(&memory);
        let cache = Self { store: memory.clone(), limit, ..self.clone() };
        let is_over = Rc::<Cell<bool>>::default();
        self.store = Rc::new(Overflow { store: self.store, memory, is_over: is_over.clone() });
        self.spare = Some(Spare { cache: Rc::new(cache), is_over });
        self
    }

    /// Whether what is written goes to memory.
    pub fn is_in_memory(&self) -> bool {
        self.spare.as_ref().is_some_and(|spare| spare.is_over.get())
    }

    /// Has all go to memory from now on, if there is room for `needed` bytes of the model at `keep`: others
    /// give way, those used least recently first. Tells whether there is.
    async fn go_over(&self, needed: u64, keep: &str) -> bool {
        let Some(Spare { cache, is_over }) = &self.spare else { return false };
        let Ok(Some(room)) = cache.plan_room(needed, keep).await else { return false };
        if cache.make_room(&room).await != Ok(true) {
            return false;
        }
        is_over.set(true);
        true
    }

    /// Sets the size of new chunks and of range requests: a multiple of 64 bytes, at most
    /// [`MAX_CHUNK_BYTES`].
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn with_chunk_bytes(mut self, chunk_bytes: u64) -> Self {
        let allowed = 64..=MAX_CHUNK_BYTES;
        assert!(chunk_bytes.is_multiple_of(64) && allowed.contains(&chunk_bytes));
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// What is there, the model used last first.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn list(&self) -> Result<Vec<CachedModel>> {
        let mut records = self.models().await?;
        records.sort_by(|a, b| b.used.total_cmp(&a.used));
        let sizes = self.content_sizes().await?;
        let bytes = |record: &ModelRecord| {
            let ids: BTreeSet<&str> = record.files.values().map(|f| f.content.as_str()).collect();
            ids.into_iter().filter_map(|id| sizes.get(id)).sum()
        };
        let model = |record: &ModelRecord| CachedModel {
            model: record.model.clone(),
            commit: record.commit.clone(),
            bytes: bytes(record),
            complete: record.complete,
            used: record.used,
        };
        Ok(records.iter().map(model).collect())
    }

    /// Removes all versions of a model, but what other models share with it, after the loads of it
    /// that are on their way. Tells whether there was any.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn delete(&self, model: &str) -> Result<bool> {
        let mut found = false;
        for record in self.models().await? {
            if record.model == model {
                self.delete_record(&record.key()).await?;
                found = true;
            }
        }
        self.collect().await?;
        Ok(found)
    }

    /// Removes all models, each after the loads of it that are on their way.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn clear(&self) -> Result<()> {
        for key in self.store.keys("model/").await? {
            self.delete_record(&key).await?;
        }
        // Contents of a load that has begun since are somebody's.
        Ok(self.collect().await?)
    }

    /// Removes the record of a model that nobody is loading.
    async fn delete_record(&self, key: &str) -> Result<()> {
        // One lock at a time: who holds several could wait for somebody who waits for them.
        let _lock = self.host.lock(&lock_name(key), true, &|| ()).await?;
        Ok(self.store.delete(key).await?)
    }

    /// The records of all models.
    async fn models(&self) -> StoreResult<Vec<ModelRecord>> {
        let mut records = Vec::new();
        for key in self.store.keys("model/").await? {
            records.extend(self.json::<ModelRecord>(&key).await?);
        }
        Ok(records)
    }

    /// The best answer to a name and a revision: one that is complete, one that is so in part, and the one used last.
    async fn find(&self, model: &str, revision: Option<&str>) -> StoreResult<Option<ModelRecord>> {
        let records = self.models().await?.into_iter();
        let fitting = records.filter(|record| record.answers(model, revision));
        Ok(fitting.max_by(|a, b| {
            (a.complete, a.in_part, a.used)
                .partial_cmp(&(b.complete, b.in_part, b.used))
                .unwrap_or(std::cmp::Ordering::Equal)
        }))
    }

    /// Bytes in the cache by content.
    async fn content_sizes(&self) -> StoreResult<BTreeMap<String, u64>> {
        let mut records: BTreeMap<String, Option<ContentRecord>> = BTreeMap::new();
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for key in self.store.keys("chunk/").await? {
            if let Some((id, _, length)) = part::parse_part_key(&key) {
                *sizes.entry(id.to_owned()).or_default() += length;
            }
            if let Some((id, _, entry)) = rounded::parse_rounded_key(&key) {
                *sizes.entry(id.to_owned()).or_default() += entry.length;
            }
            let Some((id, index)) = parse_chunk_key(&key) else { continue };
            if !records.contains_key(id) {
                records.insert(id.to_owned(), self.json(&content_key(id)).await?);
            }
            // A chunk whose record was never written is counted as one of the usual size.
            let bytes = records[id].as_ref().map_or(self.chunk_bytes, |record| {
                chunk_length(record.size, record.chunk_bytes, index)
            });
            *sizes.entry(id.to_owned()).or_default() += bytes;
        }
        Ok(sizes)
    }

    /// Removes contents that belong to no model.
    async fn collect(&self) -> StoreResult<()> {
        let models = self.models().await?;
        let files = models.iter().flat_map(|record| record.files.values());
        let used: BTreeSet<&str> = files.map(|file| file.content.as_str()).collect();
        // Chunks first: what remains when the page ends half way is then found the next time.
        for prefix in ["chunk/", "content/"] {
            for key in self.store.keys(prefix).await? {
                let id = key[prefix.len()..].split('/').next().unwrap_or_default();
                if !used.contains(id) {
                    self.store.delete(&key).await?;
                }
            }
        }
        Ok(())
    }

    /// Finds out how `needed` more bytes can be kept within the limit: which models, those used least
    /// recently first, give way. `None` when all of them, the one at `keep` aside, would not do.
    async fn plan_room(&self, needed: u64, keep: &str) -> StoreResult<Option<Room>> {
        let Some(limit) = self.limit else { return Ok(Some(Room::default())) };
        let sizes = self.content_sizes().await?;
        let all: u64 = sizes.values().sum();
        if all + needed <= limit {
            return Ok(Some(Room::default()));
        }
        let mut models = self.models().await?;
        // The one used least recently last, but after none that has to stay.
        models.sort_by(|a, b| {
            (b.key() == keep).cmp(&(a.key() == keep)).then(b.used.total_cmp(&a.used))
        });
        let mut evicted = Vec::new();
        loop {
            let files = models.iter().flat_map(|record| record.files.values());
            let ids: BTreeSet<&str> = files.map(|file| file.content.as_str()).collect();
            let used: u64 = ids.into_iter().filter_map(|id| sizes.get(id)).sum();
            if used + needed <= limit {
                return Ok(Some(Room { evicted, freed: all - used }));
            }
            match models.pop() {
                Some(record) if record.key() != keep => evicted.push(record.key()),
                _ => return Ok(None),
            }
        }
    }

    /// Removes what a plan says, unless somebody is loading it. Tells whether all of it is gone.
    async fn make_room(&self, room: &Room) -> StoreResult<bool> {
        let mut is_free = true;
        for key in &room.evicted {
            match self.host.try_lock(&lock_name(key)).await {
                Some(_lock) => self.store.delete(key).await?,
                None => is_free = false,
            }
        }
        if room.freed > 0 {
            self.collect().await?;
        }
        Ok(is_free)
    }

    /// Whether the layout's version is there. It is not when the browser has made the database anew
    /// underneath, and what was written since would be forgotten with the next page.
    async fn has_version(&self) -> StoreResult<bool> {
        Ok(self.store.get(VERSION_KEY).await?.is_some())
    }

    async fn put_version(&self) -> StoreResult<()> {
        put_version(&*self.store, VERSION).await
    }

    /// Whether all of a content's chunks are there, as they were served or rounded.
    async fn is_whole(&self, id: &str, count: u32) -> StoreResult<bool> {
        let mut present = self.chunks(id).await?;
        present.extend(self.rounded(id).await?.into_keys());
        Ok((0..count).all(|index| present.contains(&index)))
    }

    /// Whether all of them are there as they were served.
    async fn is_as_served(&self, id: &str, count: u32) -> StoreResult<bool> {
        let present = self.chunks(id).await?;
        Ok((0..count).all(|index| present.contains(&index)))
    }

    async fn json<T: DeserializeOwned>(&self, key: &str) -> StoreResult<Option<T>> {
        let bytes = self.store.get(key).await?;
        // An entry that cannot be read is as good as none: it is written anew.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// The record of a content, if it makes sense.
    async fn content(&self, id: &str) -> StoreResult<Option<ContentRecord>> {
        let record = self.json::<ContentRecord>(&content_key(id)).await?;
        Ok(record.filter(|record| record.chunk_bytes > 0))
    }

    async fn put_json<T: Serialize>(&self, key: &str, value: &T) -> StoreResult<()> {
        let json = serde_json::to_vec(value).map_err(|e| StoreError::Failed(e.to_string()))?;
        self.store.put(key, &json).await
    }

    /// A chunk's bytes, if they are there and as they were stored.
    async fn chunk(&self, id: &str, index: u32, length: u64) -> StoreResult<Option<Vec<u8>>> {
        self.hashed(&chunk_key(id, index), index, length).await
    }

    /// The bytes of an entry with their hash behind them.
    async fn hashed(&self, key: &str, index: u32, length: u64) -> StoreResult<Option<Vec<u8>>> {
        let Some(mut bytes) = self.store.get(key).await? else { return Ok(None) };
        let intact = bytes.len() as u64 == length.saturating_add(HASH_BYTES) && {
            let (content, hash) = bytes.split_at(length as usize);
            hash == chunk_hash(content, index).to_le_bytes()
        };
        bytes.truncate(length as usize);
        Ok(intact.then_some(bytes))
    }

    /// Stores a chunk. `bytes` come back as they were.
    async fn put_chunk(&self, id: &str, index: u32, bytes: &mut Vec<u8>) -> StoreResult<()> {
        self.put_hashed(&chunk_key(id, index), index, bytes).await
    }

    /// Stores an entry with its hash behind it. `bytes` come back as they were.
    async fn put_hashed(&self, key: &str, index: u32, bytes: &mut Vec<u8>) -> StoreResult<()> {
        let length = bytes.len();
        bytes.extend(chunk_hash(bytes, index).to_le_bytes());
        let result = self.store.put(key, bytes).await;
        bytes.truncate(length);
        result
    }

    /// The chunks of a content that are there as they were served.
    async fn chunks(&self, id: &str) -> StoreResult<BTreeSet<u32>> {
        let keys = self.store.keys(&format!("chunk/{id}/")).await?;
        Ok(keys.iter().filter_map(|key| Some(parse_chunk_key(key)?.1)).collect())
    }

    /// Removes a content.
    async fn forget(&self, id: &str) -> StoreResult<()> {
        self.store.delete(&content_key(id)).await?;
        for key in self.store.keys(&format!("chunk/{id}/")).await? {
            self.store.delete(&key).await?;
        }
        Ok(())
    }
}

/// Bytes of contents that have room in a store, beside their records.
fn room_in(memory: &MemoryStore) -> Option<u64> {
    memory.quota().map(|quota| (quota - quota / 64) as u64)
}

/// What has to go so that something fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Room {
    /// Keys of models' records.
    evicted: Vec<String>,
    /// Bytes that are free then.
    freed: u64,
}

/// Bytes of the hash behind a chunk.
const HASH_BYTES: u64 = 8;

const _: () = assert!(MAX_CHUNK_BYTES + HASH_BYTES <= MAX_ENTRY_BYTES);

/// Brings the entries to the version that `migrations` leads to.
async fn migrate(store: &dyn Store, migrations: &[Migration]) -> StoreResult<()> {
    let current = migrations.len() as u32;
    let found = match store.get(VERSION_KEY).await? {
        Some(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
        None => Some(0),
    };
    let found: u32 = found.unwrap_or(0);
    if found > current {
        return Err(StoreError::Failed(format!(
            "a newer version of this package wrote it (layout {found}, this one knows {current})"
        )));
    }
    for (version, migration) in migrations.iter().enumerate().skip(found as usize) {
        migration(store).await?;
        // After each step, so that a page that ends half way goes on from there.
        put_version(store, version as u32 + 1).await?;
    }
    Ok(())
}

async fn put_version(store: &dyn Store, version: u32) -> StoreResult<()> {
    store.put(VERSION_KEY, version.to_string().as_bytes()).await
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Storage { message: error.to_string() }
    }
}
