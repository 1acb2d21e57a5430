//! What is going to be read of a LoRA's file, by its keys and shapes alone.

use std::collections::{BTreeMap, HashMap};

use super::config::Config;
use super::names::{self, Part};
use super::{Target, Targets};
use crate::error::{Error, Result};
use crate::weights::{Entry, TensorInfo};

/// What a file says of a value before its bytes are there.
#[derive(Debug, Clone, PartialEq)]
pub enum Stub {
    /// A tensor of floats, and its shape.
    Tensor(Vec<usize>),
    /// A number.
    Number(f64),
    /// Something else: what.
    Other(String),
}

impl Stub {
    /// That of a value.
    pub fn of(entry: &Entry) -> Self {
        match entry {
            Entry::Tensor(tensor) => Self::Tensor(tensor.shape().to_vec()),
            Entry::Number(number) => Self::Number(*number),
            Entry::Text(_) => Self::Other("a text".into()),
            Entry::Nested(_) => Self::Other("a dictionary".into()),
            Entry::Other(what) => Self::Other(what.clone()),
        }
    }

    /// That of a tensor of safetensors.
    pub fn of_tensor(tensor: &TensorInfo) -> Self {
        match &tensor.dtype {
            Ok(_) => Self::Tensor(tensor.shape.clone()),
            Err(dtype) => Self::Other(dtype.clone()),
        }
    }
}

/// What a tensor is for, and the shape that the layer wants it in.
pub(super) enum Use {
    Down(Target, Vec<usize>),
    Up(Target, Vec<usize>),
    Alpha(Target),
}

/// The values of a file that belong to one layer, by their places among all.
#[derive(Debug, Default)]
struct Parts {
    down: Option<(usize, Vec<usize>)>,
    up: Option<(usize, Vec<usize>)>,
    alpha: Option<usize>,
}

/// A layer whose factors fit it.
#[derive(Debug)]
struct Fitting {
    /// `[R, I]` or `[R, I, kh, kw]`
    down: Vec<usize>,
    /// `[O, R]`
    up: [usize; 2],
}

/// What is going to be read.
#[derive(Debug)]
pub(super) struct Plan {
    file: String,
    config: Config,
    components: Vec<&'static str>,
    /// The layers in the order of the file, for the rank that comes first.
    order: Vec<Target>,
    layers: BTreeMap<Target, Fitting>,
    /// The places of the tensors that are wanted.
    uses: HashMap<usize, (Target, Part)>,
    alphas: HashMap<Target, f64>,
    /// Keys that no layer has a use for.
    pub unused: Vec<String>,
}

