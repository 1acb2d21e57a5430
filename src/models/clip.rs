//! CLIP's text encoder.
//!
//! Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision";
//! transformers `models/clip/modeling_clip.py`.

use burn::tensor::{DType, Tensor};
use serde::Deserialize;

use super::config::{self, MAX_LAYERS, MAX_SIZE, bounded, require};
use super::layers::{Embedding, LayerNorm, Linear};
use super::module::{Placement, module};
use crate::error::{Error, Result};
use crate::kernels::{self, Epilogue};

/// `config.json` of a `CLIPTextModel` or `CLIPTextModelWithProjection`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// The class: with `CLIPTextModelWithProjection` the pooled output is projected.
    pub architectures: Vec<String>,
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; divides the channels.
    pub num_attention_heads: usize,
    /// Tokens, padding included.
    pub max_position_embeddings: usize,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// Added to the variance of the norms.
    pub layer_norm_eps: f64,
    /// The token whose position is pooled; 2 in old files means the largest id.
    pub eos_token_id: u32,
    /// Channels of the projection.
    pub projection_dim: usize,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: Vec::new(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            projection_dim: 512,
        }
    }
}

impl ClipTextConfig {
    /// Parses `json`, the contents of `file`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it is no such configuration, [`Error::Unsupported`] when it asks
    /// for another activation.
    pub fn parse(file: &str, json: &str) -> Result<Self> {
        let config: Self = config::parse(file, json)?;
        config.encoder().check(file)?;
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("projection_dim", config.projection_dim),
        ];
        bounded(file, MAX_SIZE, sizes)?;
        Ok(config)
    }

    fn encoder(&self) -> ClipEncoderConfig<'_> {
        ClipEncoderConfig {
            channels: self.hidden_size,
            inner: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            activation: &self.hidden_act,
            eps: self.layer_norm_eps,
            causal: true,
        }
    }

    /// An empty model of this configuration.
    pub fn init(&self) -> ClipTextModel {
        let width = self.hidden_size;
        let projected = self.architectures.iter().any(|a| a == "CLIPTextModelWithProjection");
        ClipTextModel {
            text_model: ClipTextTransformer {
                embeddings: ClipTextEmbeddings {
                    token_embedding: Embedding::new(self.vocab_size, width),
                    position_embedding: Embedding::new(self.max_position_embeddings, width),
                },
                encoder: ClipEncoder::new(self.encoder()),
                final_layer_norm: LayerNorm::new(width, self.layer_norm_eps),
            },
            text_projection: projected.then(|| Linear::without_bias(width, self.projection_dim)),
            config: self.clone(),
        }
    }
}

/// `CLIPTextModel`, and `CLIPTextModelWithProjection` where the checkpoint has one.
#[derive(Debug, Clone)]
pub struct ClipTextModel {
    text_model: ClipTextTransformer,
    text_projection: Option<Linear>,
    config: ClipTextConfig,
}
module!(ClipTextModel { text_model, text_projection });

#[derive(Debug, Clone)]
struct ClipTextTransformer {
    embeddings: ClipTextEmbeddings,
    encoder: ClipEncoder,
    final_layer_norm: LayerNorm,
}
module!(ClipTextTransformer { embeddings, encoder, final_layer_norm });

#[derive(Debug, Clone)]
struct ClipTextEmbeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}
module!(ClipTextEmbeddings { token_embedding, position_embedding });

/// What CLIP's encoders of texts and of pictures share.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClipEncoderConfig<'a> {
    pub channels: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub activation: &'a str,
    pub eps: f64,
    /// Whether later tokens are hidden from earlier ones.
    pub causal: bool,
}

impl ClipEncoderConfig<'_> {
    /// Fails for what [`ClipEncoder::new`] cannot build.
    pub fn check(&self, file: &str) -> Result<()> {
        require(matches!(self.activation, "quick_gelu" | "gelu"), || {
            format!("hidden_act `{}` of {file}; quick_gelu and gelu are", self.activation)
        })?;
        if self.heads == 0 || !self.channels.is_multiple_of(self.heads) {
            return Err(Error::config(file, "`num_attention_heads` does not divide `hidden_size`"));
        }
        let sizes = [("hidden_size", self.channels), ("intermediate_size", self.inner)];
        bounded(file, MAX_SIZE, sizes)?;
        bounded(file, MAX_LAYERS, [("num_hidden_layers", self.layers)])
    }
}

/// `CLIPEncoder`.
#[derive(Debug, Clone)]
pub(super) struct ClipEncoder {
    layers: Vec<ClipEncoderLayer>,
}
module!(ClipEncoder { layers });

impl ClipEncoder {
    /// An empty encoder.
    pub fn new(config: ClipEncoderConfig<'_>) -> Self {
        let ClipEncoderConfig { channels, inner, layers, heads, activation, eps, causal } = config;
        let linear = || Linear::new(channels, channels);
        let layer = |_| ClipEncoderLayer {
            self_attn: ClipAttention {
                q_proj: linear(),
                k_proj: linear(),
                v_proj: linear(),
                out_proj: linear(),
                heads,
                causal,
            },
            layer_norm1: LayerNorm::new(channels, eps),
            mlp: ClipMlp {
                fc1: Linear::new(channels, inner),
                fc2: Linear::new(inner, channels),
                quick_gelu: activation == "quick_gelu",
            },
            layer_norm2: LayerNorm::new(channels, eps),
        };
        Self { layers: (0..layers).map(layer).collect() }
    }

    /// `[B, N, C]` to the same; `on_layer` sees every layer's output.
    pub fn forward(&self, x: Tensor<3>, on_layer: &mut dyn FnMut(&Tensor<3>)) -> Tensor<3> {
        self.layers.iter().fold(x, |x, layer| {
            let x = layer.forward(x);
            on_layer(&x);
            x
        })
    }
}

