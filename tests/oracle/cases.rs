//! Whole edits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::tensor::{DType, Tensor};
use futures_util::future::{LocalBoxFuture, ready};
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::{RgbImage, to_u8};
use instruct_pix2pix::models::FreeU;
use instruct_pix2pix::pipeline::{
    CONTINUE, EditRequest, Floats, Images, LoadEvent, LoadOptions, Observer, Output, OutputImages,
    OutputType, Prompts, RecordedNoise, SchedulerChoice, StableDiffusionInstructPix2PixPipeline,
    Step, StepTensors, Tap,
};
use instruct_pix2pix::schedulers::SchedulerConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::compare::{Comparison, Tolerance};
use super::tensors::{Golden, TensorFile};
use super::{Case, Verdict};
use burn::tensor::Device;
use instruct_pix2pix::models::{Placement, WeightDtype};

/// What is computed with, and how far from diffusers in float32 the results may be.
#[derive(Debug, Clone, Copy)]
pub struct Precision {
    /// Of activations.
    pub dtype: DType,
    /// Of weights.
    pub weights: WeightDtype,
    /// Text embeddings, of their maximum.
    text: f64,
    /// The pictures' latents.
    image_latents: f64,
    /// Everything that has been through the UNet.
    latents: f64,
    /// The guided prediction: guidance multiplies differences of the UNet's outputs.
    guided: f64,
    /// Samples in 0 to 1.
    image: f64,
    /// Levels of 0 to 255.
    bytes: f64,
}

impl Precision {
    /// Single precision throughout.
    pub const FLOAT32: Self = Self {
        dtype: DType::F32,
        weights: WeightDtype::F32,
        text: 1e-5,
        image_latents: 2e-5,
        latents: 1e-4,
        guided: 1e-4,
        image: 1e-4,
        bytes: 1.0,
    };

    /// Half precision throughout, with the tolerances that the oracle's README measured. It has none of
    /// the guided prediction, in which diffusers in float16 is itself up to 1.1e-1 off (`sd_lora_old`;
    /// `fixtures/measure_float16.py`), where its UNet is 2.6e-2 off: twice that, as for the UNet.
    pub const FLOAT16: Self = Self {
        dtype: DType::F16,
        weights: WeightDtype::F16,
        text: 5e-2,
        image_latents: 5e-2,
        latents: 5e-2,
        guided: 2e-1,
        image: 4e-2,
        bytes: 4e-2 * 255.0,
    };
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<CaseInfo>,
}

#[derive(Deserialize, Clone)]
struct CaseInfo {
    name: String,
    pipeline: String,
    model: String,
    file: String,
    scheduler_class: String,
    scheduler_config: SchedulerConfig,
    init_noise_sigma: f64,
    call: Call,
    image_kind: String,
    nsfw_content_detected: Option<Vec<bool>>,
    #[serde(default)]
    lora: Option<Vec<LoraInfo>>,
    #[serde(default)]
    textual_inversion: Option<Vec<WordInfo>>,
    callback_on_step_end_calls: Option<Vec<(usize, f64)>>,
    /// A folder in place of a component's own, or none at all.
    #[serde(default)]
    component_dirs: HashMap<String, Option<String>>,
    freeu: Option<FreeUInfo>,
    #[serde(default)]
    vae_tiling: bool,
    #[serde(default)]
    vae_slicing: bool,
    /// Whatever else makes a case special.
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize, Clone, Copy)]
struct FreeUInfo {
    s1: f64,
    s2: f64,
    b1: f64,
    b2: f64,
}

#[derive(Deserialize, Clone)]
struct LoraInfo {
    file: String,
    weight: Option<f64>,
}

#[derive(Deserialize, Clone)]
struct WordInfo {
    file: String,
    token: Option<String>,
}

#[derive(Deserialize, Clone)]
struct AttentionOptions {
    scale: f64,
}

