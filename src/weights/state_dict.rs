//! A whole file of tensors in memory, as adapters come: small, and in either format.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype as FileDtype, TensorView};

use super::pickle::{self, Item, Pickle, is_torch_file};
use super::{Dtype, Header, HostTensor};
use crate::error::{Error, Result};

/// A value of a state dictionary.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A tensor of floats.
    Tensor(HostTensor),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A dictionary inside the dictionary.
    Nested(Box<StateDict>),
    /// Something else: what.
    Other(String),
}

/// The tensors of a file by their names, in the file's order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StateDict {
    /// The file's name, for errors.
    pub file: String,
    /// Name and value.
    pub entries: Vec<(String, Entry)>,
    /// What a safetensors file says of itself.
    pub metadata: BTreeMap<String, String>,
}

impl StateDict {
    /// Reads `bytes`, the contents of `file`: safetensors, or what torch writes.
    ///
    /// # Errors
    /// [`Error::InvalidSafetensors`] or [`Error::InvalidPickle`]; [`Error::Unsupported`] for a
    /// pickle that is no dictionary.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        if is_torch_file(bytes) {
            return Self::from_pickle(file, &Pickle::parse(file, bytes)?);
        }
        let header = Header::parse(file, bytes, bytes.len() as u64)?;
        let entries = header.tensors.into_iter().map(|tensor| {
            let entry = match tensor.dtype {
                Ok(dtype) => {
                    // The header was checked against the length of these very bytes.
                    let data = &bytes[tensor.start as usize..tensor.end as usize];
                    Entry::Tensor(HostTensor::new(tensor.shape, dtype, data.to_vec()))
                }
                Err(dtype) => Entry::Other(dtype),
            };
            (tensor.name, entry)
        });
        Ok(Self { file: file.into(), entries: entries.collect(), metadata: header.metadata })
    }

    fn from_pickle(file: &str, pickle: &Pickle<'_>) -> Result<Self> {
        let entries = items(file, pickle)?;
        let entries = entries.into_iter().map(|(key, value)| (key, entry(file, value, true)));
        Ok(Self { file: file.into(), entries: entries.collect(), ..Self::default() })
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, entry)| entry)
    }

    /// The file that [`parse`](Self::parse) reads again, as `torch.save` writes it. Only tensors are
    /// written.
    pub fn to_pickle(&self) -> Vec<u8> {
        pickle::write(self.entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Tensor(tensor) => Some((name.as_str(), tensor)),
            _ => None,
        }))
    }

    /// The file that [`parse`](Self::parse) reads again, in safetensors. Only tensors are written.
    ///
    /// # Errors
    /// [`Error::InvalidSafetensors`] when two entries have one name.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let fail = |message: String| Error::InvalidSafetensors { file: self.file.clone(), message };
        let mut views = BTreeMap::new();
        for (name, entry) in &self.entries {
            let Entry::Tensor(tensor) = entry else { continue };
            let dtype = match tensor.dtype() {
                Dtype::F16 => FileDtype::F16,
                Dtype::Bf16 => FileDtype::BF16,
                Dtype::F32 => FileDtype::F32,
            };
            let view = TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes())
                .map_err(|e| fail(e.to_string()))?;
            if views.insert(name, view).is_some() {
                return Err(fail(format!("two tensors are named `{name}`")));
            }
        }
        let mut metadata: HashMap<String, String> = self.metadata.clone().into_iter().collect();
        metadata.entry("format".into()).or_insert_with(|| "pt".into());
        safetensors::serialize(views, Some(metadata)).map_err(|e| fail(e.to_string()))
    }
}

/// The values of what torch writes, by their names, in order. A tensor by itself has none.
///
/// # Errors
/// [`Error::Unsupported`] for a pickle that is no dictionary.
pub(super) fn items<'p>(file: &str, pickle: &'p Pickle<'_>) -> Result<Vec<(String, Item<'p>)>> {
    let root = pickle.root();
    if root.as_tensor().is_some() {
        return Ok(vec![(String::new(), root)]);
    }
    // Trainers wrap the dictionary in one of their own.
    let root = root.get("state_dict").unwrap_or(root);
    named(root).ok_or_else(|| Error::unsupported(format!("{file}: a pickle that is no dictionary")))
}

