//! The crate as JavaScript sees it. Converts and delegates; the package's hand-written modules
//! stand on this.

mod adapters;
#[cfg(feature = "tuning")]
mod bench;
mod convert;
mod error;
mod observer;
mod start;

use js_sys::{Function, Object};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::device::{Gpu, is_software};
use crate::error::{Error, Result};
use crate::hub::{BrowserFetch, ModelSource, sleep};
use crate::image::decode;
use crate::models::{Placement, WeightDtype};
use crate::pipeline::{
    Components, LoadEvent, LoadOptions, NoiseSource, RecordedNoise,
    StableDiffusionInstructPix2PixPipeline, StepTensorNames, TorchGenerator, TorchGenerators,
};
use convert::{Edit, PipelineOptions, object};
use error::JsResult;
use observer::JsObserver;

/// How often an adapter is asked for before the browser is believed that it has none.
const ADAPTER_ATTEMPTS: u32 = 10;

/// Between those, milliseconds.
const ADAPTER_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// A loaded `StableDiffusionInstructPix2PixPipeline` on a GPU.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Pipeline {
    inner: StableDiffusionInstructPix2PixPipeline,
    model: String,
    adapter: String,
}

/// Components of loaded pipelines, on their way into another.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Parts {
    components: Components,
    /// How the pipeline computes that the UNet came from, and what it was loaded from.
    base: Option<(LoadOptions, String, String)>,
}

#[wasm_bindgen]
impl Parts {
    /// None yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the component `name`, as `model_index.json` calls it, over from `pipeline`, which keeps it too.
    pub fn take(&mut self, name: &str, pipeline: &Pipeline) -> JsResult<()> {
        if name == "unet" {
            let Pipeline { inner, model, adapter } = pipeline;
            self.base = Some((inner.options().clone(), model.clone(), adapter.clone()));
        }
        Ok(self.components.take(name, &pipeline.inner)?)
    }

    /// A pipeline of these components.
    pub fn build(self) -> JsResult<Pipeline> {
        let missing = || Error::argument("unet", "this component is needed");
        let (options, model, adapter) = self.base.ok_or_else(missing)?;
        Ok(Pipeline { inner: self.components.build(options)?, model, adapter })
    }
}

