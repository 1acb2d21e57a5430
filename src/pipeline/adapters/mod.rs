//! The LoRAs of a loaded pipeline, of whichever class.
//!
//! Source: diffusers `loaders/lora_base.py` and `loaders/peft.py`; PEFT `tuners/tuners_utils.py`.

mod methods;
mod source;
mod weight;

pub use source::AdapterSource;
pub use weight::{
    AdapterWeight, ComponentWeights, LayerWeights, PartWeight, PartWeights, UNetWeight,
};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::tensor::DType;
use half::f16;

use self::weight::Strengths;
use super::to_host;
use crate::error::{Error, Result};
use crate::kernels::Matrix;
use crate::models::{Module, Weight};
use crate::weights::lora::{Lora, LoraLayer, Target};
use crate::weights::{Dtype, HostTensor};

/// The models of a pipeline that LoRAs reach, by their components' names.
pub(in crate::pipeline) type Models<'a> = [(&'static str, &'a mut dyn Module)];

/// A LoRA that is loaded.
#[derive(Debug, Clone, PartialEq)]
struct Adapter {
    name: Arc<str>,
    /// As it was given.
    weight: AdapterWeight,
    strengths: Strengths,
    is_active: bool,
    /// Its share is in the weights themselves.
    is_fused: bool,
    components: BTreeSet<&'static str>,
}

/// The LoRAs of a pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::pipeline) struct Adapters {
    loaded: Vec<Adapter>,
    are_disabled: bool,
}

impl Adapters {
    /// The name of the next LoRA, which may be chosen.
    pub(in crate::pipeline) fn name(&self, name: Option<&str>) -> Result<Arc<str>> {
        let name = name.map_or_else(|| self.default_name(), str::to_owned);
        if self.loaded.iter().any(|adapter| *adapter.name == *name) {
            return Err(Error::argument("adapterName", format!("`{name}` is loaded already")));
        }
        Ok(name.into())
    }

    /// Puts a LoRA beside the layers of `models` and makes it the only active one, as PEFT does. Returns the keys that
    /// no layer has a use for.
    pub(in crate::pipeline) fn add(
        &mut self,
        models: &mut Models<'_>,
        name: Arc<str>,
        lora: Lora,
    ) -> Vec<String> {
        let components = lora.layers.keys().map(|(component, _)| *component).collect();
        let unused = lora.attach(&name, models);
        for adapter in &mut self.loaded {
            adapter.is_active = false;
        }
        self.loaded.push(Adapter {
            name,
            weight: 1.0.into(),
            strengths: Strengths::default(),
            is_active: true,
            is_fused: false,
            components,
        });
        self.apply(models, 1.0);
        if !unused.is_empty() {
            log::warn!("no layer has a use for the keys {unused:?}");
        }
        unused
    }

    fn default_name(&self) -> String {
        let is_free = |name: &String| self.loaded.iter().all(|adapter| *adapter.name != **name);
        let mut names = (self.loaded.len()..).map(|i| format!("default_{i}"));
        names.find(is_free).expect("there are more names than adapters")
    }

    /// Sets the strengths in `models`, all of them times `scale`.
    pub(in crate::pipeline) fn apply(&self, models: &mut Models<'_>, scale: f64) {
        each_weight(models, |component, path, weight| {
            weight.set_lora_strengths(|name| {
                let adapter = self.loaded.iter().find(|adapter| *adapter.name == *name);
                adapter.map_or(0.0, |adapter| match adapter.is_active && !adapter.is_fused {
                    true if !self.are_disabled => adapter.strengths.at(component, path) * scale,
                    _ => 0.0,
                })
            });
        });
    }

    fn check_known(&self, names: &[String]) -> Result<()> {
        match names.iter().find(|name| self.loaded.iter().all(|adapter| *adapter.name != ***name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = self.loaded.iter().map(|adapter| &*adapter.name).collect();
                let message = format!("`{name}` is none of the loaded adapters {known:?}");
                Err(Error::argument("adapterNames", message))
            }
        }
    }

