//! Weight files in all the forms in which models come, and in some in which they should not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use burn::tensor::{DType, Device};
use futures_util::future::{LocalBoxFuture, pending, ready};
use half::bf16;
use instruct_pix2pix::cache::{Alone, Cache, CachePolicy, MemoryStore, Repository};
use instruct_pix2pix::hub::{
    Body, Directory, Fetch, ModelFiles, ModelSource, Request, Response, Traffic,
};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::models::{ClipTextConfig, ClipTextModel, Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    Components, EditRequest, Floats, Images, InstructPix2Pix, LoadEvent, LoadOptions,
    PipelineClass, Prompts, Room, SingleFile, Sink, StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline, TorchGenerator, Unobserved, XlConfig, XlEditRequest,
};
use instruct_pix2pix::schedulers::SchedulerConfig;
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
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let unused = pollster::block_on(async {
        let files = WeightFiles::open(&files, "text_encoder", STEM, dtype).await?;
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
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    let fetch = Directory(folder.0.clone());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let mut on_event = |_: LoadEvent<'_>| {};
    let load = StableDiffusionInstructPix2PixPipeline::load(&files, options, &mut on_event);
    let result = pollster::block_on(load);
    assert_eq!(result.expect_err("another class").code(), "unsupported");
}

fn tiny(weights: WeightDtype) -> StableDiffusionInstructPix2PixPipeline {
    from_folder(Path::new(TINY), weights, true)
}

fn from_folder(
    folder: &Path,
    weights: WeightDtype,
    safety_checker: bool,
) -> StableDiffusionInstructPix2PixPipeline {
    try_from_folder(folder, weights, safety_checker).expect("loads")
}

fn try_from_folder(
    folder: &Path,
    weights: WeightDtype,
    safety_checker: bool,
) -> Result<StableDiffusionInstructPix2PixPipeline> {
    let options = LoadOptions {
        placement: placement(weights),
        dtype: DType::F32,
        safety_checker,
        warm_up: false,
        prompts: None,
    };
    let fetch = Directory(folder.to_owned());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let mut on_event = |_: LoadEvent<'_>| {};
    let load = StableDiffusionInstructPix2PixPipeline::load(&files, options, &mut on_event);
    pollster::block_on(load)
}

fn sd_request() -> EditRequest {
    let pixels = (0..16 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
    EditRequest {
        images: Images::Pictures(vec![RgbImage::new(16, 16, pixels).expect("valid")]),
        text: Prompts::new("make it snowy"),
        num_inference_steps: 2,
        ..EditRequest::default()
    }
}

/// The samples of a short edit, which every component has a hand in.
fn edit(pipeline: &StableDiffusionInstructPix2PixPipeline) -> (Vec<f32>, Option<Vec<bool>>) {
    let request = sd_request();
    let mut noise = TorchGenerator::new(7);
    let mut observer = Unobserved;
    let output = pollster::block_on(pipeline.edit(&request, &mut noise, &mut observer));
    let output = output.expect("edits");
    (output.latents.data, output.nsfw_content_detected)
}

/// What the original implementation calls a tensor of the tiny model, the other way round than the
/// crate: blocks of the UNet have two layers, the VAE has two blocks, the first of the UNet's way up
/// has no attention.
fn original_key(component: &str, key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let number = |i: usize| parts[i].parse::<usize>().expect("a number");
    let rest = |from: usize| parts[from..].join(".");
    let resnet = |from: usize| {
        let names = [
            ("norm1", "in_layers.0"),
            ("conv1", "in_layers.2"),
            ("time_emb_proj", "emb_layers.1"),
            ("norm2", "out_layers.0"),
            ("conv2", "out_layers.3"),
            ("conv_shortcut", "skip_connection"),
        ];
        let (_, name) = names.iter().find(|(name, _)| *name == parts[from]).expect("a layer");
        format!("{name}.{}", parts[from + 1])
    };
    let unet = || match (parts[0], parts.get(2).copied()) {
        ("conv_in", _) => format!("input_blocks.0.0.{}", parts[1]),
        ("conv_norm_out", _) => format!("out.0.{}", parts[1]),
        ("conv_out", _) => format!("out.2.{}", parts[1]),
        ("time_embedding", _) => {
            format!("time_embed.{}.{}", if parts[1] == "linear_1" { 0 } else { 2 }, parts[2])
        }
        ("mid_block", _) if parts[1] == "attentions" => format!("middle_block.1.{}", rest(3)),
        ("mid_block", _) => format!("middle_block.{}.{}", 2 * number(2), resnet(3)),
        ("down_blocks", Some("resnets")) => {
            format!("input_blocks.{}.0.{}", 1 + 3 * number(1) + number(3), resnet(4))
        }
        ("down_blocks", Some("attentions")) => {
            format!("input_blocks.{}.1.{}", 1 + 3 * number(1) + number(3), rest(4))
        }
        ("down_blocks", _) => format!("input_blocks.{}.0.op.{}", 3 * (number(1) + 1), parts[5]),
        ("up_blocks", Some("resnets")) => {
            format!("output_blocks.{}.0.{}", 3 * number(1) + number(3), resnet(4))
        }
        ("up_blocks", Some("attentions")) => {
            format!("output_blocks.{}.1.{}", 3 * number(1) + number(3), rest(4))
        }
        ("up_blocks", _) => {
            let place = if number(1) == 0 { 1 } else { 2 };
            format!("output_blocks.{}.{place}.conv.{}", 3 * number(1) + 2, parts[5])
        }
        _ => panic!("{key}"),
    };
    let vae = || {
        let layer = |from: usize| {
            let name = parts[from..parts.len() - 1].join(".");
            let name = match name.as_str() {
                "conv_shortcut" => "nin_shortcut",
                "group_norm" => "norm",
                "to_q" => "q",
                "to_k" => "k",
                "to_v" => "v",
                "to_out.0" => "proj_out",
                name => name,
            };
            format!("{name}.{}", parts[parts.len() - 1])
        };
        let side = parts[0];
        match (parts[1], parts.get(3).copied()) {
            ("conv_norm_out", _) => format!("{side}.norm_out.{}", parts[2]),
            ("mid_block", _) if parts[2] == "attentions" => {
                format!("{side}.mid.attn_1.{}", layer(4))
            }
            ("mid_block", _) => format!("{side}.mid.block_{}.{}", number(3) + 1, layer(4)),
            ("down_blocks", Some("resnets")) => {
                format!("{side}.down.{}.block.{}.{}", number(2), number(4), layer(5))
            }
            ("up_blocks", Some("resnets")) => {
                format!("{side}.up.{}.block.{}.{}", 1 - number(2), number(4), layer(5))
            }
            ("down_blocks", _) => format!("{side}.down.{}.downsample.conv.{}", number(2), parts[6]),
            ("up_blocks", _) => format!("{side}.up.{}.upsample.conv.{}", 1 - number(2), parts[6]),
            _ => key.to_owned(),
        }
    };
    match component {
        "unet" => format!("model.diffusion_model.{}", unet()),
        "vae" => format!("first_stage_model.{}", vae()),
        _ => format!("cond_stage_model.transformer.{key}"),
    }
}

/// The tiny model in one file, as trainers write it.
fn original_sd() -> BTreeMap<String, Stored> {
    let mut tensors = BTreeMap::new();
    let files = [
        ("unet", "unet/diffusion_pytorch_model.safetensors"),
        ("vae", "vae/diffusion_pytorch_model.safetensors"),
        ("text_encoder", "text_encoder/model.safetensors"),
    ];
    for (component, path) in files {
        let bytes = fs::read(Path::new(TINY).join(path)).expect("there");
        for (name, tensor) in SafeTensors::deserialize(&bytes).expect("valid").tensors() {
            let stored = (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
            let original = original_key(component, &name);
            assert!(tensors.insert(original, stored).is_none(), "{component} {name}");
        }
    }
    // What trainers leave in their files.
    tensors.insert("model_ema.decay".into(), (Dtype::I64, vec![1], vec![0; 8]));
    tensors
}

#[test]
fn a_checkpoint_in_one_file_is_the_same_model() {
    let folder = Folder::new("whole");
    fs::write(folder.0.join("whole.safetensors"), serialize(&original_sd())).expect("writable");
    let (checkpoint, config) = (Directory(folder.0.clone()), Directory(TINY.into()));
    let load = |name: &'static str| {
        let base = || ModelSource::Base(String::new());
        let checkpoint = Repository::uncached(&checkpoint, base());
        let config = Repository::uncached(&config, base());
        let placement = placement(WeightDtype::F32);
        let options = LoadOptions {
            placement,
            dtype: DType::F32,
            safety_checker: true,
            warm_up: false,
            prompts: None,
        };
        let file = single(&checkpoint, name, &config);
        pollster::block_on(StableDiffusionInstructPix2PixPipeline::load_single_file(
            file,
            options,
            &mut |_| {},
        ))
    };
    let whole = load("whole.safetensors").expect("loads");
    assert_eq!(edit(&whole), edit(&tiny(WeightDtype::F32)));
    assert_eq!(load("whole.ckpt").expect_err("a pickle").code(), "unsupported");
}

/// Writes below a folder.
struct FolderSink {
    folder: PathBuf,
    file: Option<fs::File>,
    paths: Vec<String>,
}

impl Sink for FolderSink {
    fn create<'a>(&'a mut self, path: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        assert!(self.file.is_none(), "one file at a time");
        let full = self.folder.join(path);
        fs::create_dir_all(full.parent().expect("below the folder")).expect("writable");
        self.file = Some(fs::File::create(full).expect("writable"));
        self.paths.push(path.to_owned());
        Box::pin(ready(Ok(())))
    }

    fn write(&mut self, bytes: Vec<u8>) -> LocalBoxFuture<'_, Result<()>> {
        use std::io::Write as _;
        self.file.as_mut().expect("begun").write_all(&bytes).expect("writable");
        Box::pin(ready(Ok(())))
    }

    fn close(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        assert!(self.file.take().is_some(), "begun");
        Box::pin(ready(Ok(())))
    }
}

