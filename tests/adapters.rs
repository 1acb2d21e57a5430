//! Adapters on a loaded pipeline: what they do to an edit, and what undoes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use burn::tensor::{DType, Device};
use futures_util::future::{LocalBoxFuture, ready};
use instruct_pix2pix::Error;
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, FileReader, ModelSource, OnArrival, Piece};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::models::{Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    AdapterSource, AdapterWeight, EditRequest, Floats, Images, LoadOptions, Prompts,
    SchedulerChoice, StableDiffusionInstructPix2PixPipeline, TorchGenerator, Unobserved,
};
use instruct_pix2pix::schedulers::SchedulerConfig;
use instruct_pix2pix::weights::{Entry, HostTensor, StateDict};
use safetensors::SafeTensors;

type Pipeline = StableDiffusionInstructPix2PixPipeline;

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle")).join(path)
}

fn adapter(file: &str) -> Vec<u8> {
    std::fs::read(fixture("adapters").join(file)).expect("readable")
}

fn pipeline(weights: WeightDtype) -> Pipeline {
    let placement = Placement { device: Device::flex(), weights };
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    let fetch = Directory(fixture("models/tiny-sd-ip2p"));
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    pollster::block_on(Pipeline::load(&files, options, &mut |_| {})).expect("loads")
}

/// The latents of a short edit, which every weight has a hand in.
fn edit_with(pipeline: &Pipeline, change: impl FnOnce(&mut EditRequest)) -> Vec<f32> {
    let pixels = (0..32 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let mut request = EditRequest {
        images: Images::Pictures(vec![RgbImage::new(32, 32, pixels).expect("valid")]),
        text: Prompts::new("make it snowy"),
        num_inference_steps: 2,
        ..EditRequest::default()
    };
    change(&mut request);
    let mut noise = TorchGenerator::new(7);
    let mut observer = Unobserved;
    let edit = pipeline.edit(&request, &mut noise, &mut observer);
    pollster::block_on(edit).expect("edits").latents.data
}

fn edit(pipeline: &Pipeline) -> Vec<f32> {
    edit_with(pipeline, |_| {})
}

/// The greatest difference, against the greatest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let greatest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    greatest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs()))
        / greatest(&mut b.iter().map(|b| b.abs()))
}

fn load(pipeline: &mut Pipeline, name: &str, file: &str) {
    let unused = pipeline.load_lora(Some(name), file, &adapter(file)).expect("loads");
    assert_eq!(unused, Vec::<String>::new());
}

