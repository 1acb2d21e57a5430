//! Models as trees of parameters that are filled one at a time.

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::lora::LoraBranch;
use crate::kernels::{Bits, Matrix, MatrixWriter, Packing, StandIn};
use crate::weights::HostTensor;

/// How weights are kept on the device. Biases and norms are always `f32`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WeightDtype {
    /// Half precision, two to a word.
    #[default]
    #[serde(rename = "float16")]
    F16,
    /// Single precision.
    #[serde(rename = "float32")]
    F32,
    /// Eight bits, with a scale for 64 neighbours: a half of `F16`. The VAE and the safety checker, what has a number of
    /// channels that is no multiple of 8, and tables of vectors are in `F16`.
    #[serde(rename = "int8")]
    I8,
    /// Four bits, with a scale for 32 neighbours: a quarter of `F16`, otherwise as `I8`.
    #[serde(rename = "int4")]
    I4,
}

impl WeightDtype {
    /// What users call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::I8 => "int8",
            Self::I4 => "int4",
        }
    }

    /// The next one that takes less memory.
    pub const fn smaller(self) -> Option<Self> {
        match self {
            Self::F32 => Some(Self::F16),
            Self::F16 => Some(Self::I8),
            Self::I8 => Some(Self::I4),
            Self::I4 => None,
        }
    }

    /// How a weight of `shape` is kept, where it may be `in_integers`.
    pub fn packing(self, shape: &[usize], in_integers: bool) -> Packing {
        let bits = match self {
            Self::F32 => return Packing::Floats,
            Self::F16 => return Packing::Halves,
            Self::I8 => Bits::Eight,
            Self::I4 => Bits::Four,
        };
        // Kernels read four channels at a time, and rows are of whole words.
        if in_integers && shape[1].is_multiple_of(8) {
            Packing::Integers(bits)
        } else {
            Packing::Halves
        }
    }
}

/// Where parameters go.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device that computes.
    pub device: Device,
    /// How weights are kept there.
    pub weights: WeightDtype,
}

/// What a parameter holds on the device.
#[derive(Debug, Clone)]
pub enum Values {
    /// Of a [`Vector`].
    Vector(Tensor<1>),
    /// Of a [`Weight`], channels last.
    Weight(Matrix),
}

impl Values {
    /// Whether they are kept in half precision.
    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Weight(matrix) if matrix.is_packed())
    }
}

/// One tensor of a checkpoint.
pub trait Parameter {
    /// How the values are kept on the device.
    fn packing(&self, _weights: WeightDtype) -> Packing {
        Packing::Floats
    }

    /// The shape that the configuration implies, as checkpoints store it.
    fn shape(&self) -> &[usize];

    /// Whether it has its values.
    fn is_loaded(&self) -> bool;

    /// The values, if they are loaded.
    fn values(&self) -> Option<Values>;

    /// Converts and uploads the values. `tensor` has as many elements as [`shape`](Self::shape).
    fn load(&mut self, tensor: HostTensor, placement: &Placement);

    /// What takes a weight's rows one after the other, where it may come so: some of them at a time,
    /// in [`rows`], and then the whole, in [`set`](Self::set).
    fn writer(&self, _placement: &Placement) -> Option<MatrixWriter> {
        None
    }

    /// Takes a weight whose rows were written. A vector has none.
    fn set(&mut self, _matrix: Matrix) {}

    /// Fills it with what stands for its values.
    fn stand_in(&mut self, values: StandIn, placement: &Placement);

    /// Lets go of the values.
    fn unload(&mut self);

    /// Never to be kept in integers.
    fn refuse_integers(&mut self) {}

    /// The weight of a dense layer or a convolution, which adapters may be put beside.
    fn as_weight(&mut self) -> Option<&mut Weight> {
        None
    }
}

/// A bias, or a norm's scale or shift, `[C]`.
#[derive(Debug, Clone)]
pub struct Vector {
    shape: [usize; 1],
    value: Option<Tensor<1>>,
}

impl Vector {
    /// An empty vector of `length`.
    pub fn new(length: usize) -> Self {
        Self { shape: [length], value: None }
    }

