//! The stages of the UNet.
//!
//! Source: diffusers `models/unets/unet_2d_blocks.py`.

use burn::tensor::Tensor;

use super::attention::{Keys, Transformer2DModel, TransformerConfig};
use super::freeu::FreeUStage;
use super::module::module;
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};
use crate::kernels::concat;

/// What a stage is built from.
#[derive(Debug, Clone, Copy)]
pub struct BlockConfig {
    /// Residual blocks.
    pub layers: usize,
    /// Of those.
    pub resnet: ResnetConfig,
    /// Of the transformer after each, in the stages that have them.
    pub transformer: Option<TransformerConfig>,
    /// Whether the stage ends with a change of resolution.
    pub resample: bool,
}

impl BlockConfig {
    fn attentions(&self, channels: usize, count: usize) -> Option<Vec<Transformer2DModel>> {
        let config = self.transformer?;
        Some((0..count).map(|_| Transformer2DModel::new(channels, config)).collect())
    }
}

/// `DownBlock2D`, or with attentions `CrossAttnDownBlock2D`.
#[derive(Debug, Clone)]
pub struct DownBlock2D {
    resnets: Vec<ResnetBlock2D>,
    attentions: Option<Vec<Transformer2DModel>>,
    downsamplers: Option<[Downsample2D; 1]>,
}
module!(DownBlock2D { resnets, attentions, downsamplers });

impl DownBlock2D {
    /// From `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, padding: usize, config: BlockConfig) -> Self {
        let resnet =
            |i| ResnetBlock2D::new(if i == 0 { inputs } else { outputs }, outputs, config.resnet);
        Self {
            resnets: (0..config.layers).map(resnet).collect(),
            attentions: config.attentions(outputs, config.layers),
            downsamplers: config.resample.then(|| [Downsample2D::new(outputs, padding)]),
        }
    }

    /// Its transformers, in the order of a pass.
    pub fn transformers(&self) -> &[Transformer2DModel] {
        self.attentions.as_deref().unwrap_or_default()
    }

    /// Runs the stage and appends what the way up will need to `skips`.
    pub fn forward<'a>(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        text: &mut impl Iterator<Item = &'a Keys>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(time));
            if let Some(attentions) = &self.attentions {
                x = attentions[i].forward(x, text);
            }
            skips.push(x.clone());
        }
        if let Some([downsampler]) = &self.downsamplers {
            x = downsampler.forward(x);
            skips.push(x.clone());
        }
        x
    }
}

/// `UNetMidBlock2DCrossAttn`.
#[derive(Debug, Clone)]
pub struct UNetMidBlock2DCrossAttn {
    attentions: Vec<Transformer2DModel>,
    resnets: Vec<ResnetBlock2D>,
}
module!(UNetMidBlock2DCrossAttn { attentions, resnets });

impl UNetMidBlock2DCrossAttn {
    /// Keeps the channels.
    pub fn new(channels: usize, resnet: ResnetConfig, transformer: TransformerConfig) -> Self {
        Self {
            attentions: vec![Transformer2DModel::new(channels, transformer)],
            resnets: vec![ResnetBlock2D::new(channels, channels, resnet); 2],
        }
    }

    /// Its transformers, in the order of a pass.
    pub fn transformers(&self) -> &[Transformer2DModel] {
        &self.attentions
    }

    /// `[B, H, W, C]` to the same.
    pub fn forward<'a>(
        &self,
        x: Tensor<4>,
        time: &Tensor<2>,
        text: &mut impl Iterator<Item = &'a Keys>,
    ) -> Tensor<4> {
        let x = self.resnets[0].forward(x, Some(time));
        let x = self.attentions[0].forward(x, text);
        self.resnets[1].forward(x, Some(time))
    }
}

/// `UpBlock2D`, or with attentions `CrossAttnUpBlock2D`.
#[derive(Debug, Clone)]
pub struct UpBlock2D {
    resnets: Vec<ResnetBlock2D>,
    attentions: Option<Vec<Transformer2DModel>>,
    upsamplers: Option<[Upsample2D; 1]>,
}
module!(UpBlock2D { resnets, attentions, upsamplers });

impl UpBlock2D {
    /// From `previous` channels to `outputs`; the last skip of the stage has `inputs` channels, the
    /// others `outputs`.
    pub fn new(inputs: usize, previous: usize, outputs: usize, config: BlockConfig) -> Self {
        let resnet = |i| {
            let skip = if i + 1 == config.layers { inputs } else { outputs };
            let main = if i == 0 { previous } else { outputs };
            ResnetBlock2D::new(main + skip, outputs, config.resnet)
        };
        Self {
            resnets: (0..config.layers).map(resnet).collect(),
            attentions: config.attentions(outputs, config.layers),
            upsamplers: config.resample.then(|| [Upsample2D::new(outputs)]),
        }
    }

    /// Its transformers, in the order of a pass.
    pub fn transformers(&self) -> &[Transformer2DModel] {
        self.attentions.as_deref().unwrap_or_default()
    }

    /// Runs the stage, taking its skips from the end of `skips`; what it leaves there decides the
    /// size to come back to.
    pub fn forward<'a>(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        text: &mut impl Iterator<Item = &'a Keys>,
        skips: &mut Vec<Tensor<4>>,
        freeu: Option<FreeUStage>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down left one skip for each residual block");
            let (backbone, skip) = match freeu {
                Some(freeu) => freeu.apply(x, skip),
                None => (x, skip),
            };
            x = resnet.forward(concat(backbone, skip), Some(time));
            if let Some(attentions) = &self.attentions {
                x = attentions[i].forward(x, text);
            }
        }
        if let Some([upsampler]) = &self.upsamplers {
            let size = skips.last().map(|skip| {
                let [_, h, w, _] = skip.dims();
                [h, w]
            });
            x = upsampler.forward(x, size);
        }
        x
    }
}
