//! SDXL's pipeline on the tiny model: what the parity cases do not look at.

use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use futures_util::future::{LocalBoxFuture, ready};
use half::f16;
use instruct_pix2pix::Error;
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, FileReader, ModelFiles, ModelSource, Traffic};
use instruct_pix2pix::image::{RgbImage, to_u8, watermark};
use instruct_pix2pix::kernels::StandIn;
#[cfg(feature = "tuning")]
use instruct_pix2pix::kernels::{Pretended, pretend};
use instruct_pix2pix::models::{
    AutoencoderKLConfig, FreeU, Module, Placement, UNet2DConditionConfig, WeightDtype,
};
use instruct_pix2pix::pipeline::{
    CONTINUE, Components, EditRequest, Floats, Images, InstructPix2Pix, LoadEvent, LoadOptions,
    Observer, Output, OutputImages, OutputType, PipelineClass, Prompts, Room, SecondTexts,
    SingleFile, StableDiffusionXLInstructPix2PixPipeline, Step, StepTensors, Tap, TorchGenerator,
    Unobserved, XlConfig, XlEditRequest, to_host,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

type Pipeline = StableDiffusionXLInstructPix2PixPipeline;

const XL: &str = "models/tiny-sdxl-ip2p";
const SD: &str = "models/tiny-sd-ip2p";

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle")).join(path)
}

fn placement() -> Placement {
    Placement { device: Device::flex(), weights: WeightDtype::F32 }
}

fn options() -> LoadOptions {
    let placement = placement();
    LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    }
}

fn load(
    folder: &Path,
    given: Components,
    wanted: Option<PipelineClass>,
) -> Result<InstructPix2Pix, Error> {
    let fetch = Directory(folder.to_owned());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    pollster::block_on(InstructPix2Pix::load(&files, options(), given, wanted, &mut |_| {}))
}

fn of_xl(loaded: InstructPix2Pix) -> Pipeline {
    match loaded {
        InstructPix2Pix::Xl(pipeline) => pipeline,
        InstructPix2Pix::Sd(_) => panic!("a model of SDXL"),
    }
}

fn pipeline() -> Pipeline {
    of_xl(load(&fixture(XL), Components::default(), None).expect("loads"))
}

fn picture(width: usize, height: usize) -> RgbImage {
    let pixels = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
    RgbImage::new(width, height, pixels).expect("valid")
}

fn request() -> XlEditRequest {
    let defaults = XlEditRequest::default();
    XlEditRequest {
        edit: EditRequest {
            images: Images::Pictures(vec![picture(32, 32)]),
            text: Prompts::new("make it snowy"),
            num_inference_steps: 2,
            output: OutputType::Latent,
            ..defaults.edit.clone()
        },
        height: Some(32),
        width: Some(32),
        ..defaults
    }
}

fn run(
    pipeline: &Pipeline,
    request: &XlEditRequest,
    observer: &mut dyn Observer,
) -> Result<Output, Error> {
    pollster::block_on(pipeline.edit(request, &mut TorchGenerator::new(7), observer))
}

fn latents(pipeline: &Pipeline, request: &XlEditRequest) -> Vec<f32> {
    run(pipeline, request, &mut Unobserved).expect("edits").latents.data
}

fn changed(change: impl FnOnce(&mut XlEditRequest)) -> XlEditRequest {
    let mut request = request();
    change(&mut request);
    request
}

/// The error's code and message of an edit that must fail.
fn refused(pipeline: &Pipeline, request: &XlEditRequest) -> (&'static str, String) {
    let error = run(pipeline, request, &mut Unobserved).expect_err("refused");
    (error.code(), error.to_string())
}

/// Where `IP2P_SAVE=folder` keeps a file, for `fixtures/check_with_diffusers.py`.
fn kept(file: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("IP2P_SAVE")?).join(file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    Some(path)
}

/// Keeps what passes by.
#[derive(Default)]
struct Recorder {
    time_ids: Vec<f64>,
    decoder: Vec<Tensor<4>>,
    steps: usize,
    warnings: Vec<String>,
}

impl Observer for Recorder {
    fn step(
        &mut self,
        step: Step,
        _: StepTensors,
    ) -> LocalBoxFuture<'_, ControlFlow<(), StepTensors>> {
        self.steps = step.count;
        Box::pin(ready(CONTINUE))
    }

    fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    fn tap(&mut self, name: &'static str, tap: Tap<'_>) {
        match tap {
            Tap::Values(values) if name == "added_time_ids" => self.time_ids = values.to_vec(),
            Tap::Latents(x) if name.starts_with("decode") => self.decoder.push(x.clone()),
            _ => {}
        }
    }
}

#[test]
fn defaults_are_those_of_diffusers() {
    let XlEditRequest { edit, denoising_end, guidance_rescale, crops_coords_top_left, .. } =
        XlEditRequest::default();
    assert_eq!((edit.num_inference_steps, edit.guidance_scale), (100, 5.0));
    assert_eq!((edit.image_guidance_scale, edit.eta), (1.5, 0.0));
    assert_eq!((denoising_end, guidance_rescale, crops_coords_top_left), (None, 0.0, [0.0, 0.0]));
    assert_eq!(pipeline().config(), XlConfig::default());
}

#[test]
fn the_model_decides_on_the_class() {
    for (folder, class) in [(SD, PipelineClass::Sd), (XL, PipelineClass::Xl)] {
        let loaded = load(&fixture(folder), Components::default(), None).expect("loads");
        assert_eq!(loaded.class(), class);
        assert!(load(&fixture(folder), Components::default(), Some(class)).is_ok());
        for other in PipelineClass::ALL.into_iter().filter(|other| *other != class) {
            let error = load(&fixture(folder), Components::default(), Some(other));
            let error = error.expect_err("another class");
            assert_eq!(error.code(), "unsupported");
            assert!(error.to_string().contains(class.name()), "{error}");
        }
    }
}

