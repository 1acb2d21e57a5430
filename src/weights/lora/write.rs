//! LoRA files as diffusers writes them.
//!
//! Source: diffusers `loaders/lora_base.py`, `_save_lora_weights` and `write_lora_layers`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{LoraLayer, Target};
use crate::weights::{Entry, HostTensor, StateDict};

/// Where a safetensors file keeps the fields of PEFT's `LoraConfig`.
pub const METADATA_KEY: &str = "lora_adapter_metadata";

/// A layer to write.
pub type SavedLayer = (Target, LoraLayer<HostTensor>);

/// The names of the two factors of a layer in a file.
pub fn keys((component, path): &Target) -> [String; 2] {
    ["lora_A", "lora_B"].map(|factor| format!("{component}.{path}.{factor}.weight"))
}

/// What a file says of itself: the ranks and alphas of layers, each with its rank and its scaling, from which diffusers
/// 0.35 and later build their `LoraConfig`. Older versions take alpha to be the rank.
pub fn metadata<'a>(
    layers: impl Iterator<Item = (&'a Target, usize, f64)>,
) -> BTreeMap<String, String> {
    let mut configs: BTreeMap<&str, Vec<(String, usize, f64)>> = BTreeMap::new();
    for ((component, path), rank, scaling) in layers {
        configs.entry(component).or_default().push((path.clone(), rank, scaling * rank as f64));
    }
    let mut fields = Map::new();
    for (component, layers) in configs {
        for (field, value) in config(&layers) {
            fields.insert(format!("{component}.{field}"), value);
        }
    }
    BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        (METADATA_KEY.to_owned(), Value::Object(fields).to_string()),
    ])
}

/// The file of `layers`, in PEFT's names, with their [`metadata`]. The tensors are not copied.
pub fn file(name: &str, layers: Vec<SavedLayer>) -> StateDict {
    let ranks = layers.iter().map(|(target, layer)| (target, layer.down.shape()[0], layer.scaling));
    let metadata = metadata(ranks);
    let mut entries = Vec::new();
    for (target, LoraLayer { down, up, .. }) in layers {
        let [down_key, up_key] = keys(&target);
        entries.push((down_key, Entry::Tensor(down)));
        entries.push((up_key, Entry::Tensor(up)));
    }
    StateDict { file: name.into(), entries, metadata }
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
