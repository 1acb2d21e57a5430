//! The chunks of a model's large files, from the cache or from the network.

use std::cell::RefCell;
use std::rc::Rc;

use super::reader::OpenFile;
use super::repository::{CachePolicy, Notice, Repository};
use super::rounded::{Rounded, narrow, widen};
use super::{Cache, StoreResult, chunk_hash, content_key};
use crate::error::Result;

/// A chunk that is on its way.
pub(super) struct Arriving {
    file: Rc<OpenFile>,
    /// Its beginning.
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl Repository<'_> {
    /// A chunk that was read before, which is not counted a second time.
    pub(super) async fn chunk_again(&self, file: &Rc<OpenFile>, index: u32) -> Result<Vec<u8>> {
        Ok(self.chunk_from(file, index, &|_, _| ()).await?.0)
    }

    /// The same of a chunk that may be in the cache rounded: it is fetched then, and not kept.
    pub(super) async fn chunk_as_served(&self, file: &Rc<OpenFile>, index: u32) -> Result<Vec<u8>> {
        if !file.rounded.borrow().contains_key(&index) {
            return self.chunk_again(file, index).await;
        }
        if self.local_only() {
            return Err(self.not_cached(&file.path));
        }
        let (bytes, range, size) = (Rc::default(), file.range(index), file.entry.size);
        file.remote.range(self.fetch, range, size, &self.pace, &|_| (), &bytes).await?;
        Ok(bytes.take())
    }

    /// Puts a chunk that is stored as it was served, and hashed, in its rounded form.
    pub(super) async fn store_rounded(&self, file: &OpenFile, index: u32, bytes: &[u8]) {
        if file.present.borrow().contains(&index)
            && let Some(mut halves) = narrow(bytes, &file.values(index))
        {
            self.put_rounded(file, index, bytes, &mut halves).await;
        }
    }

    /// Stores a chunk rounded. Tells whether it is there.
    async fn put_rounded(
        &self,
        file: &OpenFile,
        index: u32,
        bytes: &[u8],
        halves: &mut Vec<u8>,
    ) -> bool {
        let id = &file.entry.content;
        let served = chunk_hash(bytes, index);
        let rounded = Rounded { length: halves.len() as u64, served };
        if file.has_no_hash() && file.rounded.borrow().is_empty() {
            // What says where chunks begin; of files with a hash it is kept with that.
            let (key, content) = (content_key(id), file.content.borrow().clone());
            self.store(async |cache| cache.put_json(&key, &content).await).await;
        }
        let is_stored =
            self.store(async |cache| cache.put_rounded(id, index, rounded, halves).await);
        let is_stored = is_stored.await;
        if is_stored {
            file.rounded.borrow_mut().insert(index, rounded);
            file.stale_rounded.borrow_mut().remove(&index);
        }
        is_stored
    }

    /// One chunk of a file: from the cache if it is there and intact. Tells whether it was fetched.
    pub(super) async fn chunk(&self, file: &Rc<OpenFile>, index: u32) -> Result<(Vec<u8>, bool)> {
        let count = |fetched, cached| {
            file.arrived.set(file.arrived.get() + fetched + cached);
            self.count(fetched, cached);
        };
        self.chunk_from(file, index, &count).await
    }

