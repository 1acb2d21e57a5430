//! Residual blocks and changes of resolution.
//!
//! Source: He et al., "Deep Residual Learning"; diffusers `models/resnet.py`,
//! `models/downsampling.py` and `models/upsampling.py`.

use burn::tensor::Tensor;

use super::layers::{Conv2d, GroupNorm, Linear};
use super::module::module;
use crate::kernels::Epilogue;

/// `ResnetBlock2D`: two convolutions, each after a norm and SiLU, and a shortcut around them.
#[derive(Debug, Clone)]
pub struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Linear>,
}
module!(ResnetBlock2D { norm1, conv1, time_emb_proj, norm2, conv2, conv_shortcut });

/// What the residual blocks of a model share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResnetConfig {
    /// Channels of the time embedding; none in the VAE.
    pub time_channels: Option<usize>,
    /// Groups of the norms.
    pub groups: usize,
    /// Added to the variance of the norms.
    pub eps: f64,
}

impl ResnetBlock2D {
    /// From `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, config: ResnetConfig) -> Self {
        Self {
            norm1: GroupNorm::new(config.groups, inputs, config.eps),
            conv1: Conv2d::new(inputs, outputs, 3),
            time_emb_proj: config.time_channels.map(|channels| Linear::new(channels, outputs)),
            norm2: GroupNorm::new(config.groups, outputs, config.eps),
            conv2: Conv2d::new(outputs, outputs, 3),
            conv_shortcut: (inputs != outputs).then(|| Linear::pointwise(inputs, outputs)),
        }
    }

    /// `[B, H, W, I]` to `[B, H, W, O]`; `time` is the time embedding after SiLU, `[B, T]`.
    pub fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let projection = self.time_emb_proj.as_ref();
        let time = projection.zip(time).map(|(projection, time)| projection.forward(time.clone()));
        // Before the norm, which then can take the place of its input.
        let (x, shortcut) = match &self.conv_shortcut {
            Some(shortcut) => {
                let shortcut = shortcut.forward_with(x.clone(), Epilogue::None);
                (x, shortcut)
            }
            None => (x.clone(), x),
        };
        let h = self.norm1.forward_silu(x);
        let h = self.conv1.forward_with(h, |options| options.added = time);
        let h = self.norm2.forward_silu(h);
        self.conv2.forward_with(h, |options| options.residual = Some(shortcut))
    }
}

/// `Downsample2D`: a convolution of stride 2.
#[derive(Debug, Clone)]
pub struct Downsample2D {
    conv: Conv2d,
    padding: [usize; 4],
}
module!(Downsample2D { conv });

impl Downsample2D {
    /// Keeps the channels. `padding` 1 pads all sides, 0 only the right and the bottom (the VAE's).
    pub fn new(channels: usize, padding: usize) -> Self {
        let padding = if padding == 0 { [0, 0, 1, 1] } else { [padding; 4] };
        Self { conv: Conv2d::new(channels, channels, 3), padding }
    }

    /// `[B, H, W, C]` to about half the height and width.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward_with(x, |options| {
            options.stride = 2;
            options.padding = self.padding;
        })
    }
}

/// `Upsample2D`: nearest neighbour, then a convolution.
#[derive(Debug, Clone)]
pub struct Upsample2D {
    conv: Conv2d,
}
module!(Upsample2D { conv });

impl Upsample2D {
    /// Keeps the channels.
    pub fn new(channels: usize) -> Self {
        Self { conv: Conv2d::new(channels, channels, 3) }
    }

    /// `[B, H, W, C]` to `[B, size, C]`, where `size` is 2H x 2W or, for a picture whose size was
    /// odd on the way down, one less.
    pub fn forward(&self, x: Tensor<4>, size: Option<[usize; 2]>) -> Tensor<4> {
        let [_, h, w, _] = x.dims();
        match size {
            Some(size) if size != [h * 2, w * 2] => self.conv.forward(resize_nearest(x, size)),
            _ => self.conv.forward_with(x, |options| options.upsample_2x = true),
        }
    }
}

/// Nearest neighbour to any size, as `torch.nn.functional.interpolate` picks them.
fn resize_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, h, w, _] = x.dims();
    let device = x.device();
    let pick = |x: Tensor<4>, axis: usize, from: usize, to: usize| {
        let scale = from as f32 / to as f32;
        let rows: Vec<i32> =
            (0..to).map(|i| ((i as f32 * scale) as usize).min(from - 1) as i32).collect();
        x.select(axis, Tensor::from_data(rows.as_slice(), &device))
    };
    let x = pick(x, 1, h, size[0]);
    pick(x, 2, w, size[1])
}
