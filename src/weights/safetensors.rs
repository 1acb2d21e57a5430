//! The header of a safetensors file, which may come from anyone.

use std::collections::BTreeMap;

use safetensors::Dtype as FileDtype;
use serde::{Deserialize, Serialize};

use super::Dtype;
use crate::error::{Error, Result};

/// The length field before the header, bytes.
pub const LENGTH_BYTES: u64 = 8;

/// The longest header that is read, bytes. The format's own limit is 100 MB, but what is made of a
/// header can take ten times its memory; that of a model of two thousand tensors has 0.3 MB.
const MAX_HEADER_BYTES: u64 = 8 << 20;

/// Axes of a tensor at most.
const MAX_AXES: usize = 16;

/// Where a tensor lies in its file, and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// The checkpoint key.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The type, or its name if it is none of those that can be read.
    pub dtype: std::result::Result<Dtype, String>,
    /// First byte, from the file's start.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The tensors of a file, in the order of their bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The tensors, without gaps between them.
    pub tensors: Vec<TensorInfo>,
    /// What the file says of itself.
    pub metadata: BTreeMap<String, String>,
}

/// The header as it is written. The `safetensors` crate's own counts bytes in `usize`, which a browser has 4 GiB of.
#[derive(Debug, Serialize, Deserialize)]
struct Json {
    #[serde(rename = "__metadata__", default)]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    dtype: FileDtype,
    shape: Vec<usize>,
    /// From the header's end.
    data_offsets: (u64, u64),
}

