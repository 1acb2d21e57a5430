//! Chunks whose values of single precision are kept as halves, where nobody needs more of them.

use std::collections::BTreeMap;
use std::ops::Range;

use half::f16;

use super::{Cache, StoreResult};

/// Chunks that a file has at least for any of them to be rounded: 512 MB with chunks of the usual size. A smaller one
/// gains little, and can be exported as it was served.
pub(super) const LEAST_CHUNKS: u32 = 64;

/// An entry of a rounded chunk. Both are a part of its name, so that they are known without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rounded {
    /// Its bytes, without the hash behind them.
    pub length: u64,
    /// The fast hash of what was served.
    pub served: u64,
}

fn rounded_key(id: &str, index: u32, Rounded { length, served }: Rounded) -> String {
    format!("chunk/{id}/{index:05}~{length}~{served:016x}")
}

/// The content's id, the chunk's number and what its name says.
pub(super) fn parse_rounded_key(key: &str) -> Option<(&str, u32, Rounded)> {
    let (id, place) = key.strip_prefix("chunk/")?.rsplit_once('/')?;
    let (index, rest) = place.split_once('~')?;
    let (length, served) = rest.split_once('~')?;
    let rounded =
        Rounded { length: length.parse().ok()?, served: u64::from_str_radix(served, 16).ok()? };
    Some((id, index.parse().ok()?, rounded))
}

/// The bytes of a chunk that are whole values. `values` are places in the file, in order, of values of four bytes.
pub(super) fn whole_values(values: &[Range<u64>], chunk: Range<u64>) -> Vec<Range<usize>> {
    let first = values.partition_point(|tensor| tensor.end <= chunk.start);
    let tensors = values[first..].iter().take_while(|tensor| tensor.start < chunk.end);
    let inside = tensors.map(|tensor| {
        let start = match chunk.start.checked_sub(tensor.start) {
            None => tensor.start,
            Some(before) => tensor.start + before.next_multiple_of(4),
        };
        let end = tensor.end.min(chunk.end);
        let end = end - (end - tensor.start) % 4;
        (start - chunk.start) as usize..(end.max(start) - chunk.start) as usize
    });
    inside.filter(|range| !range.is_empty()).collect()
}

/// `chunk` with halves in place of the `values`. Nothing where there are none, or one that is too large for a half.
pub(super) fn narrow(chunk: &[u8], values: &[Range<usize>]) -> Option<Vec<u8>> {
    let count: usize = values.iter().map(|range| range.len()).sum();
    if count == 0 {
        return None;
    }
    let mut narrow = Vec::with_capacity(chunk.len() - count / 2 + super::HASH_BYTES as usize);
    let mut at = 0;
    for range in values {
        narrow.extend_from_slice(&chunk[at..range.start]);
        for value in chunk[range.clone()].as_chunks::<4>().0 {
            let half = f16::from_f32(f32::from_le_bytes(*value));
            if !half.is_finite() {
                return None;
            }
            narrow.extend_from_slice(&half.to_le_bytes());
        }
        at = range.end;
    }
    narrow.extend_from_slice(&chunk[at..]);
    Some(narrow)
}

/// The `length` bytes of the chunk that `narrow` was made of, each value rounded.
pub(super) fn widen(narrow: &[u8], values: &[Range<usize>], length: usize) -> Option<Vec<u8>> {
    let count: usize = values.iter().map(|range| range.len()).sum();
    if narrow.len() + count / 2 != length {
        return None;
    }
    let mut chunk = Vec::with_capacity(length);
    let mut rest = narrow;
    for range in values {
        let (served, others) = rest.split_at(range.start - chunk.len());
        let (halves, others) = others.split_at(range.len() / 2);
        chunk.extend_from_slice(served);
        for half in halves.as_chunks::<2>().0 {
            chunk.extend_from_slice(&f16::from_le_bytes(*half).to_f32().to_le_bytes());
        }
        rest = others;
    }
    chunk.extend_from_slice(rest);
    Some(chunk)
}

