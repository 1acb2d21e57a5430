//! The tensors of a file, put together from its bytes in whatever order these come.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::{Dtype, HostTensor, TensorInfo};
use crate::hub::Piece;
use crate::kernels::MatrixWriter;
use crate::models::module::{Module, Parameter, Placement, rows};

/// Weights of more bytes come in parts of about as many, so that none is ever whole in host memory but those that are kept
/// as floats of 32 bits.
const PART_MAX: usize = 1 << 20;

/// Bytes that may wait in host memory until the GPU takes them.
const QUEUED_MAX: u64 = 16 << 20;

/// A tensor of a file, and the parameter that it is for, if any.
pub(super) struct Planned {
    pub tensor: TensorInfo,
    /// What it is for.
    pub target: Option<Target>,
}

/// A parameter that takes a tensor.
pub(super) struct Target {
    /// The model's key.
    pub key: String,
    /// The type to read.
    pub dtype: Dtype,
    /// Whether the file has columns in place of rows.
    pub transposed: bool,
}

/// What has arrived of a tensor.
enum State {
    Nothing,
    /// All of it, once `missing` bytes more are there.
    Whole {
        bytes: Vec<u8>,
        missing: usize,
    },
    Rows(Box<Rows>),
}

/// The tensors of a file, in the order of their bytes.
pub(super) struct Assembly<'a> {
    tensors: Vec<(Planned, State)>,
    placement: &'a Placement,
}

impl<'a> Assembly<'a> {
    pub fn new(plan: Vec<Planned>, placement: &'a Placement) -> Self {
        let tensors = plan.into_iter().map(|planned| (planned, State::Nothing)).collect();
        Self { tensors, placement }
    }

    /// Takes bytes of the file, and fills the parameters that they complete. Each byte comes once.
    pub fn take(&mut self, piece: &Piece, model: &mut dyn Module, queue: &mut Queue<'_>) {
        let end = piece.start + piece.bytes.len() as u64;
        let first = self.tensors.partition_point(|(planned, _)| planned.tensor.end <= piece.start);
        for (Planned { tensor, target }, state) in &mut self.tensors[first..] {
            if tensor.start >= end {
                break;
            }
            let Some(Target { key, dtype, transposed }) = target else { continue };
            let (from, to) = (tensor.start.max(piece.start), tensor.end.min(end));
            let bytes = &piece.bytes[(from - piece.start) as usize..(to - piece.start) as usize];
            let at = (from - tensor.start) as usize;
            let length = (tensor.end - tensor.start) as usize;
            let mut parameter = Slot { model: &mut *model, key };
            if matches!(state, State::Nothing) {
                let whole = *transposed;
                let arrived = bytes.len();
                *state = State::new(tensor, *dtype, arrived, &mut parameter, self.placement, whole);
            }
            match state {
                State::Rows(rows) => {
                    rows.take(at, bytes, queue);
                    if rows.writer.is_full()
                        && let State::Rows(rows) = std::mem::replace(state, State::Nothing)
                    {
                        parameter.with(|parameter| parameter.set(rows.writer.finish()));
                    }
                    continue;
                }
                State::Whole { bytes: all, missing } => {
                    all[at..at + bytes.len()].copy_from_slice(bytes);
                    *missing -= bytes.len();
                    if *missing > 0 {
                        continue;
                    }
                }
                State::Nothing => {}
            }
            let bytes = match std::mem::replace(state, State::Nothing) {
                State::Whole { bytes, .. } => bytes,
                _ => bytes.to_vec(),
            };
            queue.make_room(length as u64);
            let host = HostTensor::new(tensor.shape.clone(), *dtype, bytes);
            let host = if *transposed { host.from_columns() } else { host };
            parameter.with(|parameter| parameter.load(host, self.placement));
        }
    }
}

impl State {
    /// How a tensor is to be put together of which the first `arrived` bytes come. Nothing is needed
    /// for one that comes all at once.
    fn new(
        tensor: &TensorInfo,
        dtype: Dtype,
        arrived: usize,
        parameter: &mut Slot<'_>,
        placement: &Placement,
        whole: bool,
    ) -> Self {
        let length = (tensor.end - tensor.start) as usize;
        let writer = match length > PART_MAX && !whole {
            true => parameter.with(|parameter| parameter.writer(placement)).flatten(),
            false => None,
        };
        match writer {
            Some(writer) => Self::Rows(Box::new(Rows {
                writer,
                row: length / tensor.shape[0],
                shape: tensor.shape.clone(),
                dtype,
                cut: BTreeMap::new(),
            })),
            None if arrived < length => Self::Whole { bytes: vec![0; length], missing: length },
            None => Self::Nothing,
        }
    }
}

/// A weight that is written to the device row by row.
struct Rows {
    writer: MatrixWriter,
    /// Bytes of a row in the file.
    row: usize,
    shape: Vec<usize>,
    dtype: Dtype,
    /// Rows of which a part has arrived, and how many bytes that is.
    cut: BTreeMap<usize, (Vec<u8>, usize)>,
}

