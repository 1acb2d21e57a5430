//! Reads what `torch.save` writes (`.bin`, `.pt`, `.ckpt`) without running anything, and writes it.
//!
//! A pickle is a program. The machine here knows the operations that build dictionaries of
//! tensors, and refuses a file that needs any other. Memory is bounded: texts and storages stay in
//! the file's bytes, tensors together are no larger than the file, and the number of operations is
//! limited.

mod archive;
mod cursor;
mod graph;
mod machine;
mod write;

pub use archive::is_torch_file;
pub use write::write;

use self::graph::{Element, Graph, TensorNode, Value};
use super::{Dtype, HostTensor};
use crate::error::{Error, Result};

/// What a file holds.
#[derive(Debug)]
pub struct Pickle<'a> {
    graph: Graph<'a>,
    root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads `bytes`, the contents of `file`, in either of torch's containers.
    ///
    /// # Errors
    /// [`Error::InvalidPickle`] naming the operation or the global that is not allowed, or what
    /// else is wrong.
    pub fn parse(file: &str, bytes: &'a [u8]) -> Result<Self> {
        match archive::read(bytes) {
            Ok((graph, root)) => Ok(Self { graph, root }),
            Err(message) => Err(Error::InvalidPickle { file: file.into(), message }),
        }
    }

    /// The object itself.
    pub fn root(&self) -> Item<'_> {
        Item { graph: &self.graph, value: self.root }
    }
}

/// A value inside a file. Lists may contain themselves, so an item is a place to look from, not a
/// tree to walk.
#[derive(Debug, Clone, Copy)]
pub struct Item<'p> {
    graph: &'p Graph<'p>,
    value: Value<'p>,
}

impl<'p> Item<'p> {
    fn at(self, value: Value<'p>) -> Self {
        Self { value, ..self }
    }

    /// A dictionary's value under a text.
    pub fn get(self, key: &str) -> Option<Self> {
        self.graph.get(self.value, key).map(|value| self.at(value))
    }

    /// A dictionary's entries, in order.
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (Self, Self)>> {
        let entries = self.graph.entries(self.value)?;
        Some(entries.iter().map(move |(key, value)| (self.at(*key), self.at(*value))))
    }

    /// The elements of a list or a tuple, in order.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Self>> {
        let items = self.graph.items(self.value)?;
        Some(items.iter().map(move |value| self.at(*value)))
    }

    /// A text.
    pub fn as_str(self) -> Option<&'p str> {
        match self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, or a tensor of one integer.
    pub fn as_i64(self) -> Option<i64> {
        match self.value {
            Value::Int(value) => value.try_into().ok(),
            Value::Bool(value) => Some(value.into()),
            Value::Tensor(_) => match self.as_tensor()?.to_i64()?.as_slice() {
                [value] => Some(*value),
                _ => None,
            },
            _ => None,
        }
    }

    /// A number, or a tensor of one number.
    pub fn as_f64(self) -> Option<f64> {
        match self.value {
            Value::Float(value) => Some(value),
            Value::Tensor(_) => match self.as_tensor()?.to_host() {
                Ok(tensor) if tensor.shape().iter().product::<usize>() == 1 => {
                    tensor.to_f32().first().map(|value| f64::from(*value))
                }
                _ => self.as_i64().map(|value| value as f64),
            },
            _ => self.as_i64().map(|value| value as f64),
        }
    }

    /// Whether it is Python's `None`.
    pub fn is_none(self) -> bool {
        matches!(self.value, Value::None)
    }

    /// A tensor.
    pub fn as_tensor(self) -> Option<TensorItem<'p>> {
        match self.value {
            Value::Tensor(index) => {
                let (node, storage) = self.graph.tensor(index);
                let bytes = storage.elements().expect("checked when the file was read");
                Some(TensorItem { node, element: storage.element, bytes })
            }
            _ => None,
        }
    }
}

/// A tensor inside a file.
#[derive(Debug, Clone, Copy)]
pub struct TensorItem<'p> {
    node: &'p TensorNode,
    element: Element,
    bytes: &'p [u8],
}

impl TensorItem<'_> {
    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.node.shape
    }

    /// Whether [`to_host`](Self::to_host) has values.
    pub fn is_float(&self) -> bool {
        matches!(self.element, Element::F16 | Element::Bf16 | Element::F32 | Element::F64)
    }

    /// The values of a tensor of floats; double precision becomes single.
    ///
    /// # Errors
    /// The name of another type.
    pub fn to_host(&self) -> std::result::Result<HostTensor, String> {
        let shape = self.node.shape.clone();
        let dtype = match self.element {
            Element::F16 => Dtype::F16,
            Element::Bf16 => Dtype::Bf16,
            Element::F32 => Dtype::F32,
            Element::F64 => {
                let values = self.elements(|bytes| f64::from_le_bytes(bytes) as f32);
                return Ok(HostTensor::from_f32(shape, &values));
            }
            other => return Err(format!("{other:?}")),
        };
        let bytes = match dtype.size() {
            2 => self.elements(|bytes: [u8; 2]| bytes).into_flattened(),
            _ => self.elements(|bytes: [u8; 4]| bytes).into_flattened(),
        };
        Ok(HostTensor::new(shape, dtype, bytes))
    }

    /// The values of a tensor of integers.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        Some(match self.element {
            Element::I64 => self.elements(i64::from_le_bytes),
            Element::I32 => self.elements(|bytes| i32::from_le_bytes(bytes).into()),
            Element::I16 => self.elements(|bytes| i16::from_le_bytes(bytes).into()),
            Element::I8 => self.elements(|bytes| i8::from_le_bytes(bytes).into()),
            Element::U8 => self.elements(|[byte]| byte.into()),
            _ => return None,
        })
    }

    /// The elements in row-major order, whatever the strides.
    fn elements<const N: usize, T>(&self, parse: impl Fn([u8; N]) -> T) -> Vec<T> {
        let TensorNode { shape, strides, offset, .. } = self.node;
        let stored = self.bytes.as_chunks::<N>().0;
        let count = self.node.count().expect("counted when the file was read");
        let mut index = vec![0; shape.len()];
        let mut at = *offset;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(parse(stored[at]));
            for axis in (0..shape.len()).rev() {
                // Beyond the last element of an axis the sum may leave the range of the type; it
                // comes back before it is used.
                index[axis] += 1;
                at = at.wrapping_add(strides[axis]);
                if index[axis] < shape[axis] {
                    break;
                }
                at = at.wrapping_sub(strides[axis].wrapping_mul(shape[axis]));
                index[axis] = 0;
            }
        }
        values
    }
}

#[cfg(test)]
mod tests;