fn numbers(weights: &[f64]) -> Vec<AdapterWeight> {
    weights.iter().map(|weight| (*weight).into()).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn adapters_are_chosen_weighted_switched_off_and_deleted() {
    let mut pipeline = pipeline(WeightDtype::F32);
    let plain = edit(&pipeline);
    load(&mut pipeline, "peft", "lora_peft.safetensors");
    let peft = edit(&pipeline);
    assert!(difference(&peft, &plain) > 0.1);
    load(&mut pipeline, "kohya", "lora_kohya.safetensors");
    // The last that is loaded is the active one.
    assert_eq!(pipeline.active_adapters(), [("kohya".to_owned(), 1.0.into())]);
    let kohya = edit(&pipeline);
    let lists = pipeline.list_adapters();
    assert_eq!(lists["unet"], ["peft", "kohya"]);
    assert_eq!(lists["text_encoder"], ["peft", "kohya"]);

    pipeline.set_adapters(&strings(&["peft"]), &numbers(&[1.0])).expect("known");
    assert_eq!(edit(&pipeline), peft);
    pipeline.set_adapters(&strings(&["kohya", "peft"]), &numbers(&[1.0, 0.0])).expect("known");
    assert_eq!(edit(&pipeline), kohya);
    pipeline.set_adapters(&strings(&["kohya", "peft"]), &numbers(&[0.4, 0.7])).expect("known");
    let both = edit(&pipeline);
    assert!(difference(&both, &kohya) > 0.01 && difference(&both, &peft) > 0.01);

    pipeline.enable_lora(false);
    assert_eq!(edit(&pipeline), plain);
    pipeline.enable_lora(true);
    assert_eq!(edit(&pipeline), both);
    // A clone goes its own way.
    let mut other = pipeline.clone();
    other.unload_lora();
    assert_eq!(edit(&other), plain);
    assert_eq!(edit(&pipeline), both);

    pipeline.delete_adapters(&strings(&["kohya"])).expect("known");
    assert_eq!(pipeline.active_adapters(), [("peft".to_owned(), 0.7.into())]);
    pipeline.set_adapters(&strings(&["peft"]), &numbers(&[1.0])).expect("known");
    assert_eq!(edit(&pipeline), peft);
    pipeline.delete_adapters(&strings(&["peft"])).expect("known");
    assert_eq!(edit(&pipeline), plain);
    assert!(pipeline.list_adapters().is_empty());
}

#[test]
fn the_scale_of_an_edit_is_for_that_edit_and_the_unet() {
    let mut pipeline = pipeline(WeightDtype::F32);
    let plain = edit(&pipeline);
    assert_eq!(edit_with(&pipeline, |request| request.lora_scale = 0.5), plain, "none is loaded");
    load(&mut pipeline, "a", "lora_kohya.safetensors");
    let whole = edit(&pipeline);
    let half = edit_with(&pipeline, |request| request.lora_scale = 0.5);
    let none = edit_with(&pipeline, |request| request.lora_scale = 0.0);
    assert!(difference(&half, &whole) > 0.01 && difference(&half, &none) > 0.01);
    assert!(difference(&none, &plain) > 0.01, "the text encoder keeps its share");
    assert_eq!(edit(&pipeline), whole);
}

#[test]
fn fusing_changes_nothing_but_rounding_and_is_undone_bit_for_bit() {
    for (weights, tolerance) in [(WeightDtype::F32, 1e-4), (WeightDtype::F16, 2e-2)] {
        let mut pipeline = pipeline(weights);
        let plain = edit(&pipeline);
        load(&mut pipeline, "a", "lora_peft.safetensors");
        load(&mut pipeline, "b", "lora_kohya.safetensors");
        pipeline.set_adapters(&strings(&["a", "b"]), &numbers(&[0.7, 0.4])).expect("known");
        let beside = edit(&pipeline);
        pollster::block_on(pipeline.fuse_lora(1.0, None)).expect("fuses");
        let fused = edit(&pipeline);
        let peak = difference(&fused, &beside);
        assert!(peak > 0.0 && peak < tolerance, "{weights:?}: {peak}");
        // Neither weights nor scales reach what is fused.
        assert_eq!(edit_with(&pipeline, |request| request.lora_scale = 0.3), fused);
        pipeline.enable_lora(false);
        assert_eq!(edit(&pipeline), fused);
        pipeline.enable_lora(true);
        pipeline.unfuse_lora();
        assert_eq!(edit(&pipeline), beside);
        // One after the other is as both at once, and is undone at once.
        pollster::block_on(pipeline.fuse_lora(1.0, Some(&strings(&["a"])))).expect("fuses");
        assert!(difference(&edit(&pipeline), &beside) < tolerance);
        pollster::block_on(pipeline.fuse_lora(1.0, Some(&strings(&["b"])))).expect("fuses");
        assert!(difference(&edit(&pipeline), &beside) < tolerance);
        let mut frozen = pipeline.clone();
        pipeline.delete_adapters(&strings(&["a", "b"])).expect("known");
        pipeline.unfuse_lora();
        assert_eq!(edit(&pipeline), plain);
        // What is unloaded while it is fused stays.
        let fused = edit(&frozen);
        frozen.unload_lora();
        frozen.unfuse_lora();
        assert_eq!(edit(&frozen), fused);
    }
}

/// `IP2P_SAVE=folder` keeps the single precision of what is written in its folder `lora`, for
/// `fixtures/check_with_diffusers.py`.
#[test]
fn a_saved_adapter_loads_again() {
    let kept = std::env::var_os("IP2P_SAVE").map(|folder| PathBuf::from(folder).join("lora"));
    for weights in [WeightDtype::F16, WeightDtype::F32] {
        let mut pipeline = pipeline(weights);
        for file in
            ["lora_peft.safetensors", "lora_kohya.safetensors", "lora_diffusers_old.safetensors"]
        {
            load(&mut pipeline, "a", file);
            let with = edit(&pipeline);
            let bytes = pollster::block_on(pipeline.save_lora("a")).expect("saves");
            check_shapes(file, &bytes);
            check_pieces(&pipeline, &bytes);
            if let Some(folder) = &kept {
                std::fs::create_dir_all(folder).expect("a folder");
                std::fs::write(folder.join(file), &bytes).expect("written");
            }
            pipeline.unload_lora();
            pipeline.load_lora(Some("b"), "b.safetensors", &bytes).expect("loads");
            assert_eq!(edit(&pipeline), with, "{file} {weights:?}");
            pipeline.unload_lora();
        }
    }
}

/// A file is written tensor by tensor, and has what it has where all tensors are read first.
fn check_pieces(pipeline: &Pipeline, bytes: &[u8]) {
    let mut saved = StateDict::parse("a.safetensors", bytes).expect("valid");
    let mut whole = pollster::block_on(pipeline.lora_file("a")).expect("reads");
    for dict in [&mut saved, &mut whole] {
        dict.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    assert_eq!(saved, whole);
    let mut pieces = 0;
    let mut count = |_: &[u8]| pieces += 1;
    pollster::block_on(pipeline.write_lora("a", &mut count)).expect("writes");
    assert_eq!(pieces, 1 + saved.entries.len());
}

/// Convolutions, of 1x1 too, are saved as such: diffusers would refuse two axes there.
fn check_shapes(file: &str, bytes: &[u8]) {
    let saved = StateDict::parse("saved", bytes).expect("valid");
    let mut shapes = Vec::new();
    for suffix in ["proj_in.lora_A.weight", "proj_out.lora_B.weight", "conv1.lora_A.weight"] {
        let mut found = saved.entries.iter().filter(|(key, _)| key.ends_with(suffix));
        if let Some((_, Entry::Tensor(tensor))) = found.next() {
            shapes.push(tensor.shape()[2..].to_vec());
        }
    }
    let expected: &[&[usize]] =
        if file.contains("kohya") { &[&[1, 1], &[1, 1], &[3, 3]] } else { &[] };
    assert_eq!(shapes, expected);
}

#[test]
fn bad_adapters_change_nothing() {
    let mut pipeline = pipeline(WeightDtype::F32);
    load(&mut pipeline, "a", "lora_peft.safetensors");
    let with = edit(&pipeline);
    let error = |result: Result<Vec<String>, instruct_pix2pix::Error>| result.expect_err("bad");
    let taken = adapter("lora_peft.safetensors");
    assert_eq!(error(pipeline.load_lora(Some("a"), "x", &taken)).code(), "invalid-argument");
    let xl = adapter("lora_xl_peft.safetensors");
    assert_eq!(error(pipeline.load_lora(None, "x", &xl)).code(), "shape-mismatch");
    let word = adapter("ti_single.safetensors");
    assert_eq!(error(pipeline.load_lora(None, "x", &word)).code(), "unknown-keys");
    let cut = &taken[..taken.len() - 1];
    assert_eq!(error(pipeline.load_lora(None, "x", cut)).code(), "invalid-safetensors");
    let pickle = adapter("ti_a1111.pt");
    assert_eq!(error(pipeline.load_lora(None, "x", &pickle[..99])).code(), "invalid-pickle");
    for (names, weights) in [(["z"], &[1.0][..]), (["a"], &[]), (["a"], &[f64::NAN])] {
        let error = pipeline.set_adapters(&strings(&names), &numbers(weights)).expect_err("bad");
        assert_eq!(error.code(), "invalid-argument");
    }
    assert!(pipeline.delete_adapters(&strings(&["z"])).is_err());
    assert!(pollster::block_on(pipeline.fuse_lora(1.0, Some(&strings(&["z"])))).is_err());
    assert!(pollster::block_on(pipeline.save_lora("z")).is_err());
    assert_eq!(edit(&pipeline), with);
}

/// A file that comes in pieces, the last ones first.
struct Backwards {
    bytes: Vec<u8>,
    piece: usize,
    left: usize,
    /// Whether it turns out at its end to be another file.
    is_other: bool,
    is_rejected: bool,
}

impl Backwards {
    fn new(bytes: Vec<u8>, piece: usize) -> Self {
        let left = bytes.len();
        Self { bytes, piece, left, is_other: false, is_rejected: false }
    }
}

impl FileReader for Backwards {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn head<'a>(
        &'a mut self,
        length: u64,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>, Error>> {
        Box::pin(ready(Ok(self.bytes[..length as usize].to_vec())))
    }

    fn next<'a>(
        &'a mut self,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Option<Piece>, Error>> {
        let (start, end) = (self.left.saturating_sub(self.piece), self.left);
        self.left = start;
        let bytes = Rc::new(self.bytes[start..end].to_vec());
        let piece = Piece { start: start as u64, bytes };
        Box::pin(ready(Ok((end > 0).then_some(piece))))
    }

    fn finish<'a>(&'a mut self, _: &'a mut OnArrival<'_>) -> LocalBoxFuture<'a, Result<(), Error>> {
        let error = || Error::HashMismatch {
            file: "x".into(),
            expected: String::new(),
            found: String::new(),
        };
        Box::pin(ready(if self.is_other { Err(error()) } else { Ok(()) }))
    }

    fn reject(&mut self) -> LocalBoxFuture<'_, ()> {
        self.is_rejected = true;
        Box::pin(ready(()))
    }
}