/// `IP2P_SAVE=folder` keeps what is written, for `check_with_diffusers.py`.
#[test]
fn what_is_saved_is_loaded_again_as_the_same_model() {
    for weights in [WeightDtype::F32, WeightDtype::F16] {
        let pipeline = tiny(weights);
        let temporary = Folder::new("saved");
        let kept = std::env::var_os("IP2P_SAVE").map(PathBuf::from);
        let folder = kept.unwrap_or_else(|| temporary.0.clone());
        let fetch = Directory(TINY.into());
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        let mut sink = FolderSink { folder: folder.clone(), file: None, paths: Vec::new() };
        pollster::block_on(pipeline.save_pretrained(&files, &mut sink)).expect("saves");
        assert_eq!(edit(&from_folder(&folder, weights, true)), edit(&pipeline));
        for path in ["model_index.json", "tokenizer/vocab.json", "unet/config.json"] {
            assert!(sink.paths.iter().any(|written| written == path), "{path}");
        }
        assert!(sink.file.is_none());
    }
}

const TINY_XL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle/models/tiny-sdxl-ip2p");

fn of_xl(loaded: InstructPix2Pix) -> StableDiffusionXLInstructPix2PixPipeline {
    match loaded {
        InstructPix2Pix::Xl(pipeline) => pipeline,
        InstructPix2Pix::Sd(_) => panic!("a model of SDXL"),
    }
}