#[test]
fn the_scale_of_adapters_counts_for_one_call() {
    let mut pipeline = pipeline();
    let file = "lora_xl_peft.safetensors";
    let bytes = fs::read(fixture("adapters").join(file)).expect("readable");
    let without = latents(&pipeline, &request());
    assert_eq!(pipeline.load_lora(Some("a"), file, &bytes).expect("loads"), Vec::<String>::new());
    assert_eq!(
        pipeline.list_adapters().into_keys().collect::<Vec<_>>(),
        ["text_encoder", "text_encoder_2", "unet"]
    );
    let whole = latents(&pipeline, &request());
    let half = changed(|request| request.edit.lora_scale = 0.5);
    let first = latents(&pipeline, &half);
    assert_eq!(latents(&pipeline, &half), first);
    assert_eq!(latents(&pipeline, &request()), whole);
    assert!(first != whole && first != without && whole != without);
    // It reaches the text encoders, and encode_prompt takes it too.
    let encode = |scale| {
        let second = SecondTexts::default();
        let text = Prompts::new("make it snowy");
        pollster::block_on(pipeline.encode_prompt(&text, &second, true, scale, &mut Unobserved))
    };
    let [one, other, again] = [1.0, 0.5, 1.0].map(|scale| encode(scale).expect("encodes"));
    assert_ne!(one.prompt_embeds, other.prompt_embeds);
    assert_eq!(one, again);
    assert_eq!(encode(f64::NAN).expect_err("refused").code(), "invalid-argument");
    let saved = pollster::block_on(pipeline.save_lora("a")).expect("saves");
    pipeline.unload_lora();
    assert_eq!(latents(&pipeline, &request()), without);
    // What is saved has all three models.
    let unused = pipeline.load_lora(Some("b"), "b.safetensors", &saved).expect("loads");
    assert_eq!((unused, pipeline.list_adapters().len()), (Vec::new(), 3));
    assert_eq!(latents(&pipeline, &request()), whole);
}

/// A LoRA in PEFT's names in those of kohya's trainers, whose blocks are diffusers' or, with `sgm`, Stability's. Its factors
/// count half with `alpha` at half of their rank.
fn as_kohya(peft: &[u8], sgm: bool, alpha: Option<f32>) -> Vec<u8> {
    // The blocks of the tiny model, which has one layer in a stage.
    let blocks = [
        ("down_blocks_1_attentions_0", "input_blocks_3_1"),
        ("mid_block_attentions_0", "middle_block_1"),
        ("up_blocks_0_attentions_0", "output_blocks_0_1"),
        ("up_blocks_0_attentions_1", "output_blocks_1_1"),
    ];
    let prefixes =
        [("unet.", "lora_unet_"), ("text_encoder.", "lora_te1_"), ("text_encoder_2.", "lora_te2_")];
    let alpha = alpha.map(f32::to_le_bytes);
    let peft = SafeTensors::deserialize(peft).expect("valid");
    let mut views = Vec::new();
    for (key, view) in peft.tensors() {
        let (prefix, kohya) =
            prefixes.iter().find(|(prefix, _)| key.starts_with(prefix)).expect("a model's");
        let (layer, factor) = key[prefix.len()..].split_once(".lora_").expect("a factor");
        let mut layer = format!("{kohya}{}", layer.replace('.', "_"));
        if sgm && *prefix == "unet." {
            let (diffusers, original) =
                blocks.iter().find(|(name, _)| layer.contains(name)).expect("a block");
            layer = layer.replace(diffusers, original);
        }
        let down = factor.starts_with('A');
        if let Some(alpha) = alpha.as_ref().filter(|_| down) {
            let alpha = TensorView::new(Dtype::F32, Vec::new(), alpha).expect("a number");
            views.push((format!("{layer}.alpha"), alpha));
        }
        views.push((format!("{layer}.lora_{}.weight", if down { "down" } else { "up" }), view));
    }
    safetensors::serialize(views, None).expect("valid")
}

#[test]
fn a_lora_is_the_same_in_names_of_peft_kohya_and_sgm() {
    let mut pipeline = pipeline();
    let file = "lora_xl_peft.safetensors";
    let peft = fs::read(fixture("adapters").join(file)).expect("readable");
    let without = latents(&pipeline, &request());
    pipeline.load_lora(Some("a"), file, &peft).expect("loads");
    let whole = latents(&pipeline, &request());
    let half = latents(&pipeline, &changed(|request| request.edit.lora_scale = 0.5));
    assert!(whole != half && half != without);
    for (sgm, alpha, expected) in [
        (false, None, &whole),
        (true, None, &whole),
        // The rank is 4.
        (false, Some(2.0), &half),
        (true, Some(2.0), &half),
    ] {
        pipeline.unload_lora();
        let bytes = as_kohya(&peft, sgm, alpha);
        let unused = pipeline.load_lora(Some("b"), "b.safetensors", &bytes).expect("loads");
        assert_eq!((unused, pipeline.list_adapters().len()), (Vec::new(), 3), "{sgm} {alpha:?}");
        assert_eq!(&latents(&pipeline, &request()), expected, "{sgm} {alpha:?}");
        let saved = pollster::block_on(pipeline.save_lora("b")).expect("saves");
        pipeline.unload_lora();
        pipeline.load_lora(Some("c"), "c.safetensors", &saved).expect("loads");
        assert_eq!(&latents(&pipeline, &request()), expected, "saved: {sgm} {alpha:?}");
    }
}

