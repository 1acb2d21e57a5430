//! Between JavaScript's values and the pipeline's.

use burn::tensor::DType;
use js_sys::{Array, Float32Array, Function, JSON, Object, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::models::WeightDtype;
use crate::pipeline::{EditRequest, LoadEvent, Output, SchedulerChoice};
use crate::schedulers::SchedulerConfig;

/// Options of `Pipeline.load`. What may be left out is an `Option`: JavaScript also leaves a thing out by
/// giving `undefined`, which serde's `default` does not see.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineOptions {
    pub model: String,
    pub revision: Option<String>,
    pub endpoint: Option<String>,
    pub token: Option<String>,
    dtype: Option<Dtype>,
    weight_dtype: Option<Dtype>,
    pub safety_checker: Option<bool>,
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

/// Options of `Pipeline.edit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EditOptions {
    images: Vec<Picture>,
    prompt: String,
    negative_prompt: Option<String>,
    num_inference_steps: Option<f64>,
    guidance_scale: Option<f64>,
    image_guidance_scale: Option<f64>,
    eta: Option<f64>,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    seed: JsValue,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    scheduler: JsValue,
    latents: Option<Floats>,
    noises: Option<Floats>,
}

#[derive(Debug, Deserialize)]
struct Picture {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Uint8Array,
    width: usize,
    height: usize,
}

#[derive(Debug, Deserialize)]
struct Floats {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Float32Array,
}

impl EditOptions {
    /// The edit that is asked for; diffusers' defaults for what is left out.
    pub fn request(&self) -> Result<EditRequest> {
        let defaults = EditRequest::default();
        let images = self.images.iter().map(|picture| {
            RgbImage::from_rgba(picture.width, picture.height, &picture.data.to_vec())
        });
        let steps = match self.num_inference_steps {
            None => defaults.num_inference_steps,
            Some(steps) if steps.fract() == 0.0 && (0.0..=1e6).contains(&steps) => steps as usize,
            Some(steps) => {
                let message = format!("{steps} is no whole number of 1 or more");
                return Err(Error::argument("numInferenceSteps", message));
            }
        };
        Ok(EditRequest {
            images: images.collect::<Result<_>>()?,
            prompts: vec![self.prompt.clone()],
            negative_prompts: self.negative_prompt.clone().map(|negative| vec![negative]),
            num_inference_steps: steps,
            guidance_scale: self.guidance_scale.unwrap_or(defaults.guidance_scale),
            image_guidance_scale: self
                .image_guidance_scale
                .unwrap_or(defaults.image_guidance_scale),
            eta: self.eta.unwrap_or(defaults.eta),
            scheduler: self.scheduler()?,
            latents: self.latents.as_ref().map(|latents| latents.data.to_vec()),
            ..defaults
        })
    }

    /// A class name, or an object like a `scheduler_config.json`.
    fn scheduler(&self) -> Result<Option<SchedulerChoice>> {
        if self.scheduler.is_undefined() || self.scheduler.is_null() {
            return Ok(None);
        }
        if let Some(class_name) = self.scheduler.as_string() {
            return Ok(Some(SchedulerChoice { class_name, config: None }));
        }
        let invalid = || Error::argument("scheduler", "a class name, or a configuration object");
        let json = JSON::stringify(&self.scheduler).map_err(|_| invalid())?;
        let config = SchedulerConfig::from_json("scheduler", &String::from(json))?;
        let class_name = config.class_name.clone().ok_or_else(|| {
            Error::argument("scheduler", "a configuration object needs its `_class_name`")
        })?;
        Ok(Some(SchedulerChoice { class_name, config: Some(config) }))
    }

    /// The seed: a whole number, or its decimal digits; drawn when left out.
    pub fn seed(&self) -> Result<u64> {
        let invalid = || Error::argument("seed", "a whole number of at most 64 bits");
        if self.seed.is_undefined() || self.seed.is_null() {
            // PyTorch's generator looks at no more than 32 bits.
            return getrandom::u32()
                .map(u64::from)
                .map_err(|e| Error::argument("seed", format!("none could be drawn: {e}")));
        }
        if let Some(number) = self.seed.as_f64() {
            let limit = 2f64.powi(53);
            let whole = number.fract() == 0.0 && number.abs() <= limit;
            return if whole { Ok(number as i64 as u64) } else { Err(invalid()) };
        }
        let digits = self.seed.as_string().ok_or_else(invalid)?;
        digits
            .parse::<u64>()
            .or_else(|_| digits.parse::<i64>().map(|seed| seed as u64))
            .map_err(|_| invalid())
    }

    /// Recorded noise to play back in place of drawn.
    pub fn noises(&self) -> Option<Vec<f32>> {
        self.noises.as_ref().map(|noises| noises.data.to_vec())
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
        LoadEvent::Download { component, file, loaded, total } => object(&[
            ("type", "download".into()),
            ("component", component.into()),
            ("file", file.into()),
            ("loaded", (loaded as f64).into()),
            ("total", (total as f64).into()),
        ]),
        LoadEvent::Component { component } => {
            object(&[("type", "component".into()), ("component", component.into())])
        }
    }
}

/// The result of an edit.
pub fn output(output: Output, seed: u64) -> JsValue {
    let number = |x: usize| JsValue::from(x as f64);
    let images = output.images.iter().map(|image| {
        object(&[
            ("data", Uint8ClampedArray::from(image.to_rgba().as_slice()).into()),
            ("width", number(image.width)),
            ("height", number(image.height)),
        ])
    });
    let shape: Array = output.latents_shape.into_iter().map(number).collect();
    let latents = object(&[
        ("data", Float32Array::from(output.latents.as_slice()).into()),
        ("shape", shape.into()),
    ]);
    let nsfw = output
        .nsfw_content_detected
        .map(|flags| flags.into_iter().map(JsValue::from).collect::<Array>());
    let timings = object(&[
        ("total", output.timings.total.into()),
        ("encode", output.timings.encode.into()),
        ("denoise", output.timings.denoise.into()),
        ("decode", output.timings.decode.into()),
    ]);
    object(&[
        ("images", images.collect::<Array>().into()),
        ("latents", latents.into()),
        ("nsfwContentDetected", nsfw.into()),
        ("seed", seed.to_string().into()),
        ("timings", timings.into()),
    ])
    .into()
}