#[test]
fn a_file_that_comes_in_pieces_is_as_one_that_is_there() {
    for weights in [WeightDtype::F16, WeightDtype::F32] {
        let mut whole = pipeline(weights);
        let mut pieces = whole.clone();
        let files =
            ["lora_peft.safetensors", "lora_kohya.safetensors", "lora_diffusers_old.safetensors"];
        for (file, size) in files.into_iter().zip([1, 1000, 1 << 20]) {
            load(&mut whole, file, file);
            let mut reader = Backwards::new(adapter(file), size);
            let read = pieces.load_lora_file(Some(file), file, &mut reader);
            assert_eq!(pollster::block_on(read).expect("loads"), Vec::<String>::new());
            assert_eq!(edit(&pieces), edit(&whole), "{file} {weights:?}");
        }
        // What torch writes too.
        let file = StateDict::parse("x", &adapter(files[1])).expect("valid").to_pickle();
        let mut reader = Backwards::new(file, 1000);
        let read = pieces.load_lora_file(Some("torch"), "x.bin", &mut reader);
        assert_eq!(pollster::block_on(read).expect("loads"), Vec::<String>::new());
        whole.set_adapters(&strings(&[files[1]]), &numbers(&[1.0])).expect("known");
        assert_eq!(edit(&pieces), edit(&whole));
    }
}

