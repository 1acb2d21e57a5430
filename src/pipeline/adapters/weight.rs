//! How much of an adapter is added, by component and by block.
//!
//! Source: diffusers `loaders/lora_base.py`, `set_adapters`; `loaders/unet_loader_utils.py`, `_maybe_expand_lora_scales`;
//! `utils/peft_utils.py`, `set_weights_and_activate_adapters`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::models::Module;

/// The argument that errors name.
const ARGUMENT: &str = "adapterWeights";

/// One number, or one for each component; what is not there counts fully.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "each is a number or an object with `textEncoder`, `textEncoder2` and `unet`"
)]
pub enum AdapterWeight {
    /// Of all layers.
    All(f64),
    /// By component.
    Components(ComponentWeights),
}

impl From<f64> for AdapterWeight {
    fn from(weight: f64) -> Self {
        Self::All(weight)
    }
}

/// A weight for each component.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComponentWeights {
    /// Of the text encoder, the first of SDXL's.
    pub text_encoder: Option<f64>,
    /// Of SDXL's second.
    pub text_encoder_2: Option<f64>,
    /// Of the UNet.
    pub unet: Option<UNetWeight>,
}

/// A weight of the UNet's layers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "`unet` is a number or an object with `down`, `mid` and `up`")]
pub enum UNetWeight {
    /// Of all.
    All(f64),
    /// Of the blocks with transformers, by its parts; other layers count fully.
    Parts(PartWeights),
}

/// A weight for each part of the UNet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartWeights {
    /// Of the way down.
    pub down: Option<PartWeight>,
    /// Of the middle.
    pub mid: Option<LayerWeights>,
    /// Of the way up.
    pub up: Option<PartWeight>,
}

/// A weight of the blocks on the way down or up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "`down` and `up` are numbers, lists of numbers or objects of blocks")]
pub enum PartWeight {
    /// The same of each.
    Each(LayerWeights),
    /// Of some, by `block_0`, `block_1`, ..
    Blocks(BTreeMap<String, LayerWeights>),
}

/// A weight of a block's transformers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "a block has a number or a list of numbers, one for each transformer"
)]
pub enum LayerWeights {
    /// Of all.
    All(f64),
    /// One for each.
    Each(Vec<f64>),
}

/// The number for each layer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Strengths {
    /// By the beginning of what lies there: a component, and layers of it.
    by_path: Vec<(String, f64)>,
    /// Of everything else.
    others: Option<f64>,
}

impl Strengths {
    /// Of the layer at `path` of a component. As in diffusers, other layers of a block (`down_blocks.1.resnets.0.conv1`) count
    /// as its transformer of the same number does.
    pub fn at(&self, component: &str, path: &str) -> f64 {
        let of =
            |path: &str| self.by_path.iter().find(|(place, _)| path.starts_with(place.as_str()));
        let own = of(&format!("{component}.{path}."));
        let beside = || match path.split('.').collect::<Vec<_>>()[..] {
            [way, block, _, layer, ..] => {
                of(&format!("{component}.{way}.{block}.attentions.{layer}."))
            }
            _ => None,
        };
        own.or_else(beside).map_or(self.others.unwrap_or(1.0), |(_, weight)| *weight)
    }

    /// Works out what `weight` means for these models.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for numbers that are not finite, for blocks that the UNet does not have or that have
    /// no transformers, and for lists of another length.
    pub fn new(weight: &AdapterWeight, models: &mut super::Models<'_>) -> Result<Self> {
        let mut strengths = Self::default();
        match weight {
            AdapterWeight::All(weight) => strengths.others = Some(*weight),
            AdapterWeight::Components(components) => strengths.take(components, models)?,
        }
        let all = strengths.by_path.iter().map(|(_, weight)| *weight).chain(strengths.others);
        match all.into_iter().find(|weight| !weight.is_finite()) {
            Some(weight) => Err(Error::argument(ARGUMENT, format!("{weight} is not finite"))),
            None => Ok(strengths),
        }
    }

    fn take(&mut self, weights: &ComponentWeights, models: &mut super::Models<'_>) -> Result<()> {
        let ComponentWeights { text_encoder, text_encoder_2, unet } = weights;
        for (component, weight) in
            [("text_encoder", text_encoder), ("text_encoder_2", text_encoder_2)]
        {
            self.by_path.extend(weight.map(|weight| (format!("{component}."), weight)));
        }
        let parts = match unet {
            None => return Ok(()),
            Some(UNetWeight::All(weight)) => {
                self.by_path.push(("unet.".into(), *weight));
                return Ok(());
            }
            Some(UNetWeight::Parts(parts)) => parts,
        };
        let model = models.iter_mut().find(|(component, _)| *component == "unet");
        let blocks = model.map(|(_, model)| blocks(&mut **model)).unwrap_or_default();
        if let Some(mid) = &parts.mid {
            self.block("mid", "mid_block", mid, &blocks)?;
        }
        for (name, part) in [("down", &parts.down), ("up", &parts.up)] {
            let prefix = format!("{name}_blocks.");
            match part {
                None => {}
                Some(PartWeight::Each(weights)) => {
                    for block in blocks.keys().filter(|block| block.starts_with(&prefix)) {
                        self.block(name, block, weights, &blocks)?;
                    }
                }
                Some(PartWeight::Blocks(given)) => {
                    for (block, weights) in given {
                        let label = format!("{name}.{block}");
                        let index = block.strip_prefix("block_").unwrap_or(block);
                        self.block(&label, &format!("{prefix}{index}"), weights, &blocks)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Of one block's transformers.
    fn block(
        &mut self,
        label: &str,
        block: &str,
        weights: &LayerWeights,
        blocks: &BTreeMap<String, usize>,
    ) -> Result<()> {
        let Some(&count) = blocks.get(block) else {
            let message = format!(
                "{label} is no block of this UNet, or one without attentions; those with some are {:?}",
                blocks.keys()
            );
            return Err(Error::argument(ARGUMENT, message));
        };
        let path = |layer: usize| format!("unet.{block}.attentions.{layer}.");
        match weights {
            LayerWeights::All(weight) => {
                self.by_path.extend((0..count).map(|layer| (path(layer), *weight)));
            }
            LayerWeights::Each(each) => {
                // One serves for all, as in diffusers.
                let all = each.first().filter(|_| each.len() == 1);
                if all.is_none() && each.len() != count {
                    let message = format!("{count} weights for {label}, not {}", each.len());
                    return Err(Error::argument(ARGUMENT, message));
                }
                let weight = |layer: usize| all.unwrap_or_else(|| &each[layer]);
                self.by_path.extend((0..count).map(|layer| (path(layer), *weight(layer))));
            }
        }
        Ok(())
    }
}

/// The blocks of a UNet that have transformers, and how many.
fn blocks(unet: &mut dyn Module) -> BTreeMap<String, usize> {
    let mut blocks: BTreeMap<String, usize> = BTreeMap::new();
    unet.visit("", &mut |path, _| {
        if let Some((block, rest)) = path.split_once(".attentions.")
            && let Some(layer) =
                rest.split('.').next().and_then(|layer| layer.parse::<usize>().ok())
        {
            let count = blocks.entry(block.to_owned()).or_default();
            *count = (layer + 1).max(*count);
        }
    });
    blocks
}
