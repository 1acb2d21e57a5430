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
    Floats, InstructPix2Pix, LoadEvent, Output, OutputImages, PartNeeds, PipelineClass, Prompts,
    Residency, SchedulerChoice, StepTensors, XlConfig,
};
use crate::schedulers::{SchedulerClass, SchedulerConfig};

/// Options of `Pipeline.load`. What may be left out is an `Option`: JavaScript also leaves a thing out by
/// giving `undefined`, which serde's `default` does not see.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineOptions {
    dtype: Option<Dtype>,
    weight_dtype: Option<WeightDtype>,
    pub safety_checker: Option<bool>,
    /// A checkpoint in one file: its path in the model.
    pub single_file: Option<String>,
    /// The model that has the configurations of that.
    pub config: Option<String>,
    /// The pipeline's class, as diffusers calls it, where no other will do.
    class_name: Option<String>,
    /// Bytes of the device's memory for weights.
    memory_budget: Option<f64>,
    /// Bytes of the largest buffer of the device that there will be.
    largest_buffer: Option<f64>,
    force_zeros_for_empty_prompt: Option<bool>,
    is_cosxl_edit: Option<bool>,
    add_watermarker: Option<bool>,
    /// The sampler in place of the model's own.
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    scheduler: JsValue,
    /// What the first edit will be asked for.
    prompt: Option<OneOrMore>,
    negative_prompt: Option<OneOrMore>,
}

/// A text, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
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
        self.weight_dtype.unwrap_or_default()
    }

    /// What the first edit will be asked for, where that is known.
    pub fn prompts(&self) -> Option<Prompts> {
        let prompts = self.prompt.clone()?.texts();
        let negative_prompts = self.negative_prompt.clone().map(OneOrMore::texts);
        Some(Prompts { prompts, negative_prompts, ..Prompts::default() })
    }

    /// The pipeline's class, where no other will do.
    pub fn class(&self) -> Result<Option<PipelineClass>> {
        let Some(name) = &self.class_name else { return Ok(None) };
        let class = PipelineClass::ALL.into_iter().find(|class| class.name() == name);
        class.map(Some).ok_or_else(|| Error::argument("className", format!("`{name}` is unknown")))
    }

    /// Bytes of the device's memory that weights may take, where that is limited.
    pub fn memory_budget(&self) -> Result<Option<u64>> {
        match self.memory_budget {
            Some(bytes) if !(bytes.is_finite() && bytes >= 0.0) => {
                let message = format!("{bytes} is no number of bytes");
                Err(Error::argument("memoryBudget", message))
            }
            budget => Ok(budget.map(|bytes| bytes as u64)),
        }
    }

    /// Bytes of the device's largest buffer, as far as the page looked.
    pub fn largest_buffer(&self) -> Option<u64> {
        self.largest_buffer.map(|bytes| bytes as u64)
    }

    /// The sampler in place of the model's own, if it is one.
    pub fn scheduler(&self) -> Result<Option<SchedulerChoice>> {
        let choice = scheduler(&self.scheduler)?;
        choice
            .iter()
            .try_for_each(|choice| SchedulerClass::from_name(&choice.class_name).map(drop))?;
        Ok(choice)
    }

    /// Sets what SDXL's class has beside components.
    pub fn configure(&self, pipeline: &mut InstructPix2Pix) -> Result<()> {
        let flags = [
            ("forceZerosForEmptyPrompt", self.force_zeros_for_empty_prompt),
            ("isCosxlEdit", self.is_cosxl_edit),
            ("addWatermarker", self.add_watermarker),
        ];
        match pipeline {
            InstructPix2Pix::Xl(pipeline) => {
                let own = pipeline.config();
                let [zeros, cosxl, watermark] = flags.map(|(_, flag)| flag);
                pipeline.set_config(XlConfig {
                    force_zeros_for_empty_prompt: zeros.unwrap_or(own.force_zeros_for_empty_prompt),
                    is_cosxl_edit: cosxl.unwrap_or(own.is_cosxl_edit),
                    add_watermarker: watermark.unwrap_or(own.add_watermarker),
                });
                Ok(())
            }
            InstructPix2Pix::Sd(_) => match flags.into_iter().find(|(_, flag)| flag.is_some()) {
                Some((name, _)) => Err(Error::argument(name, "this model is not of SDXL")),
                None => Ok(()),
            },
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

/// Whether models take turns, as JavaScript is told.
pub fn residency_name(in_turn: bool) -> &'static str {
    if in_turn { "inTurn" } else { "all" }
}

/// A plan's models.
pub fn parts(residency: &Residency) -> Array {
    let part = |part: &PartNeeds| {
        object(&[
            ("component", part.component.into()),
            ("memoryBytes", (part.bytes as f64).into()),
            ("largestBytes", (part.largest as f64).into()),
            ("stays", residency.stays(part.component).into()),
        ])
    };
    residency.parts.iter().map(part).collect()
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

/// Numbers with their shape, row-major.
#[derive(Debug, Deserialize)]
pub struct JsTensor {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Float32Array,
    /// The length of each axis.
    pub shape: Vec<usize>,
}

impl JsTensor {
    /// Fails unless the numbers are as many as the shape says. `name` is what the error calls them.
    fn check(&self, name: &str) -> Result<()> {
        let count = self.data.length() as usize;
        if self.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)) != Some(count) {
            let message = format!("{count} numbers for shape {:?}", self.shape);
            return Err(Error::argument(name, message));
        }
        Ok(())
    }

    /// The numbers, if they are as many as the shape says. `name` is what errors call them.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        self.check(name)?;
        Ok(self.data.to_vec())
    }

    /// Their bytes, little-endian as they are everywhere that WebAssembly is, where JavaScript has them.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn bytes(&self, name: &str) -> Result<Uint8Array> {
        self.check(name)?;
        let (start, length) = (self.data.byte_offset(), self.data.byte_length());
        Ok(Uint8Array::new_with_byte_offset_and_length(&self.data.buffer(), start, length))
    }

    /// The numbers alone.
    pub fn to_vec(&self) -> Vec<f32> {
        self.data.to_vec()
    }

    /// The numbers, where they have as many axes.
    pub fn floats<const D: usize>(&self, name: &'static str) -> Result<Floats<D>> {
        Floats::new(name, &self.shape, self.data.to_vec())
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
    let config = SchedulerConfig::from_caller("scheduler", &String::from(json))?;
    let class_name = config.class_name.clone().ok_or_else(|| {
        Error::argument("scheduler", "a configuration object needs its `_class_name`")
    })?;
    Ok(Some(SchedulerChoice { class_name, config: Some(config) }))
}

/// What `scheduler` makes of the `present` configuration, with some of its keys changed.
pub fn scheduler_config(
    scheduler_choice: SchedulerChoice,
    present: &SchedulerConfig,
    changes: &JsValue,
) -> Result<SchedulerConfig> {
    let mut config = scheduler_choice.config.unwrap_or_else(|| present.clone());
    if changes.is_object() {
        let invalid = || Error::argument("scheduler", "its changes are no plain object");
        let json = JSON::stringify(changes).map_err(|_| invalid())?;
        config = config.with("scheduler", &String::from(json))?;
    }
    config.class_name = Some(scheduler_choice.class_name);
    Ok(config)
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

/// A progress event, where it is for the user.
pub fn load_event(event: LoadEvent<'_>) -> Option<Object> {
    Some(match event {
        // For the engine's own use.
        LoadEvent::Needs(_) => return None,
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
        LoadEvent::Encoded => object(&[("type", "encoded".into())]),
    })
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
