//! The names of layers in the original checkpoints of Stable Diffusion (CompVis) and Stable Diffusion XL (Stability's
//! `generative-models`), and what diffusers calls them.
//!
//! Source: diffusers `loaders/single_file_utils.py`.

/// What of a model's configuration decides on names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// `layers_per_block` of the UNet.
    pub unet_layers: usize,
    /// How many blocks the VAE's decoder has.
    pub vae_blocks: usize,
}

/// Where a tensor of a file belongs in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is the tensor of this key.
    Whole(String),
    /// Its rows are those of these keys' tensors, one after the other, each as many.
    Rows([String; 3]),
    /// Its rows are the columns of this key's tensor.
    Transposed(String),
}

impl Place {
    /// The same with other keys.
    fn map(self, key: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Whole(name) => Self::Whole(key(&name)),
            Self::Rows(names) => Self::Rows(names.map(|name| key(&name))),
            Self::Transposed(name) => Self::Transposed(key(&name)),
        }
    }
}

/// What the key of SDXL's original checkpoints begins with that no other has: that of its second text encoder.
///
/// Source: `CHECKPOINT_KEY_NAMES`, `xl_base` and `xl_refiner`.
const XL_KEYS: [&str; 2] = ["conditioner.embedders.1.model.", "conditioner.embedders.0.model."];

