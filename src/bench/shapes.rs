//! The operations of one UNet step at batch 3 and 64 x 64 latents, and how often each runs; and those
//! of decoding 512 x 512 pixels.

use burn::tensor::{DType, Distribution, Tensor};

use super::Bench;
use crate::error::Result;
use crate::kernels::{
    Conv2dOptions, Epilogue, GroupNormOptions, Matrix, Packing, StandIn, attention, conv2d, geglu,
    group_norm, layer_norm, linear,
};

/// Text, image and unconditional.
const BATCH: usize = 3;
/// Height and width of the latents.
const LATENT: usize = 64;
/// Attention heads.
const HEADS: usize = 8;
/// Tokens of the text.
const TEXT: usize = 77;

/// One operation.
pub enum Case {
    /// A convolution of pictures of this side.
    Conv {
        batch: usize,
        side: usize,
        inputs: usize,
        outputs: usize,
        stride: usize,
        upsample: bool,
        count: usize,
    },
    /// A dense layer of this many rows.
    Linear { rows: usize, inputs: usize, outputs: usize, count: usize },
    /// The gated half of a feed-forward.
    Geglu { rows: usize, channels: usize, count: usize },
    /// Attention between so many tokens and keys.
    Attention {
        batch: usize,
        tokens: usize,
        keys: usize,
        channels: usize,
        heads: usize,
        count: usize,
    },
    /// A norm over pictures of this side.
    GroupNorm { batch: usize, side: usize, channels: usize, count: usize },
    /// A norm over tokens.
    LayerNorm { tokens: usize, channels: usize, count: usize },
}

/// Every distinct shape.
pub fn all() -> Vec<Case> {
    let mut cases = unet();
    cases.extend(vae_decoder());
    cases.extend(like_for_like());
    cases
}

/// What other runtimes are asked for beside those of a step: products without a gate, and a convolution of three pictures.
fn like_for_like() -> Vec<Case> {
    let mut cases: Vec<Case> = [(12288, 320), (3072, 640), (768, 1280)]
        .map(|(rows, inputs)| Case::Linear { rows, inputs, outputs: 8 * inputs, count: 0 })
        .into();
    let (side, channels, upsample) = (128, 512, false);
    let (inputs, outputs) = (channels, channels);
    cases.push(Case::Conv { batch: BATCH, side, inputs, outputs, stride: 1, upsample, count: 0 });
    cases
}

fn vae_decoder() -> Vec<Case> {
    let conv = |side, inputs, outputs, upsample| Case::Conv {
        batch: 1,
        side,
        inputs,
        outputs,
        stride: 1,
        upsample,
        count: 0,
    };
    let mut cases = vec![
        conv(64, 4, 512, false),
        conv(64, 512, 512, false),
        conv(64, 512, 512, true),
        conv(128, 512, 512, false),
        conv(128, 512, 512, true),
        conv(256, 512, 256, false),
        conv(256, 256, 256, false),
        conv(256, 256, 256, true),
        conv(512, 256, 128, false),
        conv(512, 128, 128, false),
        conv(512, 128, 3, false),
        Case::Attention { batch: 1, tokens: 4096, keys: 4096, channels: 512, heads: 1, count: 0 },
    ];
    for (side, channels) in [(64, 512), (128, 512), (256, 512), (256, 256), (512, 256), (512, 128)]
    {
        cases.push(Case::GroupNorm { batch: 1, side, channels, count: 0 });
    }
    cases
}

fn unet() -> Vec<Case> {
    let conv = |side, inputs, outputs, count| Case::Conv {
        batch: BATCH,
        side,
        inputs,
        outputs,
        stride: 1,
        upsample: false,
        count,
    };
    let mut cases = vec![
        conv(64, 8, 320, 1),
        conv(64, 320, 320, 7),
        conv(64, 640, 320, 2),
        conv(64, 960, 320, 1),
        conv(64, 320, 4, 1),
        conv(32, 320, 640, 1),
        conv(32, 640, 640, 6),
        conv(32, 960, 640, 1),
        conv(32, 1280, 640, 1),
        conv(32, 1920, 640, 1),
        conv(16, 640, 1280, 1),
        conv(16, 1280, 1280, 6),
        conv(16, 1920, 1280, 1),
        conv(16, 2560, 1280, 2),
        conv(8, 1280, 1280, 11),
        conv(8, 2560, 1280, 3),
    ];
    for (side, channels) in [(64, 320), (32, 640), (16, 1280)] {
        let upsample = false;
        let (inputs, outputs) = (channels, channels);
        let batch = BATCH;
        cases.push(Case::Conv { batch, side, inputs, outputs, stride: 2, upsample, count: 1 });
    }
    for (side, channels) in [(8, 1280), (16, 1280), (32, 640)] {
        let (inputs, outputs) = (channels, channels);
        let batch = BATCH;
        cases.push(Case::Conv {
            batch,
            side,
            inputs,
            outputs,
            stride: 1,
            upsample: true,
            count: 1,
        });
    }
    // Transformers of each resolution: five on the two ways, one in the middle.
    for (divisor, channels, blocks) in [(1, 320, 5), (2, 640, 5), (4, 1280, 5), (8, 1280, 1)] {
        let tokens = (LATENT / divisor) * (LATENT / divisor);
        let rows = BATCH * tokens;
        let linear =
            |inputs, outputs, count| Case::Linear { rows, inputs, outputs, count: count * blocks };
        let attention = |keys| Case::Attention {
            batch: BATCH,
            tokens,
            keys,
            channels,
            heads: HEADS,
            count: blocks,
        };
        cases.extend([
            // Queries, keys, values and output of self-attention, queries and output of the other,
            // and the way in and out.
            linear(channels, channels, 8),
            linear(channels * 4, channels, 1),
            Case::Geglu { rows, channels, count: blocks },
            attention(tokens),
            attention(TEXT),
            Case::LayerNorm { tokens: rows, channels, count: 3 * blocks },
        ]);
    }
    // Shortcuts where the channels change.
    for (side, inputs, outputs, count) in [
        (64, 640, 320, 2),
        (64, 960, 320, 1),
        (32, 320, 640, 1),
        (32, 960, 640, 1),
        (32, 1280, 640, 1),
        (32, 1920, 640, 1),
        (16, 640, 1280, 1),
        (16, 1920, 1280, 1),
        (16, 2560, 1280, 2),
        (8, 2560, 1280, 3),
    ] {
        cases.push(Case::Linear { rows: BATCH * side * side, inputs, outputs, count });
    }
    cases.push(Case::Linear { rows: BATCH, inputs: 1280, outputs: 1280, count: 22 });
    for (side, channels, count) in
        [(64, 320, 14), (64, 640, 2), (32, 640, 13), (16, 1280, 14), (8, 1280, 15), (8, 2560, 3)]
    {
        cases.push(Case::GroupNorm { batch: BATCH, side, channels, count });
    }
    cases
}

