//! Single components.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::{ClipImageProcessor, RgbImage, VaeImageProcessor, to_u8};
use instruct_pix2pix::models::{
    AddedConditions, AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, Module,
    Placement, SafetyCheckerConfig, SafetyThresholds, SafetyVerdict, UNet2DConditionConfig,
    UNet2DConditionModel, WeightDtype, judge,
};
use instruct_pix2pix::pipeline::from_nchw;
use instruct_pix2pix::weights::{self, WeightFiles};

use super::compare::{Comparison, Tolerance};
use super::tensors::{Golden, TensorFile};
use super::{Case, Verdict};

/// Components and step traces.
const TOLERANCE: f64 = 1e-5;
/// The VAE's encoder.
const LATENTS_TOLERANCE: f64 = 2e-5;
/// The UNet.
const UNET_TOLERANCE: f64 = 1e-4;

/// The cases of a folder: one for each file of `components/`.
pub fn list(folder: &Path) -> Vec<Case<'_>> {
    let Ok(entries) = std::fs::read_dir(folder.join("components")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".safetensors").map(str::to_owned))
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| Case {
            name: format!("components.{name}"),
            run: Box::new(move || run(folder, &name)),
        })
        .collect()
}

fn run(folder: &Path, name: &str) -> Verdict {
    let file = TensorFile::open(&folder.join(format!("components/{name}.safetensors")));
    match name {
        "text_encoder" => text_encoder(folder, &file, "sd", "text_encoder"),
        "xl_text_encoder_2" => text_encoder(folder, &file, "sdxl", "text_encoder_2"),
        "unet" => unet(folder, &file),
        "vae" => vae(folder, &file),
        "image_processor" => image_processor(&file),
        "feature_extractor" => feature_extractor(folder, &file),
        "safety_checker" => safety_checker(folder, &file),
        _ => Verdict::Unsupported(format!("component {name}")),
    }
}

/// The folder of the model that the cases of a pipeline (`sd`, `sdxl`) use.
pub fn model_folder(folder: &Path, pipeline: &str) -> PathBuf {
    folder.join(format!("models/tiny-{pipeline}-ip2p"))
}

/// The device and the types that the goldens were made with.
pub fn placement() -> Placement {
    Placement { device: Device::flex(), weights: WeightDtype::F32 }
}

fn load<M: Module>(
    model_folder: &Path,
    component: &str,
    stem: &str,
    make: impl FnOnce(&str, &str) -> M,
) -> M {
    let path = model_folder.join(component).join("config.json");
    let json = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut model = make("config.json", &json);
    let fetch = Directory(model_folder.to_owned());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    pollster::block_on(async {
        let files = WeightFiles::open(&files, component, stem, WeightDtype::F32).await?;
        weights::load(&mut model, files, &placement(), &mut |_| {}).await
    })
    .expect("loads");
    model
}

/// A text encoder of a model.
pub fn load_text_encoder(model_folder: &Path, component: &str) -> ClipTextModel {
    load(model_folder, component, "model", |file, json| {
        ClipTextConfig::parse(file, json).expect("valid").init()
    })
}

fn load_unet(model_folder: &Path) -> UNet2DConditionModel {
    load(model_folder, "unet", "diffusion_pytorch_model", |file, json| {
        UNet2DConditionConfig::parse(file, json).expect("valid").init()
    })
}

fn load_vae(model_folder: &Path) -> AutoencoderKL {
    load(model_folder, "vae", "diffusion_pytorch_model", |file, json| {
        AutoencoderKLConfig::parse(file, json).expect("valid").init()
    })
}

fn tensor<const D: usize>(golden: &Golden<f32>) -> Tensor<D> {
    let data = TensorData::new(golden.values.clone(), golden.dims::<D>());
    Tensor::from_data(data, (&Device::flex(), DType::F32))
}

fn picture(golden: &Golden<f32>) -> Tensor<4> {
    from_nchw(golden.values.clone(), golden.dims(), &Device::flex())
}

