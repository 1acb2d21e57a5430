//! The denoiser.
//!
//! Source: Ronneberger et al., "U-Net"; Rombach et al., "High-Resolution Image Synthesis with Latent
//! Diffusion Models"; Podell et al., "SDXL"; diffusers `models/unets/unet_2d_condition.py`.

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::attention::{Keys, TransformerConfig};
use super::config::{self, MAX_LAYERS, MAX_SIZE, MAX_STAGES, PerBlock, bounded, require};
use super::embeddings::{TimestepEmbedding, Timesteps};
use super::freeu::FreeU;
use super::layers::{Conv2d, GroupNorm};
use super::module::module;
use super::resnet::ResnetConfig;
use super::unet_blocks::{BlockConfig, DownBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D};
use crate::error::{Error, Result};

/// `config.json` of a `UNet2DConditionModel`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct UNet2DConditionConfig {
    /// Channels of the input: noisy latents and image latents, 8.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the latents that the model was trained on.
    pub sample_size: Option<Value>,
    /// Channels of each stage.
    pub block_out_channels: Vec<usize>,
    /// The class of each stage on the way down.
    pub down_block_types: Vec<String>,
    /// The class of the middle.
    pub mid_block_type: Option<String>,
    /// The class of each stage on the way up.
    pub up_block_types: Vec<String>,
    /// Residual blocks of each stage on the way down.
    pub layers_per_block: PerBlock<usize>,
    /// Transformer blocks after each residual block.
    pub transformer_layers_per_block: PerBlock<usize>,
    /// Heads, despite the name, wherever `num_attention_heads` is absent.
    pub attention_head_dim: PerBlock<usize>,
    /// Heads.
    pub num_attention_heads: Option<PerBlock<usize>>,
    /// Channels of the text.
    pub cross_attention_dim: PerBlock<usize>,
    /// Whether `proj_in` and `proj_out` are dense layers; the same on channels-last activations.
    pub use_linear_projection: bool,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Added to the variance of the norms.
    pub norm_eps: f64,
    /// The activation; SiLU.
    pub act_fn: String,
    /// Padding of the convolutions that halve the size.
    pub downsample_padding: usize,
    /// Whether the time embedding starts with cosines.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's lowest frequency.
    pub freq_shift: f64,
    /// Channels of the time embedding, if not four times the first stage's.
    pub time_embedding_dim: Option<usize>,
    /// `text_time` for SDXL.
    pub addition_embed_type: Option<String>,
    /// SDXL: channels of each micro-condition's embedding.
    pub addition_time_embed_dim: Option<usize>,
    /// SDXL: channels of pooled text and micro-conditions together.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Everything else, checked for features that are not implemented.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let strings = |names: [&str; 4]| names.map(String::from).to_vec();
        let cross = "CrossAttnDownBlock2D";
        let up = "CrossAttnUpBlock2D";
        Self {
            in_channels: 4,
            out_channels: 4,
            sample_size: None,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_block_types: strings([cross, cross, cross, "DownBlock2D"]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".into()),
            up_block_types: strings(["UpBlock2D", up, up, up]),
            layers_per_block: PerBlock::All(2),
            transformer_layers_per_block: PerBlock::All(1),
            attention_head_dim: PerBlock::All(8),
            num_attention_heads: None,
            cross_attention_dim: PerBlock::All(1280),
            use_linear_projection: false,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            act_fn: "silu".into(),
            downsample_padding: 1,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            other: serde_json::Map::new(),
        }
    }
}

/// Transformer blocks of all stages' way down, and so about of the way up, at most.
const MAX_TRANSFORMERS: usize = 512;

/// Settings that change the network when they are not at these values.
const NOT_IMPLEMENTED: [(&str, Value); 16] = [
    ("center_input_sample", Value::Bool(false)),
    ("only_cross_attention", Value::Bool(false)),
    ("dual_cross_attention", Value::Bool(false)),
    ("class_embed_type", Value::Null),
    ("num_class_embeds", Value::Null),
    ("encoder_hid_dim", Value::Null),
    ("encoder_hid_dim_type", Value::Null),
    ("class_embeddings_concat", Value::Bool(false)),
    ("mid_block_only_cross_attention", Value::Null),
    ("cross_attention_norm", Value::Null),
    ("resnet_skip_time_act", Value::Bool(false)),
    ("time_embedding_act_fn", Value::Null),
    ("timestep_post_act", Value::Null),
    ("time_cond_proj_dim", Value::Null),
    ("reverse_transformer_layers_per_block", Value::Null),
    ("attention_type", Value::Null),
];