impl Rows {
    /// Takes bytes that begin `at` bytes into the weight.
    fn take(&mut self, mut at: usize, mut bytes: &[u8], queue: &mut Queue<'_>) {
        while !bytes.is_empty() {
            let (first, inside) = (at / self.row, at % self.row);
            let taken = if inside > 0 || bytes.len() < self.row {
                let count = bytes.len().min(self.row - inside);
                let empty = || (vec![0; self.row], 0);
                let (row, there) = self.cut.entry(first).or_insert_with(empty);
                row[inside..inside + count].copy_from_slice(&bytes[..count]);
                *there += count;
                if *there == self.row
                    && let Some((row, _)) = self.cut.remove(&first)
                {
                    self.write(first, row, queue);
                }
                count
            } else {
                let count = (bytes.len() / self.row).min((PART_MAX / self.row).max(1)) * self.row;
                self.write(first, bytes[..count].to_vec(), queue);
                count
            };
            at += taken;
            bytes = &bytes[taken..];
        }
    }

    fn write(&mut self, first: usize, bytes: Vec<u8>, queue: &mut Queue<'_>) {
        queue.make_room(bytes.len() as u64);
        let mut shape = self.shape.clone();
        shape[0] = bytes.len() / self.row;
        let host = HostTensor::new(shape.clone(), self.dtype, bytes);
        self.writer.write(first, rows(host, &shape));
    }
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

/// What waits in host memory until the GPU takes it.
pub(super) struct Queue<'a> {
    #[cfg_attr(not(feature = "wgpu"), expect(dead_code))]
    device: &'a Device,
    bytes: u64,
}

impl<'a> Queue<'a> {
    pub fn new(device: &'a Device) -> Self {
        Self { device, bytes: 0 }
    }

    /// Makes room for more.
    pub fn make_room(&mut self, bytes: u64) {
        if self.bytes + bytes > QUEUED_MAX {
            #[cfg(feature = "wgpu")]
            crate::kernels::flush(self.device);
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;
    use crate::models::WeightDtype;
    use crate::models::module::{Values, Vector, Weight, module};
    use crate::weights::{Header, header};

    struct Model {
        /// In parts, by whole rows.
        dense: Weight,
        conv: Weight,
        /// Rows that are not of whole words.
        odd: Weight,
        small: Weight,
        vector: Vector,
    }

    module!(Model { dense, conv, odd, small, vector });

    fn model() -> Model {
        Model {
            dense: Weight::new([300, 2048]),
            conv: Weight::new([600, 130, 3, 3]),
            odd: Weight::new([1200, 501]),
            small: Weight::new([40, 32]),
            vector: Vector::new(77),
        }
    }

    /// All values on the device.
    fn values(model: &mut Model) -> BTreeMap<String, Vec<f32>> {
        let mut all = BTreeMap::new();
        model.visit("", &mut |path, parameter| {
            let data = match parameter.values().expect("loaded") {
                Values::Vector(vector) => vector.into_data(),
                Values::Weight(matrix) => matrix.to_float(burn::tensor::DType::F32).into_data(),
            };
            all.insert(path.to_owned(), data.iter::<f32>().collect());
        });
        all
    }

    /// A number below `below`, and the next state.
    fn random(state: &mut u64, below: usize) -> usize {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    }

    #[test]
    fn tensors_are_the_same_in_whatever_order_their_bytes_come() {
        for (dtype, weights) in [
            (Dtype::F16, WeightDtype::F16),
            (Dtype::F32, WeightDtype::F16),
            (Dtype::F16, WeightDtype::F32),
            (Dtype::F32, WeightDtype::I8),
            (Dtype::F16, WeightDtype::I4),
        ] {
            let mut shapes = Vec::new();
            model().visit("", &mut |path, parameter| {
                shapes.push((path.to_owned(), parameter.shape().to_vec()));
            });
            // One that the model has no use for.
            shapes.insert(2, ("other".into(), vec![5000]));
            let tensors = shapes.iter().map(|(key, shape)| (key.as_str(), dtype, &shape[..]));
            let mut file = header(tensors);
            let data: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            let start = file.len();
            file.extend((0..data).flat_map(|i| {
                let value = (i.wrapping_mul(2_654_435_761) >> 7 & 2047) as f32;
                match dtype {
                    Dtype::F32 => value.to_le_bytes().to_vec(),
                    _ => half::f16::from_f32(value).to_le_bytes().to_vec(),
                }
            }));
            let header = Header::parse("f", &file[..start], file.len() as u64).expect("valid");
            let device = Device::flex();
            let placement = Placement { device: device.clone(), weights };
            let fill = |pieces: Vec<(usize, usize)>| {
                let plan = header.tensors.iter().map(|tensor| {
                    let key = tensor.name.clone();
                    let target = Target { key, dtype, transposed: false };
                    let target = (tensor.name != "other").then_some(target);
                    Planned { tensor: tensor.clone(), target }
                });
                let mut assembly = Assembly::new(plan.collect(), &placement);
                let (mut model, mut queue) = (model(), Queue::new(&device));
                for (from, to) in pieces {
                    let bytes = Rc::new(file[from..to].to_vec());
                    let piece = Piece { start: from as u64, bytes };
                    assembly.take(&piece, &mut model, &mut queue);
                }
                values(&mut model)
            };
            let expected = fill(vec![(0, file.len())]);
            assert_eq!(expected["vector"].len(), 77);
            assert!(expected["conv"].iter().any(|value| *value > 1000.0));
            let mut state = 7;
            for largest in [1000, 70_000, 3_000_000] {
                let mut pieces = Vec::new();
                let mut from = 0;
                while from < file.len() {
                    let to = (from + 1 + random(&mut state, largest)).min(file.len());
                    pieces.push((from, to));
                    from = to;
                }
                for i in (1..pieces.len()).rev() {
                    pieces.swap(i, random(&mut state, i + 1));
                }
                assert!(fill(pieces) == expected, "{dtype:?} as {weights:?} in {largest}");
            }
        }
    }
}
