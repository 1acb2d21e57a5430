//! The autoencoder between pictures and latents.
//!
//! Source: Kingma and Welling, "Auto-Encoding Variational Bayes"; Esser et al., "Taming
//! Transformers"; diffusers `models/autoencoders/autoencoder_kl.py` and `vae.py`.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::attention::Attention;
use super::config::{self, MAX_LAYERS, MAX_SIZE, MAX_STAGES, bounded, require};
use super::layers::{Conv2d, GroupNorm, Linear};
use super::module::{Module, Visitor, join, module};
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};
use super::tiles::Tiles;
use crate::error::{Error, Result};

/// `config.json` of an `AutoencoderKL`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct AutoencoderKLConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a decoded picture.
    pub out_channels: usize,
    /// Channels of each stage.
    pub block_out_channels: Vec<usize>,
    /// The class of each stage of the encoder.
    pub down_block_types: Vec<String>,
    /// The class of each stage of the decoder.
    pub up_block_types: Vec<String>,
    /// Residual blocks of an encoder stage; a decoder stage has one more.
    pub layers_per_block: usize,
    /// The activation; SiLU.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Height and width in pixels that tiles have, see [`AutoencoderKL::encode_tiled`].
    pub sample_size: usize,
    /// Latents are multiplied by this before the UNet sees them and divided before decoding.
    pub scaling_factor: f64,
    /// The mean of the latents of each channel, where they are to be normalised.
    pub latents_mean: Option<Vec<f64>>,
    /// Their standard deviation.
    pub latents_std: Option<Vec<f64>>,
    /// Whether half precision overflows (SDXL's first autoencoder).
    pub force_upcast: bool,
    /// Whether there is a 1x1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// Whether there is a 1x1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle has attention.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKLConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![64],
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// Added to the variance of the VAE's norms.
const EPS: f64 = 1e-6;

impl AutoencoderKLConfig {
    /// Parses `json`, the contents of `file`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it is no such configuration, [`Error::Unsupported`] when it asks
    /// for a network outside this family.
    pub fn parse(file: &str, json: &str) -> Result<Self> {
        let config: Self = config::parse(file, json)?;
        require(matches!(config.act_fn.as_str(), "silu" | "swish"), || {
            format!("act_fn `{}` in {file}", config.act_fn)
        })?;
        let stages = config.block_out_channels.len();
        let known = |names: &[String], kind: &str| {
            names.len() == stages && names.iter().all(|name| name == kind)
        };
        require(
            known(&config.down_block_types, "DownEncoderBlock2D")
                && known(&config.up_block_types, "UpDecoderBlock2D"),
            || format!("the block types of {file}"),
        )?;
        let groups = config.norm_num_groups;
        let divides = |channels: &usize| groups > 0 && channels.is_multiple_of(groups);
        if stages == 0 || !config.block_out_channels.iter().all(divides) {
            return Err(Error::config(file, "`norm_num_groups` does not divide the channels"));
        }
        bounded(file, MAX_STAGES, [("block_out_channels", stages)])?;
        bounded(file, MAX_LAYERS, [("layers_per_block", config.layers_per_block)])?;
        let channels = config.block_out_channels.iter().map(|c| ("block_out_channels", *c));
        let sizes = [
            ("in_channels", config.in_channels),
            ("out_channels", config.out_channels),
            ("latent_channels", config.latent_channels),
            ("sample_size", config.sample_size),
        ];
        bounded(file, MAX_SIZE, channels.chain(sizes))?;
        if !(config.scaling_factor.is_finite() && config.scaling_factor != 0.0) {
            return Err(Error::config(file, "`scaling_factor` must be finite and not zero"));
        }
        for values in config.statistics().into_iter().flatten() {
            if values.len() != config.latent_channels || !values.iter().all(|x| x.is_finite()) {
                let channels = config.latent_channels;
                let message =
                    format!("`latents_mean` and `latents_std` need {channels} numbers each");
                return Err(Error::config(file, message));
            }
        }
        Ok(config)
    }

    /// Mean and standard deviation of the latents of each channel, where there are both.
    pub fn statistics(&self) -> Option<[&[f64]; 2]> {
        Some([self.latents_mean.as_deref()?, self.latents_std.as_deref()?])
    }

    /// Pixels along one axis for each latent.
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Values of the largest activation of a picture of this height and width on its way through one of the networks.
    pub fn largest_activation(&self, network: Network, [height, width]: [usize; 2]) -> usize {
        let channels = &self.block_out_channels;
        let values = |i: usize| {
            let wide = match network {
                Network::Encoder => channels[i],
                // The stage before hands over as many as it has.
                Network::Decoder => channels[i].max(channels.get(i + 1).copied().unwrap_or(0)),
            };
            height.div_ceil(1 << i) * width.div_ceil(1 << i) * wide
        };
        (0..channels.len()).map(values).max().unwrap_or(0)
    }

