//! LoRA files: parsed, matched with a model's layers, put beside them, and written again.
//!
//! Source: diffusers `loaders/lora_pipeline.py`, `loaders/lora_base.py` and `utils/peft_utils.py`.

mod names;
mod targets;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use self::names::Part;
pub use self::targets::{Target, Targets};
pub use self::write::{METADATA_KEY, SavedLayer, write};
use super::{Entry, HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::models::{Module, Placement};

/// A LoRA, matched with the layers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// What is put beside each layer.
    pub layers: BTreeMap<Target, LoraLayer>,
    /// Keys that no layer has a use for.
    pub unused: Vec<String>,
}

/// The factors beside one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraLayer {
    /// `[R, I]`, or for a convolution `[R, I, kh, kw]`
    pub down: HostTensor,
    /// `[O, R]`, or for a convolution `[O, R, 1, 1]`
    pub up: HostTensor,
    /// What the product is multiplied by: `alpha / rank`.
    pub scaling: f64,
}

/// What a file has for one layer.
#[derive(Debug, Default)]
struct Parts {
    down: Option<HostTensor>,
    up: Option<HostTensor>,
    alpha: Option<f64>,
}

impl Lora {
    /// Matches a file's keys with `targets`.
    ///
    /// # Errors
    /// [`Error::UnknownKeys`] when no key belongs to a layer; [`Error::Unsupported`] for DoRA,
    /// LoHa and other relatives of LoRA; [`Error::MissingTensor`] when a factor is alone;
    /// [`Error::ShapeMismatch`] when a factor does not fit its layer.
    pub fn new(dict: StateDict, targets: &Targets) -> Result<Self> {
        let StateDict { file, entries, metadata } = dict;
        let count = entries.len();
        let config = Config::parse(&file, &metadata)?;
        // A file with both kinds of names has its layers twice; diffusers drops the original ones.
        let twice = entries.iter().any(|(key, _)| names::is_original(key))
            && entries.iter().any(|(key, _)| names::is_diffusers(key));
        let mut found: BTreeMap<Target, Parts> = BTreeMap::new();
        // The layers in the order of the file, for the rank that comes first.
        let mut order = Vec::new();
        let mut unused = Vec::new();
        for (key, entry) in entries {
            let split = names::split(&key);
            if let Some((_, Part::Unsupported(method))) = split {
                return Err(Error::unsupported(format!("{file}: `{key}` belongs to {method}")));
            }
            let target = split
                .filter(|(layer, _)| !(twice && names::is_original(layer)))
                .and_then(|(layer, part)| Some((names::resolve(layer, targets)?, part)));
            let Some((target, part)) = target else {
                unused.push(key);
                continue;
            };
            let parts = found.entry(target.clone()).or_insert_with(|| {
                order.push(target);
                Parts::default()
            });
            match (part, entry) {
                (Part::Down, Entry::Tensor(tensor)) => parts.down = Some(tensor),
                (Part::Up, Entry::Tensor(tensor)) => parts.up = Some(tensor),
                (Part::Alpha, entry) => parts.alpha = Some(number(&file, &key, &entry)?),
                (_, other) => return Err(unreadable(&file, key, &other)),
            }
        }
        found.retain(|_, parts| parts.down.is_some() || parts.up.is_some());
        if found.is_empty() {
            let key = unused.into_iter().next().unwrap_or_default();
            let layer = names::split(&key).map_or(key.as_str(), |(layer, _)| layer);
            let nearest = targets.nearest(&layer.replace("lora_", ""), 3);
            return Err(Error::UnknownKeys { file, count, key, nearest });
        }
        let mut factors = BTreeMap::new();
        let mut alphas = HashMap::new();
        for (target, parts) in found {
            if let Some(alpha) = parts.alpha {
                alphas.insert(target.clone(), alpha);
            }
            let shape = targets.shape(&target).unwrap_or_default();
            let pair = pair(&file, &target, parts, shape)?;
            factors.insert(target, pair);
        }
        order.retain(|target| factors.contains_key(target));
        let ranks: HashMap<&Target, usize> =
            factors.iter().map(|(target, (down, _))| (target, down.shape()[0])).collect();
        let scalings: HashMap<Target, f64> = targets
            .components()
            .flat_map(|component| config.scalings(component, &order, &ranks, &alphas))
            .collect();
        let layers = factors.into_iter().map(|(target, (down, up))| {
            let scaling = scalings.get(&target).copied().unwrap_or(1.0);
            (target, LoraLayer { down, up, scaling })
        });
        Ok(Self { layers: layers.collect(), unused })
    }

