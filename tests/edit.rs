//! Whole edits on the tiny model: what the parity cases do not look at.

use std::ops::ControlFlow;
use std::path::Path;

use base64::prelude::*;
use burn::tensor::{DType, Device};
use instruct_pix2pix::Error;
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::models::{Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    EditRequest, LoadEvent, LoadOptions, Observer, SchedulerChoice,
    StableDiffusionInstructPix2PixPipeline, Step, TorchGenerator, Unobserved,
};
use safetensors::SafeTensors;

fn load(on_event: &mut dyn FnMut(LoadEvent<'_>)) -> StableDiffusionInstructPix2PixPipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/tiny-random");
    let placement = Placement { device: Device::flex(), weights: WeightDtype::F16 };
    let options = LoadOptions { placement, dtype: DType::F32, safety_checker: false };
    let fetch = Directory(folder);
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let load = StableDiffusionInstructPix2PixPipeline::load(&files, options, on_event);
    pollster::block_on(load).expect("loads")
}

fn request() -> EditRequest {
    let data = (0..16 * 16 * 3).map(|i| (i * 7 % 256) as u8).collect();
    EditRequest {
        images: vec![RgbImage::new(16, 16, data).expect("valid")],
        prompts: vec!["make it snowy".into()],
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
    let mut noise = TorchGenerator::new(seed);
    let output = pollster::block_on(pipeline.edit(request, &mut noise, observer))?;
    Ok(output.images.into_iter().flat_map(|image| image.data).collect())
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
        ("prompt", change(|r| r.prompts.clear())),
        ("image", change(|r| r.images.clear())),
        ("image", Box::new(move |r| r.images = vec![small.clone()])),
        ("numInferenceSteps", change(|r| r.num_inference_steps = 0)),
        ("numImagesPerPrompt", change(|r| r.num_images_per_prompt = 0)),
        ("guidanceScale", change(|r| r.guidance_scale = f64::NAN)),
        ("imageGuidanceScale", change(|r| r.image_guidance_scale = f64::INFINITY)),
        ("eta", change(|r| r.eta = 1.5)),
        ("negativePrompt", change(|r| r.negative_prompts = Some(vec![String::new(); 3]))),
        ("latents", change(|r| r.latents = Some(vec![0.0; 5]))),
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

struct Stop {
    after: usize,
    by_signal: bool,
    steps: usize,
}

impl Observer for Stop {
    fn is_cancelled(&self) -> bool {
        self.by_signal && self.steps >= self.after
    }

    fn step(&mut self, step: Step) -> ControlFlow<()> {
        assert_eq!((step.index, step.count), (self.steps, 5));
        self.steps += 1;
        let stop = !self.by_signal && self.steps == self.after;
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
    let request = EditRequest { images: vec![image], num_inference_steps: 10, ..request() };
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
