//! Whole edits on the tiny model: what the parity cases do not look at.

use std::ops::ControlFlow;
use std::path::Path;

use base64::prelude::*;
use burn::tensor::{DType, Device};
use futures_util::future::{LocalBoxFuture, ready};
use instruct_pix2pix::Error;
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::models::{Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    CONTINUE, EditRequest, Floats, Images, LoadEvent, LoadOptions, MemoryChoice, NoiseSource,
    Observer, Output, OutputImages, OutputType, Prompts, SchedulerChoice,
    StableDiffusionInstructPix2PixPipeline, Step, StepTensorNames, StepTensors, TorchGenerator,
    TorchGenerators, Unobserved,
};
use instruct_pix2pix::schedulers::SchedulerConfig;
use safetensors::SafeTensors;

fn load(on_event: &mut dyn FnMut(LoadEvent<'_>)) -> StableDiffusionInstructPix2PixPipeline {
    load_from("www/models/tiny-random".as_ref(), WeightDtype::F16, on_event)
}

fn load_with(weights: WeightDtype) -> StableDiffusionInstructPix2PixPipeline {
    load_from("www/models/tiny-random".as_ref(), weights, &mut |_| {})
}

fn load_from(
    folder: &Path,
    weights: WeightDtype,
    on_event: &mut dyn FnMut(LoadEvent<'_>),
) -> StableDiffusionInstructPix2PixPipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let placement = Placement { device: Device::flex(), weights };
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    let fetch = Directory(folder);
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let load = StableDiffusionInstructPix2PixPipeline::load(&files, options, on_event);
    pollster::block_on(load).expect("loads")
}

fn request() -> EditRequest {
    let data = (0..16 * 16 * 3).map(|i| (i * 7 % 256) as u8).collect();
    EditRequest {
        images: Images::Pictures(vec![RgbImage::new(16, 16, data).expect("valid")]),
        text: Prompts::new("make it snowy"),
        num_inference_steps: 2,
        ..EditRequest::default()
    }
}

fn edit(
    pipeline: &StableDiffusionInstructPix2PixPipeline,
    request: &EditRequest,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<u8>, Error> {
    let output = run(pipeline, request, &mut TorchGenerator::new(seed), observer)?;
    Ok(pictures(output).into_iter().flat_map(|image| image.data).collect())
}

fn run(
    pipeline: &StableDiffusionInstructPix2PixPipeline,
    request: &EditRequest,
    noise: &mut dyn NoiseSource,
    observer: &mut dyn Observer,
) -> Result<Output, Error> {
    pollster::block_on(pipeline.edit(request, noise, observer))
}

fn pictures(output: Output) -> Vec<RgbImage> {
    match output.images {
        OutputImages::Pictures(pictures) => pictures,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_seed_decides_the_picture() {
    let pipeline = load(&mut |_| {});
    let run = |seed| edit(&pipeline, &request(), seed, &mut Unobserved).expect("edits");
    let first = run(7);
    assert_eq!(first.len(), 16 * 16 * 3);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    // PyTorch's generator looks at 32 bits of a seed.
    assert_eq!(first, run(7 + (1 << 32)));
}

#[test]
fn progress_counts_every_byte_once() {
    let mut last = (0, 0);
    let mut components = Vec::new();
    load(&mut |event| match event {
        LoadEvent::Download { loaded, total, .. } => {
            assert!(loaded >= last.0 && loaded <= total);
            assert!(last.1 == 0 || last.1 == total);
            last = (loaded, total);
        }
        LoadEvent::Component { component } => components.push(component.to_owned()),
        LoadEvent::Needs(MemoryChoice { asked, smaller, .. }) => {
            assert!(asked.all > asked.in_turn && asked.in_turn > 0);
            assert!(smaller.is_some_and(|(_, needs)| needs.all < asked.all), "{smaller:?}");
        }
        other => panic!("{other:?}"),
    });
    assert!(last.0 == last.1 && last.1 > 1_000_000);
    assert_eq!(components, ["text_encoder", "vae", "unet"]);
}

#[test]
fn wrong_arguments_are_named() {
    let pipeline = load(&mut |_| {});
    let picture = |width, height| RgbImage::new(width, height, vec![0; width * height * 3]);
    type Change = Box<dyn Fn(&mut EditRequest)>;
    let change = |f: fn(&mut EditRequest)| -> Change { Box::new(f) };
    let small = picture(7, 16).expect("valid");
    let cases: Vec<(&str, Change)> = vec![
        ("prompt", change(|r| r.text.prompts.clear())),
        ("image", change(|r| r.images = Images::Pictures(Vec::new()))),
        ("image", Box::new(move |r| r.images = Images::Pictures(vec![small.clone()]))),
        ("image", change(|r| r.images = Images::Tensor(floats([2, 3, 16, 16])))),
        ("image", change(|r| r.images = Images::Tensor(floats([1, 3, 7, 16])))),
        ("image", change(|r| r.images = Images::Tensor(floats([1, 2, 16, 16])))),
        ("promptEmbeds", change(|r| r.text.prompt_embeds = Some(floats([1, 77, 16])))),
        ("promptEmbeds", change(|r| r.text = embeds([1, 77, 15], None))),
        ("promptEmbeds", change(|r| r.text = embeds([1, 78, 16], None))),
        ("negativePromptEmbeds", change(|r| r.text = embeds([1, 77, 16], Some([1, 76, 16])))),
        (
            "negativePromptEmbeds",
            change(|r| r.text.negative_prompt_embeds = Some(floats([2, 77, 16]))),
        ),
        (
            "negativePromptEmbeds",
            change(|r| r.text.negative_prompt_embeds = Some(floats([1, 76, 16]))),
        ),
        (
            "negativePromptEmbeds",
            change(|r| {
                r.text.negative_prompts = Some(vec![String::new()]);
                r.text.negative_prompt_embeds = Some(floats([1, 77, 16]));
            }),
        ),
        ("timesteps", change(|r| r.timesteps = Some(Vec::new()))),
        ("sigmas", change(|r| r.sigmas = Some(vec![f64::NAN]))),
        (
            "sigmas",
            change(|r| {
                r.timesteps = Some(vec![1.0]);
                r.sigmas = Some(vec![1.0]);
            }),
        ),
        ("crossAttentionKwargs", change(|r| r.lora_scale = f64::NAN)),
        ("numInferenceSteps", change(|r| r.num_inference_steps = 0)),
        ("numImagesPerPrompt", change(|r| r.text.num_images_per_prompt = 0)),
        ("guidanceScale", change(|r| r.guidance_scale = f64::NAN)),
        ("imageGuidanceScale", change(|r| r.image_guidance_scale = f64::INFINITY)),
        ("eta", change(|r| r.eta = 1.5)),
        ("negativePrompt", change(|r| r.text.negative_prompts = Some(vec![String::new(); 3]))),
        ("latents", change(|r| r.latents = Some(floats([1, 4, 8, 7])))),
    ];
    for (name, change) in cases {
        let mut request = request();
        change(&mut request);
        match edit(&pipeline, &request, 1, &mut Unobserved).expect_err(name) {
            Error::InvalidArgument { argument, .. } => assert_eq!(argument, name),
            other => panic!("{name}: {other}"),
        }
    }
    let mut request = request();
    request.scheduler = Some(SchedulerChoice { class_name: "Nonsense".into(), config: None });
    let error = edit(&pipeline, &request, 1, &mut Unobserved).expect_err("no such class");
    assert_eq!(error.code(), "unsupported");
    assert!(error.to_string().contains("DDIMScheduler"), "{error}");
}

fn floats<const D: usize>(shape: [usize; D]) -> Floats<D> {
    let data = (0..shape.iter().product()).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
    Floats { shape, data }
}

fn embeds(shape: [usize; 3], negative: Option<[usize; 3]>) -> Prompts {
    Prompts {
        prompt_embeds: Some(floats(shape)),
        negative_prompt_embeds: negative.map(floats),
        ..Prompts::default()
    }
}

#[test]
fn numbers_fit_their_shape() {
    let new = |shape: &[usize], count| Floats::<3>::new("latents", shape, vec![0.0; count]);
    assert!(new(&[1, 2, 3], 6).is_ok());
    for (shape, count) in
        [(&[1, 2, 3][..], 5), (&[2, 3], 6), (&[0, 2, 3], 0), (&[usize::MAX, 2, 2], 4)]
    {
        assert_eq!(new(shape, count).expect_err("refused").code(), "invalid-argument");
    }
}

#[test]
fn latents_that_are_not_finite_name_the_step() {
    let pipeline = load(&mut |_| {});
    let mut latents = floats([1, 4, 8, 8]);
    latents.data[17] = f32::INFINITY;
    let request = EditRequest { latents: Some(latents), num_inference_steps: 3, ..request() };
    // It is told of no step: the first is the one that fails.
    let mut never = Stop { after: 0, by_signal: false, steps: 1 };
    let error = edit(&pipeline, &request, 1, &mut never).expect_err("not finite");
    assert_eq!(error.code(), "gpu");
    let message = error.to_string();
    assert!(message.contains("after step 1 of 3; use dtype float32"), "{message}");
}

struct Stop {
    after: usize,
    by_signal: bool,
    steps: usize,
}

impl Observer for Stop {
    fn is_cancelled(&self) -> bool {
        self.by_signal && self.steps >= self.after
    }

    fn step(
        &mut self,
        step: Step,
        tensors: StepTensors,
    ) -> LocalBoxFuture<'_, ControlFlow<(), StepTensors>> {
        assert_eq!((step.index, step.count), (self.steps, 5));
        assert_eq!(tensors, StepTensors::default());
        self.steps += 1;
        let stop = !self.by_signal && self.steps == self.after;
        Box::pin(ready(if stop { ControlFlow::Break(()) } else { CONTINUE }))
    }
}

#[test]
fn an_edit_stops_when_asked() {
    let pipeline = load(&mut |_| {});
    let mut request = request();
    request.num_inference_steps = 5;
    for (after, by_signal) in [(0, true), (2, true), (1, false)] {
        let mut stop = Stop { after, by_signal, steps: 0 };
        let error = edit(&pipeline, &request, 1, &mut stop).expect_err("stopped");
        assert_eq!(error.code(), "aborted");
        assert_eq!(stop.steps, after);
    }
}

/// What the demo page makes of the picture of `sd_default_euler_a` with seed 42, for the browser's
/// test to compare with. `UPDATE_GOLDENS=1 cargo test --test edit` writes the file anew.
#[test]
fn the_golden_of_the_demo_page_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let case = std::fs::read(root.join("oracle/cases/sd_default_euler_a.safetensors"));
    let case = case.expect("readable");
    let case = SafeTensors::deserialize(&case).expect("valid");
    let picture = case.tensor("image_u8").expect("there");
    let (height, width) = (picture.shape()[1], picture.shape()[2]);
    let image = RgbImage::new(width, height, picture.data().to_vec()).expect("valid");
    let images = Images::Pictures(vec![image]);
    let request = EditRequest { images, num_inference_steps: 10, ..request() };
    let ours = edit(&load(&mut |_| {}), &request, 42, &mut Unobserved).expect("edits");
    let path = root.join("demo_seed42.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        let data = BASE64_STANDARD.encode(&ours);
        let golden = serde_json::json!({ "width": width, "height": height, "data": data });
        std::fs::write(&path, format!("{golden}\n")).expect("writable");
    }
    let golden = std::fs::read_to_string(&path).expect("readable");
    let golden: serde_json::Value = serde_json::from_str(&golden).expect("valid");
    let data = BASE64_STANDARD.decode(golden["data"].as_str().expect("a text")).expect("base64");
    assert_eq!(data.len(), ours.len());
    let peak = data.iter().zip(&ours).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(peak <= Some(1), "{peak:?} levels");
}

/// What is encoded once serves many edits.
#[test]
fn encoded_prompts_and_pictures_can_be_passed_in() {
    let pipeline = load(&mut |_| {});
    let whole = edit(&pipeline, &request(), 7, &mut Unobserved).expect("edits");
    let encode = |text: &Prompts, guided| {
        pollster::block_on(pipeline.encode_prompt(text, guided, &mut Unobserved)).expect("encodes")
    };
    let embeds = encode(&request().text, true);
    let latents = pollster::block_on(pipeline.encode_image(&request().images)).expect("encodes");
    assert_eq!(latents.shape, [1, 4, 8, 8]);
    let text = Prompts {
        prompt_embeds: Some(embeds.prompt_embeds),
        negative_prompt_embeds: embeds.negative_prompt_embeds,
        ..Prompts::default()
    };
    let request = EditRequest { images: Images::Tensor(latents), text, ..request() };
    assert_eq!(edit(&pipeline, &request, 7, &mut Unobserved).expect("edits"), whole);
    let unguided = encode(&Prompts::new("snow"), false);
    assert_eq!(unguided.negative_prompt_embeds, None);
    assert_eq!(unguided.prompt_embeds.shape, [1, 77, 16]);
}

#[test]
fn every_output_type_holds_the_same_picture() {
    let pipeline = load(&mut |_| {});
    let with = |output| {
        let request = EditRequest { output, ..request() };
        run(&pipeline, &request, &mut TorchGenerator::new(7), &mut Unobserved).expect("edits")
    };
    let samples = |output| match with(output).images {
        OutputImages::Samples(samples) => samples,
        other => panic!("{other:?}"),
    };
    let picture = pictures(with(OutputType::Pictures)).remove(0);
    let (nhwc, nchw) = (samples(OutputType::Nhwc), samples(OutputType::Nchw));
    assert_eq!((nhwc.shape, nchw.shape), ([1, 16, 16, 3], [1, 3, 16, 16]));
    for (i, byte) in picture.data.iter().enumerate() {
        assert!((nhwc.data[i] * 255.0 - f32::from(*byte)).abs() <= 0.5);
        assert_eq!(nhwc.data[i], nchw.data[i % 3 * 256 + i / 3]);
    }
    let latent = with(OutputType::Latent);
    assert_eq!(latent.images, OutputImages::None);
    assert_eq!(latent.latents, with(OutputType::Pictures).latents);
}

#[test]
fn a_list_of_seeds_gives_each_result_its_own() {
    let pipeline = load(&mut |_| {});
    let mut two = request();
    two.text.num_images_per_prompt = 2;
    let output = run(&pipeline, &two, &mut TorchGenerators::new(&[7, 8]), &mut Unobserved);
    let both = pictures(output.expect("edits"));
    for (seed, picture) in [7, 8].into_iter().zip(both) {
        let alone = edit(&pipeline, &request(), seed, &mut Unobserved).expect("edits");
        let peak = alone.iter().zip(&picture.data).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(peak <= Some(1), "seed {seed}: {peak:?} levels");
    }
    let error = run(&pipeline, &two, &mut TorchGenerators::new(&[7; 3]), &mut Unobserved);
    match error.expect_err("three seeds for two results") {
        Error::InvalidArgument { argument, .. } => assert_eq!(argument, "seed"),
        other => panic!("{other}"),
    }
}

/// Takes a hand in an edit after its first step.
struct Meddler {
    names: StepTensorNames,
    change: fn(&StepTensors) -> StepTensors,
    seen: Vec<StepTensors>,
}

impl Observer for Meddler {
    fn tensor_inputs(&self) -> StepTensorNames {
        self.names
    }

    fn step(
        &mut self,
        step: Step,
        tensors: StepTensors,
    ) -> LocalBoxFuture<'_, ControlFlow<(), StepTensors>> {
        let changed = match step.index {
            0 => (self.change)(&tensors),
            _ => StepTensors::default(),
        };
        self.seen.push(tensors);
        Box::pin(ready(ControlFlow::Continue(changed)))
    }
}

#[test]
fn a_step_shows_tensors_and_takes_others_in_their_place() {
    let pipeline = load(&mut |_| {});
    let all = StepTensorNames::parse(StepTensorNames::ALL).expect("all are known");
    let meddle = |change| {
        let mut meddler = Meddler { names: all, change, seen: Vec::new() };
        let result = edit(&pipeline, &request(), 7, &mut meddler);
        (result, meddler.seen)
    };
    let untouched = edit(&pipeline, &request(), 7, &mut Unobserved).expect("edits");
    let (same, seen) = meddle(|seen| seen.clone());
    assert_eq!(same.expect("edits"), untouched);
    let shape = |seen: &StepTensors| {
        let latents = seen.latents.as_ref().map(|latents| latents.shape);
        let text = seen.prompt_embeds.as_ref().map(|embeds| embeds.shape);
        (latents, text, seen.image_latents.as_ref().map(|latents| latents.shape))
    };
    assert_eq!(shape(&seen[0]), (Some([1, 4, 8, 8]), Some([3, 77, 16]), Some([3, 4, 8, 8])));
    let changes: [fn(&StepTensors) -> StepTensors; 3] = [
        |seen| StepTensors { latents: halve(&seen.latents), ..StepTensors::default() },
        |seen| StepTensors { prompt_embeds: halve(&seen.prompt_embeds), ..StepTensors::default() },
        |seen| StepTensors { image_latents: halve(&seen.image_latents), ..StepTensors::default() },
    ];
    for (i, change) in changes.into_iter().enumerate() {
        assert_ne!(meddle(change).0.expect("edits"), untouched, "{}", StepTensorNames::ALL[i]);
    }
    let wrong: [fn(&StepTensors) -> StepTensors; 3] = [
        |_| StepTensors { latents: Some(floats([1, 4, 8, 7])), ..StepTensors::default() },
        |_| StepTensors { prompt_embeds: Some(floats([1, 77, 16])), ..StepTensors::default() },
        |_| StepTensors { image_latents: Some(floats([1, 4, 8, 8])), ..StepTensors::default() },
    ];
    for (name, change) in StepTensorNames::ALL.into_iter().zip(wrong) {
        match meddle(change).0.expect_err("misshapen") {
            Error::InvalidArgument { argument, .. } => assert_eq!(argument, name),
            other => panic!("{other}"),
        }
    }
    let error = StepTensorNames::parse(["latents", "noise"]).expect_err("no such tensor");
    assert!(error.to_string().contains("imageLatents"), "{error}");
}

fn halve<const D: usize>(floats: &Option<Floats<D>>) -> Option<Floats<D>> {
    let mut floats = floats.clone().expect("asked for");
    floats.data.iter_mut().for_each(|x| *x *= 0.5);
    Some(floats)
}

/// Finds every picture unsafe, and keeps what it is warned of.
#[derive(Default)]
struct Censor {
    warnings: Vec<String>,
}

impl Observer for Censor {
    fn judge<'a>(
        &'a mut self,
        images: &'a [RgbImage],
    ) -> LocalBoxFuture<'a, Option<Result<Vec<bool>, Error>>> {
        Box::pin(ready(Some(Ok(vec![true; images.len()]))))
    }

    fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }
}

