//! LoRA and textual inversion, as JavaScript sees them.

use std::collections::BTreeMap;
use std::future::ready;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, Object, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use super::Pipeline;
use super::convert::{self, JsTensor, object};
use super::error::JsResult;
use super::source::SourceOptions;
use crate::error::{Error, Result};
use crate::hub::{FileReader, ModelFiles, OnArrival, Piece};
use crate::pipeline::{AdapterSource, AdapterWeight};
use crate::weights::lora::read_whole;
use crate::weights::{Dtype, Entry, HostTensor, StateDict, header};

/// What tensors without a file are called.
const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// An adapter's file: its bytes, its tensors, or which of a model's files it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    bytes: JsValue,
    tensors: Option<BTreeMap<String, JsTensor>>,
    weight_name: Option<String>,
}

impl Source {
    fn parse(source: &JsValue) -> Result<Self> {
        convert::parse(source.clone(), "source")
    }

    /// The file's name, and what reads it where its bytes are there already.
    fn held(&self) -> Result<Option<(String, HeldFile)>> {
        if let Some(tensors) = &self.tensors {
            return Ok(Some((LORA_FILE.into(), HeldFile::of_tensors(tensors)?)));
        }
        let bytes = self.bytes.dyn_ref::<Uint8Array>();
        let name = || self.weight_name.clone().unwrap_or_default();
        Ok(bytes.map(|bytes| (name(), HeldFile::new([bytes.clone()]))))
    }

    /// Which of the `files` of a repository or a folder it is.
    fn within<'a>(
        &'a self,
        files: &'a dyn ModelFiles,
        options: &'a SourceOptions,
    ) -> AdapterSource<'a> {
        let weight_name = self.weight_name.as_deref();
        AdapterSource { files, subfolder: options.subfolder(), weight_name }
    }
}

/// Bytes that JavaScript has, of which a piece is in this heap at a time.
struct HeldFile {
    /// One behind the other.
    parts: Vec<Uint8Array>,
    size: u64,
    /// The part that is handed out next, from which of its bytes on, and where that is in the file.
    next: (usize, u32, u64),
}

/// Bytes that are taken over at once.
const PIECE_BYTES: u32 = 4 << 20;

impl HeldFile {
    fn new(parts: impl IntoIterator<Item = Uint8Array>) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let size = parts.iter().map(|part| u64::from(part.length())).sum();
        Self { parts, size, next: (0, 0, 0) }
    }

    /// A file in safetensors of tensors by their names.
    fn of_tensors(tensors: &BTreeMap<String, JsTensor>) -> Result<Self> {
        let mut parts = Vec::new();
        for (key, tensor) in tensors {
            parts.push(tensor.bytes(key)?);
        }
        let entries = tensors.iter();
        let header =
            header(entries.map(|(key, tensor)| (key.as_str(), Dtype::F32, &tensor.shape[..])));
        Ok(Self::new([Uint8Array::from(header.as_slice())].into_iter().chain(parts)))
    }
}