#[derive(Deserialize, Clone)]
struct Call {
    prompt: Option<OneOrMany>,
    negative_prompt: Option<OneOrMany>,
    num_inference_steps: usize,
    guidance_scale: f64,
    image_guidance_scale: f64,
    num_images_per_prompt: Option<usize>,
    eta: Option<f64>,
    output_type: Option<String>,
    cross_attention_kwargs: Option<AttentionOptions>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Pipelines by the folders of their model and of their safety checker.
type Pipelines =
    RefCell<HashMap<(PathBuf, Option<String>), Rc<StableDiffusionInstructPix2PixPipeline>>>;

/// The cases of a folder.
///
/// # Errors
/// When `cases.json` cannot be read.
pub fn list(folder: &Path, precision: Precision) -> Result<Vec<Case<'_>>, String> {
    let path = folder.join("cases.json");
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let json = std::fs::read_to_string(&path).map_err(|e| fail(&e))?;
    // Python's JSON has infinities, which stand for "no bound", as null does.
    let json = json.replace("-Infinity", "null").replace("Infinity", "null");
    let cases: Cases = serde_json::from_str(&json).map_err(|e| fail(&e))?;
    let pipelines: Rc<Pipelines> = Rc::default();
    Ok(cases
        .cases
        .into_iter()
        .map(|info| {
            let pipelines = pipelines.clone();
            Case {
                name: info.name.clone(),
                run: Box::new(move || run(folder, &info, precision, &pipelines)),
            }
        })
        .collect())
}

/// What a case needs that the pipeline does not do.
fn unsupported(info: &CaseInfo) -> Option<String> {
    if info.pipeline != "sd" {
        return Some(format!("pipeline {}", info.pipeline));
    }
    if !["pil", "tensor", "latents"].contains(&info.image_kind.as_str()) {
        return Some(format!("image given as {}", info.image_kind));
    }
    let known = ["scheduler_from_model_folder", "legacy_callback_calls", "tensors"];
    let special = |(key, value): (&String, &Value)| {
        let set =
            !value.is_null() && *value != Value::Bool(false) && *value != Value::Array(vec![]);
        (set && !known.contains(&key.as_str())).then(|| key.clone())
    };
    if let Some(key) = info.other.iter().chain(&info.call.other).find_map(special) {
        return Some(key);
    }
    if info.component_dirs.keys().any(|component| component != "safety_checker") {
        return Some("components from other folders".into());
    }
    let pairs_differ = info.call.num_images_per_prompt.unwrap_or(1) > 1
        && info.call.prompt.clone().is_some_and(|prompt| prompt.into_vec().len() > 1);
    pairs_differ.then(|| "diffusers pairs several prompts with the wrong pictures here".into())
}

/// Keeps what passes by.
#[derive(Default)]
struct Recorder {
    ids: Vec<Vec<Vec<u32>>>,
    values: HashMap<&'static str, Vec<f64>>,
    text: Option<Tensor<3>>,
    latents: HashMap<&'static str, Vec<Tensor<4>>>,
    steps: Vec<(usize, f64)>,
}

impl Observer for Recorder {
    fn step(
        &mut self,
        step: Step,
        _: StepTensors,
    ) -> LocalBoxFuture<'_, ControlFlow<(), StepTensors>> {
        self.steps.push((step.index, step.timestep));
        Box::pin(ready(CONTINUE))
    }

    fn tap(&mut self, name: &'static str, tap: Tap<'_>) {
        match tap {
            Tap::Ids(ids) => self.ids.push(ids.to_vec()),
            Tap::Values(values) => {
                self.values.insert(name, values.to_vec());
            }
            Tap::Text(text) => self.text = Some(text.clone()),
            Tap::Latents(latents) => {
                self.latents.entry(name).or_default().push(latents.clone());
            }
        }
    }
}