#[test]
fn what_the_caller_finds_unsafe_is_black_whatever_it_is_given_as() {
    let pipeline = load(&mut |_| {});
    for output in [OutputType::Pictures, OutputType::Nchw] {
        let request = EditRequest { output, ..request() };
        let result = run(&pipeline, &request, &mut TorchGenerator::new(7), &mut Censor::default());
        let result = result.expect("edits");
        assert_eq!(result.nsfw_content_detected, Some(vec![true]));
        match result.images {
            OutputImages::Pictures(pictures) => assert!(pictures[0].data.iter().all(|x| *x == 0)),
            OutputImages::Samples(samples) => assert!(samples.data.iter().all(|x| *x == 0.0)),
            OutputImages::None => panic!("nothing was decoded"),
        }
    }
}

#[test]
fn what_may_be_a_mistake_is_warned_of() {
    let pipeline = load(&mut |_| {});
    let warnings = |change: fn(&mut EditRequest)| {
        let mut request = request();
        change(&mut request);
        let mut censor = Censor::default();
        edit(&pipeline, &request, 7, &mut censor).expect("edits");
        censor.warnings
    };
    assert_eq!(warnings(|_| {}), Vec::<String>::new());
    let low = warnings(|request| request.image_guidance_scale = 0.9);
    assert!(low.len() == 1 && low[0].contains("imageGuidanceScale"), "{low:?}");
    let long =
        warnings(|request| request.text = Prompts::new("snow ".repeat(75) + "winter caf\u{e9}"));
    assert!(long.len() == 1 && long[0].ends_with("winter caf\u{e9}"), "{long:?}");
}

