//! The check for pictures that are not safe for work.
//!
//! Source: Rando et al., "Red-Teaming the Stable Diffusion Safety Filter"; diffusers
//! `pipelines/stable_diffusion/safety_checker.py`; transformers `models/clip/modeling_clip.py`.

use burn::tensor::{DType, Tensor};
use serde::Deserialize;

use super::clip::{ClipEncoder, ClipEncoderConfig};
use super::config::{self, MAX_SIZE, bounded};
use super::layers::{Embedding, LayerNorm, Linear};
use super::module::{Module, Vector, Weight, module};
use crate::error::{Error, Result};
use crate::kernels::{self, Epilogue};

/// `config.json` of a `StableDiffusionSafetyChecker`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SafetyCheckerConfig {
    #[serde(default = "projection_dim")]
    projection_dim: usize,
    vision_config: ClipVisionConfig,
}

/// CLIP's picture encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct ClipVisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}

fn projection_dim() -> usize {
    768
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

/// Pixels of a side of what the encoder sees at most.
const MAX_SIDE: usize = 1 << 12;

/// Concepts that a picture is compared with.
const CONCEPTS: usize = 17;

/// Concepts that make the others count for more.
const SPECIAL_CARE: usize = 3;

/// By how much.
const SPECIAL_CARE_ADJUSTMENT: f32 = 0.01;

impl SafetyCheckerConfig {
    /// Parses `json`, the contents of `file`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] when it is no such configuration, [`Error::Unsupported`] when it asks
    /// for another activation.
    pub fn parse(file: &str, json: &str) -> Result<Self> {
        let config: Self = config::parse(file, json)?;
        let vision = &config.vision_config;
        if vision.patch_size == 0 || !vision.image_size.is_multiple_of(vision.patch_size) {
            return Err(Error::config(file, "`patch_size` does not divide `image_size`"));
        }
        config.encoder().check(file)?;
        bounded(file, MAX_SIDE, [("image_size", vision.image_size)])?;
        bounded(file, MAX_SIZE, [("projection_dim", config.projection_dim)])?;
        Ok(config)
    }

    fn encoder(&self) -> ClipEncoderConfig<'_> {
        let vision = &self.vision_config;
        ClipEncoderConfig {
            channels: vision.hidden_size,
            inner: vision.intermediate_size,
            layers: vision.num_hidden_layers,
            heads: vision.num_attention_heads,
            activation: &vision.hidden_act,
            eps: vision.layer_norm_eps,
            causal: false,
        }
    }

    /// An empty model of this configuration. Its weights are never in integers, so that its verdicts are the same.
    pub fn init(&self) -> StableDiffusionSafetyChecker {
        let vision = &self.vision_config;
        let (channels, patch) = (vision.hidden_size, vision.patch_size);
        let patches = (vision.image_size / patch).pow(2);
        let norm = || LayerNorm::new(channels, vision.layer_norm_eps);
        let vision_model = ClipVisionTransformer {
            embeddings: ClipVisionEmbeddings {
                class_embedding: Vector::new(channels),
                patch_embedding: PatchEmbedding {
                    weight: Weight::new([channels, 3, patch, patch]),
                    patch,
                },
                position_embedding: Embedding::new(patches + 1, channels),
            },
            pre_layrnorm: norm(),
            encoder: ClipEncoder::new(self.encoder()),
            post_layernorm: norm(),
        };
        StableDiffusionSafetyChecker {
            vision_model: ClipVisionModel { vision_model },
            visual_projection: Linear::without_bias(channels, self.projection_dim),
            concept_embeds: Weight::new([CONCEPTS, self.projection_dim]),
            special_care_embeds: Weight::new([SPECIAL_CARE, self.projection_dim]),
            concept_embeds_weights: Vector::new(CONCEPTS),
            special_care_embeds_weights: Vector::new(SPECIAL_CARE),
        }
        .without_integers()
    }
}

/// `StableDiffusionSafetyChecker`.
#[derive(Debug, Clone)]
pub struct StableDiffusionSafetyChecker {
    vision_model: ClipVisionModel,
    visual_projection: Linear,
    concept_embeds: Weight,
    special_care_embeds: Weight,
    concept_embeds_weights: Vector,
    special_care_embeds_weights: Vector,
}
module!(StableDiffusionSafetyChecker {
    vision_model,
    visual_projection,
    concept_embeds,
    special_care_embeds,
    concept_embeds_weights,
    special_care_embeds_weights,
});

#[derive(Debug, Clone)]
struct ClipVisionModel {
    vision_model: ClipVisionTransformer,
}
module!(ClipVisionModel { vision_model });

#[derive(Debug, Clone)]
struct ClipVisionTransformer {
    embeddings: ClipVisionEmbeddings,
    /// Spelt so in the checkpoints.
    pre_layrnorm: LayerNorm,
    encoder: ClipEncoder,
    post_layernorm: LayerNorm,
}
module!(ClipVisionTransformer { embeddings, pre_layrnorm, encoder, post_layernorm });

