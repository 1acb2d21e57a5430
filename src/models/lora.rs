//! Low-rank adapters beside the weights of dense layers and convolutions.
//!
//! Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models"; PEFT
//! `tuners/lora/layer.py`.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};

use super::module::{Placement, Weight, WeightDtype, matrix};
use crate::kernels::{self, Conv2dOptions, Epilogue, Matrix, Packing};
use crate::weights::HostTensor;

/// One adapter's share in one layer: `scale * up(down(x))` is added to what the layer computes.
#[derive(Debug, Clone)]
pub struct LoraBranch {
    adapter: Arc<str>,
    /// `[R, I]`, or for a convolution `[R, kh * kw * I]`
    down: Matrix,
    /// `[O, R]`
    up: Matrix,
    /// Of the first factor in its file.
    axes: usize,
    scaling: f64,
    strength: f64,
}

/// One of the two matrices of an adapter's share in a layer, on the device.
#[derive(Debug, Clone)]
pub struct LoraFactor {
    values: Matrix,
    /// In its file.
    axes: usize,
}

impl LoraFactor {
    /// Takes the values of `tensor` to the device, in `shape`, which may differ from the tensor's own in axes of one
    /// element.
    pub fn new(tensor: HostTensor, shape: &[usize], placement: &Placement) -> Self {
        let axes = tensor.shape().len();
        // They are small, and their rank is seldom a multiple of what integers need.
        let packing = match placement.weights {
            WeightDtype::F32 => Packing::Floats,
            _ => Packing::Halves,
        };
        Self { values: matrix(tensor, shape, packing, &placement.device), axes }
    }
}

impl LoraBranch {
    /// The adapter that the branch belongs to.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// `alpha / rank`: what the branch is multiplied by at strength 1.
    pub fn scaling(&self) -> f64 {
        self.scaling
    }

    /// `R`, the channels between the two factors.
    pub fn rank(&self) -> usize {
        self.down.shape()[0]
    }

    /// Axes of the factors in the file that they came from: 4 for a convolution, also where it is
    /// of 1x1 and a dense layer here.
    pub fn axes(&self) -> usize {
        self.axes
    }

    /// The first factor, `[R, I]` or `[R, kh * kw * I]`.
    pub fn down(&self) -> &Matrix {
        &self.down
    }

    /// The second factor, `[O, R]`.
    pub fn up(&self) -> &Matrix {
        &self.up
    }
}

impl Weight {
    /// The adapters beside the weight.
    pub fn lora(&self) -> &[LoraBranch] {
        &self.lora
    }

    /// Puts an adapter's two factors beside the weight, at strength 0: `[R, I]` or `[R, I, kh, kw]`, and `[O, R]`.
    pub fn attach_lora(
        &mut self,
        adapter: Arc<str>,
        (down, up): (LoraFactor, LoraFactor),
        scaling: f64,
    ) {
        let LoraFactor { values: down, axes } = down;
        self.lora.push(LoraBranch { adapter, down, up: up.values, axes, scaling, strength: 0.0 });
    }

    /// Takes adapters away.
    pub fn detach_lora(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.lora.retain(|branch| !is_gone(&branch.adapter));
    }

    /// Sets how much each adapter contributes; those at 0 cost nothing.
    pub fn set_lora_strengths(&mut self, strength: impl Fn(&str) -> f64) {
        for branch in &mut self.lora {
            branch.strength = strength(&branch.adapter);
        }
    }

    /// Whether an adapter contributes.
    pub(super) fn is_adapted(&self) -> bool {
        self.lora.iter().any(|branch| branch.strength != 0.0)
    }

    fn contributing(&self) -> impl Iterator<Item = (&LoraBranch, f64)> {
        self.lora
            .iter()
            .filter(|branch| branch.strength != 0.0)
            .map(|branch| (branch, branch.strength * branch.scaling))
    }

    /// What the layer computes with its adapters, from what it computes without them.
    pub(super) fn add_lora<const D: usize>(&self, x: &Tensor<D>, y: Tensor<D>) -> Tensor<D> {
        self.contributing().fold(y, |y, (branch, scale)| {
            let h = kernels::linear(x.clone(), &branch.down, None, Epilogue::None);
            // Scaled while it is narrow: the same but for one rounding.
            kernels::linear(h.mul_scalar(scale), &branch.up, None, Epilogue::Residual(y))
        })
    }

    /// As [`add_lora`](Self::add_lora) for a convolution: the first factor is one of the same
    /// kernel, the second of 1x1, which is a dense layer on channels-last activations.
    pub(super) fn add_lora_conv(
        &self,
        x: &Tensor<4>,
        y: Tensor<4>,
        options: &Conv2dOptions,
    ) -> Tensor<4> {
        self.contributing().fold(y, |y, (branch, scale)| {
            let h = kernels::conv2d(x.clone(), &branch.down, None, options.clone());
            kernels::linear(h.mul_scalar(scale), &branch.up, None, Epilogue::Residual(y))
        })
    }

    /// The values with adapters added to them at the strengths given, `[O, columns]` in `f32`;
    /// nothing when none of them is here.
    pub fn with_lora(&self, strength: impl Fn(&str) -> f64) -> Option<Tensor<2>> {
        let strengths = self.lora.iter().map(|branch| (branch, strength(&branch.adapter)));
        let deltas =
            strengths.filter(|(_, strength)| *strength != 0.0).map(|(branch, strength)| {
                let up = branch.up.to_float(DType::F32);
                let down = branch.down.to_float(DType::F32);
                kernels::product(up, down).mul_scalar(strength * branch.scaling)
            });
        let delta = deltas.reduce(Tensor::add)?;
        Some(self.value().to_float(DType::F32).add(delta))
    }

    /// Puts `value` in place of the loaded values, which are kept for [`unfuse`](Self::unfuse).
    pub fn fuse(&mut self, value: Matrix) {
        let before = self.replace(value);
        if self.original.is_none() {
            self.original = before;
        }
    }

    /// Brings back the very values that were there before [`fuse`](Self::fuse).
    pub fn unfuse(&mut self) {
        if let Some(original) = self.original.take() {
            self.replace(original);
        }
    }

    /// Lets go of what [`unfuse`](Self::unfuse) would bring back.
    pub fn keep_fused(&mut self) {
        self.original = None;
    }
}
