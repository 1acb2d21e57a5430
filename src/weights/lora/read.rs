//! A LoRA's file, of which one tensor after the other is read.

use std::collections::BTreeMap;

use super::plan::{Plan, Stub};
use super::{Arriving, Keep, Lora, Targets};
use crate::error::{Error, Result};
use crate::hub::{FileReader, Piece};
use crate::models::{LoraFactor, Placement};
use crate::weights::assembly::Queue;
use crate::weights::load::read_header;
use crate::weights::pickle::{Pickle, TensorItem, is_torch_file};
use crate::weights::{Dtype, Header, HostTensor, state_dict};

/// As many bytes as tell what torch writes from safetensors.
const KIND_BYTES: u64 = 9;

/// Takes factors to where the models are, and has the device take what waits for it before that becomes much.
pub fn keeper(placement: &Placement) -> impl FnMut(HostTensor, &[usize]) -> LoraFactor {
    let mut queue = Queue::new(&placement.device);
    move |tensor, shape| {
        queue.make_room(tensor.bytes().len() as u64);
        LoraFactor::new(tensor, shape, placement)
    }
}

/// The LoRA in `bytes`, the contents of `file`: safetensors, or what torch writes. Only one tensor is copied at a time.
///
/// # Errors
/// What [`StateDict::parse`](crate::weights::StateDict::parse) and [`Lora::new`] say.
pub fn parse<T>(
    file: &str,
    bytes: &[u8],
    targets: &Targets,
    keep: &mut Keep<'_, T>,
) -> Result<Lora<T>> {
    if is_torch_file(bytes) {
        return parse_torch(file, bytes, targets, keep);
    }
    let header = Header::parse(file, bytes, bytes.len() as u64)?;
    let mut lora = Arriving::new(plan(file, &header, targets)?, keep);
    for (index, tensor) in header.tensors.into_iter().enumerate() {
        if let (true, Ok(dtype)) = (lora.plan.wants(index), tensor.dtype) {
            // The header was checked against the length of these very bytes.
            let data = &bytes[tensor.start as usize..tensor.end as usize];
            lora.take(index, HostTensor::new(tensor.shape, dtype, data.to_vec()));
        }
    }
    lora.finish()
}

fn parse_torch<T>(
    file: &str,
    bytes: &[u8],
    targets: &Targets,
    keep: &mut Keep<'_, T>,
) -> Result<Lora<T>> {
    let pickle = Pickle::parse(file, bytes)?;
    let items = state_dict::items(file, &pickle)?;
    let keys = items.iter().map(|(key, value)| {
        let stub = match value.as_tensor().filter(TensorItem::is_float) {
            Some(tensor) => Stub::Tensor(tensor.shape().to_vec()),
            None => Stub::of(&state_dict::entry(file, *value, false)),
        };
        (key.clone(), stub)
    });
    let plan = Plan::new(file, keys.collect(), &BTreeMap::new(), targets)?;
    let mut lora = Arriving::new(plan, keep);
    for (index, (_, value)) in items.into_iter().enumerate() {
        if lora.plan.wants(index)
            && let Some(Ok(tensor)) = value.as_tensor().map(|tensor| tensor.to_host())
        {
            lora.take(index, tensor);
        }
    }
    lora.finish()
}

/// As [`parse`] of a file whose bytes are still to come. Of safetensors no more is held at a time than the tensors of
/// which a part has come; what torch writes has to be there whole.
///
/// # Errors
/// As [`parse`], for names and shapes before the tensors are read; network errors; [`Error::HashMismatch`] when the
/// file has been read to its end and is not the one meant.
pub async fn read<T>(
    file: &str,
    reader: &mut dyn FileReader,
    targets: &Targets,
    keep: &mut Keep<'_, T>,
) -> Result<Lora<T>> {
    let lora = arrive(file, reader, targets, keep).await;
    let is_content = |error: &Error| {
        matches!(
            error,
            Error::InvalidSafetensors { .. }
                | Error::InvalidPickle { .. }
                | Error::UnknownKeys { .. }
                | Error::MissingTensor { .. }
                | Error::ShapeMismatch { .. }
                | Error::UnsupportedDtype { .. }
        )
    };
    if lora.as_ref().err().is_some_and(is_content) {
        reader.reject().await;
    }
    lora
}

async fn arrive<T>(
    file: &str,
    reader: &mut dyn FileReader,
    targets: &Targets,
    keep: &mut Keep<'_, T>,
) -> Result<Lora<T>> {
    let kind = reader.head(KIND_BYTES.min(reader.size()), &mut || ()).await?;
    if is_torch_file(&kind) {
        let bytes = read_whole(reader).await?;
        return parse(file, &bytes, targets, keep);
    }
    let header = read_header(file, reader, &mut || ()).await?;
    let mut lora = Arriving::new(plan(file, &header, targets)?, keep);
    let mut begun = Begun::new();
    while let Some(piece) = reader.next(&mut || ()).await? {
        take(&header, &piece, &mut begun, &mut lora);
    }
    reader.finish(&mut || ()).await?;
    lora.finish()
}

fn plan(file: &str, header: &Header, targets: &Targets) -> Result<Plan> {
    let keys = header.tensors.iter().map(|tensor| (tensor.name.clone(), Stub::of_tensor(tensor)));
    Plan::new(file, keys.collect(), &header.metadata, targets)
}

/// Tensors of which a part has come, by their places among all: their bytes, and how many of them are missing.
type Begun = BTreeMap<usize, (Vec<u8>, usize)>;

/// Takes bytes of the file, and has `lora` take the tensors that they complete. Each byte comes once.
fn take<T>(header: &Header, piece: &Piece, begun: &mut Begun, lora: &mut Arriving<'_, T>) {
    let end = piece.start + piece.bytes.len() as u64;
    let first = header.tensors.partition_point(|tensor| tensor.end <= piece.start);
    for (index, tensor) in header.tensors.iter().enumerate().skip(first) {
        if tensor.start >= end {
            break;
        }
        let (true, Ok(dtype)) = (lora.plan.wants(index), &tensor.dtype) else { continue };
        let (from, to) = (tensor.start.max(piece.start), tensor.end.min(end));
        let bytes = &piece.bytes[(from - piece.start) as usize..(to - piece.start) as usize];
        let length = (tensor.end - tensor.start) as usize;
        let whole = if bytes.len() == length {
            bytes.to_vec()
        } else {
            let (all, missing) = begun.entry(index).or_insert_with(|| (vec![0; length], length));
            let at = (from - tensor.start) as usize;
            all[at..at + bytes.len()].copy_from_slice(bytes);
            *missing -= bytes.len();
            match *missing {
                0 => begun.remove(&index).map(|(bytes, _)| bytes).unwrap_or_default(),
                _ => continue,
            }
        };
        lora.take(index, HostTensor::new(tensor.shape.clone(), Dtype::clone(dtype), whole));
    }
}

/// A file of any size, put together.
///
/// # Errors
/// Network errors; [`Error::HashMismatch`].
pub async fn read_whole(reader: &mut dyn FileReader) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(reader.size() as usize);
    while let Some(piece) = reader.next(&mut || ()).await? {
        let start = piece.start as usize;
        let end = start + piece.bytes.len();
        bytes.resize(end.max(bytes.len()), 0);
        bytes[start..end].copy_from_slice(&piece.bytes);
    }
    reader.finish(&mut || ()).await?;
    Ok(bytes)
}