    /// The loaded values.
    pub fn value(&self) -> &Tensor<1> {
        self.value.as_ref().expect("a model runs only when every parameter is loaded")
    }
}

impl Parameter for Vector {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn is_loaded(&self) -> bool {
        self.value.is_some()
    }

    fn values(&self) -> Option<Values> {
        self.value.clone().map(Values::Vector)
    }

    fn load(&mut self, tensor: HostTensor, placement: &Placement) {
        let data = TensorData::new(tensor.to_f32(), self.shape);
        self.value = Some(Tensor::from_data(data, (&placement.device, DType::F32)));
    }

    fn stand_in(&mut self, values: StandIn, placement: &Placement) {
        self.value = Some(values.floats(self.shape, &placement.device));
    }

    fn unload(&mut self) {
        self.value = None;
    }
}

/// A weight of two dimensions or more: `[O, I]`, `[V, C]` or `[O, I, kh, kw]`.
#[derive(Debug, Clone)]
pub struct Weight {
    shape: Vec<usize>,
    value: Option<Matrix>,
    /// Whether it multiplies activations; a table of vectors does not.
    multiplies: bool,
    /// Whether it may be kept in integers.
    in_integers: bool,
    /// Adapters beside the weight.
    pub(super) lora: Vec<LoraBranch>,
    /// What the values were before adapters were fused into them.
    pub(super) original: Option<Matrix>,
}

impl Weight {
    /// An empty weight of the checkpoint's `shape`.
    pub fn new(shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: shape.into(),
            value: None,
            multiplies: true,
            in_integers: true,
            lora: Vec::new(),
            original: None,
        }
    }

    /// An empty table of `entries` vectors of `channels`.
    pub fn table(entries: usize, channels: usize) -> Self {
        Self { multiplies: false, in_integers: false, ..Self::new([entries, channels]) }
    }

    /// Puts other values in place of the loaded ones.
    pub(super) fn replace(&mut self, value: Matrix) -> Option<Matrix> {
        self.value.replace(value)
    }

    /// The loaded values.
    pub fn value(&self) -> &Matrix {
        self.value.as_ref().expect("a model runs only when every parameter is loaded")
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Matrix::bytes)
    }
}

impl Parameter for Weight {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn is_loaded(&self) -> bool {
        self.value.is_some()
    }

    fn values(&self) -> Option<Values> {
        self.value.clone().map(Values::Weight)
    }

    fn packing(&self, weights: WeightDtype) -> Packing {
        weights.packing(&self.shape, self.in_integers)
    }

    fn load(&mut self, tensor: HostTensor, placement: &Placement) {
        let packing = self.packing(placement.weights);
        self.value = Some(matrix(tensor, &self.shape, packing, &placement.device));
        self.original = None;
    }

    fn writer(&self, placement: &Placement) -> Option<MatrixWriter> {
        let packing = self.packing(placement.weights);
        let dims = [self.shape[0], self.shape[1..].iter().product()];
        MatrixWriter::new(dims, packing, &placement.device)
    }

    fn set(&mut self, matrix: Matrix) {
        self.value = Some(matrix);
        self.original = None;
    }

    fn stand_in(&mut self, values: StandIn, placement: &Placement) {
        let dims = [self.shape[0], self.shape[1..].iter().product()];
        let packing = self.packing(placement.weights);
        self.value = Some(Matrix::stand_in(values, dims, packing, &placement.device));
        self.original = None;
    }

    fn unload(&mut self) {
        (self.value, self.original) = (None, None);
    }

    fn refuse_integers(&mut self) {
        self.in_integers = false;
    }

    fn as_weight(&mut self) -> Option<&mut Weight> {
        self.multiplies.then_some(self)
    }
}

