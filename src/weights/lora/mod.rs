//! LoRA files: parsed, matched with a model's layers, put beside them, and written again.
//!
//! Files of a gigabyte are common, so names and shapes are looked at first, and then one tensor is read after the
//! other, each of which is on the device before the next one comes.
//!
//! Source: diffusers `loaders/lora_pipeline.py`, `loaders/lora_base.py` and `utils/peft_utils.py`.

mod config;
mod names;
mod plan;
mod read;
mod targets;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::plan::Stub;
use self::plan::{Plan, Use};
pub use self::read::{keeper, parse, read, read_whole};
pub use self::targets::{Target, Targets};
pub use self::write::{METADATA_KEY, SavedLayer, file, keys, metadata};
use super::{Entry, HostTensor, StateDict};
use crate::error::Result;
use crate::models::{LoraFactor, Module};

/// A LoRA, matched with the layers of a model. Its factors are what became of their tensors: on the
/// device, as a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora<T = LoraFactor> {
    /// What is put beside each layer.
    pub layers: BTreeMap<Target, LoraLayer<T>>,
    /// Keys that no layer has a use for.
    pub unused: Vec<String>,
}

/// The factors beside one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraLayer<T = LoraFactor> {
    /// `[R, I]`, or for a convolution `[R, I, kh, kw]`
    pub down: T,
    /// `[O, R]`, or for a convolution `[O, R, 1, 1]`
    pub up: T,
    /// What the product is multiplied by: `alpha / rank`.
    pub scaling: f64,
}

/// Makes of a factor's tensor what is kept of it. The shape is the one that the layer wants, which differs from the
/// tensor's own in axes of one element at most.
pub type Keep<'a, T> = dyn FnMut(HostTensor, &[usize]) -> T + 'a;

/// A LoRA of which one tensor comes after the other.
struct Arriving<'a, T> {
    plan: Plan,
    keep: &'a mut Keep<'a, T>,
    downs: BTreeMap<Target, T>,
    ups: BTreeMap<Target, T>,
}

impl<'a, T> Arriving<'a, T> {
    fn new(plan: Plan, keep: &'a mut Keep<'a, T>) -> Self {
        Self { plan, keep, downs: BTreeMap::new(), ups: BTreeMap::new() }
    }

    /// Takes the tensor that is the file's `index`th value.
    fn take(&mut self, index: usize, tensor: HostTensor) {
        match self.plan.use_of(index) {
            Some(Use::Down(target, shape)) => {
                self.downs.insert(target, (self.keep)(tensor, &shape));
            }
            Some(Use::Up(target, shape)) => {
                self.ups.insert(target, (self.keep)(tensor, &shape));
            }
            Some(Use::Alpha(target)) => {
                let alpha = tensor.to_f32().first().copied().unwrap_or_default();
                self.plan.set_alpha(target, f64::from(alpha));
            }
            None => {}
        }
    }

    /// The LoRA, of which every tensor that was wanted has come.
    fn finish(mut self) -> Result<Lora<T>> {
        let mut layers = BTreeMap::new();
        for (target, scaling) in self.plan.scalings() {
            let missing = |factor| self.plan.missing(&target, factor);
            let down = self.downs.remove(&target).ok_or_else(|| missing("lora_A"))?;
            let up = self.ups.remove(&target).ok_or_else(|| missing("lora_B"))?;
            layers.insert(target, LoraLayer { down, up, scaling });
        }
        Ok(Lora { layers, unused: self.plan.unused })
    }
}

impl<T> Lora<T> {
    /// Matches a file's keys with `targets`. Each tensor is let go of when `keep` has seen it.
    ///
    /// # Errors
    /// [`UnknownKeys`](crate::Error::UnknownKeys) when no key belongs to a layer;
    /// [`Unsupported`](crate::Error::Unsupported) for DoRA, LoHa and other relatives of LoRA;
    /// [`MissingTensor`](crate::Error::MissingTensor) when a factor is alone;
    /// [`ShapeMismatch`](crate::Error::ShapeMismatch) when a factor does not fit its layer.
    pub fn new<'a>(dict: StateDict, targets: &Targets, keep: &'a mut Keep<'a, T>) -> Result<Self> {
        let StateDict { file, entries, metadata } = dict;
        let keys = entries.iter().map(|(key, entry)| (key.clone(), Stub::of(entry)));
        let mut lora = Arriving::new(Plan::new(&file, keys.collect(), &metadata, targets)?, keep);
        for (index, (_, entry)) in entries.into_iter().enumerate() {
            if let Entry::Tensor(tensor) = entry {
                lora.take(index, tensor);
            }
        }
        lora.finish()
    }
}

impl Lora {
    /// Puts the factors beside the layers of `models`, at strength 0. Returns the keys that no layer has a use for.
    pub fn attach(
        mut self,
        adapter: &Arc<str>,
        models: &mut [(&'static str, &mut dyn Module)],
    ) -> Vec<String> {
        for (component, model) in models {
            model.visit("", &mut |path, parameter| {
                let Some(path) = path.strip_suffix(".weight") else { return };
                let target = (*component, path.to_owned());
                if let Some(weight) = parameter.as_weight()
                    && let Some(LoraLayer { down, up, scaling }) = self.layers.remove(&target)
                {
                    weight.attach_lora(adapter.clone(), (down, up), scaling);
                }
            });
        }
        self.unused
    }
}

#[cfg(test)]
mod tests;