fn text_encoder(folder: &Path, file: &TensorFile, pipeline: &str, component: &str) -> Verdict {
    let model = load_text_encoder(&model_folder(folder, pipeline), component);
    let ids = file.i32("input_ids");
    let ids: Vec<Vec<u32>> = (0..ids.shape[0])
        .map(|row| ids.at(row).values.into_iter().map(|id| id as u32).collect())
        .collect();
    let output = model.forward(&ids, DType::F32).expect("valid ids");
    let mut comparison = Comparison::default();
    for (i, state) in output.hidden_states.iter().enumerate() {
        let name = format!("hidden_states.{i}");
        comparison.tensor(&name, state, &file.f32(&name), TOLERANCE);
    }
    let golden = file.f32("last_hidden_state");
    comparison.tensor("last_hidden_state", &output.last_hidden_state, &golden, TOLERANCE);
    let pooled = file.find("text_embeds").unwrap_or_else(|| file.f32("pooler_output"));
    comparison.tensor("pooled", &output.pooled, &pooled, TOLERANCE);
    comparison.verdict()
}

fn unet(folder: &Path, file: &TensorFile) -> Verdict {
    let mut comparison = Comparison::default();
    for (prefix, pipeline) in [("sd", "sd"), ("xl", "sdxl")] {
        let model = load_unet(&model_folder(folder, pipeline));
        for tag in ["a", "b", "c"] {
            let case = format!("{prefix}.{tag}");
            let get = |name: &str| file.find(&format!("{case}.{name}"));
            let Some(sample) = get("sample") else { continue };
            let golden = |name: &str| file.f32(&format!("{case}.{name}"));
            let timesteps: Vec<f64> =
                golden("timestep").values.into_iter().map(f64::from).collect();
            let text = tensor(&golden("encoder_hidden_states"));
            let added = get("text_embeds").map(|embeds| AddedConditions {
                text_embeds: tensor(&embeds),
                time_ids: golden("time_ids")
                    .values
                    .as_chunks::<6>()
                    .0
                    .iter()
                    .map(|ids| ids.map(f64::from).to_vec())
                    .collect(),
            });
            let mut taps = Vec::new();
            let out = model.forward_tapped(
                picture(&sample),
                &timesteps,
                &model.text_keys(&text),
                added.as_ref(),
                &mut |name, x| taps.push((name.to_owned(), x.clone())),
            );
            for (name, ours) in taps {
                let name = format!("activation.{name}");
                let Some(mut golden) = get(&name) else { continue };
                if golden.shape.len() == 2 {
                    golden.shape.extend([1, 1]);
                }
                comparison.picture(&format!("{case}.{name}"), &ours, &golden, UNET_TOLERANCE);
            }
            comparison.picture(&format!("{case}.out"), &out, &golden("out"), UNET_TOLERANCE);
        }
    }
    comparison.verdict()
}

fn vae(folder: &Path, file: &TensorFile) -> Verdict {
    let model = load_vae(&model_folder(folder, "sd"));
    let mut comparison = Comparison::default();
    let side = model.config().sample_size;
    let distribution = model.encode(picture(&file.f32("image")));
    let results = [
        ("moments", distribution.moments.clone(), LATENTS_TOLERANCE),
        ("mode", distribution.mode(), LATENTS_TOLERANCE),
        ("std", distribution.std(), LATENTS_TOLERANCE),
        ("decoded", model.decode(picture(&file.f32("latents"))), LATENTS_TOLERANCE),
        (
            "tiled_mode",
            model.encode_tiled(picture(&file.f32("tiled_image")), side).mode(),
            LATENTS_TOLERANCE,
        ),
        (
            "tiled_decoded",
            model.decode_tiled(picture(&file.f32("tiled_latents")), side),
            LATENTS_TOLERANCE,
        ),
    ];
    for (name, ours, tolerance) in results {
        comparison.picture(name, &ours, &file.f32(name), tolerance);
    }
    comparison.verdict()
}

