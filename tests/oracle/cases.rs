//! Whole edits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::tensor::{DType, Tensor};
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::{RgbImage, VaeImageProcessor};
use instruct_pix2pix::models::FreeU;
use instruct_pix2pix::pipeline::{
    EditRequest, LoadEvent, LoadOptions, Observer, Output, RecordedNoise, SchedulerChoice,
    StableDiffusionInstructPix2PixPipeline, Step, Tap,
};
use instruct_pix2pix::schedulers::SchedulerConfig;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::compare::{Comparison, Tolerance};
use super::components::placement;
use super::tensors::{Golden, TensorFile};
use super::{Case, Verdict};

/// Everything that has been through the UNet.
const LATENTS_TOLERANCE: f64 = 1e-4;

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
pub fn list(folder: &Path) -> Result<Vec<Case<'_>>, String> {
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
            Case { name: info.name.clone(), run: Box::new(move || run(folder, &info, &pipelines)) }
        })
        .collect())
}

/// What a case needs that the pipeline does not do.
fn unsupported(info: &CaseInfo) -> Option<String> {
    if info.pipeline != "sd" {
        return Some(format!("pipeline {}", info.pipeline));
    }
    if info.image_kind != "pil" {
        return Some(format!("image given as {}", info.image_kind));
    }
    if info.call.prompt.is_none() {
        return Some("prompt_embeds".into());
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
    fn step(&mut self, step: Step) -> std::ops::ControlFlow<()> {
        self.steps.push((step.index, step.timestep));
        std::ops::ControlFlow::Continue(())
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

fn run(folder: &Path, info: &CaseInfo, pipelines: &Pipelines) -> Verdict {
    if let Some(what) = unsupported(info) {
        return Verdict::Unsupported(what);
    }
    let file = TensorFile::open(&folder.join(&info.file));
    let images = file.u8("image_u8");
    let images = (0..images.shape[0]).map(|i| {
        let image = images.at(i);
        let [height, width, _] = image.dims();
        RgbImage::new(width, height, image.values).expect("valid")
    });
    let call = info.call.clone();
    let request = EditRequest {
        images: images.collect(),
        prompts: call.prompt.expect("checked before").into_vec(),
        negative_prompts: call.negative_prompt.map(OneOrMany::into_vec),
        num_images_per_prompt: call.num_images_per_prompt.unwrap_or(1),
        num_inference_steps: call.num_inference_steps,
        guidance_scale: call.guidance_scale,
        image_guidance_scale: call.image_guidance_scale,
        eta: call.eta.unwrap_or(0.0),
        scheduler: Some(SchedulerChoice {
            class_name: info.scheduler_class.clone(),
            config: Some(info.scheduler_config.clone()),
        }),
        lora_scale: call.cross_attention_kwargs.map_or(1.0, |options| options.scale),
        latents: Some(file.f32("latents_in").values),
    };
    let noises = file.find("noises").map(|noises| noises.values).unwrap_or_default();
    let own = Some("safety_checker".to_owned());
    let safety_checker = info.component_dirs.get("safety_checker").cloned().unwrap_or(own);
    let loaded = pipeline(&folder.join(&info.model), safety_checker, pipelines);
    let mut pipeline = adapted(folder, info, &loaded);
    pipeline.set_freeu(info.freeu.map(|FreeUInfo { s1, s2, b1, b2 }| FreeU { s1, s2, b1, b2 }));
    pipeline.set_vae_tiling(info.vae_tiling);
    pipeline.set_vae_slicing(info.vae_slicing);
    let mut recorder = Recorder::default();
    let output =
        pollster::block_on(pipeline.edit(&request, &mut RecordedNoise::new(noises), &mut recorder));
    match output {
        Ok(output) => compare(info, &file, &recorder, &output).verdict(),
        Err(error) => Verdict::Failed(error.to_string()),
    }
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
    pipelines: &Pipelines,
) -> Rc<StableDiffusionInstructPix2PixPipeline> {
    let load = || {
        let options =
            LoadOptions { placement: placement(), dtype: DType::F32, safety_checker: false };
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

fn compare(info: &CaseInfo, file: &TensorFile, recorder: &Recorder, output: &Output) -> Comparison {
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
    comparison.tensor("prompt_embeds", text, &file.f32("prompt_embeds"), 1e-5);
    for (name, tolerance) in [("image_latents", 2e-5), ("latents_scaled", 1e-6)] {
        comparison.picture(name, &recorder.latents[name][0], &file.f32(name), tolerance);
    }
    // The script that makes the goldens overwrites this one at every step: despite its name it is
    // the last step's. A mended script would keep the first.
    let golden = file.f32("unet_out_step0");
    let outputs = &recorder.latents["unet_out"];
    let first = comparison.is_close(&outputs[0], &golden, LATENTS_TOLERANCE);
    let ours = if first { &outputs[0] } else { &outputs[outputs.len() - 1] };
    comparison.picture("unet_out_step0", ours, &golden, LATENTS_TOLERANCE);
    comparison.values(
        "init_noise_sigma",
        &[file.f32("latents_scaled").values[0] / file.f32("latents_in").values[0]],
        &[info.init_noise_sigma as f32],
        Tolerance::Relative(1e-6),
    );
    let mut each = |name: &'static str, golden: &Golden<f32>| {
        for step in 0..golden.shape[0] {
            let label = format!("{name}.{step}");
            let ours = &recorder.latents[name][step];
            comparison.picture(&label, ours, &golden.at(step), LATENTS_TOLERANCE);
        }
    };
    each("noise_pred", &file.f32("noise_pred_first3"));
    each("latents_steps", &file.f32("latents_steps"));
    if let Some(calls) = &info.callback_on_step_end_calls {
        let indices = |steps: &[(usize, f64)]| steps.iter().map(|step| step.0).collect::<Vec<_>>();
        let timesteps =
            |steps: &[(usize, f64)]| steps.iter().map(|step| step.1 as f32).collect::<Vec<_>>();
        comparison.equal("steps", &indices(&recorder.steps), &indices(calls));
        comparison.timesteps("steps", &timesteps(&recorder.steps), &timesteps(calls));
    }
    if info.call.output_type.as_deref() == Some("latent") {
        return comparison;
    }
    for name in ["decode_in", "decoded"] {
        let ours = &recorder.latents[name][0];
        comparison.picture(name, ours, &file.f32(name), LATENTS_TOLERANCE);
    }
    let decoded = &recorder.latents["decoded"][0];
    let decoded = decoded.clone().into_data().try_into_vec::<f32>().expect("f32");
    if let Some(flags) = &info.nsfw_content_detected {
        comparison.equal("nsfw", &output.nsfw_content_detected.as_ref(), &Some(flags));
    }
    // A flagged picture is black as bytes; the decoder's output is what it was.
    let flagged = output.nsfw_content_detected.iter().flatten().any(|flag| *flag);
    if !flagged {
        let ours = VaeImageProcessor { vae_scale_factor: 8 }.denormalize(&decoded);
        let golden = file.f32("image_out").values;
        comparison.values("image_out", &ours, &golden, Tolerance::Absolute(1e-4));
    }
    let bytes = |values: &[u8]| values.iter().map(|x| f32::from(*x)).collect::<Vec<_>>();
    let ours: Vec<u8> = output.images.iter().flat_map(|image| image.data.clone()).collect();
    let golden = file.u8("image_out_u8").values;
    comparison.values("image_out_u8", &bytes(&ours), &bytes(&golden), Tolerance::Absolute(1.0));
    comparison
}
