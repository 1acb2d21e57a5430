use super::*;
use crate::error::Error;
use crate::models::{ClipTextConfig, UNet2DConditionConfig};

/// The layers of the fixtures' model, which has no weights here.
fn targets() -> Targets {
    let unet = include_str!("../../../tests/fixtures/oracle/models/tiny-sd-ip2p/unet/config.json");
    let text =
        include_str!("../../../tests/fixtures/oracle/models/tiny-sd-ip2p/text_encoder/config.json");
    let mut unet = UNet2DConditionConfig::parse("config.json", unet).expect("valid").init();
    let mut text = ClipTextConfig::parse("config.json", text).expect("valid").init();
    Targets::new(&mut [("unet", &mut unet), ("text_encoder", &mut text)])
}

#[test]
fn sdxl_is_named_by_peft_kohya_and_sgm() {
    let unet =
        include_str!("../../../tests/fixtures/oracle/models/tiny-sdxl-ip2p/unet/config.json");
    let mut unet = UNet2DConditionConfig::parse("config.json", unet).expect("valid").init();
    let encoder = |json| ClipTextConfig::parse("config.json", json).expect("valid").init();
    let mut first = encoder(include_str!(
        "../../../tests/fixtures/oracle/models/tiny-sdxl-ip2p/text_encoder/config.json"
    ));
    let mut second = encoder(include_str!(
        "../../../tests/fixtures/oracle/models/tiny-sdxl-ip2p/text_encoder_2/config.json"
    ));
    let targets = Targets::new(&mut [
        ("unet", &mut unet),
        ("text_encoder", &mut first),
        ("text_encoder_2", &mut second),
    ]);
    // Two transformer blocks in the second stage, which is the third group of SGM's blocks.
    let block = "attentions.0.transformer_blocks.1.attn2.to_k";
    let down = ("unet", format!("down_blocks.1.{block}"));
    let middle = ("unet", format!("mid_block.{block}"));
    let up = ("unet", format!("up_blocks.0.{block}"));
    let add = ("unet", "add_embedding.linear_1".to_owned());
    let [te1, te2] =
        ["text_encoder", "text_encoder_2"].map(|name| (name, format!("{TEXT}.q_proj")));
    let flat = |name: &str| name.replace('.', "_");
    let cases = [
        (format!("unet.{}", down.1), &down),
        (format!("text_encoder.{}", te1.1), &te1),
        (format!("text_encoder_2.{}", te2.1), &te2),
        (format!("lora_unet_{}", flat(&down.1)), &down),
        (format!("lora_te1_{}", flat(&te1.1)), &te1),
        (format!("lora_te2_{}", flat(&te2.1)), &te2),
        ("lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k".into(), &down),
        ("lora_unet_middle_block_1_transformer_blocks_1_attn2_to_k".into(), &middle),
        ("lora_unet_output_blocks_0_1_transformer_blocks_1_attn2_to_k".into(), &up),
        ("lora_unet_label_emb_0_0".into(), &add),
    ];
    for (layer, expected) in cases {
        assert_eq!(names::resolve(&layer, &targets).as_ref(), Some(expected), "{layer}");
    }
}

/// A LoRA whose factors stay as they are.
fn lora_of(dict: StateDict, targets: &Targets) -> Result<Lora<HostTensor>> {
    Lora::new(dict, targets, &mut |tensor, _| tensor)
}

/// A file of tensors of ones.
fn dict(entries: &[(&str, &[usize])]) -> StateDict {
    let entries = entries.iter().map(|(key, shape)| {
        let values = vec![1.0; shape.iter().product()];
        ((*key).to_owned(), Entry::Tensor(HostTensor::from_f32(shape.to_vec(), &values)))
    });
    StateDict { file: "x.safetensors".into(), entries: entries.collect(), ..StateDict::default() }
}

const ATTN: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
const TEXT: &str = "text_model.encoder.layers.1.self_attn";