impl UNet2DConditionConfig {
    /// Parses `json`, the contents of `file`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it is no such configuration, [`Error::Unsupported`] when it asks
    /// for a network outside this family.
    pub fn parse(file: &str, json: &str) -> Result<Self> {
        let config: Self = config::parse(file, json)?;
        for (key, value) in &NOT_IMPLEMENTED {
            let found = config.other.get(*key).unwrap_or(value);
            let default = *key == "attention_type" && found == "default";
            require(found == value || found.is_null() || default, || {
                format!("`{key}` = {found} in {file}")
            })?;
        }
        let is = |key: &str, expected: &str| {
            config.other.get(key).is_none_or(|found| found.is_null() || found == expected)
        };
        require(
            is("resnet_time_scale_shift", "default") && is("time_embedding_type", "positional"),
            || format!("the time embedding that {file} asks for"),
        )?;
        let one =
            |key: &str| config.other.get(key).and_then(Value::as_f64).is_none_or(|x| x == 1.0);
        require(one("mid_block_scale_factor") && one("resnet_out_scale_factor"), || {
            format!("scaled residual blocks in {file}")
        })?;
        require(matches!(config.act_fn.as_str(), "silu" | "swish"), || {
            format!("act_fn `{}` in {file}", config.act_fn)
        })?;
        let middle = config.mid_block_type.as_deref();
        require(middle == Some("UNetMidBlock2DCrossAttn"), || {
            format!("mid_block_type {middle:?} in {file}")
        })?;
        for name in config.down_block_types.iter().chain(&config.up_block_types) {
            let known = ["DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"];
            require(known.contains(&name.as_str()), || format!("block type `{name}` in {file}"))?;
        }
        let kind = config.addition_embed_type.as_deref();
        require(matches!(kind, None | Some("text_time")), || {
            format!("addition_embed_type {kind:?} in {file}")
        })?;
        config.check(file)?;
        Ok(config)
    }

