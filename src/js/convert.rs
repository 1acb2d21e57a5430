//! Between JavaScript's values and the pipeline's.

use burn::tensor::DType;
use js_sys::{Array, Float32Array, Function, JSON, Object, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::models::{FreeU, WeightDtype};
use crate::pipeline::{
    EditRequest, Floats, Images, LoadEvent, Output, OutputImages, OutputType, Prompts,
    SchedulerChoice, StepTensorNames, StepTensors,
};
use crate::schedulers::SchedulerConfig;

/// Options of `Pipeline.load`. What may be left out is an `Option`: JavaScript also leaves a thing out by
/// giving `undefined`, which serde's `default` does not see.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineOptions {
    dtype: Option<Dtype>,
    weight_dtype: Option<Dtype>,
    pub safety_checker: Option<bool>,
    /// A checkpoint in one file: its path in the model.
    pub single_file: Option<String>,
    /// The model that has the configurations of that.
    pub config: Option<String>,
}

/// A type of numbers by its name in torch.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dtype {
    Auto,
    Float32,
    Float16,
}

impl PipelineOptions {
    /// How weights are kept: half precision unless asked otherwise.
    pub fn weight_dtype(&self) -> WeightDtype {
        match self.weight_dtype {
            Some(Dtype::Float32) => WeightDtype::F32,
            _ => WeightDtype::F16,
        }
    }

    /// The type of activations on `gpu`.
    pub fn dtype(&self, gpu: &Gpu) -> Result<DType> {
        match self.dtype.unwrap_or(Dtype::Auto) {
            Dtype::Auto => Ok(gpu.preferred_dtype()),
            Dtype::Float32 => Ok(DType::F32),
            Dtype::Float16 if gpu.f16 => Ok(DType::F16),
            Dtype::Float16 => Err(Error::argument(
                "dtype",
                "float16 needs `shader-f16`, which this adapter lacks; use auto or float32",
            )),
        }
    }
}

/// The name of a type of activations.
pub fn dtype_name(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "float16" } else { "float32" }
}

/// Factors of FreeU.
#[derive(Debug, Deserialize)]
pub struct FreeUFactors {
    s1: f64,
    s2: f64,
    b1: f64,
    b2: f64,
}

impl FreeUFactors {
    /// The factors, if they are numbers.
    pub fn checked(self) -> Result<FreeU> {
        let Self { s1, s2, b1, b2 } = self;
        if ![s1, s2, b1, b2].iter().all(|factor| factor.is_finite()) {
            return Err(Error::argument("freeU", "s1, s2, b1 and b2 must be finite"));
        }
        Ok(FreeU { s1, s2, b1, b2 })
    }
}

/// Pictures: of bytes, or a tensor of samples or latents.
#[derive(Debug, Deserialize)]
struct ImageOptions {
    images: Option<Vec<Picture>>,
    tensor: Option<JsTensor>,
}

#[derive(Debug, Deserialize)]
struct Picture {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Uint8Array,
    width: usize,
    height: usize,
}

/// Instructions, as texts or as embeddings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptOptions {
    prompts: Option<Vec<String>>,
    prompt_embeds: Option<JsTensor>,
    negative_prompts: Option<Vec<String>>,
    negative_prompt_embeds: Option<JsTensor>,
    num_images_per_prompt: Option<f64>,
    do_classifier_free_guidance: Option<bool>,
}

/// What an edit takes beside pictures and instructions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtherOptions {
    num_inference_steps: Option<f64>,
    timesteps: Option<Vec<f64>>,
    sigmas: Option<Vec<f64>>,
    guidance_scale: Option<f64>,
    image_guidance_scale: Option<f64>,
    eta: Option<f64>,
    /// Decimal digits: serde has no big integers of 64 bits.
    seeds: Option<Vec<String>>,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    scheduler: JsValue,
    lora_scale: Option<f64>,
    latents: Option<JsTensor>,
    noises: Option<JsTensor>,
    output_type: Option<String>,
    tensor_inputs: Option<Vec<String>>,
}

/// Numbers with their shape, row-major.
#[derive(Debug, Deserialize)]
pub struct JsTensor {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Float32Array,
    /// The length of each axis.
    pub shape: Vec<usize>,
}

impl JsTensor {
    /// The numbers, if they are as many as the shape says. `name` is what errors call them.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let values = self.data.to_vec();
        if self.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)) != Some(values.len())
        {
            let message = format!("{} numbers for shape {:?}", values.len(), self.shape);
            return Err(Error::argument(name, message));
        }
        Ok(values)
    }

    fn floats<const D: usize>(&self, name: &'static str) -> Result<Floats<D>> {
        Floats::new(name, &self.shape, self.data.to_vec())
    }
}