impl FileReader for HeldFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn head<'a>(
        &'a mut self,
        length: u64,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            let missing = length - bytes.len() as u64;
            let end = missing.min(part.length().into()) as u32;
            bytes.extend(part.subarray(0, end).to_vec());
        }
        Box::pin(ready(Ok(bytes)))
    }

    fn next<'a>(
        &'a mut self,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Option<Piece>>> {
        let (mut part, mut from, start) = self.next;
        while self.parts.get(part).is_some_and(|part| part.length() == from) {
            (part, from) = (part + 1, 0);
        }
        let piece = self.parts.get(part).map(|bytes| {
            let end = bytes.length().min(from.saturating_add(PIECE_BYTES));
            let bytes = Rc::new(bytes.subarray(from, end).to_vec());
            self.next = (part, end, start + u64::from(end - from));
            Piece { start, bytes }
        });
        Box::pin(ready(Ok(piece)))
    }

    fn finish<'a>(&'a mut self, _: &'a mut OnArrival<'_>) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn reject(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoraOptions {
    adapter_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WordOptions {
    token: Option<String>,
    /// What `model_index.json` calls it.
    text_encoder: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Adapters {
    names: Vec<String>,
    /// Parsed by itself, for an error that names it.
    #[serde(with = "serde_wasm_bindgen::preserve")]
    weights: JsValue,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FuseOptions {
    lora_scale: Option<f64>,
    adapter_names: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaveOptions {
    adapter_name: Option<String>,
    layers: Option<BTreeMap<String, Option<BTreeMap<String, JsTensor>>>>,
    safe_serialization: bool,
}

/// Tensors under the names of a file, each group's after its prefix.
fn state_dict(
    groups: impl IntoIterator<Item = (String, BTreeMap<String, JsTensor>)>,
) -> Result<StateDict> {
    let mut entries = Vec::new();
    for (prefix, tensors) in groups {
        for (key, tensor) in tensors {
            let values = HostTensor::from_f32(tensor.shape.clone(), &tensor.values(&key)?);
            entries.push((format!("{prefix}{key}"), Entry::Tensor(values)));
        }
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(StateDict { file: LORA_FILE.into(), entries, metadata })
}

#[wasm_bindgen]
impl Pipeline {
    /// Loads a LoRA and makes it the only active one. Returns its name and the keys that no layer has a use for.
    #[wasm_bindgen(js_name = loadLoraWeights)]
    pub async fn load_lora(
        &mut self,
        source: JsValue,
        options: JsValue,
        signal: Option<AbortSignal>,
    ) -> JsResult<Object> {
        let options: LoraOptions = convert::parse(options, "options")?;
        let adapter = Source::parse(&source)?;
        let name = options.adapter_name.as_deref();
        let unused = match adapter.held()? {
            Some((file, mut bytes)) => self.inner.load_lora_file(name, &file, &mut bytes).await?,
            None => {
                let options = SourceOptions::parse(&source)?;
                let access = options.access(signal, &|_| ()).await?;
                let files = access.open_part(|_| ()).await?;
                self.inner.load_lora_from(name, adapter.within(&files, &options)).await?
            }
        };
        let name = self.inner.active_adapters().pop().map(|(name, _)| name);
        Ok(object(&[("adapterName", name.into()), ("unusedKeys", texts(unused).into())]))
    }

    /// Makes some of the loaded adapters the active ones, with a weight each.
    #[wasm_bindgen(js_name = setAdapters)]
    pub fn set_adapters(&mut self, adapters: JsValue) -> JsResult<()> {
        let Adapters { names, weights } = convert::parse(adapters, "adapterNames")?;
        let weights: Vec<AdapterWeight> = convert::parse(weights, "adapterWeights")?;
        Ok(self.inner.set_adapters(&names, &weights)?)
    }

    /// The loaded adapters by component, and the names of the active ones.
    #[wasm_bindgen(js_name = listAdapters)]
    pub fn list_adapters(&self) -> Object {
        let loaded = Object::new();
        for (component, names) in self.inner.list_adapters() {
            // Cannot fail: the object is new and not frozen.
            let _ = js_sys::Reflect::set(&loaded, &component.into(), &texts(names));
        }
        let active = self.inner.active_adapters().into_iter().map(|(name, _)| JsValue::from(name));
        object(&[("loaded", loaded.into()), ("active", active.collect::<Array>().into())])
    }

    /// Takes adapters away.
    #[wasm_bindgen(js_name = deleteAdapters)]
    pub fn delete_adapters(&mut self, names: Vec<String>) -> JsResult<()> {
        Ok(self.inner.delete_adapters(&names)?)
    }

    /// Turns the adapters on or off.
    #[wasm_bindgen(js_name = enableLora)]
    pub fn enable_lora(&mut self, enabled: bool) {
        self.inner.enable_lora(enabled);
    }

    /// Takes all adapters away.
    #[wasm_bindgen(js_name = unloadLoraWeights)]
    pub fn unload_lora(&mut self) {
        self.inner.unload_lora();
    }

    /// Adds adapters to the weights.
    #[wasm_bindgen(js_name = fuseLora)]
    pub async fn fuse_lora(&mut self, options: JsValue) -> JsResult<()> {
        let FuseOptions { lora_scale, adapter_names } = convert::parse(options, "options")?;
        Ok(self.inner.fuse_lora(lora_scale.unwrap_or(1.0), adapter_names.as_deref()).await?)
    }

    /// Undoes [`fuse_lora`](Self::fuse_lora).
    #[wasm_bindgen(js_name = unfuseLora)]
    pub fn unfuse_lora(&mut self) {
        self.inner.unfuse_lora();
    }

    /// An adapter as a file, or layers that are given, by component and by name.
    #[wasm_bindgen(js_name = saveLoraWeights)]
    pub async fn save_lora(&self, options: JsValue) -> JsResult<Uint8Array> {
        let options: SaveOptions = convert::parse(options, "options")?;
        let file = match options.layers {
            Some(layers) => {
                let groups = layers.into_iter().map(|(component, layers)| {
                    (format!("{component}."), layers.unwrap_or_default())
                });
                state_dict(groups)?
            }
            None => {
                let active = || self.inner.active_adapters().pop().map(|(name, _)| name);
                let name = options.adapter_name.or_else(active);
                let missing = || Error::argument("adapterName", "no adapter is loaded");
                let name = name.ok_or_else(missing)?;
                if options.safe_serialization {
                    let mut pieces = Vec::new();
                    let mut write = |bytes: &[u8]| pieces.push(Uint8Array::from(bytes));
                    self.inner.write_lora(&name, &mut write).await?;
                    return Ok(joined(&pieces));
                }
                self.inner.lora_file(&name).await?
            }
        };
        let bytes =
            if options.safe_serialization { file.to_safetensors()? } else { file.to_pickle() };
        Ok(Uint8Array::from(bytes.as_slice()))
    }

    /// Teaches a word. Returns the tokens that were added.
    #[wasm_bindgen(js_name = loadTextualInversion)]
    pub async fn load_textual_inversion(
        &mut self,
        source: JsValue,
        options: JsValue,
        signal: Option<AbortSignal>,
    ) -> JsResult<Vec<String>> {
        let WordOptions { token, text_encoder } = convert::parse(options, "options")?;
        let adapter = Source::parse(&source)?;
        let (file, bytes) = match adapter.held()? {
            Some((file, mut bytes)) => (file, read_whole(&mut bytes).await?),
            None => {
                let options = SourceOptions::parse(&source)?;
                let access = options.access(signal, &|_| ()).await?;
                let files = access.open_part(|_| ()).await?;
                adapter.within(&files, &options).read_textual_inversion().await?
            }
        };
        let token = token.as_deref();
        Ok(match text_encoder {
            Some(name) => self.inner.load_textual_inversion_into(&name, &file, &bytes, token)?,
            None => self.inner.load_textual_inversion(&file, &bytes, token)?,
        })
    }

    /// Forgets words, or every word.
    #[wasm_bindgen(js_name = unloadTextualInversion)]
    pub fn unload_textual_inversion(&mut self, tokens: Option<Vec<String>>) -> JsResult<()> {
        Ok(self.inner.unload_textual_inversion(tokens.as_deref())?)
    }
}

fn texts(texts: Vec<String>) -> Array {
    texts.into_iter().map(JsValue::from).collect()
}

/// Bytes one behind the other.
fn joined(pieces: &[Uint8Array]) -> Uint8Array {
    let joined = Uint8Array::new_with_length(pieces.iter().map(Uint8Array::length).sum());
    let mut at = 0;
    for piece in pieces {
        joined.set(piece, at);
        at += piece.length();
    }
    joined
}