/// Converts and uploads a weight that checkpoints store in `shape`.
pub(super) fn matrix(
    tensor: HostTensor,
    shape: &[usize],
    packing: Packing,
    device: &Device,
) -> Matrix {
    let dims = [shape[0], shape[1..].iter().product()];
    match packing {
        Packing::Integers(_) => {
            let mut writer =
                MatrixWriter::new(dims, packing, device).expect("rows are of whole words");
            writer.write(0, rows(tensor, shape));
            writer.finish()
        }
        Packing::Halves => Matrix::from_f16_bytes(rows(tensor, shape), dims, device),
        Packing::Floats => {
            let mut values = tensor.to_f32();
            drop(tensor);
            channels_last(&mut values, shape);
            Matrix::from_f32(values, dims, device)
        }
    }
}

/// Rows of a weight of `shape` as a [`Matrix`] of halves has them.
pub fn rows(tensor: HostTensor, shape: &[usize]) -> Vec<u8> {
    let mut bytes = tensor.into_f16_bytes();
    channels_last(bytes.as_chunks_mut::<2>().0, shape);
    bytes
}

/// Turns a convolution's weight from `[O, I, kh, kw]` to `[O, kh, kw, I]`; leaves others as they are.
fn channels_last<T: Copy>(values: &mut [T], shape: &[usize]) {
    let &[_, inputs, kh, kw] = shape else { return };
    let area = kh * kw;
    if area == 1 {
        return;
    }
    let mut packed = Vec::with_capacity(inputs * area);
    for output in values.chunks_exact_mut(inputs * area) {
        packed.clear();
        for tap in 0..area {
            packed.extend(output[tap..].iter().step_by(area));
        }
        output.copy_from_slice(&packed);
    }
}

/// Called with each parameter's checkpoint key.
pub type Visitor<'a> = dyn FnMut(&str, &mut dyn Parameter) + 'a;

/// A part of a model. Field names are the checkpoint's keys.
pub trait Module {
    /// Visits every parameter below `path`.
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>);

    /// Fills every parameter with what stands for its values.
    fn stand_in(&mut self, values: StandIn, placement: &Placement) {
        self.visit("", &mut |_, parameter| parameter.stand_in(values, placement));
    }

    /// The module, no weight of which is ever kept in integers.
    fn without_integers(mut self) -> Self
    where
        Self: Sized,
    {
        self.visit("", &mut |_, parameter| parameter.refuse_integers());
        self
    }

    /// Lets go of the values of every parameter. Adapters stay beside them.
    fn unload(&mut self) {
        self.visit("", &mut |_, parameter| parameter.unload());
    }
}

impl Module for Vector {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        visitor(path, self);
    }
}

impl Module for Weight {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        visitor(path, self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        if let Some(module) = self {
            module.visit(path, visitor);
        }
    }
}

impl<M: Module> Module for [M] {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        for (i, module) in self.iter_mut().enumerate() {
            module.visit(&join(path, &i.to_string()), visitor);
        }
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        self.as_mut_slice().visit(path, visitor);
    }
}

impl<M: Module, const N: usize> Module for [M; N] {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        self.as_mut_slice().visit(path, visitor);
    }
}

/// A layer of a `torch.nn.Sequential` without parameters, which still counts in the keys.
#[derive(Debug, Clone, Copy)]
pub struct Dropout;

impl<A: Module, C: Module> Module for (A, Dropout, C) {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        self.0.visit(&join(path, "0"), visitor);
        self.2.visit(&join(path, "2"), visitor);
    }
}

/// A key below a path.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Implements [`Module`] for a struct whose listed fields are its sub-modules.
macro_rules! module {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::models::module::Module for $name {
            fn visit(&mut self, path: &str, visitor: &mut $crate::models::module::Visitor<'_>) {
                $($crate::models::module::Module::visit(
                    &mut self.$field,
                    &$crate::models::module::join(path, stringify!($field)),
                    visitor,
                );)*
            }
        }
    };
}
pub(crate) use module;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_become_channels_last() {
        // [O=1, I=2, kh=1, kw=3]
        let mut values = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32];
        channels_last(&mut values, &[2, 2, 1, 3]);
        assert_eq!(values, [0, 10, 1, 11, 2, 12, 20, 30, 21, 31, 22, 32]);
        let mut values = [5, 6];
        channels_last(&mut values, &[1, 2]);
        assert_eq!(values, [5, 6]);
    }
}
