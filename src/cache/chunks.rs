//! The chunks of a model's large files, from the cache or from the network.

use std::cell::RefCell;
use std::rc::Rc;

use super::reader::OpenFile;
use super::repository::{CachePolicy, Notice, Repository};
use super::{Cache, StoreResult, content_key};
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
        if let Some(cache) = self.cache
            && file.present.borrow().contains(&index)
        {
            let length = file.length(index);
            let found = cache.chunk(id, index, length).await;
            if let Some(bytes) = self.intact(found, &file.path, index) {
                count(0, length);
                return Ok((bytes, false));
            }
            file.present.borrow_mut().remove(&index);
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
        let is_stored = self.store(async |cache| cache.put_chunk(id, index, &mut bytes).await);
        if is_stored.await
            && let Some(cache) = self.cache
        {
            file.present.borrow_mut().insert(index);
            self.renew(cache).await;
            if has_part || file.has_stale_parts {
                file.parts.borrow_mut().remove(&index);
                self.stored(cache.drop_parts(id, index, None).await);
            }
        }
        self.check_kept()?;
        Ok((bytes, true))
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