impl Plan {
    /// Matches the keys of a file, in its order, with `targets`.
    ///
    /// # Errors
    /// As [`Lora::new`](super::Lora::new).
    pub fn new(
        file: &str,
        keys: Vec<(String, Stub)>,
        metadata: &BTreeMap<String, String>,
        targets: &Targets,
    ) -> Result<Self> {
        let count = keys.len();
        let config = Config::parse(file, metadata)?;
        // A file with both kinds of names has its layers twice; diffusers drops the original ones.
        let twice = keys.iter().any(|(key, _)| names::is_original(key))
            && keys.iter().any(|(key, _)| names::is_diffusers(key));
        let mut found: BTreeMap<Target, Parts> = BTreeMap::new();
        let (mut order, mut unused, mut alphas) = (Vec::new(), Vec::new(), HashMap::new());
        for (index, (key, stub)) in keys.into_iter().enumerate() {
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
                order.push(target.clone());
                Parts::default()
            });
            match (part, stub) {
                (Part::Down, Stub::Tensor(shape)) => parts.down = Some((index, shape)),
                (Part::Up, Stub::Tensor(shape)) => parts.up = Some((index, shape)),
                (Part::Alpha, Stub::Tensor(shape)) if shape.iter().product::<usize>() == 1 => {
                    parts.alpha = Some(index);
                }
                (Part::Alpha, Stub::Number(alpha)) => {
                    parts.alpha = None;
                    alphas.insert(target, alpha);
                }
                (_, other) => return Err(unreadable(file, key, &other)),
            }
        }
        found.retain(|_, parts| parts.down.is_some() || parts.up.is_some());
        if found.is_empty() {
            let key = unused.into_iter().next().unwrap_or_default();
            let layer = names::split(&key).map_or(key.as_str(), |(layer, _)| layer);
            let nearest = targets.nearest(&layer.replace("lora_", ""), 3);
            return Err(Error::UnknownKeys { file: file.into(), count, key, nearest });
        }
        let (mut layers, mut uses) = (BTreeMap::new(), HashMap::new());
        for (target, parts) in found {
            let shape = targets.shape(&target).unwrap_or_default();
            let ([down, up], fitting) = pair(file, &target, &parts, shape)?;
            uses.insert(down, (target.clone(), Part::Down));
            uses.insert(up, (target.clone(), Part::Up));
            if let Some(alpha) = parts.alpha {
                uses.insert(alpha, (target.clone(), Part::Alpha));
            }
            layers.insert(target, fitting);
        }
        order.retain(|target| layers.contains_key(target));
        alphas.retain(|target, _| layers.contains_key(target));
        let components = targets.components().collect();
        let file = file.to_owned();
        Ok(Self { file, config, components, order, layers, uses, alphas, unused })
    }

    /// Whether the file's `index`th value is a tensor that is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.uses.contains_key(&index)
    }

    /// What it is for.
    pub fn use_of(&self, index: usize) -> Option<Use> {
        let (target, part) = self.uses.get(&index)?.clone();
        let Fitting { down, up } = self.layers.get(&target)?;
        Some(match part {
            Part::Down => Use::Down(target, down.clone()),
            Part::Up => Use::Up(target, up.to_vec()),
            _ => Use::Alpha(target),
        })
    }

    /// Says a layer's alpha, which was a tensor.
    pub fn set_alpha(&mut self, target: Target, alpha: f64) {
        self.alphas.insert(target, alpha);
    }

    /// `alpha / rank` of every layer.
    pub fn scalings(&self) -> BTreeMap<Target, f64> {
        let ranks: HashMap<Target, usize> =
            self.layers.iter().map(|(target, fitting)| (target.clone(), fitting.up[1])).collect();
        let scalings = self.components.iter().flat_map(|component| {
            self.config.scalings(component, &self.order, &ranks, &self.alphas)
        });
        scalings.collect()
    }

    /// A factor that the file does not have.
    pub fn missing(&self, target: &Target, factor: &str) -> Error {
        missing(&self.file, target, factor)
    }
}

fn name((component, path): &Target, factor: &str) -> String {
    format!("{component}.{path}.{factor}.weight")
}

fn missing(file: &str, target: &Target, factor: &str) -> Error {
    Error::MissingTensor { file: file.into(), name: name(target, factor), expected: Vec::new() }
}

fn unreadable(file: &str, name: String, stub: &Stub) -> Error {
    let dtype = match stub {
        Stub::Tensor(shape) => format!("a tensor of shape {shape:?}"),
        Stub::Number(_) => "a number".into(),
        Stub::Other(what) => what.clone(),
    };
    Error::UnsupportedDtype { file: file.into(), name, dtype }
}

/// The places of both factors, of shapes that fit together and to the layer's `shape`.
fn pair(
    file: &str,
    target: &Target,
    parts: &Parts,
    shape: &[usize],
) -> Result<([usize; 2], Fitting)> {
    let (down, down_shape) = parts.down.as_ref().ok_or_else(|| missing(file, target, "lora_A"))?;
    let (up, up_shape) = parts.up.as_ref().ok_or_else(|| missing(file, target, "lora_B"))?;
    let rank = down_shape.first().copied().unwrap_or_default().max(1);
    let expected_down = [&[rank], shape.get(1..).unwrap_or_default()].concat();
    let expected_up = [shape.first().copied().unwrap_or_default(), rank];
    for (found, factor, expected) in
        [(down_shape, "lora_A", &expected_down[..]), (up_shape, "lora_B", &expected_up[..])]
    {
        if significant(found) != significant(expected) {
            return Err(Error::ShapeMismatch {
                file: file.into(),
                name: name(target, factor),
                expected: expected.to_vec(),
                found: found.clone(),
            });
        }
    }
    Ok(([*down, *up], Fitting { down: expected_down, up: expected_up }))
}

/// A 1x1 convolution's shape is that of a dense layer.
fn significant(shape: &[usize]) -> &[usize] {
    match shape {
        [outputs_inputs @ .., 1, 1] if outputs_inputs.len() == 2 => outputs_inputs,
        _ => shape,
    }
}