impl ImageOptions {
    fn images(&self) -> Result<Images> {
        if let Some(tensor) = &self.tensor {
            return Ok(Images::Tensor(tensor.floats("image")?));
        }
        let pictures = self.images.iter().flatten().map(|picture| {
            RgbImage::from_rgba(picture.width, picture.height, &picture.data.to_vec())
        });
        Ok(Images::Pictures(pictures.collect::<Result<_>>()?))
    }
}

impl PromptOptions {
    fn prompts(self) -> Result<Prompts> {
        let embeds = |name, tensor: Option<JsTensor>| tensor.map(|t| t.floats(name)).transpose();
        Ok(Prompts {
            prompts: self.prompts.unwrap_or_default(),
            prompt_embeds: embeds("promptEmbeds", self.prompt_embeds)?,
            negative_prompts: self.negative_prompts,
            negative_prompt_embeds: embeds("negativePromptEmbeds", self.negative_prompt_embeds)?,
            num_images_per_prompt: count("numImagesPerPrompt", self.num_images_per_prompt, 1)?,
        })
    }
}

/// A whole number. The pipeline says how great it must be.
fn count(name: &'static str, value: Option<f64>, default: usize) -> Result<usize> {
    match value {
        None => Ok(default),
        Some(value) if value.fract() == 0.0 && (0.0..=1e6).contains(&value) => Ok(value as usize),
        Some(value) => {
            Err(Error::argument(name, format!("{value} is no whole number of 1 or more")))
        }
    }
}

/// The pictures of `Pipeline.encodeImage`.
pub fn images(options: JsValue) -> Result<Images> {
    parse::<ImageOptions>(options, "image")?.images()
}

/// The instructions of `Pipeline.encodePrompt`, and whether it is to encode what to keep away from.
pub fn prompts(options: JsValue) -> Result<(Prompts, bool)> {
    let options: PromptOptions = parse(options, "options")?;
    let guided = options.do_classifier_free_guidance.unwrap_or(true);
    Ok((options.prompts()?, guided))
}

/// An edit, with what it draws from and what it shows.
#[derive(Debug)]
pub struct Edit {
    /// What is asked for; diffusers' defaults for what is left out.
    pub request: EditRequest,
    /// Seeds: one, or one for each result; drawn when none is given.
    pub seeds: Vec<u64>,
    /// Recorded noise to play back in place of drawn.
    pub noises: Option<Vec<f32>>,
    /// What each step shows.
    pub tensor_inputs: StepTensorNames,
}

impl Edit {
    /// Reads the options of `Pipeline.edit`.
    pub fn parse(options: JsValue) -> Result<Self> {
        let defaults = EditRequest::default();
        let images = images(options.clone())?;
        let (text, _) = prompts(options.clone())?;
        let other: OtherOptions = parse(options, "options")?;
        let names = other.tensor_inputs.iter().flatten().map(String::as_str);
        Ok(Self {
            tensor_inputs: StepTensorNames::parse(names)?,
            seeds: other.seeds()?,
            noises: other.noises.as_ref().map(|noises| noises.data.to_vec()),
            request: EditRequest {
                images,
                text,
                num_inference_steps: count(
                    "numInferenceSteps",
                    other.num_inference_steps,
                    defaults.num_inference_steps,
                )?,
                guidance_scale: other.guidance_scale.unwrap_or(defaults.guidance_scale),
                image_guidance_scale: other
                    .image_guidance_scale
                    .unwrap_or(defaults.image_guidance_scale),
                eta: other.eta.unwrap_or(defaults.eta),
                scheduler: scheduler(&other.scheduler)?,
                lora_scale: other.lora_scale.unwrap_or(defaults.lora_scale),
                latents: other.latents.map(|latents| latents.floats("latents")).transpose()?,
                output: output_type(other.output_type.as_deref())?,
                timesteps: other.timesteps,
                sigmas: other.sigmas,
            },
        })
    }
}

/// diffusers' `output_type`, by its name here.
fn output_type(name: Option<&str>) -> Result<OutputType> {
    match name {
        None | Some("image" | "blob") => Ok(OutputType::Pictures),
        Some("np") => Ok(OutputType::Nhwc),
        Some("pt") => Ok(OutputType::Nchw),
        Some("latent") => Ok(OutputType::Latent),
        Some(name) => {
            let message = format!("`{name}` is none of image, blob, np, pt, latent");
            Err(Error::argument("outputType", message))
        }
    }
}

/// A class name, or an object like a `scheduler_config.json`.
pub fn scheduler(value: &JsValue) -> Result<Option<SchedulerChoice>> {
    if value.is_undefined() || value.is_null() {
        return Ok(None);
    }
    if let Some(class_name) = value.as_string() {
        return Ok(Some(SchedulerChoice { class_name, config: None }));
    }
    let invalid = || Error::argument("scheduler", "a class name, or a configuration object");
    let json = JSON::stringify(value).map_err(|_| invalid())?;
    let config = SchedulerConfig::from_json("scheduler", &String::from(json))?;
    let class_name = config.class_name.clone().ok_or_else(|| {
        Error::argument("scheduler", "a configuration object needs its `_class_name`")
    })?;
    Ok(Some(SchedulerChoice { class_name, config: Some(config) }))
}