fn image_processor(file: &TensorFile) -> Verdict {
    let processor = VaeImageProcessor { vae_scale_factor: 8 };
    let mut comparison = Comparison::default();
    for i in 0.. {
        let Some(image) = file.find_u8(&format!("{i}.image_u8")) else { break };
        let [height, width, _] = image.dims();
        let image = RgbImage::new(width, height, image.values).expect("valid");
        let requested = file.i32(&format!("{i}.requested_hw")).values;
        let size = (requested[0] > 0).then(|| [requested[0] as usize, requested[1] as usize]);
        let ([h, w], samples) = processor.preprocess(&image, size).expect("large enough");
        let ours = from_nhwc(samples, [1, h, w, 3]);
        let name = format!("{i}.preprocessed");
        // Exact to the byte; what is left is the rounding of x / 127.5 - 1.
        comparison.picture(&name, &ours, &file.f32(&name), 1e-6);
    }
    let raw = picture(&file.f32("post.in"));
    let raw = raw.into_data().try_into_vec::<f32>().expect("f32");
    let ours = processor.denormalize(&raw);
    let golden = file.f32("post.float").values;
    comparison.values("post.float", &ours, &golden, Tolerance::Absolute(1e-6));
    comparison.equal("post.u8", &to_u8(&ours), &file.u8("post.u8").values);
    comparison.verdict()
}

fn feature_extractor(folder: &Path, file: &TensorFile) -> Verdict {
    let path = model_folder(folder, "sd").join("feature_extractor/preprocessor_config.json");
    let json = std::fs::read_to_string(path).expect("readable");
    let extractor = ClipImageProcessor::parse("preprocessor_config.json", &json).expect("valid");
    let mut comparison = Comparison::default();
    for i in 0.. {
        let Some(image) = file.find_u8(&format!("{i}.image_u8")) else { break };
        let [height, width, _] = image.dims();
        let image = RgbImage::new(width, height, image.values).expect("valid");
        let ([h, w], samples) = extractor.preprocess(&image);
        let ours = from_nhwc(samples, [1, h, w, 3]);
        // Exact to the byte; what is left is the rounding of the normalisation.
        if let Some(golden) = file.find(&format!("{i}.pixel_values")) {
            comparison.picture(&format!("{i}.pixel_values"), &ours, &golden, 1e-6);
        } else {
            let every_fourth =
                |n: usize| Tensor::<1, Int>::arange_step(0..n as i64, 4, &Device::flex());
            let ours = ours.select(1, every_fourth(h)).select(2, every_fourth(w));
            let name = format!("{i}.pixel_values_stride4");
            comparison.picture(&name, &ours, &file.f32(&name), 1e-6);
        }
    }
    comparison.verdict()
}

fn safety_checker(folder: &Path, file: &TensorFile) -> Verdict {
    let model = load(&model_folder(folder, "sd"), "safety_checker", "model", |file, json| {
        SafetyCheckerConfig::parse(file, json).expect("valid").init()
    });
    let small = picture(&file.f32("clip_input_14x14"));
    let [b, h, w, c] = small.dims();
    let clip_input = small
        .reshape([b, h, 1, w, 1, c])
        .repeat_dim(2, 16)
        .repeat_dim(4, 16)
        .reshape([b, h * 16, w * 16, c]);
    let embeds = model.embed(clip_input);
    let mut comparison = Comparison::default();
    comparison.tensor("image_embeds", &embeds, &file.f32("image_embeds"), TOLERANCE);
    let host = |x: Tensor<2>| x.into_data().try_into_vec::<f32>().expect("f32");
    let [concepts, special_care] = model.concepts().map(host);
    let thresholds = SafetyThresholds {
        concepts: file.f32("concept_embeds_weights").values,
        special_care: file.f32("special_care_embeds_weights").values,
    };
    let width = embeds.dims()[1];
    let verdicts: Vec<SafetyVerdict> = host(embeds)
        .chunks_exact(width)
        .map(|embedding| judge(embedding, &concepts, &special_care, &thresholds))
        .collect();
    let cosines = |get: fn(&SafetyVerdict) -> &Vec<f32>| {
        verdicts.iter().flat_map(|verdict| get(verdict).clone()).collect::<Vec<_>>()
    };
    let concept_cosine = cosines(|verdict| &verdict.concept_cosine);
    let special_cosine = cosines(|verdict| &verdict.special_cosine);
    for (name, ours) in [("concept_cosine", concept_cosine), ("special_cosine", special_cosine)] {
        comparison.values(name, &ours, &file.f32(name).values, Tolerance::Relative(TOLERANCE));
    }
    let flags: Vec<u8> = verdicts.iter().map(|v| u8::from(v.has_nsfw_concept)).collect();
    comparison.equal("has_nsfw", &flags, &file.u8("has_nsfw").values);
    comparison.verdict()
}

fn from_nhwc(values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F32))
}