    /// The side in pixels of the largest tiles whose activations have at most `most` values each; nothing where a whole
    /// picture of this height and width has no more.
    pub fn tile_within(&self, most: usize, network: Network, size: [usize; 2]) -> Option<usize> {
        if self.largest_activation(network, size) <= most {
            return None;
        }
        // Tiles of the latents overlap by a quarter.
        let unit = 4 * self.scale_factor();
        let fits = |side: &usize| self.largest_activation(network, [*side; 2]) <= most;
        let sides = (1..).map(|i| i * unit).take_while(fits);
        Some(sides.last().unwrap_or(unit))
    }

    /// An empty model of this configuration.
    ///
    /// Its weights are never in integers: they are few, and what they cost would show in every picture.
    pub fn init(&self) -> AutoencoderKL {
        let latent = self.latent_channels;
        AutoencoderKL {
            encoder: Encoder::new(self),
            decoder: Decoder::new(self),
            quant_conv: self.use_quant_conv.then(|| Linear::pointwise(2 * latent, 2 * latent)),
            post_quant_conv: self.use_post_quant_conv.then(|| Linear::pointwise(latent, latent)),
            config: self.clone(),
        }
        .without_integers()
    }

    fn resnet(&self) -> ResnetConfig {
        ResnetConfig { time_channels: None, groups: self.norm_num_groups, eps: EPS }
    }
}

/// The middle of encoder and decoder, `UNetMidBlock2D`.
#[derive(Debug, Clone)]
struct UNetMidBlock2D {
    attentions: Vec<VaeAttention>,
    resnets: Vec<ResnetBlock2D>,
}
module!(UNetMidBlock2D { attentions, resnets });

impl UNetMidBlock2D {
    fn new(channels: usize, config: &AutoencoderKLConfig) -> Self {
        let attention = || VaeAttention {
            group_norm: GroupNorm::new(config.norm_num_groups, channels, EPS),
            attention: Attention::single_head(channels),
        };
        Self {
            attentions: config.mid_block_add_attention.then(attention).into_iter().collect(),
            resnets: vec![ResnetBlock2D::new(channels, channels, config.resnet()); 2],
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.resnets[0].forward(x, None);
        for attention in &self.attentions {
            x = attention.forward(x);
        }
        self.resnets[1].forward(x, None)
    }
}

/// `Attention` with its norm, over pixels.
#[derive(Debug, Clone)]
struct VaeAttention {
    group_norm: GroupNorm,
    /// In the checkpoint its layers stand beside the norm.
    attention: Attention,
}

impl Module for VaeAttention {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        self.group_norm.visit(&join(path, "group_norm"), visitor);
        self.attention.visit(path, visitor);
    }
}

impl VaeAttention {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let tokens = [b, h * w, c];
        let normal = self.group_norm.forward(x.clone()).reshape(tokens);
        let x = self.attention.forward(normal, x.reshape(tokens));
        x.reshape([b, h, w, c])
    }
}

#[derive(Debug, Clone)]
struct DownEncoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    downsamplers: Option<[Downsample2D; 1]>,
}
module!(DownEncoderBlock2D { resnets, downsamplers });

#[derive(Debug, Clone)]
struct UpDecoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    upsamplers: Option<[Upsample2D; 1]>,
}
module!(UpDecoderBlock2D { resnets, upsamplers });

/// A stage's residual blocks, the first of which changes the channels.
fn resnets(
    inputs: usize,
    outputs: usize,
    count: usize,
    config: ResnetConfig,
) -> Vec<ResnetBlock2D> {
    let inputs = std::iter::once(inputs).chain(std::iter::repeat(outputs)).take(count);
    inputs.map(|inputs| ResnetBlock2D::new(inputs, outputs, config)).collect()
}

#[derive(Debug, Clone)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock2D>,
    mid_block: UNetMidBlock2D,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
module!(Encoder { conv_in, down_blocks, mid_block, conv_norm_out, conv_out });

impl Encoder {
    fn new(config: &AutoencoderKLConfig) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let block = |i: usize| {
            let inputs = channels[i.saturating_sub(1)];
            DownEncoderBlock2D {
                resnets: resnets(inputs, channels[i], config.layers_per_block, config.resnet()),
                downsamplers: (i < last).then(|| [Downsample2D::new(channels[i], 0)]),
            }
        };
        Self {
            conv_in: Conv2d::new(config.in_channels, channels[0], 3),
            down_blocks: (0..=last).map(block).collect(),
            mid_block: UNetMidBlock2D::new(channels[last], config),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, channels[last], EPS),
            conv_out: Conv2d::new(channels[last], 2 * config.latent_channels, 3),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.conv_in.forward(x);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, None);
            }
            if let Some([downsampler]) = &block.downsamplers {
                x = downsampler.forward(x);
            }
        }
        let x = self.mid_block.forward(x);
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