/// Whether a key is of a checkpoint of SDXL.
pub fn is_xl_key(key: &str) -> bool {
    XL_KEYS.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether a key is of a checkpoint that was trained in EDM's way with a prediction of velocities, as CosXL's are.
pub fn is_edm_key(key: &str) -> bool {
    key == "edm_vpred.sigma_max"
}

/// The first convolution of the UNet, whose input channels tell what the model was trained for.
pub const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";

/// The component that an original key belongs to, and its place there; nothing for what inference does
/// not need (averages of weights, the schedule).
pub fn diffusers_place(key: &str, layout: Layout) -> Option<(&'static str, Place)> {
    if let Some(key) = key.strip_prefix("conditioner.embedders.0.transformer.") {
        return Some(("text_encoder", Place::Whole(key.to_owned())));
    }
    if let Some(key) = XL_KEYS.iter().find_map(|prefix| key.strip_prefix(prefix)) {
        return Some(("text_encoder_2", open_clip_place(key)?));
    }
    let (component, key) = diffusers_key(key, layout)?;
    Some((component, Place::Whole(key)))
}

/// The same with the component before each key.
pub fn whole_model_place(key: &str, layout: Layout) -> Option<Place> {
    let (component, place) = diffusers_place(key, layout)?;
    Some(place.map(|key| format!("{component}.{key}")))
}

/// The place in a `CLIPTextModelWithProjection` of what OpenCLIP calls `key`.
///
/// Source: `convert_open_clip_checkpoint`.
fn open_clip_place(key: &str) -> Option<Place> {
    let outside = match key {
        "positional_embedding" => "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight" => "text_model.embeddings.token_embedding.weight",
        "ln_final.weight" => "text_model.final_layer_norm.weight",
        "ln_final.bias" => "text_model.final_layer_norm.bias",
        "text_projection" => return Some(Place::Transposed("text_projection.weight".into())),
        _ => "",
    };
    if !outside.is_empty() {
        return Some(Place::Whole(outside.into()));
    }
    let (number, layer) = key.strip_prefix("transformer.resblocks.")?.split_once('.')?;
    let path = format!("text_model.encoder.layers.{number}");
    if let Some(kind) = layer.strip_prefix("attn.in_proj_") {
        let part = |part: &str| format!("{path}.self_attn.{part}_proj.{kind}");
        return Some(Place::Rows(["q", "k", "v"].map(part)));
    }
    let (layer, kind) = layer.rsplit_once('.')?;
    let layer = match layer {
        "ln_1" => "layer_norm1",
        "ln_2" => "layer_norm2",
        "mlp.c_fc" => "mlp.fc1",
        "mlp.c_proj" => "mlp.fc2",
        "attn.out_proj" => "self_attn.out_proj",
        _ => return None,
    };
    Some(Place::Whole(format!("{path}.{layer}.{kind}")))
}

/// The component and the key in it that an original key of what both kinds of checkpoints have stands for.
fn diffusers_key(key: &str, layout: Layout) -> Option<(&'static str, String)> {
    if let Some(key) = key.strip_prefix("model.diffusion_model.") {
        let (layer, parameter) = key.rsplit_once('.')?;
        let layer = unet_layer(layer, '.', layout.unet_layers)?;
        return Some(("unet", format!("{layer}.{parameter}")));
    }
    if let Some(key) = key.strip_prefix("first_stage_model.") {
        return Some(("vae", vae_key(key, layout.vae_blocks)?));
    }
    let key = key.strip_prefix("cond_stage_model.transformer.")?;
    Some(("text_encoder", key.to_owned()))
}

/// diffusers' name of a UNet's layer, both with `dot` between parts (kohya writes `_`):
/// `input_blocks.4.1.proj_in` is `down_blocks.1.attentions.0.proj_in` with two layers in a block.
pub fn unet_layer(layer: &str, dot: char, layers_per_block: usize) -> Option<String> {
    let dotted = |name: &str| name.replace('.', &dot.to_string());
    let outside = [
        ("input_blocks.0.0", "conv_in"),
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("label_emb.0.0", "add_embedding.linear_1"),
        ("label_emb.0.2", "add_embedding.linear_2"),
        ("out.0", "conv_norm_out"),
        ("out.2", "conv_out"),
    ];
    if let Some((_, name)) = outside.iter().find(|(original, _)| dotted(original) == layer) {
        return Some(dotted(name));
    }
    let number = |text: &str| -> Option<(usize, String)> {
        let (digits, rest) = text.split_once(dot)?;
        Some((digits.parse().ok()?, rest.to_owned()))
    };
    let inner = |name: &str| match RESNET.iter().find(|(original, _)| dotted(original) == name) {
        Some((_, layer)) => (*layer).to_owned(),
        None => name.to_owned(),
    };
    let stage = layers_per_block + 1;
    if let Some(rest) = layer.strip_prefix(&dotted("middle_block.")) {
        let (i, rest) = number(rest)?;
        let part = ["resnets.0", "attentions.0", "resnets.1"].get(i)?;
        return Some(dotted(&format!("mid_block.{part}.")) + &inner(&rest));
    }
    let (down, rest) = match layer.strip_prefix(&dotted("input_blocks.")) {
        Some(rest) => (true, rest),
        None => (false, layer.strip_prefix(&dotted("output_blocks."))?),
    };
    let (i, rest) = number(rest)?;
    let (j, rest) = number(&rest)?;
    let i = if down { i.checked_sub(1)? } else { i };
    let (block, layer) = (i / stage, i % stage);
    let side = if down { "down_blocks" } else { "up_blocks" };
    Some(match (rest.as_str(), j) {
        ("op", 0) if down => dotted(&format!("{side}.{block}.downsamplers.0.conv")),
        // The upsampler comes second where a block has no attention, and third where it has.
        ("conv", 1 | 2) if !down => dotted(&format!("{side}.{block}.upsamplers.0.conv")),
        (_, 0) => dotted(&format!("{side}.{block}.resnets.{layer}.")) + &inner(&rest),
        (_, 1) => dotted(&format!("{side}.{block}.attentions.{layer}.")) + &rest,
        _ => return None,
    })
}

/// The layers of a residual block of the UNet.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// A VAE's key.
fn vae_key(key: &str, blocks: usize) -> Option<String> {
    let (side, rest) = match key.split_once('.')? {
        (side @ ("encoder" | "decoder"), rest) => (side, rest),
        _ => return Some(key.to_owned()),
    };
    let (stage, inner) = rest.split_once('.')?;
    let rest = match stage {
        "norm_out" => format!("conv_norm_out.{inner}"),
        "mid" => {
            let (part, inner) = inner.split_once('.')?;
            let part = match part {
                "block_1" => "resnets.0",
                "block_2" => "resnets.1",
                "attn_1" => "attentions.0",
                _ => return None,
            };
            format!("mid_block.{part}.{}", vae_layer(inner))
        }
        "down" | "up" => {
            let (block, inner) = inner.split_once('.')?;
            let block: usize = block.parse().ok()?;
            // The original counts the decoder's blocks from the picture.
            let block = if stage == "up" { blocks.checked_sub(1 + block)? } else { block };
            match inner.split_once('.')? {
                ("block", inner) => {
                    let (layer, inner) = inner.split_once('.')?;
                    format!("{stage}_blocks.{block}.resnets.{layer}.{}", vae_layer(inner))
                }
                (sampler @ ("downsample" | "upsample"), inner) => {
                    format!("{stage}_blocks.{block}.{sampler}rs.0.{inner}")
                }
                _ => return None,
            }
        }
        _ => rest.to_owned(),
    };
    Some(format!("{side}.{rest}"))
}

/// The layers of the VAE's blocks.
fn vae_layer(name: &str) -> String {
    let Some((layer, parameter)) = name.rsplit_once('.') else { return name.to_owned() };
    let layer = match layer {
        "nin_shortcut" => "conv_shortcut",
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        other => other,
    };
    format!("{layer}.{parameter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { unet_layers: 2, vae_blocks: 4 };

    /// Every key of Stable Diffusion 1.5's UNet and VAE, as diffusers' own functions convert it
    /// (`tests/fixtures/gen_original_keys.py`).
    #[test]
    fn keys_are_those_that_diffusers_makes() {
        let json = include_str!("../../tests/fixtures/original_keys.json");
        let keys: std::collections::BTreeMap<String, String> =
            serde_json::from_str(json).expect("valid");
        assert_eq!(keys.len(), 686 + 248);
        for (original, expected) in keys {
            let (component, key) = diffusers_key(&original, LAYOUT).expect(&original);
            assert_eq!(format!("{component} {key}"), expected, "{original}");
        }
    }

    #[test]
    fn open_clips_names_become_those_of_transformers() {
        let place = |key: &str| {
            let key = format!("conditioner.embedders.1.model.{key}");
            diffusers_place(&key, LAYOUT).map(|(component, place)| {
                assert_eq!(component, "text_encoder_2");
                place
            })
        };
        let whole = |key: &str| Some(Place::Whole(format!("text_model.{key}")));
        let layer = "encoder.layers.31";
        assert_eq!(
            place("transformer.resblocks.31.attn.in_proj_bias"),
            Some(Place::Rows(
                ["q", "k", "v"]
                    .map(|part| format!("text_model.{layer}.self_attn.{part}_proj.bias"))
            ))
        );
        for (original, key) in [
            ("mlp.c_fc.weight", "mlp.fc1.weight"),
            ("mlp.c_proj.bias", "mlp.fc2.bias"),
            ("ln_2.weight", "layer_norm2.weight"),
            ("attn.out_proj.weight", "self_attn.out_proj.weight"),
        ] {
            let found = place(&format!("transformer.resblocks.31.{original}"));
            assert_eq!(found, whole(&format!("{layer}.{key}")));
        }
        assert_eq!(place("positional_embedding"), whole("embeddings.position_embedding.weight"));
        let projection = Place::Transposed("text_projection.weight".into());
        assert_eq!(place("text_projection"), Some(projection));
        assert_eq!(place("logit_scale"), None);
        let first = "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias";
        let key = Place::Whole("text_model.final_layer_norm.bias".into());
        assert_eq!(diffusers_place(first, LAYOUT), Some(("text_encoder", key)));
        assert!(is_xl_key("conditioner.embedders.1.model.logit_scale") && !is_xl_key(first));
    }

    #[test]
    fn text_encoders_keep_their_keys_and_the_rest_is_left_out() {
        let original = "cond_stage_model.transformer.text_model.final_layer_norm.bias";
        let key = "text_model.final_layer_norm.bias".to_owned();
        assert_eq!(diffusers_key(original, LAYOUT), Some(("text_encoder", key)));
        let outside = "first_stage_model.decoder.up.4.block.0.conv1.bias";
        for original in ["alphas_cumprod", "model_ema.decay", outside] {
            assert_eq!(diffusers_key(original, LAYOUT), None, "{original}");
        }
    }
}
