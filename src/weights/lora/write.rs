//! LoRA files as diffusers writes them.
//!
//! Source: diffusers `loaders/lora_base.py`, `_save_lora_weights` and `write_lora_layers`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{LoraLayer, Target};
use crate::error::Result;
use crate::weights::{Entry, HostTensor, StateDict};

/// Where a safetensors file keeps the fields of PEFT's `LoraConfig`.
pub const METADATA_KEY: &str = "lora_adapter_metadata";

/// A layer to write.
pub type SavedLayer = (Target, LoraLayer<HostTensor>);

/// The file of `layers`, in PEFT's names, with the ranks and alphas from which diffusers 0.35 and
/// later build their `LoraConfig`; older versions take alpha to be the rank.
/// The tensors are those of `layers`, and not copied.
pub fn file(name: &str, layers: Vec<SavedLayer>) -> StateDict {
    let mut configs: BTreeMap<&str, Vec<(String, usize, f64)>> = BTreeMap::new();
    let mut entries = Vec::new();
    for ((component, path), LoraLayer { down, up, scaling }) in layers {
        let rank = down.shape()[0];
        let stem = format!("{component}.{path}");
        configs.entry(component).or_default().push((path, rank, scaling * rank as f64));
        entries.push((format!("{stem}.lora_A.weight"), Entry::Tensor(down)));
        entries.push((format!("{stem}.lora_B.weight"), Entry::Tensor(up)));
    }
    let mut fields = Map::new();
    for (component, layers) in configs {
        for (field, value) in config(&layers) {
            fields.insert(format!("{component}.{field}"), value);
        }
    }
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (METADATA_KEY.to_owned(), Value::Object(fields).to_string()),
    ]);
    StateDict { file: name.into(), entries, metadata }
}

/// The bytes of [`file`] in safetensors.
///
/// # Errors
/// [`Error::InvalidSafetensors`](crate::Error::InvalidSafetensors) when two layers have one name.
pub fn write(name: &str, layers: Vec<SavedLayer>) -> Result<Vec<u8>> {
    file(name, layers).to_safetensors()
}

/// The fields of a `LoraConfig`: rank and alpha of the first layer, and what differs from them.
fn config(layers: &[(String, usize, f64)]) -> [(&'static str, Value); 5] {
    let (_, rank, alpha) = layers[0];
    // `^` keeps a pattern from matching the ends of longer names.
    let ranks: Map<String, Value> = layers
        .iter()
        .filter(|(_, other, _)| *other != rank)
        .map(|(path, rank, _)| (format!("^{path}"), json!(rank)))
        .collect();
    let alphas: Map<String, Value> = layers
        .iter()
        .filter(|(_, _, other)| *other != alpha)
        .map(|(path, _, alpha)| (format!("^{path}"), json!(alpha)))
        .collect();
    let paths: Vec<&String> = layers.iter().map(|(path, ..)| path).collect();
    [
        ("r", json!(rank)),
        ("lora_alpha", json!(alpha)),
        ("rank_pattern", Value::Object(ranks)),
        ("alpha_pattern", Value::Object(alphas)),
        ("target_modules", json!(paths)),
    ]
}
