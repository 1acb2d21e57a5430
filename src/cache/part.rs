//! Beginnings of chunks whose download was stopped.

use std::collections::BTreeMap;

use super::{Cache, HASH_BYTES, StoreResult, chunk_hash};

/// The entry of the first `length` bytes of a chunk. The length is a part of the name, so that what is
/// there can be counted without reading it.
fn part_key(id: &str, index: u32, length: u64) -> String {
    format!("chunk/{id}/{index:05}+{length}")
}

/// The content's id, the chunk's number and how many bytes of it there are.
pub(super) fn parse_part_key(key: &str) -> Option<(&str, u32, u64)> {
    let (id, place) = key.strip_prefix("chunk/")?.rsplit_once('/')?;
    let (index, length) = place.split_once('+')?;
    Some((id, index.parse().ok()?, length.parse().ok()?))
}

impl Cache {
    /// The chunks of a content of which there is a beginning, with its length in bytes.
    pub(super) async fn parts(&self, id: &str) -> StoreResult<BTreeMap<u32, u64>> {
        let keys = self.store.keys(&format!("chunk/{id}/")).await?;
        let mut parts = BTreeMap::new();
        for (_, index, length) in keys.iter().filter_map(|key| parse_part_key(key)) {
            let longest: &mut u64 = parts.entry(index).or_default();
            *longest = length.max(*longest);
        }
        Ok(parts)
    }

    /// The beginning of a chunk, if it is there and as it was stored.
    pub(super) async fn part(
        &self,
        id: &str,
        index: u32,
        length: u64,
    ) -> StoreResult<Option<Vec<u8>>> {
        self.hashed(&part_key(id, index, length), index, length).await
    }

    /// Stores the beginning of a chunk, in place of a shorter one.
    pub(super) async fn put_part(
        &self,
        id: &str,
        index: u32,
        mut bytes: Vec<u8>,
    ) -> StoreResult<()> {
        let length = bytes.len() as u64;
        bytes.reserve_exact(HASH_BYTES as usize);
        bytes.extend(chunk_hash(&bytes, index).to_le_bytes());
        let key = part_key(id, index, length);
        self.store.put(&key, &bytes).await?;
        self.drop_parts(id, index, Some(&key)).await
    }

    /// Removes what there is of a chunk's beginning, but the entry at `kept`.
    pub(super) async fn drop_parts(
        &self,
        id: &str,
        index: u32,
        kept: Option<&str>,
    ) -> StoreResult<()> {
        for key in self.store.keys(&format!("chunk/{id}/{index:05}+")).await? {
            if Some(key.as_str()) != kept {
                self.store.delete(&key).await?;
            }
        }
        Ok(())
    }

    /// Removes all of a content.
    pub(super) async fn drop_all_parts(&self, id: &str) -> StoreResult<()> {
        for index in self.parts(id).await?.into_keys() {
            self.drop_parts(id, index, None).await?;
        }
        Ok(())
    }
}