/// A dictionary with names as keys.
fn named(item: Item<'_>) -> Option<Vec<(String, Item<'_>)>> {
    let entries = item.entries()?;
    Some(entries.filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value))).collect())
}

/// A value. Dictionaries inside the `outer` one are read too, but not those inside them, so that a
/// file that contains itself comes to an end.
pub(super) fn entry(file: &str, value: Item<'_>, outer: bool) -> Entry {
    if let Some(tensor) = value.as_tensor() {
        return match tensor.to_host() {
            Ok(tensor) => Entry::Tensor(tensor),
            Err(dtype) => value.as_i64().map_or(Entry::Other(dtype), |x| Entry::Number(x as f64)),
        };
    }
    if let Some(text) = value.as_str() {
        return Entry::Text(text.to_owned());
    }
    if let Some(number) = value.as_f64() {
        return Entry::Number(number);
    }
    match named(value).filter(|_| outer) {
        Some(entries) => {
            let entries = entries.into_iter().map(|(key, value)| (key, entry(file, value, false)));
            let (file, entries) = (file.to_owned(), entries.collect());
            Entry::Nested(Box::new(StateDict { file, entries, ..StateDict::default() }))
        }
        None => Entry::Other("an object".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let tensor = HostTensor::from_f32(vec![2, 1], &[1.5, -2.0]);
        let dict = StateDict {
            file: "x".into(),
            entries: vec![("b".into(), Entry::Tensor(tensor))],
            metadata: BTreeMap::from([("format".into(), "pt".into())]),
        };
        let bytes = dict.to_safetensors().expect("written");
        assert_eq!(StateDict::parse("x", &bytes).expect("read"), dict);
    }

    #[test]
    fn what_torch_would_write_is_read_again() {
        let tensor = |shape: &[usize], dtype, bytes: &[u8]| {
            Entry::Tensor(HostTensor::new(shape.to_vec(), dtype, bytes.to_vec()))
        };
        let dict = StateDict {
            file: "x".into(),
            entries: vec![
                ("b".into(), tensor(&[2, 3], Dtype::F32, &[7; 24])),
                ("a.é".into(), tensor(&[], Dtype::F16, &[1, 2])),
                ("empty".into(), tensor(&[0, 4], Dtype::Bf16, &[])),
            ],
            ..StateDict::default()
        };
        let bytes = dict.to_pickle();
        assert_eq!(StateDict::parse("x", &bytes).expect("read"), dict);
        if let Some(folder) = std::env::var_os("IP2P_SAVE") {
            let file = std::path::Path::new(&folder).join("tensors.bin");
            std::fs::write(file, bytes).expect("a folder to write to");
        }
        let none = StateDict { file: "x".into(), ..StateDict::default() };
        assert_eq!(StateDict::parse("x", &none.to_pickle()).expect("read"), none);
    }

    #[test]
    fn a_pickle_becomes_the_same_kind_of_dictionary() {
        let bytes = include_bytes!("../../tests/fixtures/oracle/adapters/ti_a1111.pt");
        let dict = StateDict::parse("a.pt", bytes).expect("valid");
        assert_eq!(dict.get("name"), Some(&Entry::Text("easy-neg".into())));
        assert_eq!(dict.get("step"), Some(&Entry::Number(100.0)));
        let Some(Entry::Nested(params)) = dict.get("string_to_param") else { panic!("nested") };
        assert!(matches!(params.get("*"), Some(Entry::Tensor(t)) if t.shape() == [2, 16]));
        let Some(Entry::Nested(tokens)) = dict.get("string_to_token") else { panic!("nested") };
        assert_eq!(tokens.get("*"), Some(&Entry::Number(265.0)));
    }
}