fn xl_options() -> LoadOptions {
    LoadOptions {
        placement: placement(WeightDtype::F32),
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    }
}

fn load_xl(folder: &Path) -> StableDiffusionXLInstructPix2PixPipeline {
    let fetch = Directory(folder.to_owned());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let given = Components::default();
    let mut on_event = |_: LoadEvent<'_>| {};
    let load = InstructPix2Pix::load(&files, xl_options(), given, None, &mut on_event);
    of_xl(pollster::block_on(load).expect("loads"))
}

fn xl_request() -> XlEditRequest {
    let pixels = (0..16 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let mut request =
        XlEditRequest { height: Some(16), width: Some(16), ..XlEditRequest::default() };
    request.edit.images = Images::Pictures(vec![RgbImage::new(16, 16, pixels).expect("valid")]);
    request.edit.text = Prompts::new("make it snowy");
    request.edit.num_inference_steps = 2;
    request
}

fn edit_xl(pipeline: &StableDiffusionXLInstructPix2PixPipeline) -> Floats<4> {
    let request = xl_request();
    let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
    let edit = pipeline.edit(&request, &mut noise, &mut observer);
    pollster::block_on(edit).expect("edits").latents
}

/// The tiny model of SDXL in one file, as diffusers reads it (`gen_single_file_xl.py`).
fn original_xl() -> BTreeMap<String, Stored> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/single_file_xl.json");
    let json = fs::read_to_string(path).expect("there");
    let entries: serde_json::Value = serde_json::from_str(&json).expect("valid");
    let mut files = BTreeMap::new();
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        let stem = if component.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        let path = Path::new(TINY_XL).join(component).join(format!("{stem}.safetensors"));
        files.insert(component, fs::read(path).expect("there"));
    }
    let original = |entry: &serde_json::Value| {
        let file = &files[entry["component"].as_str().expect("a name")];
        let file = SafeTensors::deserialize(file).expect("valid");
        let mut data = Vec::new();
        let (mut dtype, mut shape) = (Dtype::F32, Vec::new());
        for key in entry["keys"].as_array().expect("a list") {
            let tensor = file.tensor(key.as_str().expect("a key")).expect("there");
            (dtype, data) = (tensor.dtype(), [&data, tensor.data()].concat());
            let rows = shape.first().copied().unwrap_or(0) + tensor.shape()[0];
            shape = [&[rows], &tensor.shape()[1..]].concat();
        }
        if entry["transposed"] == true {
            let [rows, columns] = [shape[0], shape[1]];
            let size = data.len() / rows / columns;
            let at = |i: usize| (i % rows * columns + i / rows) * size;
            let turned = (0..rows * columns).flat_map(|i| data[at(i)..at(i) + size].to_vec());
            (data, shape) = (turned.collect(), vec![columns, rows]);
        }
        (dtype, shape, data)
    };
    let entries = entries.as_object().expect("an object");
    entries.iter().map(|(key, entry)| (key.clone(), original(entry))).collect()
}