    /// What must hold for [`init`](Self::init) to build a network.
    fn check(&self, file: &str) -> Result<()> {
        let blocks = self.block_out_channels.len();
        let fail = |message: String| Err(Error::config(file, message));
        if blocks == 0
            || self.down_block_types.len() != blocks
            || self.up_block_types.len() != blocks
        {
            return fail(format!("{blocks} stages need as many down and up block types"));
        }
        let stages = self.stages(file)?;
        for (channels, stage) in self.block_out_channels.iter().zip(&stages) {
            if self.norm_num_groups == 0 || channels % self.norm_num_groups != 0 {
                return fail("`norm_num_groups` does not divide the channels".into());
            }
            if stage.heads == 0 || channels % stage.heads != 0 {
                return fail(format!("{} heads do not divide {channels} channels", stage.heads));
            }
        }
        bounded(file, MAX_STAGES, [("block_out_channels", blocks)])?;
        let channels = self.block_out_channels.iter().map(|c| ("block_out_channels", *c));
        let sizes = [("in_channels", self.in_channels), ("out_channels", self.out_channels)];
        let optional = [
            ("time_embedding_dim", self.time_embedding_dim),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let contexts = stages.iter().map(|stage| ("cross_attention_dim", stage.context));
        bounded(file, MAX_SIZE, channels.chain(sizes).chain(optional).chain(contexts))?;
        let layers = stages.iter().map(|stage| ("layers_per_block", stage.layers));
        bounded(file, MAX_LAYERS, layers)?;
        let depths = stages.iter().map(|stage| stage.depth.saturating_mul(stage.layers + 1));
        let depth = depths.fold(1, usize::saturating_add);
        bounded(file, MAX_TRANSFORMERS, [("transformer_layers_per_block", depth)])?;
        let dims = (self.addition_time_embed_dim, self.projection_class_embeddings_input_dim);
        if self.addition_embed_type.is_some() && !matches!(dims, (Some(_), Some(_))) {
            return fail(
                "`text_time` needs `addition_time_embed_dim` and \
                `projection_class_embeddings_input_dim`"
                    .into(),
            );
        }
        Ok(())
    }

    fn stages(&self, file: &str) -> Result<Vec<Stage>> {
        let blocks = self.block_out_channels.len();
        let expand = |value: &PerBlock<usize>, key| value.expand(blocks, file, key);
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        let heads = expand(heads, "attention_head_dim")?;
        let layers = expand(&self.layers_per_block, "layers_per_block")?;
        let depth = expand(&self.transformer_layers_per_block, "transformer_layers_per_block")?;
        let context = expand(&self.cross_attention_dim, "cross_attention_dim")?;
        Ok((0..blocks)
            .map(|i| Stage {
                layers: layers[i],
                heads: heads[i],
                depth: depth[i],
                context: context[i],
            })
            .collect())
    }

    /// Channels of the text.
    pub fn text_channels(&self) -> usize {
        match &self.cross_attention_dim {
            PerBlock::All(channels) => *channels,
            PerBlock::Each(each) => each[0],
        }
    }

    /// Height and width of the latents that the model was trained on, where they are the same.
    pub fn sample_side(&self) -> Option<usize> {
        self.sample_size.as_ref()?.as_u64().map(|side| side as usize)
    }

    /// Values of the largest activation of one sample on its way through, for latents of this height and width: what an up
    /// block takes together from below and from beside it, or a feed-forward with its gates, as adapters have them.
    pub fn largest_activation(&self, [height, width]: [usize; 2]) -> usize {
        let channels = &self.block_out_channels;
        let values = |i: usize| {
            // The last level has the mid block, which always does.
            let is_last = i + 1 == channels.len();
            let attends = is_last || self.down_block_types[i].starts_with("CrossAttn");
            let gates = if attends { 8 * channels[i] } else { 0 };
            let together = channels[i] + channels[(i + 1).min(channels.len() - 1)];
            height.div_ceil(1 << i) * width.div_ceil(1 << i) * together.max(gates)
        };
        (0..channels.len()).map(values).max().unwrap_or(0)
    }

    /// An empty model of this configuration.
    pub fn init(&self) -> UNet2DConditionModel {
        let stages = self.stages("config.json").expect("parse checked the lengths");
        let channels = &self.block_out_channels;
        let first = channels[0];
        let last = channels.len() - 1;
        let time_channels = self.time_embedding_dim.unwrap_or(first * 4);
        let resnet = ResnetConfig {
            time_channels: Some(time_channels),
            groups: self.norm_num_groups,
            eps: self.norm_eps,
        };
        let transformer = |stage: &Stage| TransformerConfig {
            layers: stage.depth,
            heads: stage.heads,
            context: stage.context,
            groups: self.norm_num_groups,
            use_linear_projection: self.use_linear_projection,
        };
        let block = |stage: &Stage, kind: &str, extra: usize, resample: bool| BlockConfig {
            layers: stage.layers + extra,
            resnet,
            transformer: kind.starts_with("CrossAttn").then(|| transformer(stage)),
            resample,
        };
        let down_blocks = (0..=last).map(|i| {
            let config = block(&stages[i], &self.down_block_types[i], 0, i < last);
            let inputs = channels[i.saturating_sub(1)];
            DownBlock2D::new(inputs, channels[i], self.downsample_padding, config)
        });
        let up_blocks = (0..=last).map(|i| {
            let stage = last - i;
            let config = block(&stages[stage], &self.up_block_types[i], 1, i < last);
            let inputs = channels[stage.saturating_sub(1)];
            let previous = channels[(stage + 1).min(last)];
            UpBlock2D::new(inputs, previous, channels[stage], config)
        });
        let addition = self.addition_embed_type.as_ref().and_then(|_| {
            let inputs = self.projection_class_embeddings_input_dim?;
            Some((TimestepEmbedding::new(inputs, time_channels), self.addition_time_embed_dim?))
        });
        let (add_embedding, micro_channels) = addition.unzip();
        let time_proj = Timesteps {
            channels: first,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        };
        UNet2DConditionModel {
            conv_in: Conv2d::new(self.in_channels, first, 3),
            time_embedding: TimestepEmbedding::new(first, time_channels),
            add_embedding,
            down_blocks: down_blocks.collect(),
            mid_block: UNetMidBlock2DCrossAttn::new(
                channels[last],
                resnet,
                transformer(&stages[last]),
            ),
            up_blocks: up_blocks.collect(),
            conv_norm_out: GroupNorm::new(self.norm_num_groups, first, self.norm_eps),
            conv_out: Conv2d::new(first, self.out_channels, 3),
            time_proj,
            add_time_proj: micro_channels.map(|channels| Timesteps { channels, ..time_proj }),
            freeu: None,
            config: self.clone(),
        }
    }
}

/// The settings of one resolution.
struct Stage {
    layers: usize,
    heads: usize,
    depth: usize,
    context: usize,
}

/// SDXL's conditions beside text and time.
#[derive(Debug, Clone)]
pub struct AddedConditions {
    /// The second encoder's pooled text, `[B, P]`.
    pub text_embeds: Tensor<2>,
    /// For each sample: original size, crop and target size, pixels; or an aesthetic score in place
    /// of the last, where the model was trained on it. As many for each.
    pub time_ids: Vec<Vec<f64>>,
}

/// A text as the UNet's blocks attend to it: the same in every step of an edit.
#[derive(Debug, Clone)]
pub struct TextKeys(Vec<Keys>);

/// Sees the activations of a forward pass by their name, `[B, H, W, C]`.
pub type UNetTap<'a> = dyn FnMut(&str, &Tensor<4>) + 'a;

/// `UNet2DConditionModel`.
#[derive(Debug, Clone)]
pub struct UNet2DConditionModel {
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock2D>,
    mid_block: UNetMidBlock2DCrossAttn,
    up_blocks: Vec<UpBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    time_proj: Timesteps,
    add_time_proj: Option<Timesteps>,
    freeu: Option<FreeU>,
    config: UNet2DConditionConfig,
}
module!(UNet2DConditionModel {
    conv_in,
    time_embedding,
    add_embedding,
    down_blocks,
    mid_block,
    up_blocks,
    conv_norm_out,
    conv_out,
});

impl UNet2DConditionModel {
    /// Has the configuration say that the model was trained on latents of that height and width, where it is another
    /// model's. No weight depends on it.
    pub fn set_sample_side(&mut self, side: usize) {
        self.config.sample_size = Some(side.into());
    }

