//! LoRA and textual inversion, as JavaScript sees them.

use std::collections::BTreeMap;

use js_sys::{Array, Object, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use super::Pipeline;
use super::convert::{self, JsTensor, object};
use super::error::JsResult;
use super::source::SourceOptions;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::pipeline::{AdapterWeight, LORA_FILES, TEXTUAL_INVERSION_FILES, read_adapter};
use crate::weights::{Entry, HostTensor, StateDict};

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
    /// The file's name and contents.
    async fn read(
        source: JsValue,
        names: &[&str],
        signal: Option<AbortSignal>,
    ) -> Result<(String, Vec<u8>)> {
        let Self { bytes, tensors, weight_name } = convert::parse(source.clone(), "source")?;
        if let Some(tensors) = tensors {
            let file = state_dict([(String::new(), tensors)])?;
            let bytes = file.to_safetensors()?;
            return Ok((file.file, bytes));
        }
        if let Some(bytes) = bytes.dyn_ref::<Uint8Array>() {
            return Ok((weight_name.unwrap_or_default(), bytes.to_vec()));
        }
        let options = SourceOptions::parse(&source)?;
        let access = options.access(signal, &|_| ()).await?;
        let files = access.open(|_| ()).await?;
        let file = read_adapter(&files, options.subfolder(), weight_name.as_deref(), names).await?;
        // A whole model that this is beside is not complete by that.
        if !files.paths().iter().any(|path| path == "model_index.json") {
            files.finish().await?;
        }
        Ok(file)
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
    Ok(StateDict { file: "pytorch_lora_weights.safetensors".into(), entries, metadata })
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
        let (file, bytes) = Source::read(source, LORA_FILES, signal).await?;
        let unused = self.inner.load_lora(options.adapter_name.as_deref(), &file, &bytes)?;
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
                StateDict::parse(
                    "adapter",
                    &self.inner.save_lora(&name.ok_or_else(missing)?).await?,
                )?
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
        let (file, bytes) = Source::read(source, TEXTUAL_INVERSION_FILES, signal).await?;
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
