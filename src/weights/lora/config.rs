//! What a LoRA's file says of its alphas and ranks.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::{METADATA_KEY, Target};
use crate::error::{Error, Result};

/// What `lora_adapter_metadata` says: for each component the fields of PEFT's `LoraConfig`.
#[derive(Debug)]
pub(super) struct Config(Map<String, Value>);

impl Config {
    pub fn parse(file: &str, metadata: &BTreeMap<String, String>) -> Result<Self> {
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
    pub fn scalings(
        &self,
        component: &'static str,
        order: &[Target],
        ranks: &HashMap<Target, usize>,
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