fn load_single(
    tensors: &BTreeMap<String, Stored>,
    config: &Path,
    wanted: Option<PipelineClass>,
) -> (Result<PipelineClass>, Result<InstructPix2Pix>) {
    let folder = Folder::new("single");
    fs::write(folder.0.join("it.safetensors"), serialize(tensors)).expect("writable");
    let (checkpoint, config) = (Directory(folder.0.clone()), Directory(config.to_owned()));
    let base = || ModelSource::Base(String::new());
    let checkpoint = Repository::uncached(&checkpoint, base());
    let config = Repository::uncached(&config, base());
    let class = InstructPix2Pix::class_of_single_file(&checkpoint, "it.safetensors");
    let class = pollster::block_on(class);
    let mut on_event = |_: LoadEvent<'_>| {};
    let file = single(&checkpoint, "it.safetensors", &config);
    let load = InstructPix2Pix::load_single_file(file, xl_options(), wanted, &mut on_event);
    (class, pollster::block_on(load))
}

/// A checkpoint in one file with configurations that were chosen for it.
fn single<'a>(
    files: &'a dyn ModelFiles,
    path: &'a str,
    config: &'a dyn ModelFiles,
) -> SingleFile<'a> {
    SingleFile { files, path, config, is_default_config: false }
}

#[test]
fn a_checkpoint_of_sdxl_in_one_file_is_the_same_model() {
    let mut tensors = original_xl();
    let key = "conditioner.embedders.1.model.logit_scale";
    tensors.insert(key.into(), (Dtype::F32, vec![], vec![0; 4]));
    let folder = load_xl(Path::new(TINY_XL));
    let (class, loaded) = load_single(&tensors, Path::new(TINY_XL), None);
    assert_eq!(class.expect("known"), PipelineClass::Xl);
    let whole = of_xl(loaded.expect("loads"));
    assert_eq!(edit_xl(&whole), edit_xl(&folder));
    assert_eq!(whole.config(), folder.config());
    assert_eq!(whole.scheduler(), folder.scheduler());
    let (_, other) = load_single(&tensors, Path::new(TINY), None);
    assert_eq!(other.expect_err("SD's shapes").code(), "shape-mismatch");
    let (_, other) = load_single(&tensors, Path::new(TINY_XL), Some(PipelineClass::Sd));
    assert_eq!(other.expect_err("another class").code(), "unsupported");
}

#[test]
fn a_checkpoint_that_was_trained_as_cosxl_is_sampled_so() {
    let tensors = original_cosxl();
    let whole = of_xl(load_single(&tensors, Path::new(TINY_XL), None).1.expect("loads"));
    assert!(whole.config().is_cosxl_edit);
    let mut folder = load_xl(Path::new(TINY_XL));
    folder.set_config(XlConfig { is_cosxl_edit: true, ..folder.config() });
    // As diffusers' documentation has it.
    let json = r#"{"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 120.0,
        "sigma_data": 1.0, "prediction_type": "v_prediction", "sigma_schedule": "exponential"}"#;
    let config = SchedulerConfig::from_json("scheduler", json).expect("valid");
    folder.set_scheduler(config).expect("known");
    assert_eq!(edit_xl(&whole), edit_xl(&folder));
}

/// With the keys by which CosXL-Edit is known.
fn original_cosxl() -> BTreeMap<String, Stored> {
    let mut tensors = original_xl();
    for name in ["max", "min"] {
        let key = format!("edm_vpred.sigma_{name}");
        tensors.insert(key, (Dtype::F32, vec![], vec![0; 4]));
    }
    tensors
}