    /// Makes `names` the active ones.
    pub(in crate::pipeline) fn set(
        &mut self,
        models: &mut Models<'_>,
        names: &[String],
        weights: &[AdapterWeight],
    ) -> Result<()> {
        self.check_known(names)?;
        if weights.len() != names.len() {
            let message = format!("{} weights for {} adapters", weights.len(), names.len());
            return Err(Error::argument("adapterWeights", message));
        }
        let strengths = weights.iter().map(|weight| Strengths::new(weight, models));
        let strengths = strengths.collect::<Result<Vec<_>>>()?;
        for adapter in &mut self.loaded {
            let index = names.iter().position(|name| **name == *adapter.name);
            adapter.is_active = index.is_some();
            if let Some(index) = index {
                adapter.weight = weights[index].clone();
                adapter.strengths = strengths[index].clone();
            }
        }
        self.apply(models, 1.0);
        Ok(())
    }

    /// Takes adapters away.
    pub(in crate::pipeline) fn delete(
        &mut self,
        models: &mut Models<'_>,
        names: &[String],
    ) -> Result<()> {
        self.check_known(names)?;
        let is_gone = |name: &str| names.iter().any(|gone| gone == name);
        each_weight(models, |_, _, weight| weight.detach_lora(is_gone));
        self.loaded.retain(|adapter| !is_gone(&adapter.name));
        // As in PEFT: where no active adapter is left, the first by name becomes it.
        if self.loaded.iter().all(|adapter| !adapter.is_active)
            && let Some(first) = self.loaded.iter_mut().min_by_key(|adapter| adapter.name.clone())
        {
            first.is_active = true;
        }
        self.apply(models, 1.0);
        Ok(())
    }

    /// Adds the adapters to the weights, one weight after the other.
    pub(in crate::pipeline) async fn fuse(
        &mut self,
        models: &mut Models<'_>,
        scale: f64,
        names: Option<&[String]>,
    ) -> Result<()> {
        if !scale.is_finite() {
            return Err(Error::argument("loraScale", format!("{scale} is not finite")));
        }
        self.check_known(names.unwrap_or_default())?;
        let is_meant = |adapter: &Adapter| match names {
            Some(names) => names.iter().any(|name| **name == *adapter.name),
            None => adapter.is_active,
        };
        let strengths: BTreeMap<Arc<str>, Strengths> = self
            .loaded
            .iter()
            .filter(|adapter| is_meant(adapter) && !adapter.is_fused)
            .map(|adapter| (adapter.name.clone(), adapter.strengths.clone()))
            .collect();
        let strength = |component: &str, path: &str, name: &str| {
            strengths.get(name).map_or(0.0, |strengths| strengths.at(component, path) * scale)
        };
        for (component, model) in models.iter_mut() {
            // A visit cannot wait for the device, so the weights are taken out one by one.
            let mut paths = Vec::new();
            each_weight(&mut [(*component, &mut **model)], |component, path, weight| {
                let contributes = |name| strength(component, path, name) != 0.0;
                if weight.lora().iter().any(|branch| contributes(branch.adapter())) {
                    paths.push((path.to_owned(), weight.clone()));
                }
            });
            for (path, weight) in paths {
                let values = weight.with_lora(|name| strength(component, &path, name));
                let Some(values) = values else { continue };
                let fused = if weight.value().is_packed() {
                    let (shape, device) = (weight.value().shape(), weight.value().device());
                    let halves = to_host(values).await?.into_iter().map(f16::from_f32).collect();
                    Matrix::from_f16(halves, shape, &device)
                } else {
                    Matrix::from_tensor(values)
                };
                each_weight(&mut [(*component, &mut **model)], |_, found, weight| {
                    if found == path {
                        weight.fuse(fused.clone());
                    }
                });
            }
        }
        for adapter in &mut self.loaded {
            adapter.is_fused |= strengths.contains_key(&adapter.name);
        }
        self.apply(models, 1.0);
        Ok(())
    }

    /// Deletes all, and lets go of the weights from before what is fused.
    pub(in crate::pipeline) fn unload(&mut self, models: &mut Models<'_>) {
        *self = Self::default();
        each_weight(models, |_, _, weight| {
            weight.detach_lora(|_| true);
            weight.keep_fused();
        });
    }

