//! The header of a safetensors file, which may come from anyone.

use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensorError;
use safetensors::tensor::Metadata;

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
        // The crate's `Metadata` checks order, overlap, gaps and length against shape.
        let metadata: Metadata = serde_json::from_slice(json)
            .map_err(|e| invalid(file, SafeTensorError::from(e).to_string()))?;
        let mut tensors: Vec<TensorInfo> = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| TensorInfo {
                name,
                shape: info.shape.clone(),
                dtype: match info.dtype {
                    safetensors::Dtype::F16 => Ok(Dtype::F16),
                    safetensors::Dtype::BF16 => Ok(Dtype::Bf16),
                    safetensors::Dtype::F32 => Ok(Dtype::F32),
                    other => Err(format!("{other:?}")),
                },
                start: data + info.data_offsets.0 as u64,
                end: data + info.data_offsets.1 as u64,
            })
            .collect();
        tensors.sort_by_key(|tensor| (tensor.start, tensor.end));
        let end = tensors.last().map_or(data, |tensor| tensor.end);
        if end != file_size {
            return Err(invalid(
                file,
                format!("its tensors end at byte {end}, the file has {file_size}"),
            ));
        }
        let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
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
    let mut end = 0;
    let infos = tensors.map(|(key, dtype, shape)| {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let dtype = match dtype {
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F32 => safetensors::Dtype::F32,
        };
        let info = safetensors::tensor::TensorInfo {
            dtype,
            shape: shape.to_vec(),
            data_offsets: (start, end),
        };
        (key.to_owned(), info)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata =
        Metadata::new(Some(format), infos.collect()).expect("offsets follow one another");
    let mut json = serde_json::to_vec(&metadata).expect("a header is JSON");
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