#[derive(Debug, Clone)]
struct ClipVisionEmbeddings {
    class_embedding: Vector,
    patch_embedding: PatchEmbedding,
    position_embedding: Embedding,
}
module!(ClipVisionEmbeddings { class_embedding, patch_embedding, position_embedding });

/// A convolution whose stride is its kernel: a dense layer over patches.
#[derive(Debug, Clone)]
struct PatchEmbedding {
    weight: Weight,
    patch: usize,
}
module!(PatchEmbedding { weight });

impl PatchEmbedding {
    /// `[B, H, W, 3]` to `[B, N, C]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let [b, h, w, c] = x.dims();
        let p = self.patch;
        let patches = x.reshape([b, h / p, p, w / p, p, c]).permute([0, 1, 3, 2, 4, 5]).reshape([
            b,
            (h / p) * (w / p),
            p * p * c,
        ]);
        kernels::linear(patches, self.weight.value(), None, Epilogue::None)
    }
}

/// How near a picture is to each concept, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetyVerdict {
    /// Cosines with the concepts.
    pub concept_cosine: Vec<f32>,
    /// Cosines with the concepts that call for special care.
    pub special_cosine: Vec<f32>,
    /// Whether the picture is not safe for work.
    pub has_nsfw_concept: bool,
}

/// The lowest cosine of each concept that counts.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetyThresholds {
    /// `concept_embeds_weights`
    pub concepts: Vec<f32>,
    /// `special_care_embeds_weights`
    pub special_care: Vec<f32>,
}

impl StableDiffusionSafetyChecker {
    /// CLIP's embeddings of B pictures, `[B, S, S, 3]` to `[B, P]`.
    pub fn embed(&self, clip_input: Tensor<4>) -> Tensor<2> {
        let model = &self.vision_model.vision_model;
        let embeddings = &model.embeddings;
        let [b, ..] = clip_input.dims();
        let dtype = clip_input.dtype();
        let patches = embeddings.patch_embedding.forward(clip_input);
        let [_, n, c] = patches.dims();
        let class = embeddings.class_embedding.value().clone().cast(dtype);
        let class = class.reshape([1, 1, c]).repeat_dim(0, b);
        let positions = vec![(0..=n as u32).collect()];
        let table = embeddings.position_embedding.weight.value();
        let x = Tensor::cat(vec![class, patches], 1);
        let x = x.add(kernels::embedding(&positions, table, dtype));
        let x = model.encoder.forward(model.pre_layrnorm.forward(x), &mut |_| {});
        let pooled = model.post_layernorm.forward(x.narrow(1, 0, 1).reshape([b, c]));
        self.visual_projection.forward(pooled)
    }

    /// The tensors that pictures are compared with: concepts, then those for special care.
    pub fn concepts(&self) -> [Tensor<2>; 2] {
        [&self.concept_embeds, &self.special_care_embeds]
            .map(|weight| weight.value().to_float(DType::F32))
    }

    /// The checkpoint's thresholds, in the same order.
    pub fn thresholds(&self) -> [Tensor<1>; 2] {
        [&self.concept_embeds_weights, &self.special_care_embeds_weights]
            .map(|vector| vector.value().clone())
    }
}

/// Judges a picture's embedding. `concepts` and `special_care` are rows of the embedding's length.
pub fn judge(
    embedding: &[f32],
    concepts: &[f32],
    special_care: &[f32],
    thresholds: &SafetyThresholds,
) -> SafetyVerdict {
    let cosines = |rows: &[f32]| {
        rows.chunks_exact(embedding.len()).map(|row| cosine(embedding, row)).collect::<Vec<_>>()
    };
    let (concept_cosine, special_cosine) = (cosines(concepts), cosines(special_care));
    // A concept that calls for special care makes all that follow it, of both kinds, count for more.
    let mut adjustment = 0.0;
    for (cosine, threshold) in special_cosine.iter().zip(&thresholds.special_care) {
        if is_over(*cosine, *threshold, adjustment) {
            adjustment = SPECIAL_CARE_ADJUSTMENT;
        }
    }
    let mut scores = concept_cosine.iter().zip(&thresholds.concepts);
    let has_nsfw_concept =
        scores.any(|(cosine, threshold)| is_over(*cosine, *threshold, adjustment));
    SafetyVerdict { concept_cosine, special_cosine, has_nsfw_concept }
}

/// `round(cosine - threshold + adjustment, 3) > 0`
fn is_over(cosine: f32, threshold: f32, adjustment: f32) -> bool {
    ((cosine - threshold + adjustment) * 1000.0).round_ties_even() > 0.0
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    let (norm_a, norm_b) = (norm(a), norm(b));
    a.iter().zip(b).map(|(a, b)| (a / norm_a) * (b / norm_b)).sum()
}