fn run(folder: &Path, info: &CaseInfo, precision: Precision, pipelines: &Pipelines) -> Verdict {
    if let Some(what) = unsupported(info) {
        return Verdict::Unsupported(what);
    }
    let file = TensorFile::open(&folder.join(&info.file));
    let call = info.call.clone();
    let output = match call.output_type.as_deref() {
        None | Some("pil" | "np" | "pt") => OutputType::Nhwc,
        Some("latent") => OutputType::Latent,
        Some(other) => return Verdict::Unsupported(format!("output type {other}")),
    };
    let request = EditRequest {
        images: images(&file, &info.image_kind),
        text: Prompts {
            prompts: call.prompt.map(OneOrMany::into_vec).unwrap_or_default(),
            prompt_embeds: file.find("prompt_embeds_in").map(floats),
            negative_prompts: call.negative_prompt.map(OneOrMany::into_vec),
            negative_prompt_embeds: file.find("negative_prompt_embeds_in").map(floats),
            num_images_per_prompt: call.num_images_per_prompt.unwrap_or(1),
        },
        num_inference_steps: call.num_inference_steps,
        guidance_scale: call.guidance_scale,
        image_guidance_scale: call.image_guidance_scale,
        eta: call.eta.unwrap_or(0.0),
        scheduler: Some(SchedulerChoice {
            class_name: info.scheduler_class.clone(),
            config: Some(info.scheduler_config.clone()),
        }),
        lora_scale: call.cross_attention_kwargs.map_or(1.0, |options| options.scale),
        latents: Some(floats(file.f32("latents_in"))),
        output,
        ..EditRequest::default()
    };
    let noises = file.find("noises").map(|noises| noises.values).unwrap_or_default();
    let own = Some("safety_checker".to_owned());
    let safety_checker = info.component_dirs.get("safety_checker").cloned().unwrap_or(own);
    let loaded = pipeline(&folder.join(&info.model), safety_checker, precision, pipelines);
    let mut pipeline = adapted(folder, info, &loaded);
    pipeline.set_freeu(info.freeu.map(|FreeUInfo { s1, s2, b1, b2 }| FreeU { s1, s2, b1, b2 }));
    pipeline.set_vae_tiling(info.vae_tiling);
    pipeline.set_vae_slicing(info.vae_slicing);
    let mut recorder = Recorder::default();
    let output =
        pollster::block_on(pipeline.edit(&request, &mut RecordedNoise::new(noises), &mut recorder));
    match output {
        Ok(output) => compare(info, &file, &recorder, &output, precision).verdict(),
        Err(error) => Verdict::Failed(error.to_string()),
    }
}

fn floats<const D: usize>(golden: Golden<f32>) -> Floats<D> {
    Floats::new("golden", &golden.shape, golden.values).expect("goldens have these axes")
}

/// The case's pictures, in the form in which diffusers was given them.
fn images(file: &TensorFile, kind: &str) -> Images {
    if kind == "latents" {
        return Images::Tensor(floats(file.f32("image_latents_in")));
    }
    let images = file.u8("image_u8");
    let pictures = (0..images.shape[0]).map(|i| {
        let image = images.at(i);
        let [height, width, _] = image.dims();
        RgbImage::new(width, height, image.values).expect("valid")
    });
    if kind == "pil" {
        return Images::Pictures(pictures.collect());
    }
    let mut data = Vec::new();
    let mut shape = [images.shape[0], 3, 0, 0];
    for RgbImage { width, height, data: bytes } in pictures {
        shape = [shape[0], 3, height, width];
        for channel in 0..3 {
            data.extend(bytes[channel..].iter().step_by(3).map(|x| f32::from(*x) / 255.0));
        }
    }
    Images::Tensor(Floats { shape, data })
}