#[test]
fn every_format_names_the_same_layers() {
    let targets = targets();
    let flat = |path: &str| path.replace('.', "_");
    let query = ("unet", format!("{ATTN}.to_q"));
    let output = ("unet", format!("{ATTN}.to_out.0"));
    let text = ("text_encoder", format!("{TEXT}.out_proj"));
    let conv = ("unet", "down_blocks.1.resnets.0.conv1".to_owned());
    let cases = [
        (format!("unet.{ATTN}.to_q"), &query),
        (format!("{ATTN}.to_q"), &query),
        (format!("base_model.model.unet.{ATTN}.to_q"), &query),
        (format!("unet.base_model.model.{ATTN}.to_q"), &query),
        (format!("unet.{ATTN}.processor.to_q"), &query),
        (format!("unet.{ATTN}.processor.to_out"), &output),
        (format!("lora_unet_{}_to_out_0", flat(ATTN)), &output),
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q".into(), &query),
        (format!("text_encoder.{TEXT}.out_proj"), &text),
        (format!("base_model.model.{TEXT}.out_proj"), &text),
        (format!("text_encoder.{TEXT}.to_out"), &text),
        (format!("lora_te_{}_out_proj", flat(TEXT)), &text),
        (format!("lora_te1_{}_out_proj", flat(TEXT)), &text),
        ("lora_unet_down_blocks_1_resnets_0_conv1".into(), &conv),
        ("lora_unet_input_blocks_4_0_in_layers_2".into(), &conv),
    ];
    for (layer, expected) in cases {
        assert_eq!(names::resolve(&layer, &targets).as_ref(), Some(expected), "{layer}");
    }
    assert_eq!(
        names::resolve("text_encoder.text_model.embeddings.token_embedding", &targets),
        None
    );
    assert_eq!(names::resolve(&format!("text_encoder_2.{TEXT}.out_proj"), &targets), None);
}

#[test]
fn the_scale_is_alpha_over_rank_as_diffusers_guesses_it() {
    let scalings = |dict: StateDict| -> Vec<f64> {
        let lora = lora_of(dict, &targets()).expect("fits");
        lora.layers.values().map(|layer| layer.scaling).collect()
    };
    let (k, q) = (format!("unet.{ATTN}.to_k"), format!("unet.{ATTN}.to_q"));
    let keys = [&k, &q].map(|layer| {
        (
            format!("{layer}.lora_A.weight"),
            format!("{layer}.lora_B.weight"),
            format!("{layer}.alpha"),
        )
    });
    let [k, q] = &keys;
    let factors: [(&str, &[usize]); 4] =
        [(&k.0, &[4, 32]), (&k.1, &[32, 4]), (&q.0, &[8, 32]), (&q.1, &[32, 8])];
    // No alpha: the first rank.
    assert_eq!(scalings(dict(&factors)), [1.0, 0.5]);
    // One alpha: it is everyone's.
    let with = |alphas: &[(&str, f64)], metadata: &str| {
        let mut dict = dict(&factors);
        let numbers = alphas.iter().map(|(key, alpha)| ((*key).into(), Entry::Number(*alpha)));
        dict.entries.extend(numbers);
        if !metadata.is_empty() {
            dict.metadata.insert(METADATA_KEY.into(), metadata.into());
        }
        dict
    };
    assert_eq!(scalings(with(&[(&k.2, 2.0)], "")), [0.5, 0.25]);
    assert_eq!(scalings(with(&[(&k.2, 2.0), (&q.2, 16.0)], "")), [0.5, 2.0]);
    // PEFT's own word for it.
    let metadata = r#"{"unet.r": 4, "unet.lora_alpha": 2, "unet.rank_pattern": {"attn1.to_q": 8},
        "unet.alpha_pattern": {"attn1.to_q": 4}}"#;
    assert_eq!(scalings(with(&[], metadata)), [0.5, 0.5]);
    let metadata = r#"{"unet.lora_alpha": 4, "unet.use_rslora": true}"#;
    assert_eq!(scalings(with(&[], metadata)), [2.0, 4.0 / 8f64.sqrt()]);
}