impl OtherOptions {
    /// The seeds; one is drawn when none is given.
    fn seeds(&self) -> Result<Vec<u64>> {
        let invalid = || Error::argument("seed", "a whole number of at most 64 bits");
        let parse = |digits: &String| {
            let signed = || digits.parse::<i64>().map(|seed| seed as u64);
            digits.parse::<u64>().or_else(|_| signed()).map_err(|_| invalid())
        };
        match &self.seeds {
            Some(seeds) => seeds.iter().map(parse).collect(),
            // PyTorch's generator looks at no more than 32 bits.
            None => getrandom::u32()
                .map(|seed| vec![u64::from(seed)])
                .map_err(|e| Error::argument("seed", format!("none could be drawn: {e}"))),
        }
    }
}

/// Reads an options object.
pub fn parse<T: DeserializeOwned>(value: JsValue, name: &str) -> Result<T> {
    serde_wasm_bindgen::from_value(value).map_err(|e| Error::argument(name, e.to_string()))
}

/// A plain object.
pub fn object(properties: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (key, value) in properties {
        // Cannot fail: the object is new and not frozen.
        let _ = Reflect::set(&object, &(*key).into(), value);
    }
    object
}

/// Calls `callback` with one argument; `None` when it throws.
pub fn call(callback: &Function, argument: Object) -> Option<JsValue> {
    callback.call1(&JsValue::UNDEFINED, &argument).ok()
}

/// A progress event.
pub fn load_event(event: LoadEvent<'_>) -> Object {
    match event {
        LoadEvent::Download { component, file, loaded, total, cached, speed, remaining } => {
            object(&[
                ("type", "download".into()),
                ("component", component.into()),
                ("file", file.into()),
                ("loaded", (loaded as f64).into()),
                ("total", (total as f64).into()),
                ("cached", (cached as f64).into()),
                ("bytesPerSecond", speed.into()),
                ("secondsLeft", remaining.into()),
            ])
        }
        LoadEvent::Component { component } => {
            object(&[("type", "component".into()), ("component", component.into())])
        }
    }
}

/// Numbers with their shape.
pub fn tensor<const D: usize>(floats: &Floats<D>) -> Object {
    let shape = floats.shape.iter().map(|side| JsValue::from(*side as f64));
    object(&[
        ("data", Float32Array::from(floats.data.as_slice()).into()),
        ("shape", shape.collect::<Array>().into()),
    ])
}

/// Pictures of RGBA bytes.
pub fn pictures(images: &[RgbImage]) -> Array {
    let number = |x: usize| JsValue::from(x as f64);
    let picture = |image: &RgbImage| {
        object(&[
            ("data", Uint8ClampedArray::from(image.to_rgba().as_slice()).into()),
            ("width", number(image.width)),
            ("height", number(image.height)),
        ])
    };
    images.iter().map(picture).collect()
}

/// What `onStep` gives to go on with; nothing where it gives none.
pub fn step_tensors(value: &JsValue) -> Result<StepTensors> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Changed {
        latents: Option<JsTensor>,
        prompt_embeds: Option<JsTensor>,
        image_latents: Option<JsTensor>,
    }
    if !value.is_object() {
        return Ok(StepTensors::default());
    }
    let changed: Changed = parse(value.clone(), "onStep")?;
    let floats = |name, tensor: Option<JsTensor>| tensor.map(|t| t.floats(name)).transpose();
    Ok(StepTensors {
        latents: floats("latents", changed.latents)?,
        prompt_embeds: match changed.prompt_embeds {
            Some(tensor) => Some(tensor.floats("promptEmbeds")?),
            None => None,
        },
        image_latents: floats("imageLatents", changed.image_latents)?,
    })
}

/// The result of an edit.
pub fn output(output: Output, seeds: &[u64], warnings: Vec<String>) -> JsValue {
    let images = match &output.images {
        OutputImages::Pictures(images) => pictures(images).into(),
        OutputImages::Samples(samples) => tensor(samples).into(),
        OutputImages::None => JsValue::UNDEFINED,
    };
    let nsfw = output
        .nsfw_content_detected
        .map(|flags| flags.into_iter().map(JsValue::from).collect::<Array>());
    let timings = object(&[
        ("total", output.timings.total.into()),
        ("encode", output.timings.encode.into()),
        ("denoise", output.timings.denoise.into()),
        ("decode", output.timings.decode.into()),
    ]);
    let texts = |texts: Vec<String>| texts.into_iter().map(JsValue::from).collect::<Array>();
    object(&[
        ("images", images),
        ("latents", tensor(&output.latents).into()),
        ("nsfwContentDetected", nsfw.into()),
        ("seeds", texts(seeds.iter().map(u64::to_string).collect()).into()),
        ("timings", timings.into()),
        ("warnings", texts(warnings).into()),
    ])
    .into()
}