/// Takes the hand in an edit that `gen_callbacks.py` takes.
struct Replacer;

impl Observer for Replacer {
    fn tensor_inputs(&self) -> StepTensorNames {
        StepTensorNames::parse(StepTensorNames::ALL).expect("all are known")
    }

    fn step(
        &mut self,
        step: Step,
        seen: StepTensors,
    ) -> LocalBoxFuture<'_, ControlFlow<(), StepTensors>> {
        let mut changed = StepTensors::default();
        match step.index {
            0 => changed.latents = halve(&seen.latents),
            1 => changed.prompt_embeds = halve(&seen.prompt_embeds),
            2 => changed.image_latents = halve(&seen.image_latents),
            _ => {}
        }
        Box::pin(ready(ControlFlow::Continue(changed)))
    }
}

/// diffusers' `callback_on_step_end` with replacements (`tests/fixtures/gen_callbacks.py`).
#[test]
fn replaced_tensors_go_on_as_in_diffusers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let read = |path: &str| std::fs::read(root.join(path)).expect("readable");
    let f32s = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
    };
    let (case, golden) = (read("oracle/cases/sd_ddim.safetensors"), read("callbacks.safetensors"));
    let case = SafeTensors::deserialize(&case).expect("valid");
    let golden = SafeTensors::deserialize(&golden).expect("valid");
    let tensor = |file: &SafeTensors<'_>, name| f32s(file.tensor(name).expect("there").data());
    let cases: serde_json::Value = {
        let json = String::from_utf8(read("oracle/cases.json")).expect("a text");
        serde_json::from_str(&json.replace("-Infinity", "null").replace("Infinity", "null"))
            .expect("valid")
    };
    let info = cases["cases"].as_array().expect("a list").iter();
    let info = info.into_iter().find(|info| info["name"] == "sd_ddim").expect("there");
    let config = SchedulerConfig::from_json("cases", &info["scheduler_config"].to_string());
    let picture = case.tensor("image_u8").expect("there");
    let (height, width) = (picture.shape()[1], picture.shape()[2]);
    let latents = case.tensor("latents_in").expect("there");
    let request = EditRequest {
        images: Images::Pictures(vec![
            RgbImage::new(width, height, picture.data().to_vec()).expect("valid"),
        ]),
        text: Prompts::new(info["call"]["prompt"].as_str().expect("a text")),
        latents: Some(
            Floats::new("latents", latents.shape(), f32s(latents.data())).expect("valid"),
        ),
        num_inference_steps: 5,
        scheduler: Some(SchedulerChoice {
            class_name: "DDIMScheduler".into(),
            config: Some(config.expect("valid")),
        }),
        output: OutputType::Nhwc,
        ..request()
    };
    let pipeline = load_with(WeightDtype::F32);
    let output = run(&pipeline, &request, &mut TorchGenerator::new(0), &mut Replacer);
    let output = output.expect("edits");
    let OutputImages::Samples(samples) = output.images else { panic!("samples were asked for") };
    let peak = |ours: &[f32], golden: &[f32]| {
        assert_eq!(ours.len(), golden.len());
        ours.iter().zip(golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let steps = tensor(&golden, "latents_steps");
    let last = &steps[steps.len() - output.latents.data.len()..];
    let greatest = last.iter().fold(0f32, |max, x| max.max(x.abs()));
    let (latents, image) = (
        peak(&output.latents.data, last) / greatest,
        peak(&samples.data, &tensor(&golden, "image_out")),
    );
    println!("latents {latents:e}, image {image:e}");
    assert!(latents <= 1e-4 && image <= 1e-4, "{latents:e} {image:e}");
}