impl Case {
    /// What the table calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Conv { batch, side, inputs, outputs, stride, upsample, .. } => {
                let extra = match (stride, upsample) {
                    (2, _) => ", stride 2",
                    (_, true) => ", upsampled",
                    _ => "",
                };
                format!("conv 3x3 {batch} x {inputs} to {outputs} at {side}x{side}{extra}")
            }
            Self::Linear { rows, inputs, outputs, .. } => {
                format!("linear {rows} x {inputs} to {outputs}")
            }
            Self::Geglu { rows, channels, .. } => {
                format!("geglu {rows} x {channels} to {}", channels * 4)
            }
            Self::Attention { batch, tokens, keys, channels, heads, .. } => {
                format!("attention {batch} x {tokens} x {keys}, {heads} of {}", channels / heads)
            }
            Self::GroupNorm { batch, side, channels, .. } => {
                format!("group norm {batch} x {channels} at {side}x{side}")
            }
            Self::LayerNorm { tokens, channels, .. } => format!("layer norm {tokens} x {channels}"),
        }
    }

    /// Times it.
    pub async fn measure(&self, bench: &mut Bench<'_>) -> Result<()> {
        let (ms, operations, count) = match *self {
            Self::Conv { batch, side, inputs, outputs, stride, upsample, count } => {
                let x = tensor(bench, [batch, side, side, inputs]);
                let w = matrix(bench, [outputs, 9 * inputs]);
                let b = vector(bench, outputs);
                let mut options = Conv2dOptions::same([3, 3]);
                options.stride = stride;
                options.upsample_2x = upsample;
                let out = if upsample { side * 2 } else { side / stride };
                let ms = bench.time(|| conv2d(x.clone(), &w, Some(&b), options.clone())).await?;
                (ms, 18.0 * product(&[batch, out, out, inputs, outputs]), count)
            }
            Self::Linear { rows, inputs, outputs, count } => {
                let x = tensor(bench, [rows, inputs]);
                let (w, b) = (matrix(bench, [outputs, inputs]), vector(bench, outputs));
                let ms = bench.time(|| linear(x.clone(), &w, Some(&b), Epilogue::None)).await?;
                (ms, 2.0 * product(&[rows, inputs, outputs]), count)
            }
            Self::Geglu { rows, channels, count } => {
                let x = tensor(bench, [1, rows, channels]);
                let w = matrix(bench, [8 * channels, channels]);
                let b = vector(bench, 8 * channels);
                let ms = bench.time(|| geglu(x.clone(), &w, &b)).await?;
                (ms, 16.0 * product(&[rows, channels, channels]), count)
            }
            Self::Attention { batch, tokens, keys, channels, heads, count } => {
                let q = tensor(bench, [batch, tokens, channels]);
                let k = tensor(bench, [batch, keys, channels]);
                let run = || attention(q.clone(), k.clone(), k.clone(), heads, false);
                let ms = bench.time(run).await?;
                (ms, 4.0 * product(&[batch, tokens, keys, channels]), count)
            }
            Self::GroupNorm { batch, side, channels, count } => {
                let x = tensor(bench, [batch, side, side, channels]);
                let (w, b) = (vector(bench, channels), vector(bench, channels));
                let options = GroupNormOptions { groups: 32, eps: 1e-5, silu: true };
                (bench.time(|| group_norm(x.clone(), &w, &b, options)).await?, 0.0, count)
            }
            Self::LayerNorm { tokens, channels, count } => {
                let x = tensor(bench, [1, tokens, channels]);
                let (w, b) = (vector(bench, channels), vector(bench, channels));
                (bench.time(|| layer_norm(x.clone(), &w, &b, 1e-5)).await?, 0.0, count)
            }
        };
        bench.row(self.name(), ms, operations, count);
        Ok(())
    }
}

/// More than a `usize` of a browser holds.
fn product(factors: &[usize]) -> f64 {
    factors.iter().map(|&factor| factor as f64).product()
}

fn tensor<const D: usize>(bench: &Bench<'_>, shape: [usize; D]) -> Tensor<D> {
    let device = (&bench.device, DType::F32);
    Tensor::<D>::random(shape, Distribution::Uniform(-1.0, 1.0), device).cast(bench.dtype)
}

fn vector(bench: &Bench<'_>, length: usize) -> Tensor<1> {
    StandIn::Random.floats([length], &bench.device)
}

fn matrix(bench: &Bench<'_>, shape: [usize; 2]) -> Matrix {
    Matrix::stand_in(StandIn::Random, shape, Packing::Halves, &bench.device)
}