#[test]
fn models_of_a_checkpoint_in_one_file_take_turns() {
    let tensors = original_cosxl();
    let expected = of_xl(load_single(&tensors, Path::new(TINY_XL), None).1.expect("loads"));
    let bytes = serialize(&tensors);
    let size = bytes.len() as u64;
    let folder = Folder::new("turns");
    fs::write(folder.0.join("it.safetensors"), bytes).expect("writable");
    let (fetch, config) = (Directory(folder.0.clone()), Directory(TINY_XL.into()));
    let base = || ModelSource::Base(String::new());
    let config = Repository::uncached(&config, base());

    // What its models take is known by the configurations, and told before anything is loaded.
    let plan = |budget| {
        let room = Room { budget, ..Room::default() };
        pollster::block_on(InstructPix2Pix::plan(&config, WeightDtype::F32, false, room))
    };
    let needs = plan(None).expect("known").needs;
    assert!(needs.in_turn < needs.all);
    assert!(!plan(Some(needs.all)).expect("room for all").in_turn);
    assert!(plan(Some(needs.in_turn)).expect("room for one").in_turn);
    let error = plan(Some(needs.in_turn - 1)).expect_err("no room");
    assert_eq!(error.code(), "invalid-argument");
    assert!(error.to_string().contains(&format!("take {} at least", needs.in_turn)), "{error}");

    let store = Rc::new(MemoryStore::default());
    for is_cached in [false, true] {
        let cache = pollster::block_on(Cache::open(store.clone(), Rc::new(Alone), None));
        let cache = cache.expect("opens").with_chunk_bytes(32 << 10);
        let (kept, policy) = (is_cached.then_some(&cache), CachePolicy::Resume);
        let open = async || Repository::open(&fetch, base(), kept, policy, |_| ()).await;
        let files = pollster::block_on(open()).expect("opens");
        let file = single(&files, "it.safetensors", &config);
        let told = RefCell::new(Vec::new());
        let mut on_event = |event: LoadEvent<'_>| {
            if let LoadEvent::Needs(choice) = event {
                told.borrow_mut().push(choice.asked);
            }
        };
        let turns = pollster::block_on(async {
            if is_cached {
                let weights = WeightDtype::F32;
                InstructPix2Pix::download_single_file(file, weights, None, &mut on_event).await?;
            }
            InstructPix2Pix::open_single_file(file, xl_options(), None, &mut on_event).await
        });
        let turns = of_xl(turns.expect("opens"));
        assert_eq!(told.take(), [needs]);
        assert!(turns.takes_turns());
        assert_eq!(turns.config(), expected.config());
        assert_eq!(turns.scheduler(), expected.scheduler());
        assert_eq!(turns.default_side(), expected.default_side());
        drop(files);
        let files = pollster::block_on(open()).expect("opens");
        let edit = async {
            let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
            turns.edit_with(Some(&files), &xl_request(), &mut noise, &mut observer).await
        };
        assert_eq!(pollster::block_on(edit).expect("edits").latents, edit_xl(&expected));
        let Traffic { fetched, cached } = files.traffic();
        if is_cached {
            // The VAE's turn comes twice, and each reads its part.
            assert_eq!(fetched, 0);
            assert!(cached > size && cached < 2 * size, "{cached} of {size} bytes");
        } else {
            // In two pieces, of which all models have something.
            assert_eq!(cached, 0);
            assert!(fetched <= 4 * size, "{fetched} of {size} bytes");
        }
    }
}

#[test]
fn models_of_a_checkpoint_of_sd_in_one_file_take_turns() {
    let folder = Folder::new("turns-sd");
    fs::write(folder.0.join("whole.safetensors"), serialize(&original_sd())).expect("writable");
    let (fetch, config) = (Directory(folder.0.clone()), Directory(TINY.into()));
    let base = || ModelSource::Base(String::new());
    let (files, config) =
        (Repository::uncached(&fetch, base()), Repository::uncached(&config, base()));
    let options = LoadOptions { safety_checker: true, ..xl_options() };
    let mut on_event = |_: LoadEvent<'_>| {};
    let mut open = |path| {
        let (file, wanted) = (single(&files, path, &config), Some(PipelineClass::Sd));
        let open = InstructPix2Pix::open_single_file(file, options.clone(), wanted, &mut on_event);
        pollster::block_on(open)
    };
    let Ok(InstructPix2Pix::Sd(turns)) = open("whole.safetensors") else { panic!("opens") };
    let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
    let request = sd_request();
    let edit_in_turn = turns.edit_with(Some(&files), &request, &mut noise, &mut observer);
    let found = pollster::block_on(edit_in_turn).expect("edits");
    let expected = edit(&tiny(WeightDtype::F32));
    assert_eq!((found.latents.data, found.nsfw_content_detected), expected);
    assert_eq!(open("whole.ckpt").expect_err("a pickle").code(), "unsupported");
    assert_eq!(open("none.safetensors").expect_err("no file").code(), "not-found");
}