/// What the parity cases leave out, as diffusers does it: `fixtures/gen_xl_extras.py`.
#[test]
fn freeu_slices_an_early_end_and_names_of_loras_are_those_of_diffusers() {
    let goldens = fs::read(fixture("../xl_extras.safetensors")).expect("readable");
    let goldens = SafeTensors::deserialize(&goldens).expect("valid");
    let check = |name: &str, found: &[f32], tolerance: f32| {
        let golden = goldens.tensor(name).expect("there");
        let golden = golden.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
        assert_eq!(found.len(), golden.len(), "{name}");
        let scale = golden.clone().fold(0.0, |max: f32, x| max.max(x.abs()));
        for (i, (found, golden)) in found.iter().zip(golden).enumerate() {
            let far = (found - golden).abs() / scale;
            assert!(far <= tolerance, "{name}, {i}: {found}, not {golden}");
        }
    };
    let mut pipeline = pipeline();
    pipeline.set_freeu(Some(FreeU { s1: 0.9, s2: 0.2, b1: 1.2, b2: 1.4 }));
    check("freeu", &latents(&pipeline, &request()), 1e-4);
    pipeline.set_freeu(None);
    pipeline.set_vae_slicing(true);
    let two = changed(|request| {
        request.edit.images = Images::Pictures(vec![picture(32, 32), picture(48, 40)]);
        request.edit.text.prompts = vec!["make it snowy".into(), "a cartoon".into()];
        request.edit.output = OutputType::Nhwc;
    });
    let output = run(&pipeline, &two, &mut Unobserved).expect("edits");
    let OutputImages::Samples(samples) = output.images else { panic!("samples") };
    // The greatest sample is 1.
    check("sliced", &samples.data, 1e-4);
    pipeline.set_vae_slicing(false);
    let early = changed(|request| {
        request.edit.num_inference_steps = 6;
        (request.denoising_end, request.guidance_rescale) = (Some(0.5), 0.7);
    });
    check("rescaled_until_half", &latents(&pipeline, &early), 1e-4);
    let read = |path| fs::read(fixture(path)).expect("readable");
    let peft = read("adapters/lora_xl_peft.safetensors");
    for (name, bytes) in [
        ("kohya", as_kohya(&peft, false, Some(2.0))),
        ("sgm", as_kohya(&peft, true, Some(2.0))),
        ("sgm_beside_attention", read("../lora_xl_sgm.safetensors")),
    ] {
        let unused = pipeline.load_lora(Some(name), name, &bytes).expect("loads");
        assert_eq!(unused, Vec::<String>::new(), "{name}");
        check(name, &latents(&pipeline, &request()), 1e-4);
        if let Some(path) = kept(&format!("lora/xl_{name}.safetensors")) {
            let saved = pollster::block_on(pipeline.save_lora(name)).expect("saves");
            fs::write(path, saved).expect("written");
        }
        pipeline.unload_lora();
    }
}

#[test]
fn a_word_is_taught_to_both_text_encoders_or_to_one() {
    let file = "ti_xl.safetensors";
    let bytes = fs::read(fixture("adapters").join(file)).expect("readable");
    let of_word = changed(|request| request.edit.text = Prompts::new("a <thing>"));
    let mut taught = pipeline();
    let unknown = latents(&taught, &of_word);
    let added = taught.load_textual_inversion(file, &bytes, Some("<thing>")).expect("loads");
    assert_eq!(added.first().map(String::as_str), Some("<thing>"));
    assert_eq!(taught.learnt_tokens(), added);
    let both = latents(&taught, &of_word);
    let one = |encoder: &str| {
        let mut pipeline = pipeline();
        pipeline
            .load_textual_inversion_into(encoder, file, &bytes, Some("<thing>"))
            .expect("loads");
        latents(&pipeline, &of_word)
    };
    let (first, second) = (one("text_encoder"), one("text_encoder_2"));
    assert!(both != unknown && both != first && both != second && first != second);
    let error = taught.load_textual_inversion_into("text_encoder_3", file, &bytes, Some("<x>"));
    assert_eq!(error.expect_err("there is none").code(), "invalid-argument");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert!(taught.unload_textual_inversion(Some(&names(&["<other>"]))).is_err());
    taught.unload_textual_inversion(Some(&names(&["<thing>"]))).expect("forgets");
    assert_eq!(latents(&taught, &of_word), unknown);
    // Vectors for one encoder go to the one that they fit.
    let file = "ti_single.safetensors";
    let bytes = fs::read(fixture("adapters").join(file)).expect("readable");
    taught.load_textual_inversion(file, &bytes, None).expect("fits the first");
    assert_eq!(taught.learnt_tokens(), ["<cat-toy>"]);
}

#[test]
fn encoded_prompts_stand_for_their_texts() {
    let pipeline = pipeline();
    let text =
        Prompts { negative_prompts: Some(vec!["blurry".into()]), ..Prompts::new("make it snowy") };
    let second = SecondTexts { prompts: Some(vec!["winter".into()]), ..SecondTexts::default() };
    let with_texts = changed(|request| {
        (request.edit.text, request.second) = (text.clone(), second.clone());
    });
    let observer = &mut Unobserved;
    let encode = pipeline.encode_prompt(&text, &second, true, 1.0, observer);
    let embeds = pollster::block_on(encode).expect("encodes");
    let with_embeds = changed(|request| {
        request.edit.text = Prompts {
            prompt_embeds: Some(embeds.prompt_embeds.clone()),
            negative_prompt_embeds: embeds.negative_prompt_embeds.clone(),
            ..Prompts::default()
        };
        request.second = SecondTexts {
            pooled_prompt_embeds: embeds.pooled_prompt_embeds.clone(),
            negative_pooled_prompt_embeds: embeds.negative_pooled_prompt_embeds.clone(),
            ..SecondTexts::default()
        };
    });
    let expected = latents(&pipeline, &with_texts);
    assert_eq!(latents(&pipeline, &with_embeds), expected);
    assert_ne!(latents(&pipeline, &request()), expected);

    type Change = fn(&mut SecondTexts);
    let broken: [(Change, &str); 4] = [
        (|second| second.pooled_prompt_embeds = None, "pooledPromptEmbeds: they are needed"),
        (
            |second| second.negative_pooled_prompt_embeds = None,
            "negativePooledPromptEmbeds: they are needed",
        ),
        (
            |second| second.pooled_prompt_embeds = Some(zeros([2, 32])),
            "pooledPromptEmbeds: 2 rows for 1 prompts",
        ),
        (
            |second| second.negative_pooled_prompt_embeds = Some(zeros([1, 31])),
            "negativePooledPromptEmbeds: shape [1, 31]",
        ),
    ];
    for (change, expected) in broken {
        let mut request = with_embeds.clone();
        change(&mut request.second);
        let (code, message) = refused(&pipeline, &request);
        assert!(code == "invalid-argument" && message.contains(expected), "{message}");
    }
}

fn zeros<const D: usize>(shape: [usize; D]) -> Floats<D> {
    Floats { shape, data: vec![0.0; shape.iter().product()] }
}

