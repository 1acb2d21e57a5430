//! Fills a model from its weight files, each tensor when its bytes are there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use futures_util::future::try_join_all;

use super::assembly::{Assembly, Planned, Queue, Target};
use super::original::Place;
use super::safetensors::LENGTH_BYTES;
use super::{Dtype, Header, TensorInfo};
use crate::error::{Error, Result};
use crate::hub::{FileReader, ModelFiles};
use crate::kernels::Packing;
use crate::models::module::{Module, Placement, WeightDtype};

/// Files by the names that errors call them by.
type OpenFiles<'a> = Vec<(String, Box<dyn FileReader + 'a>)>;

type Rename<'a> = Box<dyn Fn(&TensorInfo) -> Option<Place> + 'a>;

/// The weight files of one component, opened.
pub struct WeightFiles<'a> {
    component: String,
    files: OpenFiles<'a>,
    /// Whether weights are kept in half precision at most.
    rounds: bool,
    /// Whether bytes that the model has no use for may be left out.
    in_part: bool,
    /// The place in the model of a tensor of the files; nothing for what the model has no use for.
    key: Rename<'a>,
}

/// What is being read. How much of it has arrived, [`ModelFiles::traffic`] tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress<'a> {
    /// The component whose file is read, e.g. `unet`.
    pub component: &'a str,
    /// The file's path inside the model.
    pub file: &'a str,
}

impl<'a> WeightFiles<'a> {
    /// Finds and opens a component's files: `component/stem.safetensors`, its `.fp16` variant, or
    /// shards. The variant that is stored as the weights will be kept comes first.
    ///
    /// # Errors
    /// [`Error::NotFound`] naming the plain file when there is none of them; network errors.
    pub async fn open(
        model: &'a dyn ModelFiles,
        component: &str,
        stem: &str,
        dtype: WeightDtype,
    ) -> Result<Self> {
        let plain = [format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")];
        let half = [
            format!("{stem}.fp16.safetensors"),
            format!("{stem}.safetensors.index.fp16.json"),
            format!("{stem}.fp16.safetensors.index.json"),
        ];
        let names: Vec<&String> = match dtype {
            WeightDtype::F16 | WeightDtype::I8 | WeightDtype::I4 => {
                half.iter().chain(&plain).collect()
            }
            WeightDtype::F32 => plain.iter().chain(&half).collect(),
        };
        let rounds = rounds(dtype);
        for name in names {
            let path = format!("{component}/{name}");
            let files = match Self::open_one(model, component, &path, rounds).await {
                Err(Error::NotFound { .. }) => continue,
                other => other?,
            };
            let key = Box::new(|tensor: &TensorInfo| Some(Place::Whole(current_key(&tensor.name))));
            let component = component.to_owned();
            return Ok(Self { component, files, rounds, in_part: false, key });
        }
        Err(Error::NotFound { url: model.address(&format!("{component}/{}", plain[0])) })
    }

    /// Opens a file that holds several components under other names: `key` gives the places in the model
    /// that it is loaded into.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_whole(
        model: &'a dyn ModelFiles,
        path: &str,
        dtype: WeightDtype,
        key: impl Fn(&TensorInfo) -> Option<Place> + 'a,
    ) -> Result<Self> {
        let rounds = rounds(dtype);
        let files = Self::open_one(model, "", path, rounds).await?;
        let (component, key) = ("checkpoint".into(), Box::new(key));
        Ok(Self { component, files, rounds, in_part: false, key })
    }

    /// Has bytes that the model has no use for be left out where they are in the cache, whole and proven to be right, or
    /// where nothing is kept nor known of them. [`ModelFiles::traffic`] does not count those.
    #[must_use]
    pub fn in_part(mut self) -> Self {
        self.in_part = true;
        self
    }

    async fn open_one(
        model: &'a dyn ModelFiles,
        component: &str,
        path: &str,
        rounds: bool,
    ) -> Result<OpenFiles<'a>> {
        let open = async |path: &str| match rounds {
            true => model.open_rounded(path).await,
            false => model.open(path).await,
        };
        if !path.ends_with(".json") {
            return Ok(vec![(path.to_owned(), open(path).await?)]);
        }
        let json = model.read(path).await?;
        let mut files = Vec::new();
        for shard in super::index::shards(path, &json)? {
            let shard = format!("{component}/{shard}");
            let reader = open(&shard).await?;
            files.push((shard, reader));
        }
        Ok(files)
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, reader)| reader.size()).sum()
    }

    /// Has the files' storage be counted as what weights for `model` take there: those of single precision, which
    /// sizes tell, are kept as halves.
    pub fn expect(&mut self, model: &mut dyn Module) {
        let (mut weights, mut others) = (0, 0);
        model.visit("", &mut |_, parameter| {
            let values = parameter.shape().iter().map(|side| *side as u64).product::<u64>();
            match parameter.packing(WeightDtype::F16) {
                Packing::Floats => others += values,
                _ => weights += values,
            }
        });
        let size = self.size();
        if !self.rounds || size < 4 * (weights + others) {
            return;
        }
        for (_, reader) in &mut self.files {
            let part =
                u128::from(2 * weights) * u128::from(reader.size()) / u128::from(size.max(1));
            reader.expect_rounded(part as u64);
        }
    }
}