#[test]
fn a_checkpoint_of_sdxl_in_one_file_has_its_size_unless_a_configuration_is_chosen() {
    let folder = load_xl(Path::new(TINY_XL));
    let own = folder.default_side().expect("it has one");
    // A latent stands for two pixels of the tiny model.
    let sdxl = Some(128 * 2);
    assert_ne!(Some(own), sdxl);
    for (tensors, is_default_config, expected) in [
        (original_xl(), false, Some(own)),
        (original_xl(), true, sdxl),
        (original_cosxl(), false, sdxl),
        (original_cosxl(), true, sdxl),
    ] {
        let folder = Folder::new("size");
        fs::write(folder.0.join("it.safetensors"), serialize(&tensors)).expect("writable");
        let (fetch, config) = (Directory(folder.0.clone()), Directory(TINY_XL.into()));
        let base = || ModelSource::Base(String::new());
        let files = Repository::uncached(&fetch, base());
        let config = Repository::uncached(&config, base());
        let file = single(&files, "it.safetensors", &config);
        let file = SingleFile { is_default_config, ..file };
        let mut on_event = |_: LoadEvent<'_>| {};
        let load = InstructPix2Pix::load_single_file(file, xl_options(), None, &mut on_event);
        let pipeline = of_xl(pollster::block_on(load).expect("loads"));
        assert_eq!(pipeline.default_side(), expected);
        // It is saved so.
        let saved = Folder::new("size-saved");
        let mut sink = FolderSink { folder: saved.0.clone(), file: None, paths: Vec::new() };
        pollster::block_on(pipeline.save_pretrained(&config, &mut sink)).expect("saves");
        assert_eq!(load_xl(&saved.0).default_side(), expected);
    }
}

#[test]
fn checkpoints_in_one_file_that_do_not_fit_are_refused() {
    let change = |key: &str, change: fn(&mut Stored)| {
        let mut tensors = original_xl();
        change(tensors.get_mut(key).expect("there"));
        let (class, loaded) = load_single(&tensors, Path::new(TINY_XL), None);
        (class.map_err(|e| e.to_string()), loaded.expect_err("wrong").code())
    };
    let shape = Error::ShapeMismatch {
        file: String::new(),
        name: String::new(),
        expected: vec![],
        found: vec![],
    };
    let shape = shape.code();
    let open_clip = "conditioner.embedders.1.model.";
    for (key, f) in [
        (
            "transformer.resblocks.0.attn.in_proj_weight",
            (|t| t.1 = vec![24, 72]) as fn(&mut Stored),
        ),
        ("transformer.resblocks.0.attn.in_proj_bias", |t| {
            (t.1, t.2) = (vec![71], t.2[2..].to_vec())
        }),
        ("text_projection", |t| t.1 = vec![32, 24]),
        ("text_projection", |t| t.1 = vec![24 * 32]),
        ("text_projection", |t| t.1 = vec![1, 1, 24, 32]),
    ] {
        assert_eq!(change(&format!("{open_clip}{key}"), f).1, shape, "{key}");
    }
    // A model that makes pictures and takes none.
    let (class, code) = change("model.diffusion_model.input_blocks.0.0.weight", |t| {
        t.2.truncate(t.2.len() / 2);
        t.1[1] = 4;
    });
    assert!(class.expect_err("no picture").contains("4 channels"));
    assert_eq!(code, shape);
    let mut tensors = original_xl();
    tensors.remove("conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_bias");
    let loaded = load_single(&tensors, Path::new(TINY_XL), None).1;
    assert_eq!(loaded.expect_err("it lacks one").code(), "missing-tensor");
}

/// `IP2P_SAVE=folder` keeps what is written in its folder `xl`, for `check_with_diffusers.py`.
#[test]
fn sdxl_is_saved_with_both_text_encoders_and_its_settings() {
    let (load, edit) = (load_xl, edit_xl);
    let model = TINY_XL;
    let mut pipeline = load(Path::new(model));
    let config = XlConfig {
        force_zeros_for_empty_prompt: false,
        is_cosxl_edit: true,
        add_watermarker: true,
    };
    pipeline.set_config(config);
    let temporary = Folder::new("saved-xl");
    let kept = std::env::var_os("IP2P_SAVE").map(|folder| PathBuf::from(folder).join("xl"));
    let folder = kept.unwrap_or_else(|| temporary.0.clone());
    let fetch = Directory(model.into());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let mut sink = FolderSink { folder: folder.clone(), file: None, paths: Vec::new() };
    pollster::block_on(pipeline.save_pretrained(&files, &mut sink)).expect("saves");
    let saved = load(&folder);
    assert_eq!(saved.config(), config);
    assert_eq!(edit(&saved), edit(&pipeline));
    assert!(sink.paths.iter().any(|path| path == "tokenizer_2/vocab.json"));
}

#[test]
fn a_model_without_its_checker_is_saved_as_one() {
    let mut pipeline = tiny(WeightDtype::F32);
    pipeline.set_safety_checker(None);
    let folder = Folder::new("unchecked");
    let fetch = Directory(TINY.into());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let mut sink = FolderSink { folder: folder.0.clone(), file: None, paths: Vec::new() };
    pollster::block_on(pipeline.save_pretrained(&files, &mut sink)).expect("saves");
    assert!(!folder.0.join("safety_checker").exists());
    let (_, flags) = edit(&from_folder(&folder.0, WeightDtype::F32, false));
    assert_eq!(flags, None, "and loads without it");
    let wanted = try_from_folder(&folder.0, WeightDtype::F32, true).expect_err("there is none");
    assert!(wanted.to_string().contains("safetyChecker"), "{wanted}");
}

