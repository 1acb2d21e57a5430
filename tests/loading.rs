//! Weight files in all the forms in which models come, and in some in which they should not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device};
use half::bf16;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::models::{ClipTextConfig, ClipTextModel, Placement, WeightDtype};
use instruct_pix2pix::pipeline::{LoadOptions, StableDiffusionInstructPix2PixPipeline};
use instruct_pix2pix::weights::{self, WeightFiles};
use instruct_pix2pix::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/tiny-random");
const STEM: &str = "model";

/// A folder that goes away with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Tests run side by side, some with folders of the same name.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ip2p-{}-{count}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("text_encoder")).expect("writable");
        Self(path)
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        fs::write(self.0.join("text_encoder").join(file), bytes).expect("writable");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tensor as a file stores it.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn tiny_tensors() -> BTreeMap<String, Stored> {
    let bytes = fs::read(Path::new(TINY).join("text_encoder/model.safetensors")).expect("there");
    let file = SafeTensors::deserialize(&bytes).expect("valid");
    file.tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect()
}

fn serialize<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a Stored)>) -> Vec<u8> {
    let views = tensors.into_iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("consistent"))
    });
    safetensors::serialize(views, None).expect("serializes")
}

fn placement(weights: WeightDtype) -> Placement {
    Placement { device: Device::flex(), weights }
}

fn load_from(folder: &Folder, dtype: WeightDtype) -> Result<(ClipTextModel, Vec<String>)> {
    let json = fs::read_to_string(Path::new(TINY).join("text_encoder/config.json")).expect("there");
    let mut model = ClipTextConfig::parse("config.json", &json)?.init();
    let fetch = Directory(folder.0.clone());
    let source = ModelSource::Base(String::new());
    let unused = pollster::block_on(async {
        let files = WeightFiles::open(&fetch, &source, "text_encoder", STEM, dtype).await?;
        weights::load(&mut model, files, &placement(dtype), &mut |_| {}).await
    })?;
    Ok((model, unused))
}

fn output(model: &ClipTextModel) -> Vec<f32> {
    let output = model.forward(&[vec![49406, 320, 49407]], DType::F32).expect("valid ids");
    output.last_hidden_state.into_data().try_into_vec().expect("f32")
}

fn expected() -> Vec<f32> {
    let folder = Folder::new("expected");
    folder.write("model.safetensors", &serialize(&tiny_tensors()));
    output(&load_from(&folder, WeightDtype::F32).expect("loads").0)
}

#[test]
fn shards_are_one_model() {
    let tensors = tiny_tensors();
    let folder = Folder::new("shards");
    let mut map = serde_json::Map::new();
    for (i, name) in tensors.keys().enumerate() {
        map.insert(name.clone(), format!("model-0000{}-of-00003.safetensors", i % 3).into());
    }
    for shard in 0..3 {
        let part = tensors.iter().enumerate().filter(|(i, _)| i % 3 == shard).map(|(_, t)| t);
        folder.write(&format!("model-0000{shard}-of-00003.safetensors"), &serialize(part));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    folder.write("model.safetensors.index.json", index.to_string().as_bytes());
    let (model, unused) = load_from(&folder, WeightDtype::F32).expect("loads");
    assert_eq!(output(&model), expected());
    assert!(unused.is_empty());
}

#[test]
fn half_precision_variants_are_preferred_when_weights_are_kept_so() {
    let folder = Folder::new("variants");
    folder.write("model.safetensors", b"not this one");
    folder.write("model.fp16.safetensors", &serialize(&tiny_tensors()));
    let (model, _) = load_from(&folder, WeightDtype::F16).expect("loads");
    // The file has halves already, so nothing is lost.
    assert_eq!(output(&model), expected());
    let error = load_from(&folder, WeightDtype::F32).expect_err("the plain file is broken");
    assert_eq!(error.code(), "invalid-safetensors");
}

#[test]
fn bf16_and_f32_files_are_read() {
    let close = |ours: Vec<f32>, tolerance: f32| {
        let expected = expected();
        let peak = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(peak <= tolerance, "{peak}");
    };
    let convert = |dtype: Dtype, to: fn(f32) -> Vec<u8>| {
        let mut tensors = tiny_tensors();
        for (stored, _, data) in tensors.values_mut() {
            let values = data.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b));
            *data = values.flat_map(|x| to(x.to_f32())).collect();
            *stored = dtype;
        }
        let folder = Folder::new(&format!("{dtype:?}"));
        folder.write("model.safetensors", &serialize(&tensors));
        output(&load_from(&folder, WeightDtype::F32).expect("loads").0)
    };
    close(convert(Dtype::F32, |x| x.to_le_bytes().to_vec()), 0.0);
    close(convert(Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes().to_vec()), 0.1);
}