#[test]
fn what_a_request_has_wrong_is_named() {
    let pipeline = pipeline();
    type Change = fn(&mut XlEditRequest);
    let cases: [(Change, &str); 14] = [
        (|request| request.denoising_end = Some(1.5), "denoisingEnd"),
        (|request| request.denoising_end = Some(f64::NAN), "denoisingEnd"),
        (|request| request.guidance_rescale = -0.1, "guidanceRescale"),
        (|request| request.original_size = Some([f64::INFINITY, 1.0]), "originalSize"),
        (|request| request.crops_coords_top_left = [f64::NAN, 1.0], "cropsCoordsTopLeft"),
        (|request| request.target_size = Some([1.0, f64::NAN]), "targetSize"),
        (|request| request.aesthetic_score = Some(6.0), "aestheticScore"),
        (|request| request.negative_aesthetic_score = Some(2.5), "negativeAestheticScore"),
        (|request| request.aesthetic_score = Some(f64::NAN), "aestheticScore"),
        (|request| request.second.prompts = Some(vec![String::new(); 3]), "prompt2"),
        (|request| request.second.negative_prompts = Some(Vec::new()), "negativePrompt2"),
        (|request| request.height = Some(4), "height"),
        (|request| request.edit.images = Images::Tensor(zeros([1, 4, 8, 8])), "image: latents"),
        (|request| request.edit.images = Images::Pictures(Vec::new()), "image"),
    ];
    for (i, (change, name)) in cases.into_iter().enumerate() {
        let (code, message) = refused(&pipeline, &changed(change));
        assert_eq!(code, "invalid-argument", "case {i}: {message}");
        assert!(message.starts_with(name), "case {i}: {message}");
    }
}

#[test]
fn pictures_of_any_size_are_brought_to_that_of_the_result() {
    let pipeline = pipeline();
    let sizes = changed(|request| {
        request.edit.images = Images::Pictures(vec![picture(50, 30), picture(16, 64)]);
        request.edit.text.prompts = vec!["a".into(), "b".into()];
        (request.height, request.width) = (Some(25), Some(43));
    });
    let output = run(&pipeline, &sizes, &mut Unobserved).expect("edits");
    assert_eq!(output.latents.shape, [2, 4, 12, 21]);
    // What is encoded apart stands for its picture.
    let encode = |images| pollster::block_on(pipeline.encode_image(images, Some(25), Some(43)));
    let encoded = encode(&sizes.edit.images).expect("encodes");
    let mut with_latents = sizes.clone();
    with_latents.edit.images = Images::Tensor(encoded);
    assert_eq!(latents(&pipeline, &with_latents), output.latents.data);
    // Without a size it is that of the UNet's training.
    let default = changed(|request| (request.height, request.width) = (None, None));
    let output = run(&pipeline, &default, &mut Unobserved).expect("edits");
    assert_eq!(output.latents.shape, [1, 4, 32, 32]);
}

#[test]
fn an_end_at_0_or_1_is_none() {
    let pipeline = pipeline();
    let steps = |end| {
        let mut recorder = Recorder::default();
        let request = changed(|request| {
            request.denoising_end = end;
            request.edit.num_inference_steps = 4;
        });
        run(&pipeline, &request, &mut recorder).expect("edits");
        recorder.steps
    };
    assert_eq!([None, Some(0.0), Some(1.0), Some(0.5)].map(steps), [4, 4, 4, 2]);
}

#[test]
fn a_second_negative_prompt_alone_is_ignored_and_said_so() {
    let pipeline = pipeline();
    let alone = changed(|request| request.second.negative_prompts = Some(vec!["ugly".into()]));
    let mut recorder = Recorder::default();
    let output = run(&pipeline, &alone, &mut recorder).expect("edits");
    assert_eq!(output.latents.data, latents(&pipeline, &request()));
    assert!(recorder.warnings[0].starts_with("negativePrompt2"), "{:?}", recorder.warnings);
}

/// A configuration of the model with some of its fields changed.
fn config(component: &str, changes: serde_json::Value) -> String {
    let path = fixture(XL).join(component).join("config.json");
    let json = fs::read_to_string(path).expect("readable");
    let mut config: serde_json::Value = serde_json::from_str(&json).expect("valid");
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string()
}

/// The pipeline with a UNet of another configuration and of random weights.
fn with_unet(changes: serde_json::Value) -> Pipeline {
    let json = config("unet", changes);
    let mut unet = UNet2DConditionConfig::parse("config.json", &json).expect("valid").init();
    unet.stand_in(StandIn::Random, &placement());
    let given = Components { unet: Some(unet), ..Components::default() };
    of_xl(load(&fixture(XL), given, None).expect("loads"))
}

#[test]
fn aesthetic_scores_reach_a_unet_that_was_trained_on_them() {
    // 8 channels for each of five conditions, and 32 of pooled text.
    let refiner = with_unet(serde_json::json!({"projection_class_embeddings_input_dim": 72}));
    let time_ids = |request: &XlEditRequest| {
        let mut recorder = Recorder::default();
        run(&refiner, request, &mut recorder).expect("edits");
        recorder.time_ids
    };
    let rows = |wanted, unwanted| {
        let place = [32.0, 32.0, 0.0, 0.0];
        [wanted, unwanted, unwanted].map(|score| [&place[..], &[score]].concat()).concat()
    };
    assert_eq!(time_ids(&request()), rows(6.0, 2.5));
    let asked = changed(|request| {
        (request.aesthetic_score, request.negative_aesthetic_score) = (Some(7.0), Some(1.0));
    });
    assert_eq!(time_ids(&asked), rows(7.0, 1.0));
}