#[test]
fn a_bad_file_that_comes_in_pieces_changes_nothing() {
    let mut pipeline = pipeline(WeightDtype::F32);
    let plain = edit(&pipeline);
    // By its names and shapes, before a tensor is read.
    let mut xl = Backwards::new(adapter("lora_xl_peft.safetensors"), 1000);
    let size = xl.left;
    let error = pollster::block_on(pipeline.load_lora_file(None, "x", &mut xl)).expect_err("bad");
    assert_eq!((error.code(), xl.left, xl.is_rejected), ("shape-mismatch", size, true));
    // When all of it was read.
    let mut other = Backwards::new(adapter("lora_peft.safetensors"), 1000);
    other.is_other = true;
    let read = pipeline.load_lora_file(None, "x", &mut other);
    assert_eq!(pollster::block_on(read).expect_err("bad").code(), "hash-mismatch");
    let mut empty = Backwards::new(Vec::new(), 1000);
    let read = pipeline.load_lora_file(None, "x", &mut empty);
    assert_eq!(pollster::block_on(read).expect_err("bad").code(), "invalid-safetensors");
    assert!(pipeline.list_adapters().is_empty());
    assert_eq!(edit(&pipeline), plain);
}

#[test]
fn adapters_come_from_folders() {
    let mut pipeline = pipeline(WeightDtype::F32);
    load(&mut pipeline, "a", "lora_kohya.safetensors");
    let with = edit(&pipeline);
    pipeline.unload_lora();
    let fetch = Directory(fixture("."));
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let named =
        |name| AdapterSource { files: &files, subfolder: Some("adapters"), weight_name: name };
    let mut load = |name| pollster::block_on(pipeline.load_lora_from(Some("a"), named(name)));
    assert_eq!(load(None).expect_err("not named so").code(), "not-found");
    assert!(load(Some("lora_kohya.safetensors")).expect("loads").is_empty());
    let taken = load(Some("none.safetensors")).expect_err("before anything is fetched");
    assert_eq!(taken.code(), "invalid-argument");
    assert_eq!(edit(&pipeline), with);
    let word = named(Some("ti_single.safetensors"));
    let (file, bytes) = pollster::block_on(word.read_textual_inversion()).expect("there");
    assert_eq!(file, "adapters/ti_single.safetensors");
    assert_eq!(bytes, adapter("ti_single.safetensors"));
}