#[wasm_bindgen]
impl Pipeline {
    /// Loads a model, calling `on_progress` with events, until `signal` aborts.
    pub async fn load(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<Pipeline> {
        Ok(Self::load_inner(options, on_progress, signal).await?)
    }

    /// Edits pictures until `signal` aborts. `on_step` is called after each model call, and its answer awaited:
    /// `false` stops the edit, tensors replace the edit's own. `judge` is called with the pictures, and answers which
    /// are not safe for work.
    pub async fn edit(
        &self,
        request: JsValue,
        on_step: Option<Function>,
        judge: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<JsValue> {
        let Edit { request, seeds, noises, tensor_inputs } = Edit::parse(request)?;
        let mut noise: Box<dyn NoiseSource> = match (noises, seeds.as_slice()) {
            (Some(values), _) => Box::new(RecordedNoise::new(values)),
            (None, [seed]) => Box::new(TorchGenerator::new(*seed)),
            (None, seeds) => Box::new(TorchGenerators::new(seeds)),
        };
        let mut observer = JsObserver::new(on_step, judge, signal, tensor_inputs);
        match self.inner.edit(&request, &mut *noise, &mut observer).await {
            Ok(output) => Ok(convert::output(output, &seeds, observer.warnings)),
            Err(error) => Err(observer.error.unwrap_or(error).into()),
        }
    }

    /// Encodes instructions on their own.
    #[wasm_bindgen(js_name = encodePrompt)]
    pub async fn encode_prompt(&self, options: JsValue) -> JsResult<Object> {
        let (prompts, guided) = convert::prompts(options)?;
        let mut observer = JsObserver::new(None, None, None, StepTensorNames::default());
        let embeds = self.inner.encode_prompt(&prompts, guided, &mut observer).await?;
        let negative = embeds.negative_prompt_embeds.as_ref().map(convert::tensor);
        Ok(object(&[
            ("promptEmbeds", convert::tensor(&embeds.prompt_embeds).into()),
            ("negativePromptEmbeds", negative.into()),
        ]))
    }

    /// Encodes pictures on their own.
    #[wasm_bindgen(js_name = encodeImage)]
    pub async fn encode_image(&self, options: JsValue) -> JsResult<Object> {
        let images = convert::images(options)?;
        Ok(convert::tensor(&self.inner.encode_image(&images).await?))
    }

    /// Turns FreeU on, or off where there are no factors.
    #[wasm_bindgen(js_name = setFreeU)]
    pub fn set_freeu(&mut self, factors: JsValue) -> JsResult<()> {
        let factors: Option<convert::FreeUFactors> = convert::parse(factors, "options")?;
        self.inner.set_freeu(factors.map(convert::FreeUFactors::checked).transpose()?);
        Ok(())
    }

    /// Turns the VAE's tiling on or off.
    #[wasm_bindgen(js_name = setVaeTiling)]
    pub fn set_vae_tiling(&mut self, tiling: bool) {
        self.inner.set_vae_tiling(tiling);
    }

    /// Turns the VAE's slicing on or off.
    #[wasm_bindgen(js_name = setVaeSlicing)]
    pub fn set_vae_slicing(&mut self, slicing: bool) {
        self.inner.set_vae_slicing(slicing);
    }

    /// Changes the sampler of edits that name no other: a class name, or a configuration.
    #[wasm_bindgen(js_name = setScheduler)]
    pub fn set_scheduler(&mut self, scheduler: JsValue) -> JsResult<()> {
        let missing = || Error::argument("scheduler", "a class name, or a configuration object");
        let choice = convert::scheduler(&scheduler)?.ok_or_else(missing)?;
        let mut config = choice.config.unwrap_or_else(|| self.inner.scheduler().clone());
        config.class_name = Some(choice.class_name);
        Ok(self.inner.set_scheduler(config)?)
    }

    /// Loads the safety checker of the model in `source`, a folder of it, or lets go of it where there is no source.
    #[wasm_bindgen(js_name = setSafetyChecker)]
    pub async fn set_safety_checker(
        &mut self,
        source: JsValue,
        signal: Option<AbortSignal>,
    ) -> JsResult<()> {
        let options: Option<convert::CheckerOptions> = convert::parse(source, "safetyChecker")?;
        match options {
            None => self.inner.set_safety_checker(None),
            Some(options) => {
                let source = options.source()?;
                let folder = options.subfolder();
                let fetch = BrowserFetch { signal };
                self.inner.load_safety_checker(&fetch, &source, folder).await?;
            }
        }
        Ok(())
    }

    /// What was loaded, and how it computes.
    pub fn info(&self) -> Object {
        let LoadOptions { placement, dtype, .. } = self.inner.options();
        let weights = match placement.weights {
            WeightDtype::F16 => "float16",
            WeightDtype::F32 => "float32",
        };
        let scheduler = self.inner.scheduler().class_name.as_deref();
        object(&[
            ("model", self.model.as_str().into()),
            ("adapter", self.adapter.as_str().into()),
            ("dtype", convert::dtype_name(*dtype).into()),
            ("weightDtype", weights.into()),
            ("scheduler", scheduler.into()),
        ])
    }
}

impl Pipeline {
    async fn load_inner(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Result<Self> {
        let options: PipelineOptions = convert::parse(options, "options")?;
        let source = ModelSource::parse(
            &options.model,
            options.revision.as_deref(),
            options.endpoint.as_deref(),
            options.token.as_deref(),
        )?;
        let gpu = request_gpu().await?;
        let weights = options.weight_dtype();
        let dtype = options.dtype(&gpu)?;
        let placement = Placement { device: gpu.device.clone(), weights };
        let fetch = BrowserFetch { signal };
        let mut on_event = |event: LoadEvent<'_>| {
            if let Some(callback) = &on_progress {
                convert::call(callback, convert::load_event(event));
            }
        };
        let load_options = LoadOptions {
            placement,
            dtype,
            safety_checker: options.safety_checker.unwrap_or(false),
            // An emulated GPU takes longer for a kernel than a small edit for everything else.
            warm_up: !gpu.software,
        };
        let inner = StableDiffusionInstructPix2PixPipeline::load(
            &fetch,
            &source,
            load_options,
            &mut on_event,
        )
        .await?;
        if let Some(callback) = &on_progress {
            convert::call(callback, object(&[("type", "ready".into())]));
        }
        Ok(Self { inner, model: options.model, adapter: gpu.name })
    }
}

/// Decodes a PNG, JPEG or WebP file to `{data, width, height}` with RGBA bytes, for hosts without a
/// decoder and for pictures whose transparent pixels a canvas would lose.
#[wasm_bindgen(js_name = decodeImage)]
pub fn decode_image(bytes: &[u8]) -> JsResult<Object> {
    let (width, height, rgba) = decode(bytes)?;
    Ok(object(&[
        ("data", js_sys::Uint8Array::from(rgba.as_slice()).into()),
        ("width", (width as f64).into()),
        ("height", (height as f64).into()),
    ]))
}

/// Bytes of the module's memory, which only ever grows.
#[wasm_bindgen(js_name = heapBytes)]
pub fn heap_bytes() -> f64 {
    let memory: js_sys::WebAssembly::Memory = wasm_bindgen::memory().unchecked_into();
    let buffer: js_sys::ArrayBuffer = memory.buffer().unchecked_into();
    f64::from(buffer.byte_length())
}

async fn request_gpu() -> Result<Gpu> {
    let get = |object: &JsValue, key: &str| js_sys::Reflect::get(object, &key.into());
    let global = js_sys::global();
    if get(&global, "isSecureContext").is_ok_and(|secure| secure == JsValue::FALSE) {
        return Err(Error::InsecureContext);
    }
    let gpu = get(&global, "navigator").and_then(|navigator| get(&navigator, "gpu"));
    let Some(webgpu) = gpu.ok().filter(JsValue::is_truthy) else {
        return Err(Error::NoWebGpu);
    };
    let mut attempt = 1;
    loop {
        match Gpu::request().await {
            Err(_) if attempt < ADAPTER_ATTEMPTS => sleep(ADAPTER_PAUSE).await,
            Err(error) => return Err(error),
            Ok(mut gpu) => {
                if gpu.name.is_empty() {
                    gpu.name = adapter_name(&webgpu).await.unwrap_or_default();
                    gpu.software |= is_software(&gpu.name);
                }
                return Ok(gpu);
            }
        }
        attempt += 1;
    }
}

/// Vendor and architecture of the adapter. Browsers keep the description, which is all that wgpu
/// passes on, to themselves.
async fn adapter_name(webgpu: &JsValue) -> Option<String> {
    let get = |object: &JsValue, key: &str| js_sys::Reflect::get(object, &key.into()).ok();
    let request: Function = get(webgpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: js_sys::Promise = request.call0(webgpu).ok()?.dyn_into().ok()?;
    let adapter = wasm_bindgen_futures::JsFuture::from(promise).await.ok()?;
    let info = get(&adapter, "info")?;
    let parts = ["vendor", "architecture"].map(|key| get(&info, key)?.as_string());
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    Some(parts.join(" "))
}