#[test]
fn components_that_do_not_fit_are_named() {
    let cases = [
        (serde_json::json!({"projection_class_embeddings_input_dim": 81}), "projection_dim"),
        (serde_json::json!({"cross_attention_dim": 41}), "text encoders that give 40"),
        (serde_json::json!({"sample_size": null}), "height"),
        (serde_json::json!({"addition_embed_type": null}), "addition_embed_type"),
        (
            serde_json::json!({"addition_embed_type": null, "addition_time_embed_dim": null}),
            "without `text_time`",
        ),
    ];
    for (changes, expected) in cases {
        let pipeline = with_unet(changes);
        let (_, message) =
            refused(&pipeline, &changed(|request| (request.height, request.width) = (None, None)));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn statistics_of_latents_are_heeded() {
    let changes = serde_json::json!({
        "latents_mean": [0.5, -1.0, 2.0, 0.0], "latents_std": [2.0, 1.0, 0.5, 3.0]
    });
    let path = fixture(XL).join("vae/diffusion_pytorch_model.safetensors");
    let folder = Copy::new("statistics");
    fs::create_dir_all(folder.0.join("vae")).expect("writable");
    fs::copy(path, folder.0.join("vae/diffusion_pytorch_model.safetensors")).expect("copies");
    fs::write(folder.0.join("vae/config.json"), config("vae", changes)).expect("writable");
    let index = fs::read(fixture(XL).join("model_index.json")).expect("readable");
    fs::write(folder.0.join("model_index.json"), index).expect("writable");
    let mut given = Components::default();
    for name in ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "unet", "scheduler"]
    {
        given.take(name, &pipeline()).expect("has it");
    }
    let pipeline = of_xl(load(&folder.0, given, None).expect("loads"));
    let pictures = changed(|request| request.edit.output = OutputType::Pictures);
    let mut recorder = Recorder::default();
    let output = run(&pipeline, &pictures, &mut recorder).expect("edits");
    let found = pollster::block_on(to_host(recorder.decoder[0].clone().permute([0, 3, 1, 2])));
    let found = found.expect("readable");
    let statistics = [(0.5, 2.0), (-1.0, 1.0), (2.0, 0.5), (0.0, 3.0)];
    for (channel, (mean, std)) in statistics.into_iter().enumerate() {
        let values = |values: &[f32]| values.chunks(16 * 16).nth(channel).expect("4").to_vec();
        for (found, latent) in values(&found).into_iter().zip(values(&output.latents.data)) {
            let expected = latent / 0.13025 * std + mean;
            let tolerance = 1e-5 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
        }
    }
    let wrong = config("vae", serde_json::json!({"latents_mean": [0.0], "latents_std": [1.0]}));
    let error = AutoencoderKLConfig::parse("vae/config.json", &wrong).expect_err("too few");
    assert_eq!(error.code(), "invalid-config");
}

#[test]
fn the_vae_computes_in_single_precision_where_it_must() {
    let load_as = |force_upcast: bool| {
        let mut vae = AutoencoderKLConfig::parse(
            "config.json",
            &config("vae", serde_json::json!({"force_upcast": force_upcast})),
        )
        .expect("valid")
        .init();
        vae.stand_in(StandIn::Random, &placement());
        let given = Components { vae: Some(vae.clone()), ..Components::default() };
        let fetch = Directory(fixture(XL));
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        let options = LoadOptions { dtype: DType::F16, ..options() };
        let mut on_event = |_: LoadEvent<'_>| {};
        let load = InstructPix2Pix::load(&files, options, given, None, &mut on_event);
        let pipeline = of_xl(pollster::block_on(load).expect("loads"));
        let pictures = changed(|request| {
            request.edit.output = OutputType::Pictures;
            request.edit.num_inference_steps = 1;
        });
        let mut recorder = Recorder::default();
        run(&pipeline, &pictures, &mut recorder).expect("edits");
        let expected = vae.decode(recorder.decoder[0].clone());
        let read = |x: Tensor<4>| pollster::block_on(to_host(x)).expect("readable");
        let decodes = read(recorder.decoder[1].clone()) == read(expected);
        // What is encoded in full is halves after that.
        let encode = |pipeline: &Pipeline| {
            let images = request().edit.images;
            let encode = pipeline.encode_image(&images, Some(32), Some(32));
            pollster::block_on(encode).expect("encodes").data
        };
        let halves = |x: &f32| f16::from_f32(*x).to_f32();
        let given = Components { vae: Some(vae), ..Components::default() };
        let full = InstructPix2Pix::load(&files, self::options(), given, None, &mut on_event);
        let full = of_xl(pollster::block_on(full).expect("loads"));
        let [found, full] = [&pipeline, &full].map(encode);
        let encodes = found == full.iter().map(halves).collect::<Vec<_>>();
        [decodes, encodes]
    };
    assert_eq!([true, false].map(load_as), [[true; 2], [false; 2]]);
}

#[test]
fn a_pipeline_is_built_of_the_components_of_another() {
    let pipeline = pipeline();
    let all = || {
        let mut components = Components::default();
        let names = [
            "vae",
            "text_encoder",
            "tokenizer",
            "text_encoder_2",
            "tokenizer_2",
            "unet",
            "scheduler",
        ];
        for name in names {
            components.take(name, &pipeline).expect("has it");
        }
        components
    };
    let config = XlConfig { force_zeros_for_empty_prompt: false, ..XlConfig::default() };
    let build = |components: Components, config| components.build_xl(config, options());
    let same = build(all(), XlConfig::default()).expect("complete");
    assert_eq!(latents(&same, &request()), latents(&pipeline, &request()));
    let other = build(all(), config).expect("complete");
    assert_ne!(latents(&other, &request()), latents(&pipeline, &request()));
    type Change = fn(&mut Components);
    let cases: [(Change, &str); 4] = [
        (|components| components.text_encoder_2 = None, "textEncoder2"),
        (|components| components.tokenizer_2 = None, "tokenizer2"),
        (|components| components.tokenizer = None, "tokenizer"),
        (|components| components.unet = None, "unet"),
    ];
    for (change, name) in cases {
        let mut components = all();
        change(&mut components);
        let error = build(components, config).expect_err("incomplete");
        assert!(error.to_string().starts_with(name), "{error}");
    }
    assert!(Components::default().is_empty() && !all().is_empty());
    let sd = load(&fixture(SD), Components::default(), None).expect("loads");
    for name in ["text_encoder_2", "tokenizer_2"] {
        assert!(Components::default().take(name, &sd).is_err(), "{name}");
    }
    // A UNet of SDXL in the other class's pipeline.
    let mut components = all();
    (components.text_encoder_2, components.tokenizer_2) = (None, None);
    let sd = components.build(options()).expect("complete");
    let mut request = request().edit;
    request.text = Prompts { prompt_embeds: Some(zeros([1, 77, 40])), ..Prompts::default() };
    request.guidance_scale = 1.0;
    let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
    let result = pollster::block_on(sd.edit(&request, &mut noise, &mut observer));
    let error = result.expect_err("it lacks conditions");
    assert!(error.to_string().contains("addition_embed_type"), "{error}");
}

/// A model's files, which remembers what weights were read.
struct Watched<'a> {
    files: Repository<'a>,
    opened: RefCell<Vec<String>>,
}