#[test]
fn words_are_learnt_and_forgotten() {
    let mut pipeline = pipeline(WeightDtype::F32);
    let say = |pipeline: &Pipeline, prompt: &str| {
        edit_with(pipeline, |request| request.text = Prompts::new(prompt))
    };
    let before = say(&pipeline, "a <cat-toy> in the style of <my-style>");
    let single = adapter("ti_single.safetensors");
    let multi = adapter("ti_multi.safetensors");
    let added = pipeline.load_textual_inversion("x", &multi, None).expect("loads");
    assert_eq!(added, ["<my-style>", "<my-style>_1", "<my-style>_2"]);
    let one = say(&pipeline, "a <cat-toy> in the style of <my-style>");
    pipeline.load_textual_inversion("x", &single, None).expect("loads");
    let both = say(&pipeline, "a <cat-toy> in the style of <my-style>");
    assert!(difference(&one, &before) > 0.01 && difference(&both, &one) > 0.01);
    // A word of several vectors may be written out, and in any case.
    let written =
        say(&pipeline, "a <Cat-Toy> in the style of <my-style> <my-style>_1 <my-style>_2");
    let error = pipeline.load_textual_inversion("x", &single, None).expect_err("exists");
    assert_eq!(error.code(), "invalid-argument");
    assert_eq!(say(&pipeline, "a <cat-toy> in the style of <my-style>"), both);
    assert_ne!(written, one);

    // The id of a word changes when one before it goes, and its vector goes with it.
    pipeline.unload_textual_inversion(Some(&strings(&["<my-style>"]))).expect("known");
    assert_eq!(pipeline.learnt_tokens(), ["<cat-toy>"]);
    pipeline.load_textual_inversion("x", &multi, None).expect("loads again");
    assert_eq!(say(&pipeline, "a <cat-toy> in the style of <my-style>"), both);
    assert!(pipeline.unload_textual_inversion(Some(&strings(&["<none>"]))).is_err());
    pipeline.unload_textual_inversion(None).expect("all");
    assert_eq!(say(&pipeline, "a <cat-toy> in the style of <my-style>"), before);
}

#[test]
fn words_come_from_vectors_too_and_must_fit() {
    let mut pipeline = pipeline(WeightDtype::F32);
    let vector = |width: usize| HostTensor::from_f32(vec![width], &vec![0.5; width]);
    let mut add = |token: &str, width: usize| {
        pipeline.add_textual_inversion("x", &[(token.to_owned(), vector(width))])
    };
    assert_eq!(add("<new>", 16).expect("fits"), ["<new>"]);
    let cases = [("<wide>", 24, "shape-mismatch"), ("<new>", 16, "invalid-argument")];
    let more = [("", 16, "invalid-argument"), ("cat", 16, "invalid-argument")];
    for (token, width, code) in cases.into_iter().chain(more) {
        assert_eq!(add(token, width).expect_err("bad").code(), code, "{token}");
    }
    // Two files with one token, and a tensor without any.
    let twice = [("<a>".to_owned(), vector(16)), ("<a>".to_owned(), vector(16))];
    assert!(pipeline.add_textual_inversion("x", &twice).is_err());
    let both = pipeline.load_textual_inversion("x", &adapter("ti_xl.safetensors"), None);
    assert_eq!(both.expect_err("no token").code(), "invalid-argument");
    let added =
        pipeline.load_textual_inversion("x", &adapter("ti_xl.safetensors"), Some("<thing>"));
    assert_eq!(added.expect("clip_l fits"), ["<thing>", "<thing>_1"]);
    let entries = vec![("<wide>".to_owned(), Entry::Tensor(vector(24)))];
    let file = StateDict { entries, ..StateDict::default() }.to_safetensors().expect("written");
    let error = pipeline.load_textual_inversion("x", &file, None).expect_err("too wide");
    assert_eq!(error.code(), "shape-mismatch");
    assert_eq!(pipeline.learnt_tokens(), ["<new>", "<thing>", "<thing>_1"]);
}

