//! Embeddings of scalars.
//!
//! Source: Vaswani et al., "Attention Is All You Need"; diffusers `models/embeddings.py`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::layers::Linear;
use super::module::module;
use crate::kernels::Epilogue;

/// `Timesteps`: sines and cosines of `values` at geometrically falling frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timesteps {
    /// Channels; an odd last one is zero.
    pub channels: usize,
    /// Cosines first.
    pub flip_sin_to_cos: bool,
    /// Shift of the lowest frequency.
    pub freq_shift: f64,
}

impl Timesteps {
    /// `[values, channels]`, computed on the host in `f32` as torch does.
    pub fn forward(&self, values: &[f64], device: &Device, dtype: DType) -> Tensor<2> {
        let half = self.channels / 2;
        let scale = -(10_000f64.ln()) as f32;
        let divisor = (half as f64 - self.freq_shift) as f32;
        let frequencies: Vec<f32> = (0..half).map(|i| (scale * i as f32 / divisor).exp()).collect();
        let mut data = Vec::with_capacity(values.len() * self.channels);
        for &value in values {
            let angles = frequencies.iter().map(|frequency| value as f32 * frequency);
            let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
            let (first, second) =
                if self.flip_sin_to_cos { (cosines, sines) } else { (sines, cosines) };
            data.extend(first);
            data.extend(second);
            data.extend(std::iter::repeat_n(0.0, self.channels % 2));
        }
        let data = TensorData::new(data, [values.len(), self.channels]).convert_dtype(dtype);
        Tensor::from_data(data, (device, dtype))
    }
}

/// `TimestepEmbedding`: two dense layers with SiLU between.
#[derive(Debug, Clone)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}
module!(TimestepEmbedding { linear_1, linear_2 });

impl TimestepEmbedding {
    /// From `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize) -> Self {
        Self { linear_1: Linear::new(inputs, outputs), linear_2: Linear::new(outputs, outputs) }
    }

    /// `[B, I]` to `[B, O]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(self.linear_1.forward_with(x, Epilogue::Silu))
    }
}