/// The pipeline with a case's adapters, which a clone has for itself.
fn adapted(
    folder: &Path,
    info: &CaseInfo,
    pipeline: &StableDiffusionInstructPix2PixPipeline,
) -> StableDiffusionInstructPix2PixPipeline {
    let mut pipeline = pipeline.clone();
    let read = |file: &str| {
        let path = folder.join("adapters").join(file);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let loras = info.lora.clone().unwrap_or_default();
    let names: Vec<String> = (0..loras.len()).map(|i| format!("a{i}")).collect();
    for (name, lora) in names.iter().zip(&loras) {
        let loaded = pipeline.load_lora(Some(name), &lora.file, &read(&lora.file));
        assert_eq!(loaded.expect("loads"), Vec::<String>::new(), "every key has its layer");
    }
    if loras.iter().any(|lora| lora.weight.is_some()) {
        let weights: Vec<f64> = loras.iter().map(|lora| lora.weight.unwrap_or(1.0)).collect();
        pipeline.set_adapters(&names, &weights).expect("known");
    }
    for word in info.textual_inversion.iter().flatten() {
        pipeline
            .load_textual_inversion(&word.file, &read(&word.file), word.token.as_deref())
            .expect("loads");
    }
    pipeline
}

/// A loaded pipeline, loaded once for all cases that use its model and its safety checker.
fn pipeline(
    model: &Path,
    safety_checker: Option<String>,
    precision: Precision,
    pipelines: &Pipelines,
) -> Rc<StableDiffusionInstructPix2PixPipeline> {
    let load = || {
        let placement = Placement { device: Device::flex(), weights: precision.weights };
        let options = LoadOptions {
            placement,
            dtype: precision.dtype,
            safety_checker: false,
            warm_up: false,
        };
        let fetch = Directory(model.to_owned());
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        let mut on_event = |_: LoadEvent<'_>| {};
        let load = async {
            let mut pipeline =
                StableDiffusionInstructPix2PixPipeline::load(&files, options, &mut on_event)
                    .await?;
            if let Some(folder) = &safety_checker {
                pipeline.load_safety_checker(&files, folder).await?;
            }
            Ok::<_, instruct_pix2pix::Error>(pipeline)
        };
        Rc::new(pollster::block_on(load).unwrap_or_else(|e| panic!("{}: {e}", model.display())))
    };
    let key = (model.to_owned(), safety_checker.clone());
    pipelines.borrow_mut().entry(key).or_insert_with(load).clone()
}

fn compare(
    info: &CaseInfo,
    file: &TensorFile,
    recorder: &Recorder,
    output: &Output,
    precision: Precision,
) -> Comparison {
    let mut comparison = Comparison::default();
    let floats = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let timesteps = floats(&recorder.values["timesteps"]);
    comparison.timesteps("timesteps", &timesteps, &file.f32("timesteps").values);
    if let Some(sigmas) = file.find("sigmas") {
        let ours = floats(&recorder.values["sigmas"]);
        comparison.values("sigmas", &ours, &sigmas.values, Tolerance::Relative(1e-6));
    }
    for (i, ids) in recorder.ids.iter().enumerate() {
        let name = format!("input_ids.{i}");
        let ours: Vec<i32> = ids.iter().flatten().map(|id| *id as i32).collect();
        comparison.equal(&name, &ours, &file.i32(&name).values);
    }
    let text = recorder.text.as_ref().expect("always tapped");
    comparison.tensor("prompt_embeds", text, &file.f32("prompt_embeds"), precision.text);
    for (name, tolerance) in [("image_latents", precision.image_latents), ("latents_scaled", 1e-6)]
    {
        comparison.picture(name, &recorder.latents[name][0], &file.f32(name), tolerance);
    }
    // The script that makes the goldens overwrites this one at every step: despite its name it is
    // the last step's. A mended script would keep the first.
    let golden = file.f32("unet_out_step0");
    let outputs = &recorder.latents["unet_out"];
    let first = comparison.is_close(&outputs[0], &golden, precision.latents);
    let ours = if first { &outputs[0] } else { &outputs[outputs.len() - 1] };
    comparison.picture("unet_out_step0", ours, &golden, precision.latents);
    comparison.values(
        "init_noise_sigma",
        &[file.f32("latents_scaled").values[0] / file.f32("latents_in").values[0]],
        &[info.init_noise_sigma as f32],
        Tolerance::Relative(1e-6),
    );
    let mut each = |name: &'static str, golden: &Golden<f32>, tolerance: f64| {
        for step in 0..golden.shape[0] {
            let label = format!("{name}.{step}");
            let ours = &recorder.latents[name][step];
            comparison.picture(&label, ours, &golden.at(step), tolerance);
        }
    };
    each("noise_pred", &file.f32("noise_pred_first3"), precision.guided);
    each("latents_steps", &file.f32("latents_steps"), precision.latents);
    if let Some(calls) = &info.callback_on_step_end_calls {
        let indices = |steps: &[(usize, f64)]| steps.iter().map(|step| step.0).collect::<Vec<_>>();
        let timesteps =
            |steps: &[(usize, f64)]| steps.iter().map(|step| step.1 as f32).collect::<Vec<_>>();
        comparison.equal("steps", &indices(&recorder.steps), &indices(calls));
        comparison.timesteps("steps", &timesteps(&recorder.steps), &timesteps(calls));
    }
    let OutputImages::Samples(samples) = &output.images else {
        let golden = file.f32("latents_out").values;
        comparison.values(
            "latents_out",
            &output.latents.data,
            &golden,
            Tolerance::Relative(precision.latents),
        );
        return comparison;
    };
    for name in ["decode_in", "decoded"] {
        let ours = &recorder.latents[name][0];
        comparison.picture(name, ours, &file.f32(name), precision.latents);
    }
    if let Some(flags) = &info.nsfw_content_detected {
        comparison.equal("nsfw", &output.nsfw_content_detected.as_ref(), &Some(flags));
    }
    let golden = file.f32("image_out").values;
    comparison.values("image_out", &samples.data, &golden, Tolerance::Absolute(precision.image));
    let bytes: Vec<f32> = to_u8(&samples.data).into_iter().map(f32::from).collect();
    let golden: Vec<f32> = file.u8("image_out_u8").values.into_iter().map(f32::from).collect();
    comparison.values("image_out_u8", &bytes, &golden, Tolerance::Absolute(precision.bytes));
    comparison
}