impl ModelFiles for Watched<'_> {
    fn read<'a>(&'a self, path: &'a str) -> LocalBoxFuture<'a, Result<Vec<u8>, Error>> {
        self.files.read(path)
    }

    fn open<'a>(
        &'a self,
        path: &str,
    ) -> LocalBoxFuture<'a, Result<Box<dyn FileReader + 'a>, Error>> {
        self.opened.borrow_mut().push(path.split('/').next().unwrap_or_default().to_owned());
        self.files.open(path)
    }

    fn address(&self, path: &str) -> String {
        self.files.address(path)
    }

    fn paths(&self) -> Vec<String> {
        self.files.paths()
    }

    fn prepare(&self) -> LocalBoxFuture<'_, Result<(), Error>> {
        self.files.prepare()
    }

    fn finish(&self) -> LocalBoxFuture<'_, Result<(), Error>> {
        self.files.finish()
    }

    fn finish_part(&self) -> LocalBoxFuture<'_, Result<(), Error>> {
        self.files.finish_part()
    }

    fn traffic(&self) -> Traffic {
        self.files.traffic()
    }
}

#[test]
fn models_take_turns_on_a_small_device() {
    let lora = fs::read(fixture("adapters/lora_xl_peft.safetensors")).expect("readable");
    let word = fs::read(fixture("adapters/ti_xl.safetensors")).expect("readable");
    let fetch = Directory(fixture(XL));
    let files = Watched {
        files: Repository::uncached(&fetch, ModelSource::Base(String::new())),
        opened: RefCell::default(),
    };
    let mut on_event = |_: LoadEvent<'_>| {};
    let open = InstructPix2Pix::open(&files, options(), None, &mut on_event);
    let mut turns = of_xl(pollster::block_on(open).expect("opens"));
    assert!(turns.takes_turns() && files.opened.borrow().is_empty());
    let mut whole = pipeline();
    let of_word = changed(|request| {
        request.edit.text = Prompts::new("a <thing>");
        request.edit.output = OutputType::Nhwc;
    });
    let in_turn = |turns: &Pipeline| {
        let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
        let edit = turns.edit_with(Some(&files), &of_word, &mut noise, &mut observer);
        pollster::block_on(edit).expect("edits")
    };
    let order = ["vae", "text_encoder", "text_encoder_2", "unet", "vae"];
    for adapted in [false, true] {
        if adapted {
            for pipeline in [&mut turns, &mut whole] {
                let added = pipeline.load_textual_inversion("x", &word, Some("<thing>"));
                assert!(!added.expect("loads").is_empty());
                pipeline.load_lora(Some("a"), "x.safetensors", &lora).expect("loads");
            }
        }
        let expected = run(&whole, &of_word, &mut Unobserved).expect("edits");
        let found = in_turn(&turns);
        assert_eq!((found.latents, found.images), (expected.latents, expected.images));
        assert_eq!(files.opened.take(), order);
    }
    // What is given needs no turn: neither the picture's latents nor, without a negative prompt, the prompt's embeddings.
    let second = SecondTexts::default();
    let image = pollster::block_on(whole.encode_image(&request().edit.images, Some(16), Some(16)));
    let image = Images::Tensor(image.expect("encodes"));
    let texts = Prompts::new("make it snowy");
    let observer = &mut Unobserved;
    let encode = whole.encode_prompt(&texts, &second, true, 1.0, observer);
    let embeds = pollster::block_on(encode).expect("encodes");
    let negative = Prompts { negative_prompts: Some(vec!["blurry".into()]), ..Prompts::default() };
    for (image, texts, order) in [
        (Some(&image), None, &["text_encoder", "text_encoder_2", "unet"][..]),
        (None, Some(Prompts::default()), &["vae", "unet"]),
        (Some(&image), Some(Prompts::default()), &["unet"]),
        (Some(&image), Some(negative), &["text_encoder", "text_encoder_2", "unet"]),
    ] {
        let given = changed(|request| {
            (request.height, request.width) = (Some(16), Some(16));
            if let Some(image) = image {
                request.edit.images = image.clone();
            }
            if let Some(texts) = texts {
                let prompt_embeds = Some(embeds.prompt_embeds.clone());
                request.edit.text = Prompts { prompt_embeds, ..texts };
                request.second.pooled_prompt_embeds = embeds.pooled_prompt_embeds.clone();
            }
            request.edit.output = OutputType::Latent;
        });
        let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
        let edit = turns.edit_with(Some(&files), &given, &mut noise, &mut observer);
        let found = pollster::block_on(edit).expect("edits");
        assert_eq!(files.opened.take(), order);
        assert_eq!(found.latents, run(&whole, &given, &mut Unobserved).expect("edits").latents);
    }
    // The pipeline that holds all of its models does not read.
    let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
    let edit = whole.edit_with(Some(&files), &of_word, &mut noise, &mut observer);
    pollster::block_on(edit).expect("edits");
    assert_eq!(files.opened.take(), Vec::<String>::new());

    let text = Prompts::new("p");
    let observer = &mut Unobserved;
    let refused = [
        run(&turns, &request(), &mut Unobserved).map(|_| ()),
        pollster::block_on(turns.encode_prompt(&text, &second, true, 1.0, observer)).map(|_| ()),
        pollster::block_on(turns.encode_image(&request().edit.images, None, None)).map(|_| ()),
        pollster::block_on(turns.fuse_lora(1.0, None)),
        Components::default().take("vae", &turns),
    ];
    for (i, result) in refused.into_iter().enumerate() {
        assert_eq!(result.expect_err("refused").code(), "unsupported", "{i}");
    }
}

