//! Fills a model from its weight files, one tensor at a time.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::safetensors::LENGTH_BYTES;
use super::{Header, HostTensor, TensorInfo};
use crate::error::{Error, Result};
use crate::hub::{FileReader, ModelFiles};
use crate::models::module::{Module, Parameter, Placement, WeightDtype, rows};

/// Files by the names that errors call them by.
type OpenFiles<'a> = Vec<(String, Box<dyn FileReader + 'a>)>;

type Rename<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// The weight files of one component, opened.
pub struct WeightFiles<'a> {
    component: String,
    files: OpenFiles<'a>,
    /// The model's key for a key of the files; nothing for what the model has no use for.
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
        for name in names {
            let path = format!("{component}/{name}");
            let files = match Self::open_one(model, component, &path).await {
                Err(Error::NotFound { .. }) => continue,
                other => other?,
            };
            let key = Box::new(|name: &str| Some(current_key(name)));
            return Ok(Self { component: component.to_owned(), files, key });
        }
        Err(Error::NotFound { url: model.address(&format!("{component}/{}", plain[0])) })
    }

    /// Opens a file that holds several components under other names: `key` gives those of the model
    /// that it is loaded into.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_whole(
        model: &'a dyn ModelFiles,
        path: &str,
        key: impl Fn(&str) -> Option<String> + 'a,
    ) -> Result<Self> {
        let files = vec![(path.to_owned(), model.open(path).await?)];
        Ok(Self { component: "checkpoint".into(), files, key: Box::new(key) })
    }

    async fn open_one(
        model: &'a dyn ModelFiles,
        component: &str,
        path: &str,
    ) -> Result<OpenFiles<'a>> {
        if !path.ends_with(".json") {
            let reader = model.open(path).await?;
            return Ok(vec![(path.to_owned(), reader)]);
        }
        let json = model.read(path).await?;
        let mut files = Vec::new();
        for shard in super::index::shards(path, &json)? {
            let shard = format!("{component}/{shard}");
            let reader = model.open(&shard).await?;
            files.push((shard, reader));
        }
        Ok(files)
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, reader)| reader.size()).sum()
    }
}

/// Reads the files in order and fills `model`, dropping each tensor's bytes once it is on the device.
/// Returns the keys that the model has no use for.
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
    let WeightFiles { component, mut files, key } = files;
    let result = fill(model, &component, &mut files, &*key, placement, on_progress).await;
    let content = matches!(
        result,
        Err(Error::InvalidSafetensors { .. }
            | Error::MissingTensor { .. }
            | Error::ShapeMismatch { .. }
            | Error::UnsupportedDtype { .. })
    );
    if content {
        for (_, reader) in &mut files {
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
    let WeightFiles { component, files, .. } = files;
    for (file, mut reader) in files {
        let mut report = || on_progress(Progress { component: &component, file: &file });
        let header = read_header(&file, &mut *reader, &mut report).await;
        if header.is_err() {
            reader.reject().await;
        }
        for tensor in header?.tensors {
            reader.skip(tensor.end - tensor.start, &mut report).await?;
        }
        reader.finish(&mut report).await?;
    }
    Ok(())
}

async fn fill(
    model: &mut dyn Module,
    component: &str,
    files: &mut [(String, Box<dyn FileReader + '_>)],
    key_of: &dyn Fn(&str) -> Option<String>,
    placement: &Placement,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<String>> {
    let mut missing = shapes(model);
    let mut unused = Vec::new();
    let mut plans = Vec::new();
    for (file, reader) in files.iter_mut() {
        let mut report = || on_progress(Progress { component, file });
        let header = read_header(file, &mut **reader, &mut report).await?;
        let mut plan = Vec::new();
        for tensor in header.tensors {
            let found = key_of(&tensor.name).and_then(|key| missing.remove_entry(&key));
            let target = match found {
                Some((key, shape)) => Some((key, check(file, &tensor, &shape)?)),
                None => {
                    unused.push(tensor.name.clone());
                    None
                }
            };
            plan.push((tensor, target));
        }
        plans.push(plan);
    }
    if let Some((name, expected)) = missing.into_iter().next() {
        let file = files.last().map_or_else(|| component.to_owned(), |(file, _)| file.clone());
        return Err(Error::MissingTensor { file, name, expected });
    }
    let mut queue = Queue { device: &placement.device, bytes: 0 };
    for ((file, reader), plan) in files.iter_mut().zip(plans) {
        let mut report = || on_progress(Progress { component, file });
        for (tensor, target) in plan {
            let length = tensor.end - tensor.start;
            let Some((key, dtype)) = target else {
                reader.skip(length, &mut report).await?;
                continue;
            };
            let mut parameter = Slot { model: &mut *model, key: &key };
            let writer =
                if length > PART_MAX { parameter.with(|p| p.writer(placement)) } else { None };
            let Some(mut writer) = writer.flatten() else {
                queue.make_room(length);
                let bytes = reader.read(length, &mut report).await?;
                let host = HostTensor::new(tensor.shape, dtype, bytes);
                parameter.with(|parameter| parameter.load(host, placement));
                continue;
            };
            let count = tensor.shape[0];
            let row = length / count as u64;
            let step = (PART_MAX / row).max(1) as usize;
            for first in (0..count).step_by(step) {
                let mut shape = tensor.shape.clone();
                shape[0] = step.min(count - first);
                let length = row * shape[0] as u64;
                queue.make_room(length);
                let bytes = reader.read(length, &mut report).await?;
                let host = HostTensor::new(shape.clone(), dtype, bytes);
                writer.write(rows(host, &shape));
            }
            parameter.with(|parameter| parameter.set(writer.finish()));
        }
        reader.finish(&mut report).await?;
    }
    Ok(unused)
}

/// A parameter of a model, by its key.
struct Slot<'a> {
    model: &'a mut dyn Module,
    key: &'a str,
}

impl Slot<'_> {
    /// Does something with the parameter.
    fn with<T>(&mut self, work: impl FnOnce(&mut dyn Parameter) -> T) -> Option<T> {
        let (mut work, mut result) = (Some(work), None);
        self.model.visit("", &mut |path, parameter| {
            if path == self.key
                && let Some(work) = work.take()
            {
                result = Some(work(parameter));
            }
        });
        result
    }
}

/// Weights of more bytes come in parts of about as many, so that none is ever whole in host memory.
const PART_MAX: u64 = 1 << 20;

/// Bytes that may wait in host memory until the GPU takes them.
const QUEUED_MAX: u64 = 16 << 20;

/// What waits in host memory until the GPU takes it.
struct Queue<'a> {
    #[cfg_attr(not(feature = "wgpu"), expect(dead_code))]
    device: &'a Device,
    bytes: u64,
}

impl Queue<'_> {
    /// Makes room for more.
    fn make_room(&mut self, bytes: u64) {
        if self.bytes + bytes > QUEUED_MAX {
            #[cfg(feature = "wgpu")]
            crate::kernels::flush(self.device);
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

async fn read_header(
    file: &str,
    reader: &mut dyn FileReader,
    report: &mut dyn FnMut(),
) -> Result<Header> {
    let size = reader.size();
    let mut bytes = reader.read(LENGTH_BYTES.min(size), report).await?;
    let length = Header::length(file, &bytes, size)?;
    bytes.extend(reader.read(length, report).await?);
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
