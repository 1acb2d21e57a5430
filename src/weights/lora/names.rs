//! What the keys of a LoRA file mean, in the formats of PEFT, of diffusers before PEFT, and of
//! kohya's trainers.
//!
//! Source: diffusers `loaders/lora_conversion_utils.py` and `utils/state_dict_utils.py`. Instead
//! of rewriting a key step by step, the layer that it names is looked up among the model's own.

use super::targets::{Target, Targets};
use crate::weights::original::unet_layer;

/// What a key holds of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first factor.
    Down,
    /// The second factor.
    Up,
    /// What the product is multiplied by, times the rank.
    Alpha,
    /// Another method, which this crate does not have.
    Unsupported(&'static str),
}

/// Endings of the keys of a factor, longest first where one ends another.
const FACTORS: [(&str, Part); 10] = [
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
];

/// What tells other methods.
const OTHER_METHODS: [(&str, &str); 9] = [
    (".lora_magnitude_vector", "DoRA"),
    (".dora_scale", "DoRA"),
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (".lora_mid.", "LoCon with a middle factor (CP decomposition)"),
    (".oft_", "OFT"),
    (".lora_B.bias", "LoRA with biases"),
    (".diff_b", "LyCORIS full differences"),
    (".diff", "LyCORIS full differences"),
];

/// A key's layer, as the file names it, and what the key holds of it. Nothing for a key that no
/// method uses.
pub fn split(key: &str) -> Option<(&str, Part)> {
    for (mark, method) in OTHER_METHODS {
        if let Some((layer, rest)) = key.split_once(mark)
            && (mark != ".diff" || rest.is_empty())
        {
            return Some((layer, Part::Unsupported(method)));
        }
    }
    if let Some(layer) = key.strip_suffix(".alpha") {
        // diffusers itself writes the alpha of a factor rather than of the layer.
        return Some((split_factor(layer).map_or(layer, |(layer, _)| layer), Part::Alpha));
    }
    split_factor(key)
}

fn split_factor(key: &str) -> Option<(&str, Part)> {
    for (ending, part) in FACTORS {
        if let Some(layer) = key.strip_suffix(ending) {
            return Some((layer, part));
        }
    }
    // PEFT puts the adapter's name between: `lora_A.default.weight`.
    for (mark, part) in [(".lora_A.", Part::Down), (".lora_B.", Part::Up)] {
        if let Some((layer, rest)) = key.split_once(mark)
            && rest.ends_with(".weight")
        {
            return Some((layer, part));
        }
    }
    None
}

/// Whether a layer is named by the block numbers of the original checkpoints.
pub fn is_original(layer: &str) -> bool {
    ["input_blocks", "middle_block", "output_blocks"].iter().any(|name| layer.contains(name))
}

/// Whether a layer is named by diffusers' blocks.
pub fn is_diffusers(layer: &str) -> bool {
    ["down_blocks", "mid_block", "up_blocks"].iter().any(|name| layer.contains(name))
}

/// The model's layer that the file calls `layer`.
pub fn resolve(layer: &str, targets: &Targets) -> Option<Target> {
    let flat = [
        ("lora_unet_", "unet"),
        ("lora_te1_", "text_encoder"),
        ("lora_te2_", "text_encoder_2"),
        ("lora_te_", "text_encoder"),
    ];
    for (prefix, component) in flat {
        if let Some(layer) = layer.strip_prefix(prefix) {
            let target = targets.find_flat(Some(component), layer);
            return target.or_else(|| {
                let layer = unet_layer(layer, '_', targets.layers_per_block())?;
                targets.find_flat(Some(component), &layer)
            });
        }
    }
    let prefixes = ["unet", "text_encoder_2", "text_encoder"];
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let named = prefixes
        .iter()
        .find_map(|name| Some((*name, layer.strip_prefix(name)?.strip_prefix('.')?)));
    let (component, path) = named.map_or((None, layer), |(name, path)| (Some(name), path));
    let path = path.strip_prefix("base_model.model.").unwrap_or(path).replace(".processor.", ".");
    targets.find(component, &path).or_else(|| {
        // The attention of diffusers before PEFT: `to_q_lora`, in text encoders too.
        let (parent, name) = path.rsplit_once('.')?;
        let name = match (name, path.starts_with("text_model.")) {
            ("to_out", false) => "to_out.0",
            ("to_q", true) => "q_proj",
            ("to_k", true) => "k_proj",
            ("to_v", true) => "v_proj",
            ("to_out", true) => "out_proj",
            _ => return None,
        };
        targets.find(component, &format!("{parent}.{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_in_every_format() {
        let cases = [
            ("unet.a.to_q.lora_A.weight", "unet.a.to_q", Part::Down),
            ("unet.a.to_q.lora_B.default_0.weight", "unet.a.to_q", Part::Up),
            (
                "unet.a.attn1.processor.to_q_lora.down.weight",
                "unet.a.attn1.processor.to_q",
                Part::Down,
            ),
            ("unet.a.to_q.lora.up.weight", "unet.a.to_q", Part::Up),
            ("text_encoder.a.lora_linear_layer.up.weight", "text_encoder.a", Part::Up),
            ("lora_unet_a_to_q.lora_down.weight", "lora_unet_a_to_q", Part::Down),
            ("lora_unet_a_to_q.alpha", "lora_unet_a_to_q", Part::Alpha),
            ("unet.a.to_q_lora.down.weight.alpha", "unet.a.to_q", Part::Alpha),
            ("lora_unet_a.dora_scale", "lora_unet_a", Part::Unsupported("DoRA")),
            ("lora_unet_a.hada_w1_a", "lora_unet_a", Part::Unsupported("LoHa")),
        ];
        for (key, layer, part) in cases {
            assert_eq!(split(key), Some((layer, part)), "{key}");
        }
        assert_eq!(split("unet.a.weight"), None);
    }

    #[test]
    fn original_names_become_diffusers() {
        let cases = [
            ("input_blocks_0_0", Some("conv_in")),
            ("input_blocks_1_1_proj_in", Some("down_blocks_0_attentions_0_proj_in")),
            ("input_blocks_3_0_op", Some("down_blocks_0_downsamplers_0_conv")),
            ("input_blocks_4_0_in_layers_2", Some("down_blocks_1_resnets_0_conv1")),
            ("middle_block_2_out_layers_3", Some("mid_block_resnets_1_conv2")),
            ("output_blocks_2_1_conv", Some("up_blocks_0_upsamplers_0_conv")),
            ("output_blocks_5_2_conv", Some("up_blocks_1_upsamplers_0_conv")),
            ("output_blocks_4_0_skip_connection", Some("up_blocks_1_resnets_1_conv_shortcut")),
            ("output_blocks_3_0_emb_layers_1", Some("up_blocks_1_resnets_0_time_emb_proj")),
            ("label_emb_0_2", Some("add_embedding_linear_2")),
            ("middle_block_3_x", None),
            ("input_blocks_0_1_x", None),
        ];
        for (original, expected) in cases {
            assert_eq!(unet_layer(original, '_', 2).as_deref(), expected, "{original}");
        }
    }
}