#[test]
fn components_are_taken_over_and_not_read_again() {
    let pipeline = tiny(WeightDtype::F32);
    let mut given = Components::default();
    for name in ["unet", "vae", "text_encoder", "safety_checker"] {
        given.take(name, &pipeline).expect("there");
    }
    // A folder without weights is enough.
    let folder = Folder::new("given");
    for path in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ] {
        let to = folder.0.join(path);
        fs::create_dir_all(to.parent().expect("below the folder")).expect("writable");
        fs::copy(Path::new(TINY).join(path), to).expect("there");
    }
    let load = |given| {
        let fetch = Directory(folder.0.clone());
        let placement = placement(WeightDtype::F32);
        let options = LoadOptions {
            placement,
            dtype: DType::F32,
            safety_checker: true,
            warm_up: false,
            prompts: None,
        };
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        pollster::block_on(StableDiffusionInstructPix2PixPipeline::load_with(
            &files,
            options,
            given,
            &mut |_| {},
        ))
    };
    assert_eq!(edit(&load(given.clone()).expect("loads")), edit(&pipeline));
    given.vae = None;
    assert_eq!(load(given.clone()).expect_err("no VAE").code(), "not-found");
    let options = LoadOptions {
        placement: placement(WeightDtype::F32),
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    match given.build(options).expect_err("no VAE") {
        Error::InvalidArgument { argument, .. } => assert_eq!(argument, "tokenizer"),
        other => panic!("{other}"),
    }
    let error = Components::default().take("colour", &pipeline).expect_err("no such part");
    assert_eq!(error.code(), "invalid-argument");
}

/// A server of which one file never comes.
struct Waiting<'a> {
    inner: Directory,
    missing: &'a str,
}

impl Fetch for Waiting<'_> {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        match request.url.ends_with(self.missing) && request.range != Some(0..1) {
            true => Box::pin(pending()),
            false => self.inner.get(request),
        }
    }

    fn wait(&self, _: Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(pending())
    }
}

/// What is told of a load of which a file never comes, by short names.
fn told_without(missing: &str, prompts: Option<Prompts>) -> Vec<String> {
    let fetch = Waiting { inner: Directory(TINY.into()), missing };
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let options = LoadOptions {
        placement: placement(WeightDtype::F16),
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts,
    };
    let told = RefCell::new(Vec::new());
    let tell = |event: &str| told.borrow_mut().push(event.to_owned());
    let mut on_event = |event: LoadEvent<'_>| match event {
        LoadEvent::Component { component } => tell(component),
        LoadEvent::Encoded => tell("encoded"),
        _ => {}
    };
    let given = Components::default();
    let load = InstructPix2Pix::load(&files, options, given, None, &mut on_event);
    let mut load = std::pin::pin!(load);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        assert!(load.as_mut().poll(&mut context).is_pending(), "{missing} is missing");
    }
    told.take()
}

#[test]
fn what_is_there_is_loaded_while_the_rest_is_on_its_way() {
    const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
    let prompts = || Some(Prompts::new("make it snowy"));
    assert_eq!(told_without(UNET, prompts()), ["text_encoder", "encoded", "vae"]);
    assert_eq!(told_without(UNET, None), ["text_encoder", "vae"]);
    assert_eq!(told_without("text_encoder/model.safetensors", prompts()), ["vae", "unet"]);
    assert_eq!(
        told_without("vae/diffusion_pytorch_model.safetensors", prompts()),
        ["text_encoder", "encoded", "unet"]
    );
}

/// A server whose connections end in an abort once so many bytes of weights have come in all.
struct Stopping {
    inner: Directory,
    left: Rc<Cell<usize>>,
}

struct StoppingBody {
    inner: Box<dyn Body>,
    rest: Vec<u8>,
    left: Rc<Cell<usize>>,
}

impl Fetch for Stopping {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let is_weights = request.url.ends_with(".safetensors");
            let mut response = self.inner.get(request).await?;
            if is_weights {
                let (inner, left) = (response.body, self.left.clone());
                response.body = Box::new(StoppingBody { inner, rest: Vec::new(), left });
            }
            Ok(response)
        })
    }

    fn wait(&self, _: Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(pending())
    }
}