    /// The same, telling `count` what was fetched and what was cached.
    async fn chunk_from(
        &self,
        file: &Rc<OpenFile>,
        index: u32,
        count: &dyn Fn(u64, u64),
    ) -> Result<(Vec<u8>, bool)> {
        self.fetch.check()?;
        let id = &file.entry.content;
        // What was served of a chunk before, and proven then.
        let mut known = None;
        if let Some(cache) = self.cache
            && file.present.borrow().contains(&index)
        {
            let length = file.length(index);
            let rounded = file.rounded.borrow().get(&index).copied();
            let found = match rounded {
                None => cache.chunk(id, index, length).await,
                Some(rounded) => {
                    let found = cache.rounded_chunk(id, index, rounded).await;
                    let values = file.values(index);
                    found.map(|bytes| bytes.and_then(|b| widen(&b, &values, length as usize)))
                }
            };
            if let Some(bytes) = self.intact(found, &file.path, index) {
                count(0, length);
                return Ok((bytes, false));
            }
            file.present.borrow_mut().remove(&index);
            if let Some(Rounded { served, .. }) = file.rounded.borrow_mut().remove(&index) {
                file.stale_rounded.borrow_mut().insert(index);
                known = Some(served);
            }
        }
        if self.local_only() {
            return Err(self.not_cached(&file.path));
        }
        let bytes = self.beginning(file, index, count).await;
        let has_part = !bytes.is_empty();
        let bytes = Rc::new(RefCell::new(bytes));
        let arriving = Arriving { file: file.clone(), bytes: bytes.clone() };
        let key = (id.clone(), index);
        self.arriving.borrow_mut().insert(key.clone(), arriving);
        let arrived = |bytes| count(bytes, 0);
        let (range, size) = (file.range(index), file.entry.size);
        file.remote.range(self.fetch, range, size, &self.pace, &arrived, &bytes).await?;
        self.arriving.borrow_mut().remove(&key);
        let mut bytes = bytes.take();
        let halves = match file.rounds_now(index) {
            true => narrow(&bytes, &file.values(index)),
            false => None,
        };
        let is_stored = match halves {
            Some(mut halves) => self.put_rounded(file, index, &bytes, &mut halves).await,
            None => {
                let put = self.store(async |cache| cache.put_chunk(id, index, &mut bytes).await);
                put.await
            }
        };
        if is_stored && let Some(cache) = self.cache {
            file.present.borrow_mut().insert(index);
            self.renew(cache).await;
            if !file.rounded.borrow().contains_key(&index) {
                file.round_later(index);
            }
            if file.stale_rounded.borrow_mut().remove(&index) {
                self.stored(cache.drop_rounded(id, index, None).await);
            }
            if has_part || file.has_stale_parts {
                file.parts.borrow_mut().remove(&index);
                self.stored(cache.drop_parts(id, index, None).await);
            }
        }
        self.check_kept()?;
        let is_known = known == Some(chunk_hash(&bytes, index));
        Ok((bytes, !is_known))
    }

    /// What is kept of a chunk whose download was stopped.
    async fn beginning(&self, file: &OpenFile, index: u32, count: &dyn Fn(u64, u64)) -> Vec<u8> {
        let length = file.parts.borrow().get(&index).copied();
        let (Some(cache), Some(length)) = (self.cache, length) else { return Vec::new() };
        let found = cache.part(&file.entry.content, index, length).await;
        let bytes = self.intact(found, &file.path, index).unwrap_or_default();
        count(0, bytes.len() as u64);
        bytes
    }

    /// What was read of a chunk from the cache, if it is as it was stored.
    fn intact(
        &self,
        found: StoreResult<Option<Vec<u8>>>,
        path: &str,
        index: u32,
    ) -> Option<Vec<u8>> {
        match found {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {
                let message = format!("chunk {index} of {path} is damaged");
                (self.notify)(Notice::Warning { code: "corrupt", message });
            }
            Err(error) => self.give_up_storing(&error),
        }
        None
    }

    /// Removes a content from the cache, with what is on its way of it.
    pub(super) async fn forget(&self, cache: &Cache, id: &str) {
        self.arriving.borrow_mut().retain(|(content, _), _| content != id);
        self.stored(cache.forget(id).await);
    }

    /// Keeps the beginnings of the chunks that were on their way.
    pub(super) async fn keep_beginnings(&self) {
        let arriving = self.arriving.take();
        if self.policy != CachePolicy::Resume {
            return;
        }
        for ((id, index), Arriving { file, bytes }) in arriving {
            let (bytes, Some(cache)) = (bytes.take(), self.storing()) else { return };
            let is_longer =
                file.parts.borrow().get(&index).is_none_or(|length| bytes.len() as u64 > *length);
            if bytes.is_empty() || !is_longer {
                continue;
            }
            // First what says where the chunk begins.
            let content = file.content.borrow().clone();
            self.stored(cache.put_json(&content_key(&id), &content).await);
            self.stored(cache.put_part(&id, index, bytes).await);
        }
    }
}