#[test]
fn needs_are_known_before_weights_are_read() {
    let fetch = Directory(fixture(XL));
    let files = Watched {
        files: Repository::uncached(&fetch, ModelSource::Base(String::new())),
        opened: RefCell::default(),
    };
    let of = |weights| {
        let plan = InstructPix2Pix::plan(&files, weights, false, Room::default());
        pollster::block_on(plan).expect("known").needs
    };
    let needs = of(WeightDtype::F32);
    assert_eq!(files.opened.take(), Vec::<String>::new());
    // Every tensor of a file is a parameter, except the positions that old CLIP files list.
    let count = |path: &str| {
        let bytes = fs::read(fixture(XL).join(path)).expect("readable");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
        let floats = tensors.iter().filter(|(name, _)| !name.ends_with("position_ids"));
        floats.map(|(_, tensor)| tensor.shape().iter().product::<usize>() as u64 * 4).sum::<u64>()
    };
    let unet = count("unet/diffusion_pytorch_model.safetensors");
    let vae = count("vae/diffusion_pytorch_model.safetensors");
    let texts = count("text_encoder/model.safetensors") + count("text_encoder_2/model.safetensors");
    assert_eq!((needs.all, needs.in_turn), (unet + vae + texts, unet.max(vae).max(texts)));
    let halves = of(WeightDtype::F16);
    assert!(halves.all < needs.all * 6 / 10 && halves.all > needs.all / 2);
    assert!(!needs.take_turns(needs.all).expect("room"));
    assert!(needs.take_turns(needs.in_turn).expect("room for one"));
    let error = needs.take_turns(needs.in_turn - 1).expect_err("no room");
    assert!(error.to_string().starts_with("memoryBudget"), "{error}");
}

#[cfg(feature = "tuning")]
#[test]
fn a_device_without_a_buffer_for_a_weight_is_refused_before_weights_are_read() {
    let fetch = Directory(fixture(XL));
    let files = Watched {
        files: Repository::uncached(&fetch, ModelSource::Base(String::new())),
        opened: RefCell::default(),
    };
    let plan = InstructPix2Pix::plan(&files, WeightDtype::F32, false, Room::default());
    let plan = pollster::block_on(plan).expect("known");
    let largest = plan.parts.iter().map(|part| part.largest).max().expect("parts");
    let on_device_of = |bytes| Pretended { largest_buffer: Some(bytes), ..Pretended::default() };
    let mut on_event = |_: LoadEvent<'_>| {};
    let refused = pretend(on_device_of(largest - 1), || {
        let given = Components::default;
        let load = InstructPix2Pix::load(&files, options(), given(), None, &mut on_event);
        let loaded = pollster::block_on(load).map(drop);
        let open = InstructPix2Pix::open(&files, options(), None, &mut on_event);
        let opened = pollster::block_on(open).map(drop);
        let path = "x.safetensors";
        let file = SingleFile { files: &files, path, config: &files, is_default_config: true };
        let load = InstructPix2Pix::load_single_file(file, options(), None, &mut on_event);
        let whole = pollster::block_on(load).map(drop);
        let open = InstructPix2Pix::open_single_file(file, options(), None, &mut on_event);
        [loaded, opened, whole, pollster::block_on(open).map(drop)]
    });
    for result in refused {
        let error = result.expect_err("no room");
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains(&format!("({largest} bytes)")), "{error}");
    }
    assert_eq!(files.opened.take(), Vec::<String>::new());
    pretend(on_device_of(largest), || {
        let load =
            InstructPix2Pix::load(&files, options(), Components::default(), None, &mut on_event);
        pollster::block_on(load).expect("loads");
    });
}

#[test]
fn what_a_model_takes_is_known_by_its_small_files() {
    let fetch = Directory(fixture(XL));
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let ask = |wanted| {
        let weights = WeightDtype::F32;
        let room = Room::default();
        pollster::block_on(InstructPix2Pix::requirements(&files, weights, false, wanted, room))
    };
    let found = ask(None).expect("known");
    assert_eq!(found.class, PipelineClass::Xl);
    let read = files.traffic().total();
    let names = ["unet", "vae", "text_encoder", "text_encoder_2"];
    let sizes = names.map(|name| {
        let stem = if name.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        let path = fixture(XL).join(name).join(format!("{stem}.safetensors"));
        fs::metadata(path).expect("there").len()
    });
    let weights: u64 = sizes.iter().sum();
    assert_eq!((found.files, found.missing), (read + weights, weights));
    assert!(read < weights, "{read} bytes were read of {weights}");
    let plan = InstructPix2Pix::plan(&files, WeightDtype::F32, false, Room::default());
    assert_eq!(found.residency, pollster::block_on(plan).expect("known"));
    let error = ask(Some(PipelineClass::Sd)).expect_err("another class");
    assert_eq!(error.code(), "unsupported");
}