impl Body for StoppingBody {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            // Others have their turn, too.
            let mut is_first = true;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            if self.rest.is_empty() {
                self.rest = self.inner.next_chunk().await?.unwrap_or_default();
            }
            let piece: Vec<u8> = self.rest.drain(..self.rest.len().min(10_000)).collect();
            let Some(left) = self.left.get().checked_sub(piece.len()) else {
                return Err(Error::Aborted);
            };
            self.left.set(left);
            Ok((!piece.is_empty()).then_some(piece))
        })
    }
}

#[test]
fn a_load_that_is_stopped_keeps_what_has_arrived_of_all_files() {
    let store = Rc::new(MemoryStore::default());
    let mut before = 0;
    for bytes in [100_000, 1_000_000, 1_000_000, usize::MAX] {
        let cache = pollster::block_on(Cache::open(store.clone(), Rc::new(Alone), None));
        let cache = cache.expect("opens").with_chunk_bytes(64 << 10);
        let left = Rc::new(Cell::new(bytes));
        let fetch = Stopping { inner: Directory(TINY.into()), left: left.clone() };
        let options = LoadOptions {
            placement: placement(WeightDtype::F16),
            dtype: DType::F32,
            safety_checker: false,
            warm_up: false,
            prompts: None,
        };
        let (loaded, traffic) = pollster::block_on(async {
            let source = ModelSource::Base(String::new());
            let policy = CachePolicy::Resume;
            let files = Repository::open(&fetch, source, Some(&cache), policy, |_| ()).await;
            let files = files.expect("opens");
            let mut on_event = |_: LoadEvent<'_>| {};
            let given = Components::default();
            let load = InstructPix2Pix::load(&files, options, given, None, &mut on_event).await;
            (load, files.traffic())
        });
        let kept = pollster::block_on(cache.list()).expect("there")[0].bytes;
        match loaded {
            Err(Error::Aborted) => {
                let arrived = (bytes - left.get()) as u64;
                assert!(kept >= before + arrived, "{before} and {arrived} bytes, {kept} are kept");
            }
            Ok(_) => {
                assert_eq!(bytes, usize::MAX, "it was not stopped");
                let weights = (usize::MAX - left.get()) as u64;
                assert_eq!(before + weights, kept, "each byte was sent once");
                assert!(traffic.cached >= 2_000_000, "{traffic:?}");
            }
            Err(other) => panic!("{other}"),
        }
        before = kept;
    }
}

#[test]
fn a_model_is_the_same_from_the_network_and_from_halves_in_the_cache() {
    let fetch = Directory(TINY.into());
    let size = |path: &str| fs::metadata(Path::new(TINY).join(path)).expect("there").len();
    let vae = size("vae/diffusion_pytorch_model.safetensors");
    let others =
        size("unet/diffusion_pytorch_model.safetensors") + size("text_encoder/model.safetensors");
    for weights in [WeightDtype::F16, WeightDtype::I8, WeightDtype::I4, WeightDtype::F32] {
        let store = Rc::new(MemoryStore::default());
        let load = |policy| {
            let cache = pollster::block_on(Cache::open(store.clone(), Rc::new(Alone), None));
            // The VAE, which is in single precision, is large enough to be worth it.
            let cache = cache.expect("opens").with_chunk_bytes(32 << 10);
            let options = LoadOptions {
                placement: placement(weights),
                dtype: DType::F32,
                safety_checker: false,
                warm_up: false,
                prompts: None,
            };
            pollster::block_on(async {
                let source = ModelSource::Base(String::new());
                let files = Repository::open(&fetch, source, Some(&cache), policy, |_| ()).await;
                let files = files.expect("opens");
                let needs =
                    InstructPix2Pix::requirements(&files, weights, false, None, Room::default());
                let needs = needs.await.expect("known");
                let mut on_event = |_: LoadEvent<'_>| {};
                let loaded =
                    StableDiffusionInstructPix2PixPipeline::load(&files, options, &mut on_event);
                let pipeline = loaded.await.expect("loads");
                let fetched = files.traffic().fetched;
                let kept = cache.list().await.expect("there")[0].bytes;
                (edit(&pipeline).0, needs, fetched, kept)
            })
        };
        let (first, before, _, kept) = load(CachePolicy::Resume);
        let (second, after, fetched, _) = load(CachePolicy::Only);
        assert!(first == second, "{weights:?}");
        assert_eq!((fetched, after.missing, after.storage), (0, 0, 0), "{weights:?}");
        assert_eq!(before.missing, vae + others);
        let weights_kept = kept - (before.files - before.missing);
        if weights == WeightDtype::F32 {
            assert_eq!((before.storage, weights_kept), (vae + others, vae + others));
        } else {
            let spared = vae + others - weights_kept;
            assert!(spared > vae * 48 / 100, "{weights:?}: {spared} of {vae} bytes");
            let expected = before.storage;
            assert!(expected.abs_diff(weights_kept) < vae / 50, "{expected}, {weights_kept}");
        }
    }
}