#[test]
fn what_does_not_fit_is_named() {
    let layer = format!("unet.{ATTN}.to_q");
    let (down, up) = (format!("{layer}.lora_A.weight"), format!("{layer}.lora_B.weight"));
    let relative = |suffix: &str| format!("lora_unet_{}_to_q{suffix}", ATTN.replace('.', "_"));
    let cases: [(StateDict, &str, &str); 8] = [
        (dict(&[(&down, &[4, 32])]), "missing-tensor", "lora_B"),
        (dict(&[(&down, &[4, 31]), (&up, &[32, 4])]), "shape-mismatch", "lora_A"),
        (dict(&[(&down, &[4, 32]), (&up, &[32, 5])]), "shape-mismatch", "lora_B"),
        (dict(&[(&down, &[0, 32]), (&up, &[32, 0])]), "shape-mismatch", "lora_A"),
        (dict(&[(&down, &[]), (&up, &[])]), "shape-mismatch", "lora_A"),
        (dict(&[(&relative(".hada_w1_a"), &[4, 4])]), "unsupported", "LoHa"),
        (dict(&[(&relative(".dora_scale"), &[32, 1])]), "unsupported", "DoRA"),
        (dict(&[]), "unknown-keys", "none of its 0 keys"),
    ];
    for (dict, code, name) in cases {
        let error = lora_of(dict, &targets()).expect_err("does not fit");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_lora_of_another_model_is_told_the_nearest_layers() {
    let key =
        "lora_unet_down_blocks_0_attentions_7_transformer_blocks_0_attn1_to_q.lora_down.weight";
    let error = lora_of(dict(&[(key, &[4, 32])]), &targets()).expect_err("no such layer");
    let Error::UnknownKeys { key: named, nearest, .. } = error else { panic!("{error}") };
    assert_eq!(named, key);
    let same_layer = format!("unet.{ATTN}.to_q");
    assert!(nearest.contains(&same_layer), "{nearest:?}");
}

#[test]
fn what_no_layer_has_a_use_for_is_listed() {
    let layer = format!("unet.{ATTN}.to_q");
    let (down, up) = (format!("{layer}.lora_A.weight"), format!("{layer}.lora_B.weight"));
    let other = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight";
    let original = "lora_unet_input_blocks_1_1_proj_in.lora_up.weight";
    let file = dict(&[(&down, &[4, 32]), (&up, &[32, 4]), (other, &[4, 24]), (original, &[1])]);
    let lora = lora_of(file, &targets()).expect("one layer fits");
    assert_eq!(lora.layers.len(), 1);
    // Where a file has diffusers' names, those of the original checkpoints are dropped.
    assert_eq!(lora.unused, [other, original]);
}

#[test]
fn what_is_written_says_the_same_when_it_is_read() {
    let bytes = include_bytes!("../../../tests/fixtures/oracle/adapters/lora_kohya.safetensors");
    let file = StateDict::parse("kohya", bytes).expect("valid");
    let mut lora = lora_of(file, &targets()).expect("fits");
    assert!(lora.unused.is_empty() && lora.layers.len() > 100);
    assert!(lora.layers.values().all(|layer| layer.scaling == 0.5));
    // Let ranks and alphas differ, so that the patterns are needed.
    let first = lora.layers.values_mut().next().expect("many");
    first.scaling = 3.0;
    let bytes = super::file("x", lora.layers.clone().into_iter().collect()).to_safetensors();
    let file = StateDict::parse("x", &bytes.expect("written")).expect("valid");
    assert!(file.entries.iter().all(|(key, _)| key.contains(".lora_")), "PEFT's names only");
    assert_eq!(lora_of(file, &targets()).expect("fits"), lora);
}