    /// Puts the factors beside the layers of `models`, at strength 0.
    pub fn attach(
        &self,
        adapter: &Arc<str>,
        models: &mut [(&'static str, &mut dyn Module)],
        placement: &Placement,
    ) {
        for (component, model) in models {
            model.visit("", &mut |path, parameter| {
                let Some(path) = path.strip_suffix(".weight") else { return };
                let Some(layer) = self.layers.get(&(*component, path.to_owned())) else { return };
                if let Some(weight) = parameter.as_weight() {
                    let factors = (&layer.down, &layer.up);
                    weight.attach_lora(adapter.clone(), factors, layer.scaling, placement);
                }
            });
        }
    }
}

/// A number, or a tensor of one.
fn number(file: &str, key: &str, entry: &Entry) -> Result<f64> {
    match entry {
        Entry::Number(number) => Ok(*number),
        Entry::Tensor(tensor) if tensor.shape().iter().product::<usize>() == 1 => {
            Ok(f64::from(tensor.to_f32()[0]))
        }
        other => Err(unreadable(file, key.to_owned(), other)),
    }
}

fn unreadable(file: &str, name: String, entry: &Entry) -> Error {
    let dtype = match entry {
        Entry::Tensor(tensor) => format!("a tensor of shape {:?}", tensor.shape()),
        Entry::Number(_) => "a number".into(),
        Entry::Text(_) => "a text".into(),
        Entry::Nested(_) => "a dictionary".into(),
        Entry::Other(what) => what.clone(),
    };
    Error::UnsupportedDtype { file: file.into(), name, dtype }
}

/// Both factors, of shapes that fit together and to the layer's `shape`.
fn pair(
    file: &str,
    (component, path): &Target,
    parts: Parts,
    shape: &[usize],
) -> Result<(HostTensor, HostTensor)> {
    let name = |factor: &str| format!("{component}.{path}.{factor}.weight");
    let missing = |factor| Error::MissingTensor {
        file: file.into(),
        name: name(factor),
        expected: Vec::new(),
    };
    let down = parts.down.ok_or_else(|| missing("lora_A"))?;
    let up = parts.up.ok_or_else(|| missing("lora_B"))?;
    let rank = down.shape().first().copied().unwrap_or_default().max(1);
    let expected_down = [&[rank], shape.get(1..).unwrap_or_default()].concat();
    let expected_up = [shape.first().copied().unwrap_or_default(), rank];
    for (tensor, factor, expected) in
        [(&down, "lora_A", expected_down.as_slice()), (&up, "lora_B", expected_up.as_slice())]
    {
        if significant(tensor.shape()) != significant(expected) {
            return Err(Error::ShapeMismatch {
                file: file.into(),
                name: name(factor),
                expected: expected.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
    }
    Ok((down, up))
}

/// A 1x1 convolution's shape is that of a dense layer.
fn significant(shape: &[usize]) -> &[usize] {
    match shape {
        [outputs_inputs @ .., 1, 1] if outputs_inputs.len() == 2 => outputs_inputs,
        _ => shape,
    }
}

/// What `lora_adapter_metadata` says: for each component the fields of PEFT's `LoraConfig`.
struct Config(Map<String, Value>);

impl Config {
    fn parse(file: &str, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let Some(json) = metadata.get(METADATA_KEY) else { return Ok(Self(Map::new())) };
        let fields: Map<String, Value> = serde_json::from_str(json)
            .map_err(|e| Error::config(format!("{file}, {METADATA_KEY}"), e))?;
        let dora = fields
            .iter()
            .any(|(key, value)| key.ends_with(".use_dora") && value.as_bool().unwrap_or_default());
        if dora {
            return Err(Error::unsupported(format!("{file} belongs to DoRA")));
        }
        Ok(Self(fields))
    }

    fn get(&self, component: &str, field: &str) -> Option<&Value> {
        self.0.get(&format!("{component}.{field}"))
    }

    /// `alpha / rank` of the layers of a component.
    ///
    /// As in diffusers, what a file leaves out is guessed: a layer without alpha has the alpha
    /// that most layers have, and where there is none at all, it is the rank of the first layer.
    /// Unlike in diffusers, an attention layer's own alpha is its own where alphas differ: there
    /// the names under which it is looked up never match.
    fn scalings(
        &self,
        component: &'static str,
        order: &[Target],
        ranks: &HashMap<&Target, usize>,
        alphas: &HashMap<Target, f64>,
    ) -> Vec<(Target, f64)> {
        let layers: Vec<&Target> = order.iter().filter(|(name, _)| *name == component).collect();
        let Some(first) = layers.first() else { return Vec::new() };
        let own = layers.iter().filter_map(|target| alphas.get(*target).copied());
        let stated = self.get(component, "lora_alpha").and_then(Value::as_f64);
        let default = stated.or_else(|| most_common(own)).unwrap_or(ranks[*first] as f64);
        let pattern = self.get(component, "alpha_pattern").and_then(Value::as_object);
        let stabilised = self.get(component, "use_rslora").and_then(Value::as_bool);
        let scaling = |target: &Target| {
            let patterned = pattern.and_then(|pattern| {
                let mut matching = pattern.iter().filter(|(key, _)| is_named(&target.1, key));
                matching.find_map(|(_, alpha)| alpha.as_f64())
            });
            let alpha = alphas.get(target).copied().or(patterned).unwrap_or(default);
            let rank = ranks[target] as f64;
            alpha / if stabilised == Some(true) { rank.sqrt() } else { rank }
        };
        layers.into_iter().map(|target| (target.clone(), scaling(target))).collect()
    }
}

/// Whether a pattern of PEFT names the layer at `path`: all of it, or its end.
fn is_named(path: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('^') {
        Some(whole) => path == whole,
        None => {
            path.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// The value that occurs most often; of several, the first.
fn most_common(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(value, _)| value)
}

#[cfg(test)]
mod tests;