/// Whether weights of this type are made of halves, whatever they were before.
fn rounds(dtype: WeightDtype) -> bool {
    dtype != WeightDtype::F32
}

/// Where the weights of single precision are. Biases and norms, of one axis, keep theirs.
fn single_weights(header: &Header) -> Vec<Range<u64>> {
    let weights = header.tensors.iter().filter(|tensor| {
        tensor.dtype == Ok(Dtype::F32) && tensor.shape.len() > 1 && tensor.end > tensor.start
    });
    weights.map(|tensor| tensor.start..tensor.end).collect()
}

/// Reads the files and fills `model`: each tensor goes to the device as soon as its bytes are there, in
/// whatever order they come. Returns the keys that the model has no use for.
///
/// # Errors
/// [`Error::InvalidSafetensors`], [`Error::MissingTensor`], [`Error::ShapeMismatch`] or
/// [`Error::UnsupportedDtype`], all before the first tensor is read; network errors;
/// [`Error::HashMismatch`] when a file has been read to its end and is not the one meant.
pub async fn load(
    model: &mut dyn Module,
    files: WeightFiles<'_>,
    placement: &Placement,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<String>> {
    let mut files = files;
    let result = fill(model, &mut files, placement, on_progress).await;
    let content = matches!(
        result,
        Err(Error::InvalidSafetensors { .. }
            | Error::MissingTensor { .. }
            | Error::ShapeMismatch { .. }
            | Error::UnsupportedDtype { .. })
    );
    if content {
        for (_, reader) in &mut files.files {
            reader.reject().await;
        }
    }
    result
}

/// Passes over all of the files, which are hashed and kept as if they had been read.
///
/// # Errors
/// [`Error::InvalidSafetensors`] for a file that is none; network errors; [`Error::HashMismatch`].
pub async fn pass_over(
    files: WeightFiles<'_>,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    let WeightFiles { component, files, rounds, .. } = files;
    let (component, on_progress) = (&component, &RefCell::new(on_progress));
    let parts = files.into_iter().map(|(file, mut reader)| async move {
        let mut report = || (on_progress.borrow_mut())(Progress { component, file: &file });
        let header = read_header(&file, &mut *reader, &mut report).await;
        match header {
            Ok(header) if rounds => reader.round(single_weights(&header)),
            Ok(_) => {}
            Err(error) => {
                reader.reject().await;
                return Err(error);
            }
        }
        reader.finish(&mut report).await
    });
    try_join_all(parts).await.map(|_| ())
}

async fn fill(
    model: &mut dyn Module,
    files: &mut WeightFiles<'_>,
    placement: &Placement,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<String>> {
    let WeightFiles { component, files, rounds, in_part, key: key_of } = files;
    let component = component.as_str();
    let mut missing = shapes(model);
    let mut unused = Vec::new();
    let mut plans = Vec::new();
    for (file, reader) in files.iter_mut() {
        let mut report = || on_progress(Progress { component, file });
        let header = read_header(file, &mut **reader, &mut report).await?;
        if *rounds {
            reader.round(single_weights(&header));
        }
        let mut plan = Vec::new();
        for tensor in header.tensors {
            let name = tensor.name.clone();
            let before = missing.len();
            for (tensor, key, transposed) in places(tensor, key_of) {
                let found = key.and_then(|key| missing.remove_entry(&key));
                let target = match found {
                    Some((key, shape)) => {
                        let dtype = check(file, &tensor, &shape)?;
                        Some(Target { key, dtype, transposed })
                    }
                    None => None,
                };
                plan.push(Planned { tensor, target });
            }
            if missing.len() == before {
                unused.push(name);
            }
        }
        if *in_part {
            reader.only(&used(&plan));
        }
        plans.push(plan);
    }
    if let Some((name, expected)) = missing.into_iter().next() {
        let file = files.last().map_or_else(|| component.to_owned(), |(file, _)| file.clone());
        return Err(Error::MissingTensor { file, name, expected });
    }
    let model = RefCell::new(model);
    let queue = RefCell::new(Queue::new(&placement.device));
    let on_progress = RefCell::new(on_progress);
    let parts = files.iter_mut().zip(plans).map(|((file, reader), plan)| {
        let (model, queue, on_progress) = (&model, &queue, &on_progress);
        async move {
            let mut report = || (on_progress.borrow_mut())(Progress { component, file });
            let mut tensors = Assembly::new(plan, placement);
            while let Some(piece) = reader.next(&mut report).await? {
                tensors.take(&piece, &mut **model.borrow_mut(), &mut queue.borrow_mut());
            }
            reader.finish(&mut report).await
        }
    });
    try_join_all(parts).await?;
    Ok(unused)
}

/// Where the tensors are that the model has a use for.
fn used(plan: &[Planned]) -> Vec<Range<u64>> {
    let wanted = plan.iter().filter(|planned| planned.target.is_some());
    wanted.map(|Planned { tensor, .. }| tensor.start..tensor.end).collect()
}

/// What a tensor is made of, each with its key in the model, and whether it is transposed to that.
fn places(
    tensor: TensorInfo,
    key_of: &dyn Fn(&TensorInfo) -> Option<Place>,
) -> Vec<(TensorInfo, Option<String>, bool)> {
    match key_of(&tensor) {
        None => vec![(tensor, None, false)],
        Some(Place::Whole(key)) => vec![(tensor, Some(key), false)],
        // Of another number of axes it has not the shape that is wanted either.
        Some(Place::Transposed(key)) if tensor.shape.len() != 2 => vec![(tensor, Some(key), false)],
        Some(Place::Transposed(key)) => {
            let shape = tensor.shape.iter().rev().copied().collect();
            vec![(TensorInfo { shape, ..tensor }, Some(key), true)]
        }
        Some(Place::Rows(keys)) => {
            let count = keys.len();
            let mut shape = tensor.shape.clone();
            match shape.first_mut() {
                Some(rows) if rows.is_multiple_of(count) => *rows /= count,
                // Not a shape that any of them has.
                _ => return vec![(tensor, keys.into_iter().next(), false)],
            }
            let bytes = (tensor.end - tensor.start) / count as u64;
            let part = |(i, key)| {
                let start = tensor.start + i as u64 * bytes;
                let part = TensorInfo {
                    name: tensor.name.clone(),
                    shape: shape.clone(),
                    dtype: tensor.dtype.clone(),
                    start,
                    end: start + bytes,
                };
                (part, Some(key), false)
            };
            keys.into_iter().enumerate().map(part).collect()
        }
    }
}

/// The beginning of a file of weights alone, for what its header says. Nothing of it is handed out.
///
/// # Errors
/// As [`load`].
pub async fn peek(model: &dyn ModelFiles, path: &str) -> Result<Header> {
    let mut reader = model.open_rounded(path).await?;
    model.prepare().await?;
    let header = read_header(path, &mut *reader, &mut || ()).await;
    drop(reader);
    if header.is_err() {
        model.stop().await;
    }
    header
}

/// The header of a file of which nothing was handed out yet.
pub(super) async fn read_header(
    file: &str,
    reader: &mut dyn FileReader,
    report: &mut dyn FnMut(),
) -> Result<Header> {
    let size = reader.size();
    let bytes = reader.head(LENGTH_BYTES.min(size), report).await?;
    let length = LENGTH_BYTES + Header::length(file, &bytes, size)?;
    let bytes = reader.head(length, report).await?;
    Header::parse(file, &bytes, size)
}

fn shapes(model: &mut dyn Module) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    model.visit("", &mut |path, parameter| {
        shapes.insert(path.to_owned(), parameter.shape().to_vec());
    });
    shapes
}

/// The type that a tensor can be read as, once its shape is what the model expects. Checkpoints may
/// store a dense layer as a 1x1 convolution and the other way round.
fn check(file: &str, tensor: &TensorInfo, expected: &[usize]) -> Result<super::Dtype> {
    let significant = |shape: &[usize]| {
        let end = if shape.len() == 4 && shape[2..] == [1, 1] { 2 } else { shape.len() };
        shape[..end].to_vec()
    };
    if significant(&tensor.shape) != significant(expected) {
        return Err(Error::ShapeMismatch {
            file: file.into(),
            name: tensor.name.clone(),
            expected: expected.to_vec(),
            found: tensor.shape.clone(),
        });
    }
    tensor.dtype.clone().map_err(|dtype| Error::UnsupportedDtype {
        file: file.into(),
        name: tensor.name.clone(),
        dtype,
    })
}

/// Autoencoders saved before diffusers 0.13 name the layers of their attention differently.
fn current_key(name: &str) -> String {
    if !name.contains("mid_block.attentions.") {
        return name.to_owned();
    }
    let old = [
        (".query.", ".to_q."),
        (".key.", ".to_k."),
        (".value.", ".to_v."),
        (".proj_attn.", ".to_out.0."),
    ];
    old.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_of_the_autoencoder_are_known() {
        let key = current_key("decoder.mid_block.attentions.0.proj_attn.weight");
        assert_eq!(key, "decoder.mid_block.attentions.0.to_out.0.weight");
        assert_eq!(current_key("a.key.weight"), "a.key.weight");
    }
}