impl Cache {
    /// The chunks of a content that are there rounded.
    pub(super) async fn rounded(&self, id: &str) -> StoreResult<BTreeMap<u32, Rounded>> {
        let keys = self.store.keys(&format!("chunk/{id}/")).await?;
        let rounded = keys.iter().filter_map(|key| parse_rounded_key(key));
        Ok(rounded.map(|(_, index, rounded)| (index, rounded)).collect())
    }

    /// A rounded chunk, if it is there and as it was stored: what [`widen`] takes.
    pub(super) async fn rounded_chunk(
        &self,
        id: &str,
        index: u32,
        rounded: Rounded,
    ) -> StoreResult<Option<Vec<u8>>> {
        self.hashed(&rounded_key(id, index, rounded), index, rounded.length).await
    }

    /// Stores a rounded chunk in place of what there is of it. `bytes` come back as they were.
    pub(super) async fn put_rounded(
        &self,
        id: &str,
        index: u32,
        rounded: Rounded,
        bytes: &mut Vec<u8>,
    ) -> StoreResult<()> {
        let key = rounded_key(id, index, rounded);
        self.put_hashed(&key, index, bytes).await?;
        self.drop_rounded(id, index, Some(&key)).await?;
        self.store.delete(&super::chunk_key(id, index)).await
    }

    /// Removes what there is of a chunk rounded, but the entry at `kept`.
    pub(super) async fn drop_rounded(
        &self,
        id: &str,
        index: u32,
        kept: Option<&str>,
    ) -> StoreResult<()> {
        for key in self.store.keys(&format!("chunk/{id}/{index:05}~")).await? {
            if Some(key.as_str()) != kept {
                self.store.delete(&key).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn values_within_a_chunk_are_found() {
        // Tensors that begin anywhere, as headers may have any length.
        let values = [10..50, 50..58, 70..82];
        assert_eq!(whole_values(&values, 0..100), [10..50, 50..58, 70..82]);
        assert_eq!(whole_values(&values, 0..49), std::slice::from_ref(&(10..46)));
        assert_eq!(whole_values(&values, 49..76), [1..9, 21..25]);
        assert!(whole_values(&values, 11..13).is_empty());
        assert!(whole_values(&values, 58..70).is_empty());
        assert!(whole_values(&values, 82..90).is_empty());
    }

    #[test]
    fn halves_come_back_as_values_of_which_nothing_more_is_lost() {
        let mut chunk = vec![1, 2, 3];
        chunk.extend(floats(&[0.1, -65504.0, 1e-9]));
        chunk.extend([4, 5]);
        chunk.extend(floats(&[1.5]));
        let values = [3..15, 17..21];
        let narrow = narrow(&chunk, &values).expect("finite");
        assert_eq!(narrow.len(), chunk.len() - 8);
        let wide = widen(&narrow, &values, chunk.len()).expect("as long");
        let rounded: Vec<f32> =
            [0.1, -65504.0, 1e-9].iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        assert_eq!(wide[3..15], floats(&rounded));
        assert_eq!(
            (&wide[..3], &wide[15..17], &wide[17..]),
            (&chunk[..3], &chunk[15..17], &chunk[17..])
        );
        assert_eq!(super::narrow(&wide, &values), Some(narrow.clone()));
        assert_eq!(widen(&narrow, &values, chunk.len() + 1), None);
        assert_eq!(widen(&narrow, &values[..1], chunk.len()), None);
    }

    #[test]
    fn what_is_too_large_for_a_half_stays_as_it_is() {
        for value in [65520.0, f32::INFINITY, f32::NAN] {
            assert_eq!(
                narrow(&floats(&[1.0, value]), std::slice::from_ref(&(0..8))),
                None,
                "{value}"
            );
        }
        assert_eq!(narrow(&[1, 2], &[]), None);
    }

    #[test]
    fn names_say_what_an_entry_is() {
        let rounded = Rounded { length: 4_194_304, served: 0xab };
        let key = rounded_key("sha256-ff", 7, rounded);
        assert_eq!(key, "chunk/sha256-ff/00007~4194304~00000000000000ab");
        assert_eq!(parse_rounded_key(&key), Some(("sha256-ff", 7, rounded)));
        assert_eq!(parse_rounded_key("chunk/sha256-ff/00007"), None);
        assert_eq!(parse_rounded_key("chunk/sha256-ff/00007+5"), None);
    }
}