impl Entry {
    /// Bytes by type and shape.
    fn bytes(&self) -> Option<u64> {
        let sides = self.shape.iter().map(|side| *side as u64);
        let bits = sides.chain([self.dtype.bitsize() as u64]).try_fold(1, u64::checked_mul)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl Header {
    /// The header's length from a file's first eight bytes, without those eight.
    ///
    /// # Errors
    /// [`Error::InvalidSafetensors`] when the file ends before the header does, or the length is
    /// beyond the format's limit: nothing is allocated for it then.
    pub fn length(file: &str, first: &[u8], file_size: u64) -> Result<u64> {
        let Some(length) = first.first_chunk::<{ LENGTH_BYTES as usize }>() else {
            return Err(invalid(file, format!("{file_size} bytes are too few")));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(invalid(file, format!("a header of {length} bytes is over the limit")));
        }
        if LENGTH_BYTES + length > file_size {
            return Err(invalid(
                file,
                format!("the file has {file_size} bytes, its header alone {length}"),
            ));
        }
        Ok(length)
    }

    /// Parses a file's beginning: the length field and the header.
    ///
    /// # Errors
    /// [`Error::InvalidSafetensors`] when it is no header, when tensors overlap, leave gaps, have
    /// lengths that contradict their shapes, or end elsewhere than the file of `file_size` bytes.
    pub fn parse(file: &str, bytes: &[u8], file_size: u64) -> Result<Self> {
        let length = Self::length(file, bytes, file_size)?;
        let data = LENGTH_BYTES + length;
        let json = bytes
            .get(LENGTH_BYTES as usize..data as usize)
            .ok_or_else(|| invalid(file, "the header is cut off".into()))?;
        if has_long_list(json) {
            return Err(invalid(file, format!("a tensor of more than {MAX_AXES} axes")));
        }
        let Json { metadata, tensors } =
            serde_json::from_slice(json).map_err(|e| invalid(file, e.to_string()))?;
        let mut entries: Vec<_> = tensors.into_iter().collect();
        entries.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut end = 0;
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            let range = entry.data_offsets;
            let length = range.1.checked_sub(range.0);
            if range.0 != end || length.is_none() || length != entry.bytes() {
                let message = format!(
                    "`{name}` is at the bytes {} to {} of the data: not behind the tensor before it, or not as long as \
                     {:?} of shape {:?}",
                    range.0, range.1, entry.dtype, entry.shape
                );
                return Err(invalid(file, message));
            }
            end = range.1;
            let dtype = match entry.dtype {
                FileDtype::F16 => Ok(Dtype::F16),
                FileDtype::BF16 => Ok(Dtype::Bf16),
                FileDtype::F32 => Ok(Dtype::F32),
                other => Err(format!("{other:?}")),
            };
            // Not beyond what 64 bits count, or the next tensor or the file's size differs.
            let [start, end] = [range.0, range.1].map(|at| data.saturating_add(at));
            tensors.push(TensorInfo { name, shape: entry.shape, dtype, start, end });
        }
        let end = data.saturating_add(end);
        if end != file_size {
            return Err(invalid(
                file,
                format!("its tensors end at byte {end}, the file has {file_size}"),
            ));
        }
        Ok(Self { tensors, metadata })
    }
}

/// Whether there is a list in `json` of more than [`MAX_AXES`] numbers. Two bytes each become
/// eight, and for a while sixteen, so this is to be known before they are parsed.
fn has_long_list(json: &[u8]) -> bool {
    let (mut in_list, mut commas) = (false, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next().filter(|byte| **byte != b'"') {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'[' => (in_list, commas) = (true, 0),
            b']' => in_list = false,
            b',' if in_list => {
                commas += 1;
                if commas == MAX_AXES {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

fn invalid(file: &str, message: String) -> Error {
    Error::InvalidSafetensors { file: file.into(), message }
}

/// The beginning of a file with these tensors, one behind the other: key, type and shape.
pub fn header<'a>(tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize])>) -> Vec<u8> {
    header_with(tensors, BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
}

/// As [`header`], of a file that says something of itself.
pub fn header_with<'a>(
    tensors: impl Iterator<Item = (&'a str, Dtype, &'a [usize])>,
    metadata: BTreeMap<String, String>,
) -> Vec<u8> {
    let mut end = 0;
    let tensors = tensors.map(|(key, dtype, shape)| {
        let start = end;
        end += shape.iter().map(|side| *side as u64).product::<u64>() * dtype.size() as u64;
        let dtype = match dtype {
            Dtype::F16 => FileDtype::F16,
            Dtype::Bf16 => FileDtype::BF16,
            Dtype::F32 => FileDtype::F32,
        };
        (key.to_owned(), Entry { dtype, shape: shape.to_vec(), data_offsets: (start, end) })
    });
    let header = Json { metadata, tensors: tensors.collect() };
    let mut json = serde_json::to_vec(&header).expect("a header is JSON");
    // The data begin at a multiple of eight.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Header> {
        Header::parse("x.safetensors", bytes, bytes.len() as u64)
    }

    #[test]
    fn tensors_come_in_the_order_of_their_bytes() {
        let json = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
            "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let header = parse(&file(json, 12)).expect("valid");
        let start = 8 + json.len() as u64;
        let names: Vec<_> = header.tensors.iter().map(|t| (t.name.as_str(), t.start)).collect();
        assert_eq!(names, [("a", start), ("b", start + 8)]);
        assert_eq!(header.tensors[1].dtype, Ok(Dtype::F16));
    }

    #[test]
    fn axes_are_counted_outside_of_texts() {
        let json = |axes: usize, name: &str| {
            let ones = vec!["1"; axes].join(",");
            let name = serde_json::to_string(name).expect("a text");
            format!(r#"{{{name}:{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,4]}}}}"#)
        };
        let commas = format!("[{}\\\",[\"", ",".repeat(100));
        assert!(parse(&file(&json(MAX_AXES, &commas), 4)).is_ok());
        let error = parse(&file(&json(MAX_AXES + 1, "a"), 4)).expect_err("too many");
        assert!(error.to_string().contains("axes"), "{error}");
        let error = parse(&file(&json(MAX_AXES + 1, &commas), 4)).expect_err("too many");
        assert!(error.to_string().contains("axes"), "{error}");
    }

    #[test]
    fn hostile_headers_are_refused() {
        let tensor = |offsets: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#)
        };
        let long = [u64::MAX.to_le_bytes(), [0; 8]].concat();
        // Within the format's limit, beyond ours.
        let longer = file(&" ".repeat(MAX_HEADER_BYTES as usize + 1), 0);
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let overflow = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,16],
            "data_offsets":[0,8]}}"#;
        let cases = [
            vec![],
            vec![1, 2, 3],
            long,
            longer,
            file("not json", 0),
            file(&tensor("[0,8]"), 7),
            file(&tensor("[0,8]"), 9),
            file(&tensor("[0,4]"), 4),
            file(&tensor("[8,0]"), 8),
            file(&tensor("[4,12]"), 12),
            file(overlap, 12),
            file(overflow, 8),
        ];
        for bytes in cases {
            let error = parse(&bytes).expect_err("hostile");
            assert_eq!(error.code(), "invalid-safetensors", "{error}");
        }
    }

    #[test]
    fn files_may_have_more_bytes_than_memory() {
        let json = r#"{"a":{"dtype":"F32","shape":[65536,32768],"data_offsets":[0,8589934592]},
            "b":{"dtype":"F32","shape":[1],"data_offsets":[8589934592,8589934596]}}"#;
        let bytes = file(json, 0);
        let size = bytes.len() as u64 + 8_589_934_596;
        let header = Header::parse("x", &bytes, size).expect("valid");
        assert_eq!(header.tensors[1].end, size);
    }

    #[test]
    fn what_is_written_is_read() {
        let tensors = [("b", Dtype::F16, &[2, 3][..]), ("a", Dtype::F32, &[4][..])];
        let bytes = header(tensors.into_iter());
        assert!(bytes.len().is_multiple_of(8));
        let parsed = Header::parse("x", &bytes, bytes.len() as u64 + 28).expect("valid");
        let found: Vec<_> = parsed.tensors.iter().map(|t| (t.name.as_str(), t.start)).collect();
        assert_eq!(found, [("b", bytes.len() as u64), ("a", bytes.len() as u64 + 12)]);
        assert_eq!(parsed.metadata["format"], "pt");
    }
}