    /// The configuration that the model was built from.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// Turns FreeU on or off.
    pub fn set_freeu(&mut self, freeu: Option<FreeU>) {
        self.freeu = freeu;
    }

    /// Predicts the noise (or what the model was trained for).
    ///
    /// # Shapes
    /// `sample`: `[B, H, W, in_channels]`; `timesteps`: one for all, or B; `text`: `[B, M, D]`;
    /// the result: `[B, H, W, out_channels]`.
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timesteps: &[f64],
        text: &Tensor<3>,
        added: Option<&AddedConditions>,
    ) -> Tensor<4> {
        self.forward_to(sample, timesteps, &self.text_keys(text), added)
    }

    /// What [`forward_to`](Self::forward_to) needs of a text, `[B, M, D]`.
    pub fn text_keys(&self, text: &Tensor<3>) -> TextKeys {
        let down = self.down_blocks.iter().flat_map(DownBlock2D::transformers);
        let up = self.up_blocks.iter().flat_map(UpBlock2D::transformers);
        let all = down.chain(self.mid_block.transformers()).chain(up);
        TextKeys(all.flat_map(|transformer| transformer.text_keys(text)).collect())
    }

    /// As [`forward`](Self::forward), for a text that serves several passes.
    pub fn forward_to(
        &self,
        sample: Tensor<4>,
        timesteps: &[f64],
        text: &TextKeys,
        added: Option<&AddedConditions>,
    ) -> Tensor<4> {
        self.forward_tapped(sample, timesteps, text, added, &mut |_, _| {})
    }

    /// As [`forward_to`](Self::forward_to), showing `tap` what lies between.
    pub fn forward_tapped(
        &self,
        sample: Tensor<4>,
        timesteps: &[f64],
        text: &TextKeys,
        added: Option<&AddedConditions>,
        tap: &mut UNetTap<'_>,
    ) -> Tensor<4> {
        let time = self.embed_time(&sample, timesteps, added);
        let [b, c] = time.dims();
        tap("time_embedding", &time.clone().reshape([b, 1, 1, c]));
        // Every residual block starts its use of the time embedding with SiLU: once for all.
        let time = burn::tensor::activation::silu(time);

        let text = &mut text.0.iter();
        let mut x = self.conv_in.forward(sample);
        tap("conv_in", &x);
        let mut skips = vec![x.clone()];
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(x, &time, text, &mut skips);
            tap(&format!("down_blocks.{i}"), &x);
        }
        x = self.mid_block.forward(x, &time, text);
        tap("mid_block", &x);
        for (i, block) in self.up_blocks.iter().enumerate() {
            let freeu = self.freeu.and_then(|freeu| freeu.stage(i));
            x = block.forward(x, &time, text, &mut skips, freeu);
            tap(&format!("up_blocks.{i}"), &x);
        }
        let x = self.conv_out.forward(self.conv_norm_out.forward_silu(x));
        tap("conv_out", &x);
        x
    }

    fn embed_time(
        &self,
        sample: &Tensor<4>,
        timesteps: &[f64],
        added: Option<&AddedConditions>,
    ) -> Tensor<2> {
        let [batch, ..] = sample.dims();
        let (device, dtype) = (sample.device(), sample.dtype());
        let time = self.time_embedding.forward(self.time_proj.forward(timesteps, &device, dtype));
        let time = if timesteps.len() == batch { time } else { time.repeat_dim(0, batch) };
        match (&self.add_embedding, &self.add_time_proj, added) {
            (Some(embedding), Some(projection), Some(added)) => {
                let ids = added.time_ids.concat();
                let ids = projection.forward(&ids, &device, dtype);
                let ids = ids.reshape([batch, ids_channels(added, projection)]);
                time.add(embedding.forward(Tensor::cat(vec![added.text_embeds.clone(), ids], 1)))
            }
            _ => time,
        }
    }
}

fn ids_channels(added: &AddedConditions, projection: &Timesteps) -> usize {
    added.time_ids.first().map_or(0, Vec::len) * projection.channels
}