#[derive(Debug, Clone)]
struct ClipEncoderLayer {
    self_attn: ClipAttention,
    layer_norm1: LayerNorm,
    mlp: ClipMlp,
    layer_norm2: LayerNorm,
}
module!(ClipEncoderLayer { self_attn, layer_norm1, mlp, layer_norm2 });

#[derive(Debug, Clone)]
struct ClipAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
    causal: bool,
}
module!(ClipAttention { q_proj, k_proj, v_proj, out_proj });

#[derive(Debug, Clone)]
struct ClipMlp {
    fc1: Linear,
    fc2: Linear,
    quick_gelu: bool,
}
module!(ClipMlp { fc1, fc2 });

/// What a text encoder yields.
#[derive(Debug, Clone)]
pub struct ClipTextOutput {
    /// The embeddings, then each layer's output: `[B, N, C]` each.
    pub hidden_states: Vec<Tensor<3>>,
    /// The last of them through the final norm, `[B, N, C]`.
    pub last_hidden_state: Tensor<3>,
    /// The final norm's output at each text's end token, `[B, C]`; projected where the model has a
    /// projection (`text_embeds`).
    pub pooled: Tensor<2>,
}

impl ClipTextModel {
    /// What the model was built from.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Channels of a token's vector.
    pub fn token_channels(&self) -> usize {
        self.config.hidden_size
    }

    /// Whether the pooled output is projected (`CLIPTextModelWithProjection`).
    pub fn is_projected(&self) -> bool {
        self.text_projection.is_some()
    }

    /// Gives the ids from `first` on the vectors in `values`, row by row, in place of any that
    /// were added before; the model's own table is not touched. Ids of the model's table that are
    /// `first` or more have no use then, as in transformers, which cuts the table there.
    pub fn set_added_tokens(&mut self, first: u32, values: Vec<f32>, placement: &Placement) {
        self.text_model.embeddings.token_embedding.set_added(first, values, placement);
    }

    /// Encodes B texts of N token ids each, N at most `max_position_embeddings`, with activations
    /// of type `dtype`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when an id is outside the vocabulary, or a text has another length
    /// than the first or than the model takes.
    pub fn forward(&self, input_ids: &[Vec<u32>], dtype: DType) -> Result<ClipTextOutput> {
        let tokens = input_ids.first().map_or(0, Vec::len);
        let limit = self.config.max_position_embeddings;
        if tokens == 0 || tokens > limit || input_ids.iter().any(|ids| ids.len() != tokens) {
            return Err(Error::argument("prompt", format!("texts of 1 to {limit} tokens each")));
        }
        let embeddings = &self.text_model.embeddings;
        let vocabulary = embeddings.token_embedding.end();
        if let Some(id) = input_ids.iter().flatten().find(|id| **id >= vocabulary) {
            return Err(Error::argument(
                "prompt",
                format!("token {id} is outside the vocabulary of {vocabulary}"),
            ));
        }
        let positions = [(0..tokens as u32).collect()];
        let x = embeddings
            .token_embedding
            .forward(input_ids, dtype)
            .add(embeddings.position_embedding.forward(&positions, dtype));
        let mut hidden_states = vec![x.clone()];
        let mut keep = |x: &Tensor<3>| hidden_states.push(x.clone());
        let x = self.text_model.encoder.forward(x, &mut keep);
        let last_hidden_state = self.text_model.final_layer_norm.forward(x);
        let pooled = self.pool(input_ids, &last_hidden_state);
        Ok(ClipTextOutput { hidden_states, last_hidden_state, pooled })
    }

    fn pool(&self, input_ids: &[Vec<u32>], last_hidden_state: &Tensor<3>) -> Tensor<2> {
        let channels = self.config.hidden_size;
        let rows = input_ids.iter().enumerate().map(|(i, ids)| {
            let end = end_of_text(ids, self.config.eos_token_id);
            last_hidden_state
                .clone()
                .slice([i..i + 1, end..end + 1, 0..channels])
                .reshape([1, channels])
        });
        let pooled = Tensor::cat(rows.collect(), 0);
        match &self.text_projection {
            Some(projection) => projection.forward(pooled),
            None => pooled,
        }
    }
}

/// The position that is pooled. Configurations from before transformers 4.31 give 2 as the end
/// token, which no tokenizer uses; the largest id, which comes first among equals, was meant.
fn end_of_text(ids: &[u32], eos_token_id: u32) -> usize {
    let wanted = match eos_token_id {
        2 => ids.iter().copied().max().unwrap_or_default(),
        id => id,
    };
    ids.iter().position(|id| *id == wanted).unwrap_or_default()
}

impl ClipEncoderLayer {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.self_attn.forward(self.layer_norm1.forward(x.clone()), x);
        self.mlp.forward(self.layer_norm2.forward(x.clone()), x)
    }
}

impl ClipAttention {
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let q = self.q_proj.forward(x.clone());
        let k = self.k_proj.forward(x.clone());
        let v = self.v_proj.forward(x);
        let x = kernels::attention(q, k, v, self.heads, self.causal);
        self.out_proj.forward_with(x, Epilogue::Residual(residual))
    }
}

impl ClipMlp {
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        let activation = if self.quick_gelu { Epilogue::QuickGelu } else { Epilogue::Gelu };
        let x = self.fc1.forward_with(x, activation);
        self.fc2.forward_with(x, Epilogue::Residual(residual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_is_its_first_end_token() {
        assert_eq!(end_of_text(&[49406, 320, 49407, 49407], 2), 2);
        assert_eq!(end_of_text(&[49406, 320, 49407, 0], 49407), 2);
    }
}
