//! The layers that every model here is made of, with torch's names.

use burn::tensor::Tensor;

use super::module::{Vector, Weight, module};
use crate::kernels::{self, Conv2dOptions, Epilogue, GroupNormOptions};

/// `torch.nn.Linear`; also a 1x1 convolution, which is the same on channels-last activations.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[O, I]`
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
        kernels::linear(x, self.weight.value(), bias, epilogue)
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
        kernels::conv2d(x, self.weight.value(), Some(self.bias.value()), options)
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
}
module!(Embedding { weight });

impl Embedding {
    /// `entries` vectors of `channels`.
    pub fn new(entries: usize, channels: usize) -> Self {
        Self { weight: Weight::new([entries, channels]) }
    }
}
