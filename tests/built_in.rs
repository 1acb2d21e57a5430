//! The model that the demo ships with: edits of photographs that training never saw, against those of diffusers, and
//! what weights in integers cost.
//!
//! `tests/fixtures/built_in` is made by `tests/training/fixtures.py`. With `FULL=1` integers are measured on 20 edits.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::{RgbImage, decode};
use instruct_pix2pix::models::{Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    EditRequest, Images, LoadOptions, Output, OutputImages, Prompts,
    StableDiffusionInstructPix2PixPipeline as Pipeline, TorchGenerator, Unobserved,
};
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Case {
    name: String,
    photo: String,
    prompt: String,
    seed: u64,
    num_inference_steps: usize,
    guidance_scale: f64,
    image_guidance_scale: f64,
    output: String,
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/built_in").join(path)
}

fn cases() -> Vec<Case> {
    let json = std::fs::read(fixture("cases.json")).expect("readable");
    serde_json::from_slice(&json).expect("cases")
}

fn picture(path: &str) -> RgbImage {
    let bytes = std::fs::read(fixture(path)).expect("readable");
    let (width, height, rgba) = decode(&bytes).expect("a picture");
    RgbImage::from_rgba(width, height, &rgba).expect("valid")
}

fn load(weights: WeightDtype) -> Pipeline {
    let placement = Placement { device: Device::flex(), weights };
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/built-in");
    let fetch = Directory(folder);
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    pollster::block_on(Pipeline::load(&files, options, &mut |_| {})).expect("loads")
}

/// The picture of an edit, and its latents.
fn edit(pipeline: &Pipeline, case: &Case) -> (RgbImage, Vec<f32>) {
    let request = EditRequest {
        images: Images::Pictures(vec![picture(&case.photo)]),
        text: Prompts::new(&case.prompt),
        num_inference_steps: case.num_inference_steps,
        guidance_scale: case.guidance_scale,
        image_guidance_scale: case.image_guidance_scale,
        ..EditRequest::default()
    };
    let mut noise = TorchGenerator::new(case.seed);
    let mut observer = Unobserved;
    let edit = pipeline.edit(&request, &mut noise, &mut observer);
    let Output { images, latents, .. } = pollster::block_on(edit).expect("edits");
    let OutputImages::Pictures(mut pictures) = images else { panic!("pictures are the default") };
    (pictures.remove(0), latents.data)
}

/// The root of the mean square difference, against that of `golden` itself.
fn distance(ours: &[f32], golden: &[f32]) -> f64 {
    assert_eq!(ours.len(), golden.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = ours.iter().zip(golden).map(|(a, b)| square(a - b)).sum();
    (difference / golden.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

/// Decibels.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let mean = a.data.iter().zip(&b.data).map(square).sum::<f64>() / a.data.len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

#[test]
fn edits_are_those_of_diffusers() {
    let pipeline = load(WeightDtype::F32);
    let bytes = std::fs::read(fixture("latents.safetensors")).expect("readable");
    let goldens = SafeTensors::deserialize(&bytes).expect("tensors");
    for case in cases() {
        let (found, latents) = edit(&pipeline, &case);
        let golden = goldens.tensor(&case.name).expect("a golden").data();
        let golden: Vec<f32> =
            golden.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let distance = distance(&latents, &golden);
        let expected = picture(&case.output);
        let levels = found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max();
        println!("{}: latents {distance:.1e}, picture {levels:?} levels", case.name);
        assert!(distance <= 1e-4, "{}: {distance}", case.name);
        assert!(levels <= Some(1), "{}: {levels:?}", case.name);
    }
}

#[test]
fn types_of_weights_cost_what_the_documentation_says() {
    let cases = cases();
    let full = std::env::var_os("FULL").is_some_and(|value| value == "1");
    let mut edits = cases.clone();
    if full {
        // The other pictures that there are, in the order of their names, with every instruction in turn.
        let mut photos: Vec<String> = std::fs::read_dir(fixture("photos"))
            .expect("readable")
            .map(|entry| format!("photos/{}", entry.expect("readable").file_name().display()))
            .filter(|photo| cases.iter().all(|case| case.photo != *photo))
            .collect();
        photos.sort();
        let others = photos.iter().chain(&photos).zip(cases.iter().cycle());
        edits.extend(others.map(|(photo, case)| Case { photo: photo.clone(), ..case.clone() }));
        edits.truncate(20);
        assert_eq!(edits.len(), 20);
    } else {
        edits.truncate(2);
    }
    let floats = load(WeightDtype::F32);
    let expected: Vec<_> = edits.iter().map(|case| edit(&floats, case)).collect();
    // The least that any edit may have, in decibels, and the mean.
    for (weights, least, mean_least) in [
        (WeightDtype::F16, 50.0, 55.0),
        (WeightDtype::I8, 43.0, 47.0),
        (WeightDtype::I4, 24.0, 27.0),
    ] {
        let pipeline = load(weights);
        let mut decibels = Vec::new();
        for (case, (picture, latents)) in edits.iter().zip(&expected) {
            let (found, found_latents) = edit(&pipeline, case);
            decibels.push(psnr(&found, picture));
            let distance = distance(&found_latents, latents);
            println!(
                "{weights:?} {} of {}: {:.1} dB, latents {distance:.1e}",
                case.name,
                case.photo,
                decibels[decibels.len() - 1]
            );
        }
        let mean = decibels.iter().sum::<f64>() / decibels.len() as f64;
        let worst = decibels.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{weights:?}: mean {mean:.1} dB, least {worst:.1} dB");
        assert!(worst >= least && mean >= mean_least, "{weights:?}: mean {mean}, least {worst}");
    }
}