#[derive(Debug, Clone)]
struct Decoder {
    conv_in: Conv2d,
    mid_block: UNetMidBlock2D,
    up_blocks: Vec<UpDecoderBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
module!(Decoder { conv_in, mid_block, up_blocks, conv_norm_out, conv_out });

impl Decoder {
    fn new(config: &AutoencoderKLConfig) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let block = |stage: usize| {
            let inputs = channels[(stage + 1).min(last)];
            let count = config.layers_per_block + 1;
            UpDecoderBlock2D {
                resnets: resnets(inputs, channels[stage], count, config.resnet()),
                upsamplers: (stage > 0).then(|| [Upsample2D::new(channels[stage])]),
            }
        };
        Self {
            conv_in: Conv2d::new(config.latent_channels, channels[last], 3),
            mid_block: UNetMidBlock2D::new(channels[last], config),
            up_blocks: (0..=last).rev().map(block).collect(),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, channels[0], EPS),
            conv_out: Conv2d::new(channels[0], config.out_channels, 3),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = self.mid_block.forward(self.conv_in.forward(x));
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                x = resnet.forward(x, None);
            }
            if let Some([upsampler]) = &block.upsamplers {
                x = upsampler.forward(x, None);
            }
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

/// The encoder's result: a normal distribution for each latent.
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    /// Means, then logarithms of variances: `[B, h, w, 2 * latent_channels]`.
    pub moments: Tensor<4>,
}

impl DiagonalGaussian {
    /// The most likely latents, `[B, h, w, latent_channels]`.
    pub fn mode(&self) -> Tensor<4> {
        self.half(0)
    }

    /// The standard deviations, `[B, h, w, latent_channels]`.
    pub fn std(&self) -> Tensor<4> {
        self.half(1).clamp(-30.0, 20.0).mul_scalar(0.5).exp()
    }

    fn half(&self, index: usize) -> Tensor<4> {
        let [b, h, w, c] = self.moments.dims();
        let half = c / 2;
        self.moments.clone().slice([0..b, 0..h, 0..w, index * half..(index + 1) * half])
    }
}

/// One of the two networks of an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// From pictures to latents.
    Encoder,
    /// And back.
    Decoder,
}

/// `AutoencoderKL`.
#[derive(Debug, Clone)]
pub struct AutoencoderKL {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Linear>,
    post_quant_conv: Option<Linear>,
    config: AutoencoderKLConfig,
}
module!(AutoencoderKL { encoder, decoder, quant_conv, post_quant_conv });

impl AutoencoderKL {
    /// The configuration that the model was built from.
    pub fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    /// A picture `[B, H, W, 3]` in -1 to 1 to the distribution of its latents, `[B, h, w, ..]`.
    pub fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        let moments = self.encoder.forward(x);
        let moments = match &self.quant_conv {
            Some(conv) => conv.forward(moments),
            None => moments,
        };
        DiagonalGaussian { moments }
    }

    /// Latents `[B, h, w, C]`, already divided by `scaling_factor`, to a picture `[B, H, W, 3]` in
    /// about -1 to 1.
    pub fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        let z = match &self.post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        };
        self.decoder.forward(z)
    }

    /// As [`encode`](Self::encode), in overlapping tiles of `side` x `side` pixels whose seams are blended: less
    /// memory, and slightly other latents. Pictures no larger than a tile are encoded whole. diffusers' tiles have
    /// `sample_size`.
    pub fn encode_tiled(&self, x: Tensor<4>, side: usize) -> DiagonalGaussian {
        let tiles = Tiles { size: side, output: side / self.config.scale_factor() };
        match tiles.run(&x, |tile| self.encode(tile).moments) {
            Some(moments) => DiagonalGaussian { moments },
            None => self.encode(x),
        }
    }

    /// As [`decode`](Self::decode), in overlapping tiles whose seams are blended.
    pub fn decode_tiled(&self, z: Tensor<4>, side: usize) -> Tensor<4> {
        let tiles = Tiles { size: side / self.config.scale_factor(), output: side };
        tiles.run(&z, |tile| self.decode(tile)).unwrap_or_else(|| self.decode(z))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_as_large_as_buffers_allow() {
        let config = AutoencoderKLConfig {
            block_out_channels: vec![128, 256, 512, 512],
            ..AutoencoderKLConfig::default()
        };
        let tile = |mebibytes: usize, bytes: usize, network, side| {
            config.tile_within((mebibytes << 20) / bytes, network, [side; 2])
        };
        use Network::{Decoder, Encoder};
        // WebGPU's least limit, in floats and in halves.
        assert_eq!([tile(128, 4, Encoder, 512), tile(128, 4, Decoder, 512)], [None, Some(352)]);
        assert_eq!([tile(128, 4, Decoder, 352), tile(128, 2, Decoder, 512)], [None; 2]);
        assert_eq!(tile(128, 2, Decoder, 768), Some(512));
        assert_eq!(tile(0, 4, Decoder, 512), Some(32));
    }

    #[test]
    fn configurations_outside_the_family_are_refused() {
        let parse = |json: &str| AutoencoderKLConfig::parse("vae/config.json", json);
        let codes = [
            ("{", "invalid-config"),
            (r#"{"act_fn": "relu"}"#, "unsupported"),
            (r#"{"block_out_channels": [48]}"#, "invalid-config"),
            (r#"{"down_block_types": ["AttnDownBlock2D"]}"#, "unsupported"),
            (r#"{"scaling_factor": 0.0}"#, "invalid-config"),
        ];
        for (json, code) in codes {
            let error: Error = parse(json).expect_err(json);
            assert_eq!(error.code(), code, "{json}: {error}");
        }
    }
}