/// The figures of the documentation.
#[test]
fn the_needs_of_the_full_size_are_as_documented() {
    type Needs = [(WeightDtype, [f64; 2]); 4];
    let xl: Needs = [
        (WeightDtype::F16, [6.9, 5.1]),
        (WeightDtype::F32, [13.9, 10.3]),
        (WeightDtype::I8, [3.8, 2.7]),
        (WeightDtype::I4, [2.2, 1.4]),
    ];
    let sd: Needs = [
        (WeightDtype::F16, [2.1, 1.7]),
        (WeightDtype::F32, [4.3, 3.4]),
        (WeightDtype::I8, [1.2, 0.9]),
        (WeightDtype::I4, [0.8, 0.5]),
    ];
    // As the tests of full size have them.
    for (like, full, expected) in [(XL, "sdxl.json", xl), (SD, "sd15.json", sd)] {
        let folder = Copy::new(full);
        let json = fs::read_to_string(fixture("..").join(full)).expect("there");
        let components: serde_json::Value = serde_json::from_str(&json).expect("valid");
        for (component, entry) in components.as_object().expect("an object") {
            let mut config = entry["config"].clone();
            if component == "text_encoder_2" {
                config["architectures"] = serde_json::json!(["CLIPTextModelWithProjection"]);
            }
            let path = folder.0.join(component);
            fs::create_dir_all(&path).expect("writable");
            fs::write(path.join("config.json"), config.to_string()).expect("writable");
        }
        let small = ["model_index.json", "scheduler/scheduler_config.json"].map(String::from);
        let tokenizers = ["tokenizer", "tokenizer_2"].into_iter().flat_map(|tokenizer| {
            ["vocab.json", "merges.txt"].map(|name| format!("{tokenizer}/{name}"))
        });
        for name in small.into_iter().chain(tokenizers) {
            let (from, to) = (fixture(like).join(&name), folder.0.join(&name));
            if from.exists() {
                fs::create_dir_all(to.parent().expect("below the folder")).expect("writable");
                fs::copy(from, to).expect("copies");
            }
        }
        let fetch = Directory(folder.0.clone());
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        for (weights, gigabytes) in expected {
            let plan = |largest_buffer| {
                let room = Room { largest_buffer, budget: None };
                pollster::block_on(InstructPix2Pix::plan(&files, weights, false, room))
            };
            let needs = plan(None).expect("known").needs;
            let found = [needs.all, needs.in_turn].map(|bytes| (bytes as f64 / 1e8).round() / 10.0);
            assert_eq!(found, gigabytes, "{full} in {weights:?}");
            // The least that WebGPU promises of a binding.
            match plan(Some(128 << 20)) {
                Err(error) if weights == WeightDtype::F32 => {
                    let text = error.to_string();
                    assert_eq!(error.code(), "unsupported");
                    assert!(text.contains("a weight takes"), "{text}");
                    assert!(text.contains("`weightDtype: 'float16'`"), "{text}");
                }
                found => assert_eq!(found.expect("room").needs, needs),
            }
        }
    }
}

#[test]
fn a_watermark_is_put_into_large_results_on_demand() {
    let mut pipeline = pipeline();
    let samples = |pipeline: &Pipeline, side: usize| {
        let request = changed(|request| {
            (request.height, request.width) = (Some(side), Some(side));
            request.edit.output = OutputType::Nhwc;
            request.edit.num_inference_steps = 1;
            // The VAE alone is looked at, unless the picture is kept.
            request.denoising_end = kept("marked.png").is_none().then_some(1e-3);
        });
        let mut recorder = Recorder::default();
        let output = run(pipeline, &request, &mut recorder).expect("edits");
        let OutputImages::Samples(samples) = output.images else { panic!("samples") };
        let decoded = pollster::block_on(to_host(recorder.decoder[1].clone())).expect("readable");
        (samples.data, decoded, recorder.warnings)
    };
    pipeline.set_config(XlConfig { add_watermarker: true, ..pipeline.config() });
    let (marked, mut expected, warnings) = samples(&pipeline, 256);
    assert_eq!(warnings, Vec::<String>::new());
    expected.iter_mut().for_each(|x| *x = 255.0 * (*x / 2.0 + 0.5));
    let plain: Vec<f32> = expected.iter().map(|x| (x / 255.0).clamp(0.0, 1.0)).collect();
    assert!(watermark(&mut expected, [256, 256]));
    let difference = |found: &[f32], expected: &[f32]| {
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let expected: Vec<f32> = expected.iter().map(|x| (x / 255.0).clamp(0.0, 1.0)).collect();
    assert!(difference(&marked, &expected) < 1e-5);
    assert!(difference(&marked, &plain) > 1e-2);
    for (name, samples) in [("marked.png", &marked), ("plain.png", &plain)] {
        if let Some(path) = kept(name) {
            let color = image::ColorType::Rgb8;
            image::save_buffer(path, &to_u8(samples), 256, 256, color).expect("saved");
        }
    }
    let (small, _, warnings) = samples(&pipeline, 32);
    assert!(warnings[0].starts_with("addWatermarker"), "{warnings:?}");
    pipeline.set_config(XlConfig::default());
    let (unmarked, _, warnings) = samples(&pipeline, 32);
    assert!(difference(&small, &unmarked) < 1e-6 && warnings.is_empty());
}

/// A folder that is removed in the end.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str) -> Self {
        let name = format!("sdxl-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("writable");
        Self(folder)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_model_may_lack_the_first_text_encoder() {
    let folder = Copy::new("refiner");
    let index = fs::read_to_string(fixture(XL).join("model_index.json")).expect("readable");
    let mut index: serde_json::Value = serde_json::from_str(&index).expect("valid");
    for name in ["text_encoder", "tokenizer"] {
        index[name] = serde_json::json!([null, null]);
    }
    let write = |index: &serde_json::Value| {
        fs::write(folder.0.join("model_index.json"), index.to_string()).expect("writable");
    };
    write(&index);
    let json = config("unet", serde_json::json!({"cross_attention_dim": 24}));
    let mut unet = UNet2DConditionConfig::parse("config.json", &json).expect("valid").init();
    unet.stand_in(StandIn::Random, &placement());
    let given = || {
        let mut given = Components { unet: Some(unet.clone()), ..Components::default() };
        for name in ["text_encoder_2", "tokenizer_2", "vae", "scheduler"] {
            given.take(name, &pipeline()).expect("has it");
        }
        given
    };
    let refiner = of_xl(load(&folder.0, given(), None).expect("loads"));
    // Its only text encoder reads the first texts, as in diffusers.
    let second = changed(|request| request.second.prompts = Some(vec!["other".into()]));
    assert_eq!(latents(&refiner, &second), latents(&refiner, &request()));
    let first = changed(|request| request.edit.text = Prompts::new("other"));
    assert_ne!(latents(&refiner, &first), latents(&refiner, &request()));

    index["text_encoder_2"] = serde_json::json!([null, null]);
    write(&index);
    let mut none = given();
    (none.text_encoder_2, none.tokenizer_2) = (None, None);
    let error = load(&folder.0, none, None).expect_err("no text encoder at all");
    assert_eq!(error.code(), "invalid-config");
}
