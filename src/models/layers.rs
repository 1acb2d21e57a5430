//! The layers that every model here is made of, with torch's names.

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::module::{Parameter, Placement, Vector, Weight, matrix, module};
use crate::kernels::{self, Conv2dOptions, Epilogue, GroupNormOptions, Matrix};
use crate::weights::HostTensor;

/// `torch.nn.Linear`; also a 1x1 convolution, which is the same on channels-last activations.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[O, I]`, or `[O, I, 1, 1]`.
    pub weight: Weight,
    /// `[O]`
    pub bias: Option<Vector>,
}
module!(Linear { weight, bias });

impl Linear {
    /// With bias.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { weight: Weight::new([outputs, inputs]), bias: Some(Vector::new(outputs)) }
    }

    /// A convolution of 1x1 with bias: the same product, which checkpoints store as `[O, I, 1, 1]`.
    pub fn pointwise(inputs: usize, outputs: usize) -> Self {
        Self { weight: Weight::new([outputs, inputs, 1, 1]), ..Self::new(inputs, outputs) }
    }

    /// Without bias.
    pub fn without_bias(inputs: usize, outputs: usize) -> Self {
        Self { bias: None, ..Self::new(inputs, outputs) }
    }

    /// `[.., I]` to `[.., O]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, Epilogue::None)
    }

    /// `[.., I]` to `[.., O]`, then `epilogue`.
    pub fn forward_with<const D: usize>(&self, x: Tensor<D>, epilogue: Epilogue<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Vector::value);
        let weight = self.weight.value();
        if !self.weight.is_adapted() {
            return kernels::linear(x, weight, bias, epilogue);
        }
        let y = kernels::linear(x.clone(), weight, bias, Epilogue::None);
        epilogue.apply(self.weight.add_lora(&x, y))
    }
}

/// `torch.nn.Conv2d` on channels-last activations.
#[derive(Debug, Clone)]
pub struct Conv2d {
    /// `[O, I, kh, kw]`
    pub weight: Weight,
    /// `[O]`
    pub bias: Vector,
    kernel: [usize; 2],
}
module!(Conv2d { weight, bias });

impl Conv2d {
    /// A square kernel.
    pub fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            weight: Weight::new([outputs, inputs, kernel, kernel]),
            bias: Vector::new(outputs),
            kernel: [kernel; 2],
        }
    }

    /// Stride 1, padded to keep the size: `[B, H, W, I]` to `[B, H, W, O]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward_with(x, |_| {})
    }

    /// As [`forward`](Self::forward), with options changed by `change`.
    pub fn forward_with(&self, x: Tensor<4>, change: impl FnOnce(&mut Conv2dOptions)) -> Tensor<4> {
        let mut options = Conv2dOptions::same(self.kernel);
        change(&mut options);
        let (weight, bias) = (self.weight.value(), Some(self.bias.value()));
        if !self.weight.is_adapted() {
            return kernels::conv2d(x, weight, bias, options);
        }
        let residual = options.residual.take();
        let y = kernels::conv2d(x.clone(), weight, bias, options.clone());
        options.added = None;
        let y = self.weight.add_lora_conv(&x, y, &options);
        match residual {
            Some(residual) => y.add(residual),
            None => y,
        }
    }
}

/// `torch.nn.GroupNorm` on channels-last activations.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// `[C]`
    pub weight: Vector,
    /// `[C]`
    pub bias: Vector,
    groups: usize,
    eps: f64,
}
module!(GroupNorm { weight, bias });

impl GroupNorm {
    /// `groups` divides `channels`.
    pub fn new(groups: usize, channels: usize, eps: f64) -> Self {
        Self { weight: Vector::new(channels), bias: Vector::new(channels), groups, eps }
    }

    /// `[B, H, W, C]` to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, false)
    }

    /// `[B, H, W, C]` to the same, then SiLU.
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, true)
    }

    fn apply(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let options = GroupNormOptions { groups: self.groups, eps: self.eps, silu };
        kernels::group_norm(x, self.weight.value(), self.bias.value(), options)
    }
}

/// `torch.nn.LayerNorm` over the last axis.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[C]`
    pub weight: Vector,
    /// `[C]`
    pub bias: Vector,
    eps: f64,
}
module!(LayerNorm { weight, bias });

impl LayerNorm {
    /// Normalises `channels`.
    pub fn new(channels: usize, eps: f64) -> Self {
        Self { weight: Vector::new(channels), bias: Vector::new(channels), eps }
    }

    /// `[.., C]` to the same.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm(x, self.weight.value(), self.bias.value(), self.eps)
    }
}

/// `torch.nn.Embedding`.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[V, C]`
    pub weight: Weight,
    /// The id of the first added entry, and these entries.
    added: Option<(u32, Matrix)>,
}
module!(Embedding { weight });

impl Embedding {
    /// `entries` vectors of `channels`.
    pub fn new(entries: usize, channels: usize) -> Self {
        Self { weight: Weight::table(entries, channels), added: None }
    }

    /// Puts the rows of `values` beside the table, for the ids from `first` on, in place of any
    /// that were added before. The table itself stays as it is.
    pub fn set_added(&mut self, first: u32, values: Vec<f32>, placement: &Placement) {
        let channels = self.weight.shape()[1];
        let rows = values.len() / channels;
        let shape = [rows, channels];
        let tensor = HostTensor::from_f32(shape.to_vec(), &values);
        self.added = (rows > 0).then(|| {
            (
                first,
                matrix(tensor, &shape, placement.weights.packing(&shape, false), &placement.device),
            )
        });
    }

    /// One past the greatest id that has a vector.
    pub fn end(&self) -> u32 {
        let entries = self.weight.shape()[0];
        let added = |(first, rows): &(u32, Matrix)| first + rows.shape()[0] as u32;
        self.added.as_ref().map_or(entries as u32, added)
    }

    /// The vectors at `ids`, B lists of N: `[B, N, C]`.
    pub fn forward(&self, ids: &[Vec<u32>], dtype: DType) -> Tensor<3> {
        let table = self.weight.value();
        let Some((first, added)) = &self.added else {
            return kernels::embedding(ids, table, dtype);
        };
        if ids.iter().flatten().all(|id| id < first) {
            return kernels::embedding(ids, table, dtype);
        }
        // The few rows that are needed, from both tables, then each at its place.
        let known = ids.iter().map(|ids| ids.iter().map(|id| if id < first { *id } else { 0 }));
        let known: Vec<Vec<u32>> = known.map(Iterator::collect).collect();
        let base = kernels::embedding(&known, table, dtype);
        let [batch, tokens, channels] = base.dims();
        let count = batch * tokens;
        let rows = Tensor::cat(vec![base.reshape([count, channels]), added.to_float(dtype)], 0);
        let places: Vec<i32> = ids
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, id)| if id < first { i as i32 } else { (count as u32 + id - first) as i32 })
            .collect();
        let places = Tensor::<1, Int>::from_data(
            TensorData::new(places, [count]),
            (&rows.device(), DType::I32),
        );
        rows.select(0, places).reshape([batch, tokens, channels])
    }
}