    /// Turns all on or off.
    pub(in crate::pipeline) fn enable(&mut self, models: &mut Models<'_>, enabled: bool) {
        self.are_disabled = !enabled;
        self.apply(models, 1.0);
    }

    /// The loaded adapters of each component.
    pub(in crate::pipeline) fn list(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for adapter in &self.loaded {
            for component in &adapter.components {
                lists.entry(component).or_default().push(adapter.name.to_string());
            }
        }
        lists
    }

    /// The active adapters, with their weights.
    pub(in crate::pipeline) fn active(&self) -> Vec<(String, AdapterWeight)> {
        let active = self.loaded.iter().filter(|adapter| adapter.is_active);
        active.map(|adapter| (adapter.name.to_string(), adapter.weight.clone())).collect()
    }

    /// Whether there are any.
    pub(in crate::pipeline) fn is_empty(&self) -> bool {
        self.loaded.is_empty()
    }

    /// Brings back the weights from before what is fused.
    pub(in crate::pipeline) fn unfuse(&mut self, models: &mut Models<'_>) {
        each_weight(models, |_, _, weight| weight.unfuse());
        for adapter in &mut self.loaded {
            adapter.is_fused = false;
        }
        self.apply(models, 1.0);
    }

    /// The layers of an adapter, where they are.
    pub(in crate::pipeline) fn layers(
        &self,
        models: &mut Models<'_>,
        name: &str,
    ) -> Result<Vec<(Target, LoraLayer<Stored>)>> {
        self.check_known(&[name.to_owned()])?;
        let mut layers = Vec::new();
        each_weight(models, |component, path, weight| {
            let Some(branch) = weight.lora().iter().find(|branch| branch.adapter() == name) else {
                return;
            };
            let mut shape = crate::models::module::Parameter::shape(weight).to_vec();
            let outputs = std::mem::replace(&mut shape[0], branch.rank());
            let mut up = vec![outputs, branch.rank()];
            shape.resize(branch.axes().max(shape.len()), 1);
            up.resize(shape.len(), 1);
            let layer = LoraLayer {
                down: Stored { values: branch.down().clone(), shape },
                up: Stored { values: branch.up().clone(), shape: up },
                scaling: branch.scaling(),
            };
            layers.push(((component, path.to_owned()), layer));
        });
        Ok(layers)
    }
}

/// A factor on the device.
pub(in crate::pipeline) struct Stored {
    values: Matrix,
    /// As checkpoints store it.
    pub shape: Vec<usize>,
}

impl Stored {
    /// The type that it is saved as.
    pub fn dtype(&self) -> Dtype {
        if self.values.is_packed() { Dtype::F16 } else { Dtype::F32 }
    }

    /// Its values.
    pub async fn read(self) -> Result<HostTensor> {
        read_back(&self.values, self.shape).await
    }
}

/// Calls `visit` with every layer's component, path and weight.
fn each_weight(models: &mut Models<'_>, mut visit: impl FnMut(&'static str, &str, &mut Weight)) {
    for (component, model) in models {
        model.visit("", &mut |path, parameter| {
            if let Some(weight) = parameter.as_weight() {
                visit(component, path.strip_suffix(".weight").unwrap_or(path), weight);
            }
        });
    }
}

/// A matrix as checkpoints store it, in `shape`, of the type in which it is kept.
pub(in crate::pipeline) async fn read_back(
    matrix: &Matrix,
    shape: Vec<usize>,
) -> Result<HostTensor> {
    let values = to_host(matrix.to_float(DType::F32)).await?;
    let values = channels_first(values, &shape);
    Ok(if matrix.is_packed() {
        let bytes = values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        HostTensor::new(shape, Dtype::F16, bytes)
    } else {
        HostTensor::from_f32(shape, &values)
    })
}

/// A convolution's weight from `[O, kh, kw, I]` to `[O, I, kh, kw]`; others as they are.
fn channels_first(values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
    let &[_, inputs, kh, kw] = shape else { return values };
    let mut unpacked = Vec::with_capacity(values.len());
    for output in values.chunks_exact(inputs * kh * kw) {
        for input in 0..inputs {
            unpacked.extend(output[input..].iter().step_by(inputs));
        }
    }
    unpacked
}
