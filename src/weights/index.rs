//! `*.safetensors.index.json`: which file has which tensor.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The longest index that is read, bytes; that of a model of a thousand tensors has a hundred
/// thousand.
const MAX_BYTES: usize = 16 << 20;

/// The files that an index names, each once, in the order of their names.
///
/// # Errors
/// [`Error::InvalidConfig`] when `json`, the contents of `file`, is no index, or names a file that
/// does not lie beside it.
pub fn shards(file: &str, json: &[u8]) -> Result<BTreeSet<String>> {
    if json.len() > MAX_BYTES {
        let message = format!("{} bytes are no index: at most {MAX_BYTES}", json.len());
        return Err(Error::config(file, message));
    }
    let index: Index = serde_json::from_slice(json).map_err(|e| Error::config(file, e))?;
    let Files(files) = index.weight_map;
    // An index may come from anyone.
    match files.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
        Some(name) => Err(Error::config(file, format!("`{name}` is no name of a shard"))),
        None => Ok(files),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: Files,
}

/// The values of a map. The keys are what the files' own headers say again.
struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Files;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map from tensors to files")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Files, M::Error> {
                let mut files = BTreeSet::new();
                while let Some((IgnoredAny, file)) = map.next_entry()? {
                    files.insert(file);
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_named_once() {
        let json = br#"{"metadata":{"total_size":1},
            "weight_map":{"a":"y.safetensors","b":"x.safetensors","c":"y.safetensors"}}"#;
        let files = shards("x.index.json", json).expect("valid");
        assert_eq!(Vec::from_iter(files), ["x.safetensors", "y.safetensors"]);
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let long = format!(r#"{{"weight_map":{{}}}}{}"#, " ".repeat(MAX_BYTES));
        let cases: [&[u8]; 7] = [
            b"",
            b"{}",
            br#"{"weight_map":["a"]}"#,
            br#"{"weight_map":{"a":1}}"#,
            br#"{"weight_map":{"a":"../b"}}"#,
            br#"{"weight_map":{"a":"..\\b"}}"#,
            long.as_bytes(),
        ];
        for json in cases {
            let error = shards("x.index.json", json).expect_err("no index");
            assert_eq!(error.code(), "invalid-config", "{error}");
        }
    }
}
