//! Which version of a model is read, who may write it, and when all of it is there.

use super::repository::{CachePolicy, Notice, Repository, bytes_text};
use super::{Cache, FileRecord, ModelRecord, StoreError, StoreResult, lock_name};
use crate::error::{Error, Result};
use crate::hub::{FileHash, ModelSource, fetch_commit, fetch_tree};

impl Repository<'_> {
    /// The record of the version that is meant, or a new one.
    pub(super) async fn resolve(&mut self, revision: Option<&str>) -> Result<ModelRecord> {
        let name = self.source.name();
        let cached = self.lookup(&name, revision).await;
        if self.local_only() {
            return cached.ok_or_else(|| self.not_cached("model_index.json"));
        }
        let new = ModelRecord { model: name.clone(), ..ModelRecord::default() };
        let ModelSource::Hub(hub) = &mut self.source else {
            return Ok(cached.unwrap_or(new));
        };
        let error = match fetch_commit(self.fetch, hub).await {
            Ok(commit) => {
                hub.revision.clone_from(&commit);
                let cached = self.lookup(&name, Some(&commit)).await;
                let fitting = cached.filter(|record| record.commit.as_ref() == Some(&commit));
                return Ok(fitting.unwrap_or(ModelRecord { commit: Some(commit), ..new }));
            }
            Err(error) => error,
        };
        let is_absent = matches!(error, Error::NotFound { .. });
        match cached {
            // A mirror of files alone, without the Hub's interface.
            Some(record) if is_absent && record.commit.is_none() => Ok(record),
            Some(record) if self.serves_alone(&record) && !matches!(error, Error::Aborted) => {
                self.pin(&record);
                self.go_offline(&error);
                Ok(record)
            }
            // Such a mirror; or there is no such model, which the first file will tell.
            _ if is_absent => Ok(new),
            _ => Err(error),
        }
    }

    /// Reads the version of `record` from now on.
    fn pin(&mut self, record: &ModelRecord) {
        if let (ModelSource::Hub(hub), Some(commit)) = (&mut self.source, &record.commit) {
            hub.revision.clone_from(commit);
        }
    }

    /// Whether the cache alone may have what is wanted of the model of this record.
    pub(super) fn serves_alone(&self, record: &ModelRecord) -> bool {
        record.complete || self.wants_part && record.in_part
    }

    async fn lookup(&self, name: &str, revision: Option<&str>) -> Option<ModelRecord> {
        let cache = self.cache?;
        match cache.find(name, revision).await {
            Ok(record) => record,
            Err(error) => {
                self.give_up_storing(&error);
                None
            }
        }
    }

    /// One tab downloads, others wait and read; those that only read do so side by side.
    pub(super) async fn take_lock(&self) -> Result<()> {
        let complete = self.record.borrow().complete;
        let Some((cache, key)) =
            self.lock(!complete || self.policy == CachePolicy::Refetch).await?
        else {
            return Ok(());
        };
        // As it is now that the other tab has finished, or has removed it.
        match cache.json::<ModelRecord>(&key).await {
            Ok(Some(record)) => drop(self.record.replace(record)),
            Ok(None) => {
                let mut record = self.record.borrow_mut();
                (record.complete, record.in_part) = (false, false);
            }
            Err(error) => self.give_up_storing(&error),
        }
        Ok(())
    }

    /// Takes the lock of the record, where there is one, in place of the one that is held.
    async fn lock(&self, exclusive: bool) -> Result<Option<(&Cache, String)>> {
        let Some(cache) = self.cache.filter(|_| !self.local_only()) else { return Ok(None) };
        let key = self.record.borrow().key();
        // Given back first: two that read and want to write would wait for each other.
        drop(self.lock.take());
        let on_wait = || (self.notify)(Notice::Waiting);
        let lock = cache.host.lock(&lock_name(&key), exclusive, &on_wait).await?;
        self.lock.replace(Some(lock));
        self.exclusive.set(exclusive);
        Ok(Some((cache, key)))
    }

    /// Fills a new record with the Hub's listing.
    pub(super) async fn list(&self, revision: Option<&str>) -> Result<()> {
        let ModelSource::Hub(hub) = &self.source else { return Ok(()) };
        let (listed, commit) = {
            let record = self.record.borrow();
            (record.listed, record.commit.clone())
        };
        if commit.is_none() || self.sends_nothing() {
            return Ok(());
        }
        if !listed {
            let tree = fetch_tree(self.fetch, hub).await?;
            let mut record = self.record.borrow_mut();
            record.files = tree
                .into_iter()
                .map(|entry| {
                    let content = content_id(&entry.hash);
                    (entry.path, FileRecord { size: entry.size, content })
                })
                .collect();
            record.listed = true;
        }
        if let Some(revision) = revision.filter(|revision| Some(*revision) != commit.as_deref()) {
            self.record.borrow_mut().revisions.insert(revision.to_owned());
        }
        Ok(())
    }

    /// Takes the version that was read once in place of a newer one whose listing cannot be had.
    pub(super) async fn fall_back(&mut self, error: Error, revision: Option<&str>) -> Result<()> {
        let cached = self.lookup(&self.source.name(), revision).await;
        let Some(record) = cached.filter(|record| self.serves_alone(record)) else {
            return Err(error);
        };
        if matches!(error, Error::Aborted) {
            return Err(error);
        }
        self.pin(&record);
        self.record.replace(record);
        self.go_offline(&error);
        self.take_lock().await
    }

    pub(super) async fn save_record(&self) {
        let Some(cache) = self.cache else { return };
        let record = {
            let mut record = self.record.borrow_mut();
            record.used = cache.host.now();
            record.clone()
        };
        let key = record.key();
        // Who only reads has no lock, and may not bring back what was removed.
        if self.local_only() && !matches!(cache.store.get(&key).await, Ok(Some(_))) {
            return;
        }
        let was_in_memory = cache.is_in_memory();
        let result = cache.put_json(&key, &record).await;
        match result {
            Err(error) if self.storing.get() && !was_in_memory => {
                self.go_over(cache, &error).await;
                if !self.storing.get() {
                    self.incomplete.set(true);
                }
            }
            result if self.storing.get() => self.stored(result),
            _ => {}
        }
    }

    /// Writes again what every page looks for, where the store was emptied underneath: else the next
    /// page would take what is stored from now on for nobody's.
    pub(super) async fn renew(&self, cache: &Cache) {
        if !cache.is_in_memory() && cache.has_version().await == Ok(false) {
            self.stored(cache.put_version().await);
            self.save_record().await;
        }
    }

    /// Makes sure that nobody else downloads the same, and that there is room for it.
    pub(super) async fn begin(&self) -> Result<()> {
        if self.missing_bytes() > 0
            && !self.exclusive.get()
            && let Some((cache, _)) = self.lock(true).await?
        {
            self.look_again(cache).await;
        }
        let needed = self.missing_storage();
        match self.storing().filter(|_| needed > 0) {
            None => {}
            Some(cache) if cache.is_in_memory() => {
                let key = self.record.borrow().key();
                self.storing.set(cache.go_over(needed, &key).await);
            }
            Some(cache) => {
                let free = cache.host.free().await;
                (self.notify)(Notice::Storage { needed, free });
                if let Err(error) = self.make_room(cache, needed, free).await {
                    self.go_over(cache, &error).await;
                }
            }
        }
        self.check_kept()
    }

    /// Bytes of the open files that are not in the cache.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.open_files().iter().map(|file| file.missing()).sum()
    }

    /// Bytes that these are going to take in the cache.
    pub(super) fn missing_storage(&self) -> u64 {
        self.open_files().iter().map(|file| file.missing_storage()).sum()
    }

    /// Removes other models where that makes room for `needed` bytes, and none where it does not.
    async fn make_room(&self, cache: &Cache, needed: u64, free: Option<u64>) -> StoreResult<()> {
        // What takes the place of other bytes needs none.
        let replaced: u64 = self.open_files().iter().map(|file| file.replaced()).sum();
        let needed = needed.saturating_sub(replaced);
        let fail =
            |why: String| Err(StoreError::Failed(format!("needs {}, {why}", bytes_text(needed))));
        let limit = bytes_text(cache.limit.unwrap_or_default());
        let key = self.record.borrow().key();
        let Some(room) = cache.plan_room(needed, &key).await? else {
            return fail(format!("the limit is {limit}"));
        };
        if let Some(free) = free.filter(|free| free.saturating_add(room.freed) < needed) {
            return fail(format!("{} free", bytes_text(free)));
        }
        match cache.make_room(&room).await? {
            true => Ok(()),
            false => fail(format!(
                "the limit is {limit}, and what would have to go is being loaded elsewhere"
            )),
        }
    }

    /// Records that everything was read, or what was wanted of it, if all of that is in the cache.
    pub(super) async fn complete(&self, is_all: bool) -> Result<()> {
        let Some(cache) = self.cache else { return Ok(()) };
        if !is_all && self.is_complete_by_others(cache).await {
            return Ok(());
        }
        if !self.incomplete.get() && !self.local_only() {
            let is_there = self.is_there(cache).await;
            if is_all && is_there == Ok(false) {
                let message = "a part of it was removed from the cache meanwhile".into();
                self.give_up_storing(&StoreError::Failed(message));
            }
            let mut record = self.record.borrow_mut();
            match is_all {
                true => record.complete = is_there == Ok(true),
                false => record.in_part = is_there == Ok(true),
            }
        }
        self.save_record().await;
        if is_all && self.storing.get() && !self.record.borrow().listed {
            // What the files were before they changed on the server.
            self.stored(cache.collect().await);
        }
        self.check_kept()
    }

    /// Whether all of the model has come into the cache beside this reading of a part of it, as the checkpoint that its
    /// configurations are for may have, from the same repository.
    async fn is_complete_by_others(&self, cache: &Cache) -> bool {
        let key = self.record.borrow().key();
        let stored = cache.json::<ModelRecord>(&key).await;
        stored.is_ok_and(|record| record.is_some_and(|record| record.complete))
    }

    /// Whether all that was read is in the cache now.
    async fn is_there(&self, cache: &Cache) -> StoreResult<bool> {
        let used = self.used.borrow().clone();
        for (id, count) in used {
            if !cache.is_whole(&id, count).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn content_id(hash: &FileHash) -> String {
    match hash {
        FileHash::Sha256(hash) => format!("sha256-{hash}"),
        FileHash::GitBlob(hash) => format!("git-{hash}"),
    }
}