/// Weights that differ from component to component and from block to block, as diffusers takes them:
/// `fixtures/gen_adapter_weights.py`.
#[test]
fn weights_may_differ_by_block() {
    let read = |path: PathBuf| std::fs::read(path).expect("readable");
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
    let (case, golden) = (
        read(fixture("cases/sd_lora_two.safetensors")),
        read(folder.join("adapter_weights.safetensors")),
    );
    let case = SafeTensors::deserialize(&case).expect("valid");
    let golden = SafeTensors::deserialize(&golden).expect("valid");
    let f32s = |file: &SafeTensors<'_>, name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).expect("there");
        tensor.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    };
    let json = String::from_utf8(read(fixture("cases.json"))).expect("a text");
    let json = json.replace("-Infinity", "null").replace("Infinity", "null");
    let cases: serde_json::Value = serde_json::from_str(&json).expect("valid");
    let mut infos = cases["cases"].as_array().expect("a list").iter();
    let info = infos.find(|info| info["name"] == "sd_lora_two").expect("there");
    let config = SchedulerConfig::from_json("cases", &info["scheduler_config"].to_string());
    let picture = case.tensor("image_u8").expect("there");
    let (height, width) = (picture.shape()[1], picture.shape()[2]);
    let latents = case.tensor("latents_in").expect("there").shape().to_vec();
    let latents = Floats::new("latents", &latents, f32s(&case, "latents_in")).expect("valid");
    let request = EditRequest {
        images: Images::Pictures(vec![
            RgbImage::new(width, height, picture.data().to_vec()).expect("valid"),
        ]),
        text: Prompts::new("make it snowy"),
        latents: Some(latents),
        num_inference_steps: 6,
        scheduler: Some(SchedulerChoice {
            class_name: "DDIMScheduler".into(),
            config: Some(config.expect("valid")),
        }),
        ..EditRequest::default()
    };
    let mut pipeline = pipeline(WeightDtype::F32);
    load(&mut pipeline, "a0", "lora_peft.safetensors");
    load(&mut pipeline, "a1", "lora_kohya.safetensors");
    let names = strings(&["a0", "a1"]);
    // diffusers' names are in snake case.
    let json = String::from_utf8(read(folder.join("adapter_weights.json"))).expect("a text");
    let json = json.replace("text_encoder", "textEncoder");
    let weights: BTreeMap<String, Vec<AdapterWeight>> = serde_json::from_str(&json).expect("valid");
    assert_eq!(weights.len(), 3);
    for (name, weights) in weights {
        pipeline.set_adapters(&names, &weights).expect("known");
        let beside = edit_with(&pipeline, |given| *given = request.clone());
        let far = difference(&beside, &f32s(&golden, &name));
        assert!(far < 1e-4, "{name}: {far}");
        pollster::block_on(pipeline.fuse_lora(1.0, None)).expect("fuses");
        let fused = edit_with(&pipeline, |given| *given = request.clone());
        let far = difference(&fused, &f32s(&golden, &name));
        assert!(far < 1e-4, "{name}, fused: {far}");
        pipeline.unfuse_lora();
    }
    let refused = [
        r#"{"unet": {"down": {"block_2": 1}}}"#,
        r#"{"unet": {"up": {"block_7": 1}}}"#,
        r#"{"unet": {"mid": [1, 2]}}"#,
        r#"{"unet": {"up": {"block_1": [1, 2]}}}"#,
    ];
    for json in refused {
        let weight: AdapterWeight = serde_json::from_str(json).expect("valid");
        let error = pipeline.set_adapters(&names[..1], &[weight]).expect_err("refused");
        assert!(error.code() == "invalid-argument" && error.to_string().contains("adapterWeights"));
    }
    assert!(serde_json::from_str::<AdapterWeight>(r#"{"unets": 1}"#).is_err());
}
