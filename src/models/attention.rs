//! Attention blocks.
//!
//! Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models";
//! diffusers `models/attention.py`, `models/attention_processor.py` and
//! `models/transformers/transformer_2d.py`.

use burn::tensor::Tensor;

use super::layers::{GroupNorm, LayerNorm, Linear};
use super::module::{Dropout, module};
use crate::kernels::{self, Epilogue};

/// `Attention` without its norm: queries from one sequence, keys and values from the same or another.
#[derive(Debug, Clone)]
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: [Linear; 1],
    heads: usize,
}
module!(Attention { to_q, to_k, to_v, to_out });

impl Attention {
    /// As in a transformer block: no biases but the output's.
    pub fn new(channels: usize, context: usize, heads: usize) -> Self {
        Self {
            to_q: Linear::without_bias(channels, channels),
            to_k: Linear::without_bias(context, channels),
            to_v: Linear::without_bias(context, channels),
            to_out: [Linear::new(channels, channels)],
            heads,
        }
    }

    /// As in the VAE: one head, biases everywhere.
    pub fn single_head(channels: usize) -> Self {
        let linear = || Linear::new(channels, channels);
        Self { to_q: linear(), to_k: linear(), to_v: linear(), to_out: [linear()], heads: 1 }
    }

    /// `residual + attention(x, x)`: `[B, N, C]` to the same.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let keys = self.keys(&x);
        self.forward_to(x, &keys, residual)
    }

    /// Keys and values of what is attended to, `[B, M, D]`.
    pub fn keys(&self, context: &Tensor<3>) -> Keys {
        Keys { k: self.to_k.forward(context.clone()), v: self.to_v.forward(context.clone()) }
    }

    /// `residual + attention(x, keys)`: `[B, N, C]` to the same.
    pub fn forward_to(&self, x: Tensor<3>, keys: &Keys, residual: Tensor<3>) -> Tensor<3> {
        let q = self.to_q.forward(x);
        let x = kernels::attention(q, keys.k.clone(), keys.v.clone(), self.heads, false);
        self.to_out[0].forward_with(x, Epilogue::Residual(residual))
    }
}

/// What an [`Attention`] attends to.
#[derive(Debug, Clone)]
pub struct Keys {
    /// `[B, M, C]`
    k: Tensor<3>,
    /// `[B, M, C]`
    v: Tensor<3>,
}

/// `GEGLU`: the gated first half of a feed-forward.
#[derive(Debug, Clone)]
pub struct GeGlu {
    proj: Linear,
}
module!(GeGlu { proj });

impl GeGlu {
    fn new(inputs: usize, outputs: usize) -> Self {
        Self { proj: Linear::new(inputs, outputs * 2) }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.proj.bias {
            Some(bias) if !self.proj.weight.is_adapted() => {
                kernels::geglu(x, self.proj.weight.value(), bias.value())
            }
            _ => kernels::geglu_gate(self.proj.forward(x)),
        }
    }
}

/// `FeedForward` with GEGLU, four times as wide inside.
#[derive(Debug, Clone)]
pub struct FeedForward {
    net: (GeGlu, Dropout, Linear),
}
module!(FeedForward { net });

impl FeedForward {
    /// Keeps the channels.
    pub fn new(channels: usize) -> Self {
        let inner = channels * 4;
        Self { net: (GeGlu::new(channels, inner), Dropout, Linear::new(inner, channels)) }
    }

    /// `residual + feed_forward(x)`, `[B, N, C]`.
    pub fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let (gated, Dropout, linear) = &self.net;
        linear.forward_with(gated.forward(x), Epilogue::Residual(residual))
    }
}

/// `BasicTransformerBlock`: self-attention, cross-attention to the text, feed-forward.
#[derive(Debug, Clone)]
pub struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}
module!(BasicTransformerBlock { norm1, attn1, norm2, attn2, norm3, ff });

impl BasicTransformerBlock {
    fn new(channels: usize, context: usize, heads: usize) -> Self {
        let norm = || LayerNorm::new(channels, 1e-5);
        Self {
            norm1: norm(),
            attn1: Attention::new(channels, channels, heads),
            norm2: norm(),
            attn2: Attention::new(channels, context, heads),
            norm3: norm(),
            ff: FeedForward::new(channels),
        }
    }

    fn forward(&self, x: Tensor<3>, text: &Keys) -> Tensor<3> {
        let h = self.norm1.forward(x.clone());
        let x = self.attn1.forward(h, x);
        let h = self.norm2.forward(x.clone());
        let x = self.attn2.forward_to(h, text, x);
        let h = self.norm3.forward(x.clone());
        self.ff.forward(h, x)
    }
}

/// `Transformer2DModel`: transformer blocks over the pixels of a picture.
#[derive(Debug, Clone)]
pub struct Transformer2DModel {
    norm: GroupNorm,
    /// A 1x1 convolution or a dense layer in the checkpoint; the same on channels-last activations.
    proj_in: Linear,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Linear,
}
module!(Transformer2DModel { norm, proj_in, transformer_blocks, proj_out });

/// What the transformers of a block share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransformerConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Heads; divides the channels.
    pub heads: usize,
    /// Channels of the text.
    pub context: usize,
    /// Groups of the norm.
    pub groups: usize,
    /// Whether the projections are stored as dense layers, not as convolutions.
    pub use_linear_projection: bool,
}

impl Transformer2DModel {
    /// Keeps the channels.
    pub fn new(channels: usize, config: TransformerConfig) -> Self {
        let projection = if config.use_linear_projection { Linear::new } else { Linear::pointwise };
        let block = |_| BasicTransformerBlock::new(channels, config.context, config.heads);
        Self {
            norm: GroupNorm::new(config.groups, channels, 1e-6),
            proj_in: projection(channels, channels),
            transformer_blocks: (0..config.layers).map(block).collect(),
            proj_out: projection(channels, channels),
        }
    }

    /// The blocks' keys and values of the text, `[B, M, D]`.
    pub fn text_keys(&self, text: &Tensor<3>) -> impl Iterator<Item = Keys> {
        self.transformer_blocks.iter().map(|block| block.attn2.keys(text))
    }

    /// `[B, H, W, C]` to the same; `text` has the next blocks' keys.
    pub fn forward<'a>(
        &self,
        x: Tensor<4>,
        text: &mut impl Iterator<Item = &'a Keys>,
    ) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let tokens = [b, h * w, c];
        let residual = x.clone().reshape(tokens);
        let mut x = self.proj_in.forward(self.norm.forward(x).reshape(tokens));
        for block in &self.transformer_blocks {
            x = block.forward(x, text.next().expect("the text has keys for every block"));
        }
        self.proj_out.forward_with(x, Epilogue::Residual(residual)).reshape([b, h, w, c])
    }
}