#[test]
fn keys_without_use_are_listed() {
    let mut tensors = tiny_tensors();
    let extra = "text_model.embeddings.position_ids".to_owned();
    tensors.insert(extra.clone(), (Dtype::I64, vec![1], vec![0; 8]));
    let folder = Folder::new("unused");
    folder.write("model.safetensors", &serialize(&tensors));
    let (_, unused) = load_from(&folder, WeightDtype::F32).expect("loads");
    assert_eq!(unused, [extra]);
}

#[test]
fn broken_models_are_typed_errors() {
    let name = "text_model.final_layer_norm.weight";
    let change = |f: &dyn Fn(&mut BTreeMap<String, Stored>)| {
        let mut tensors = tiny_tensors();
        f(&mut tensors);
        serialize(&tensors)
    };
    let mut truncated = serialize(&tiny_tensors());
    truncated.truncate(truncated.len() - 100);
    let cases: [(&str, Vec<u8>); 4] = [
        (
            "missing-tensor",
            change(&|tensors| {
                tensors.remove(name);
            }),
        ),
        (
            "shape-mismatch",
            change(&|tensors| {
                tensors.insert(name.into(), (Dtype::F16, vec![8], vec![0; 16]));
            }),
        ),
        (
            "unsupported-dtype",
            change(&|tensors| {
                tensors.insert(name.into(), (Dtype::I64, vec![16], vec![0; 128]));
            }),
        ),
        ("invalid-safetensors", truncated),
    ];
    for (code, bytes) in cases {
        let folder = Folder::new(code);
        folder.write("model.safetensors", &bytes);
        let error = load_from(&folder, WeightDtype::F32).expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        if let Error::ShapeMismatch { expected, found, .. } = &error {
            assert_eq!((expected.as_slice(), found.as_slice()), (&[16][..], &[8][..]));
        }
        if code != "invalid-safetensors" {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn a_model_without_files_is_not_found() {
    let folder = Folder::new("nothing");
    let error = load_from(&folder, WeightDtype::F16).expect_err("empty");
    assert_eq!(error.code(), "not-found");
    assert!(error.to_string().contains("text_encoder/model.safetensors"), "{error}");
}

#[test]
fn an_index_cannot_lead_elsewhere() {
    for shard in ["../vae/x.safetensors", "/etc/passwd", "..\\x", ".hidden"] {
        let folder = Folder::new("elsewhere");
        let index = serde_json::json!({ "weight_map": { "a": shard } });
        folder.write("model.safetensors.index.json", index.to_string().as_bytes());
        let error = load_from(&folder, WeightDtype::F32).expect_err(shard);
        assert_eq!(error.code(), "invalid-config", "{error}");
    }
}

#[test]
fn another_pipeline_is_refused_before_anything_is_read() {
    let folder = Folder::new("class");
    let index = r#"{"_class_name": "StableDiffusionPipeline"}"#;
    fs::write(folder.0.join("model_index.json"), index).expect("writable");
    let placement = placement(WeightDtype::F32);
    let options =
        LoadOptions { placement, dtype: DType::F32, safety_checker: false, warm_up: false };
    let result = pollster::block_on(StableDiffusionInstructPix2PixPipeline::load(
        &Directory(folder.0.clone()),
        &ModelSource::Base(String::new()),
        options,
        &mut |_| {},
    ));
    assert_eq!(result.expect_err("another class").code(), "unsupported");
}
