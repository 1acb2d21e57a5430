//! The crate as JavaScript sees it. Converts and delegates; the package's hand-written modules
//! stand on this.

mod adapters;
#[cfg(feature = "tuning")]
mod bench;
mod console;
mod convert;
mod error;
mod gpu;
mod observer;
mod request;
mod save;
mod source;
mod start;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, JSON, Object};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::cache::{Notice, bytes_text};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::image::decode;
use crate::kernels::held_memory;
use crate::models::{Placement, WeightDtype};
use crate::pipeline::{
    Components, InstructPix2Pix, LoadEvent, LoadOptions, MemoryChoice, NoiseSource, PipelineClass,
    RecordedNoise, Requirements, Room, SingleFile, StepTensorNames, TorchGenerator,
    TorchGenerators, XlConfig, asked_of_edit, asked_of_load,
};
use convert::{PipelineOptions, object};
use error::JsResult;
use gpu::{on_device, request_gpu, watch};
use observer::JsObserver;
use request::{Edit, Texts};
use save::JsSink;
use source::{Access, SourceOptions, notice_event};

/// What a checkpoint in one file takes its configurations from, unless told otherwise.
const SD_CONFIG: &str = "timbrooks/instruct-pix2pix";

/// The same for one of SDXL.
const XL_CONFIG: &str = "diffusers/sdxl-instructpix2pix-768";

/// A loaded pipeline on a GPU.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Pipeline {
    inner: InstructPix2Pix,
    model: String,
    /// The commit, where it came from the Hub.
    revision: Option<String>,
    /// The model that the configurations are of, where it came in one file.
    config: Option<String>,
    /// Last, so that it is dropped after what is on it.
    gpu: Gpu,
}

/// Components of loaded pipelines, on their way into another.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Parts {
    components: Components,
    /// How the pipeline computes that the UNet, or else any component, came from, and its name.
    base: Option<(LoadOptions, String)>,
    /// Where all of them are.
    gpu: Option<Gpu>,
}

#[wasm_bindgen]
impl Parts {
    /// None yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the pipeline compute where `pipeline` does.
    pub fn share(&mut self, pipeline: &Pipeline) {
        self.gpu = Some(pipeline.gpu.clone());
    }

    /// Takes the component `name`, as `model_index.json` calls it, over from `pipeline`, which keeps it too.
    pub fn take(&mut self, name: &str, pipeline: &Pipeline) -> JsResult<()> {
        self.share(pipeline);
        if name == "unet" {
            self.base = Some((pipeline.inner.options().clone(), pipeline.model.clone()));
        }
        Ok(self.components.take(name, &pipeline.inner)?)
    }

    /// A pipeline of these components, of the class that `options` names.
    pub fn build(self, options: JsValue) -> JsResult<Pipeline> {
        let asked: PipelineOptions = convert::parse(options, "options")?;
        let missing = || Error::argument("unet", "this component is needed");
        let (options, model) = self.base.ok_or_else(missing)?;
        let gpu = self.gpu.ok_or_else(missing)?;
        let mut inner = match asked.class()?.unwrap_or(PipelineClass::Sd) {
            PipelineClass::Sd => InstructPix2Pix::Sd(self.components.build(options)?),
            PipelineClass::Xl => {
                InstructPix2Pix::Xl(self.components.build_xl(XlConfig::default(), options)?)
            }
        };
        asked.configure(&mut inner)?;
        Ok(Pipeline { inner, model, revision: None, config: None, gpu })
    }
}

#[wasm_bindgen]
impl Pipeline {
    /// Loads a model, calling `on_progress` with events, until `signal` aborts. `on_lost` is called with an error when
    /// the GPU device ends, then or later. What `parts` has is not read.
    pub async fn load(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
        on_lost: Option<Function>,
        parts: Parts,
    ) -> JsResult<Pipeline> {
        // What is awaited is moved on its way into the promise, and the stack has a megabyte.
        Ok(Box::pin(Self::load_inner(options, on_progress, signal, on_lost, parts)).await?)
    }

    /// Reads all that [`load`](Self::load) would read into the cache, without a GPU.
    pub async fn download(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<()> {
        let source_options = SourceOptions::parse(&options)?;
        let options: PipelineOptions = convert::parse(options, "options")?;
        let notify = notifier(&on_progress);
        if source_options.keeps_nothing() {
            let message = "there is none to download into: it is turned off";
            return Err(Error::argument("cache", message).into());
        }
        // A download that nothing remains of is of no use.
        let access = source_options.lasting_access(signal).await?;
        let files = access.open(notify).await?.must_keep();
        let weights = options.weight_dtype();
        let checker = options.safety_checker.unwrap_or(false);
        let mut on_event = |event: LoadEvent<'_>| tell_load(&on_progress, event);
        let download = InstructPix2Pix::download(&files, weights, checker, &mut on_event);
        Box::pin(download).await?;
        tell(&on_progress, object(&[("type", "ready".into())]));
        Ok(())
    }

    /// What a model takes: its class, bytes of its files, of those that are not in the cache, and of GPU memory.
    pub async fn requirements(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> JsResult<Object> {
        let source_options = SourceOptions::parse(&options)?;
        let options: PipelineOptions = convert::parse(options, "options")?;
        let notify = notifier(&on_progress);
        let access = source_options.access(signal, &notify).await?;
        let files = access.open(&notify).await?;
        let checker = options.safety_checker.unwrap_or(false);
        let (weights, class) = (options.weight_dtype(), options.class()?);
        let room =
            Room { largest_buffer: options.largest_buffer(), budget: options.memory_budget()? };
        let found = InstructPix2Pix::requirements(&files, weights, checker, class, room);
        let Requirements { class, files, missing, storage, residency } = Box::pin(found).await?;
        Ok(object(&[
            ("className", class.name().into()),
            ("bytes", (files as f64).into()),
            ("missingBytes", (missing as f64).into()),
            ("storageBytes", (storage as f64).into()),
            ("memoryBytes", (residency.needs.all as f64).into()),
            ("memoryBytesInTurn", (residency.needs.in_turn as f64).into()),
            ("memoryBytesHeld", (residency.most() as f64).into()),
            ("residency", convert::residency_name(residency.in_turn).into()),
            ("parts", convert::parts(&residency).into()),
        ]))
    }

    /// Writes the model in diffusers' layout. `source` says where it was loaded from, for its configurations.
    #[wasm_bindgen(js_name = savePretrained)]
    pub async fn save_pretrained(
        &self,
        source: JsValue,
        sink: JsSink,
        signal: Option<AbortSignal>,
    ) -> JsResult<()> {
        let source = SourceOptions::parse(&source)?;
        // Those beside a checkpoint in one file are of its version.
        let elsewhere = self.config.as_deref().filter(|name| !source.is_of(name));
        let source = elsewhere.map_or_else(|| source.clone(), |name| source.of(name));
        let access = source.access(signal, &|_| ()).await?;
        let files = access.open_part(|_| ()).await?;
        let mut writer = save::Writer(sink);
        let save = Box::pin(self.inner.save_pretrained(&files, &mut writer));
        Ok(on_device(&self.gpu.health, save, || "a copy of the model".into()).await?)
    }

    /// Edits pictures until `signal` aborts. `on_step` is called after each model call, and its answer awaited:
    /// `false` stops the edit, tensors replace the edit's own. `judge` is called with the pictures, and answers which
    /// are not safe for work. `source` says where the model was loaded from, for one whose models take turns.
    pub async fn edit(
        &self,
        request: JsValue,
        on_step: Option<Function>,
        judge: Option<Function>,
        signal: Option<AbortSignal>,
        source: JsValue,
    ) -> JsResult<JsValue> {
        let access = match self.inner.takes_turns() {
            true => Some(SourceOptions::parse(&source)?.access(signal.clone(), &|_| ()).await?),
            false => None,
        };
        let notices = RefCell::new(Vec::new());
        let notify = |notice| {
            if let Notice::Warning { message, .. } = notice {
                notices.borrow_mut().push(message);
            }
        };
        let files = match &access {
            Some(access) => Some(access.open(notify).await?),
            None => None,
        };
        let files = files.as_ref().map(|files| files as &dyn ModelFiles);
        let Edit { request, seeds, noises, tensor_inputs } =
            Edit::parse(request, self.inner.class())?;
        let mut noise: Box<dyn NoiseSource> = match (noises, seeds.as_slice()) {
            (Some(values), _) => Box::new(RecordedNoise::new(values)),
            (None, [seed]) => Box::new(TorchGenerator::new(*seed)),
            (None, seeds) => Box::new(TorchGenerators::new(seeds)),
        };
        let mut observer = JsObserver::new(on_step, judge, signal, tensor_inputs);
        let [before, _] = held_memory(&self.gpu.device);
        let asked = || {
            let [_, taken] = held_memory(&self.gpu.device);
            asked_of_edit(&request.edit, self.inner.takes_turns(), [before, taken])
        };
        let edit = Box::pin(async {
            match &self.inner {
                InstructPix2Pix::Sd(pipeline) => {
                    pipeline.edit_with(files, &request.edit, &mut *noise, &mut observer).await
                }
                InstructPix2Pix::Xl(pipeline) => {
                    pipeline.edit_with(files, &request, &mut *noise, &mut observer).await
                }
            }
        });
        match on_device(&self.gpu.health, edit, asked).await {
            Ok(output) => {
                observer.warnings.extend(notices.take());
                Ok(convert::output(output, &seeds, observer.warnings))
            }
            Err(error) => Err(observer.error.unwrap_or(error).into()),
        }
    }

    /// Encodes instructions on their own.
    #[wasm_bindgen(js_name = encodePrompt)]
    pub async fn encode_prompt(&self, options: JsValue) -> JsResult<Object> {
        let Texts { first, second, guided, lora_scale } = Texts::parse(options)?;
        let observer = &mut JsObserver::new(None, None, None, StepTensorNames::default());
        let embeds = match &self.inner {
            InstructPix2Pix::Sd(pipeline) => {
                pipeline.encode_prompt(&first, guided, observer).await?
            }
            InstructPix2Pix::Xl(pipeline) => {
                pipeline.encode_prompt(&first, &second, guided, lora_scale, observer).await?
            }
        };
        let negative = embeds.negative_prompt_embeds.as_ref().map(convert::tensor);
        let negative_pooled = embeds.negative_pooled_prompt_embeds.as_ref().map(convert::tensor);
        let mut tensors = vec![
            ("promptEmbeds", convert::tensor(&embeds.prompt_embeds).into()),
            ("negativePromptEmbeds", negative.into()),
        ];
        // Only where edits take them: what is returned may be passed on as it is.
        if let Some(pooled) = &embeds.pooled_prompt_embeds {
            tensors.push(("pooledPromptEmbeds", convert::tensor(pooled).into()));
            tensors.push(("negativePooledPromptEmbeds", negative_pooled.into()));
        }
        Ok(object(&tensors))
    }

    /// Encodes pictures on their own.
    #[wasm_bindgen(js_name = encodeImage)]
    pub async fn encode_image(&self, options: JsValue) -> JsResult<Object> {
        let (images, [height, width]) = request::images(options)?;
        Ok(convert::tensor(&match &self.inner {
            InstructPix2Pix::Sd(pipeline) => pipeline.encode_image(&images).await?,
            InstructPix2Pix::Xl(pipeline) => pipeline.encode_image(&images, height, width).await?,
        }))
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

    /// Changes the sampler of edits that name no other: a class name, or a configuration, and keys of it to change.
    #[wasm_bindgen(js_name = setScheduler)]
    pub fn set_scheduler(&mut self, scheduler: JsValue, changes: JsValue) -> JsResult<()> {
        let missing = || Error::argument("scheduler", "a class name, or a configuration object");
        let choice = convert::scheduler(&scheduler)?.ok_or_else(missing)?;
        let config = convert::scheduler_config(choice, self.inner.scheduler(), &changes)?;
        Ok(self.inner.set_scheduler(config)?)
    }

    /// Lets go of the safety checker.
    #[wasm_bindgen(js_name = removeSafetyChecker)]
    pub fn remove_safety_checker(&mut self) {
        self.inner.set_safety_checker(None);
    }

    /// Loads the safety checker of the model in `source`, or a folder of it.
    #[wasm_bindgen(js_name = loadSafetyChecker)]
    pub async fn load_safety_checker(
        &mut self,
        source: JsValue,
        signal: Option<AbortSignal>,
    ) -> JsResult<()> {
        let options = SourceOptions::parse(&source)?;
        let access = options.access(signal, &|_| ()).await?;
        let files = access.open_part(|_| ()).await?;
        let folder = options.subfolder().unwrap_or("safety_checker");
        Ok(self.inner.load_safety_checker(&files, folder).await?)
    }

    /// What was loaded, and how it computes.
    pub fn info(&self) -> Object {
        let LoadOptions { placement, dtype, .. } = self.inner.options();
        let weights = placement.weights.name();
        let scheduler = self.inner.scheduler();
        let config = serde_json::Value::Object(scheduler.to_json()).to_string();
        // Cannot fail: the text is JSON.
        let config = JSON::parse(&config).unwrap_or_default();
        object(&[
            ("model", self.model.as_str().into()),
            ("revision", self.revision.as_deref().into()),
            ("residency", convert::residency_name(self.inner.takes_turns()).into()),
            ("className", self.inner.class().name().into()),
            ("adapter", self.gpu.name.as_str().into()),
            ("dtype", convert::dtype_name(*dtype).into()),
            ("weightDtype", weights.into()),
            ("scheduler", scheduler.class_name.as_deref().into()),
            ("schedulerConfig", config),
        ])
    }
}

impl Pipeline {
    async fn load_inner(
        options: JsValue,
        on_progress: Option<Function>,
        signal: Option<AbortSignal>,
        on_lost: Option<Function>,
        parts: Parts,
    ) -> Result<Self> {
        let source = SourceOptions::parse(&options)?;
        let options: PipelineOptions = convert::parse(options, "options")?;
        let access = source.access(signal.clone(), &notifier(&on_progress)).await?;
        let budget = options.memory_budget()?;
        // On a device of its own, what is stored need not be there all at once.
        let is_at_hand = access.is_stored() || access.is_given();
        let may_retry = parts.gpu.is_none() && budget.is_none() && is_at_hand;
        let load = Load { source, options, access, on_progress, signal, on_lost };
        let is_retried = Rc::new(Cell::new(may_retry));
        let gpu = match parts.gpu {
            Some(gpu) => gpu,
            None => load.request_gpu(is_retried.clone()).await?,
        };
        let (loaded, needs) = Self::load_on(&load, gpu, parts.components, budget).await;
        let asked = match (&loaded, needs) {
            (Err(Error::OutOfMemory { .. }), Some(needs))
                if may_retry && needs.asked.in_turn < needs.asked.all =>
            {
                needs.asked
            }
            _ => {
                is_retried.set(false);
                return loaded;
            }
        };
        drop(loaded);
        let message = format!(
            "the GPU has no room for {} of weights: the models take turns, {} at a time, and edits take longer",
            bytes_text(asked.all),
            bytes_text(asked.in_turn)
        );
        notifier(&load.on_progress)(Notice::Warning { code: "memory", message });
        let gpu = load.request_gpu(Rc::default()).await?;
        Self::load_on(&load, gpu, Components::default(), Some(asked.in_turn)).await.0
    }

    /// Loads on a device, within a budget of its memory. Tells what the weights take, as far as that was found out.
    async fn load_on(
        load: &Load,
        gpu: Gpu,
        parts: Components,
        budget: Option<u64>,
    ) -> (Result<Self>, Option<MemoryChoice>) {
        let mut needs = None;
        // Too large a future for the stack of wasm.
        let loaded = Box::pin(Self::load_within(load, gpu, parts, budget, &mut needs)).await;
        (loaded, needs)
    }

    async fn load_within(
        load: &Load,
        gpu: Gpu,
        parts: Components,
        budget: Option<u64>,
        needs: &mut Option<MemoryChoice>,
    ) -> Result<Self> {
        let Load { source: source_options, options, access, on_progress, signal, .. } = load;
        let (weights, asked) = (options.weight_dtype(), load.asked());
        let notify = notifier(on_progress);
        let dtype = options.dtype(&gpu)?;
        let placement = Placement { device: gpu.device.clone(), weights };
        let files = access.open(&notify).await?;
        let mut on_event = |event: LoadEvent<'_>| match event {
            LoadEvent::Needs(found) => *needs = Some(found),
            event => tell_load(on_progress, event),
        };
        let safety_checker = options.safety_checker.unwrap_or(false);
        // An emulated GPU takes longer for a kernel than a small edit for everything else.
        let warm_up = !gpu.software;
        let prompts = options.prompts();
        let load_options = LoadOptions { placement, dtype, safety_checker, warm_up, prompts };
        let wanted = options.class()?;
        let scheduler = options.scheduler()?;
        let is_whole = parts.is_empty();
        if budget.is_some() && !is_whole {
            let message = "a model with components of another is held whole";
            return Err(Error::argument("memoryBudget", message));
        }
        // A checkpoint in one file has its configurations elsewhere. It is not kept where the user gave it, but they are.
        let (config_access, config_files);
        let (mut config, mut class, mut single) = (None, wanted, None);
        if let Some(path) = &options.single_file {
            let name = options.config.as_deref().unwrap_or(SD_CONFIG);
            let found = config_of(&files, path, name, wanted).await?;
            let is_default_config = name == SD_CONFIG;
            (config, class) = (Some(found.0.to_owned()), found.1);
            // Beside the checkpoint, they are read with it: who opens a model twice waits for himself.
            let config: &dyn ModelFiles = if source_options.is_of(found.0) {
                &files
            } else {
                let options = source_options.of(found.0);
                config_access = options.access(signal.clone(), &notify).await?;
                config_files = config_access.open_part(&notify).await?;
                &config_files
            };
            single = Some(SingleFile { files: &files, path, config, is_default_config });
        }
        let take_turns = match budget {
            Some(budget) => {
                let room = Room { budget: Some(budget), ..Room::of(&gpu.device) };
                let config = single.map_or(&files as &dyn ModelFiles, |single| single.config);
                let plan = InstructPix2Pix::plan(config, weights, safety_checker, room);
                Box::pin(plan).await?.in_turn
            }
            None => false,
        };
        if take_turns {
            // What every edit reads is to be there.
            if access.is_stored() {
                let on_event = &mut on_event;
                match single {
                    None => {
                        let files = &files;
                        let download =
                            InstructPix2Pix::download(files, weights, safety_checker, on_event);
                        Box::pin(download).await?;
                    }
                    Some(file) => {
                        let download =
                            InstructPix2Pix::download_single_file(file, weights, class, on_event);
                        Box::pin(download).await?;
                    }
                }
            }
            if !access.is_given() && !(access.is_stored() && files.is_kept()) {
                let kept = match files.is_kept() {
                    true => "in memory alone: every edit downloads again what has no room there",
                    false => "not: every edit downloads them again",
                };
                let message = format!(
                    "the models take turns and are kept {kept}. Give a `cache` of your own, or \
                     load all at once"
                );
                notify(Notice::Warning { code: "storage", message });
            }
        }
        let on_event = &mut on_event;
        let load: LocalBoxFuture<'_, Result<InstructPix2Pix>> = match (single, take_turns) {
            (None, true) => Box::pin(InstructPix2Pix::open(&files, load_options, wanted, on_event)),
            (None, false) => {
                Box::pin(InstructPix2Pix::load(&files, load_options, parts, wanted, on_event))
            }
            (Some(file), true) => {
                Box::pin(InstructPix2Pix::open_single_file(file, load_options, class, on_event))
            }
            (Some(file), false) => {
                Box::pin(InstructPix2Pix::load_single_file(file, load_options, class, on_event))
            }
        };
        let loaded = on_device(&gpu.health, load, || asked.into()).await;
        let mut inner = match (loaded, &*needs) {
            (Err(Error::OutOfMemory { .. }), Some(needs)) if is_whole => {
                let asked = asked_of_load(needs, take_turns);
                return Err(Error::OutOfMemory { message: format!("asked for: {asked}") });
            }
            (loaded, _) => loaded?,
        };
        options.configure(&mut inner)?;
        if let Some(choice) = scheduler {
            let config = convert::scheduler_config(choice, inner.scheduler(), &JsValue::UNDEFINED)?;
            inner.set_scheduler(config)?;
        }
        tell(on_progress, object(&[("type", "ready".into())]));
        let (model, revision) = (source_options.name(), files.commit());
        Ok(Self { inner, model, revision, config, gpu })
    }
}

/// The model that the configurations of a checkpoint in one file are of, which is `name` or what nobody's choice stands
/// for, and the class that it is loaded as.
async fn config_of<'a>(
    files: &dyn ModelFiles,
    path: &str,
    name: &'a str,
    wanted: Option<PipelineClass>,
) -> Result<(&'a str, Option<PipelineClass>)> {
    if name != SD_CONFIG {
        return Ok((name, wanted));
    }
    // Without a choice of the user's, the file's keys decide.
    let class = InstructPix2Pix::class_of_single_file(files, path).await?;
    if wanted.is_some_and(|wanted| wanted != class) {
        let message = format!("{path}, a model of SD, as one of SDXL");
        return Err(Error::unsupported(message));
    }
    Ok((if class == PipelineClass::Xl { XL_CONFIG } else { name }, Some(class)))
}

/// What a load was asked for, and with what.
struct Load {
    source: SourceOptions,
    options: PipelineOptions,
    access: Access,
    on_progress: Option<Function>,
    signal: Option<AbortSignal>,
    on_lost: Option<Function>,
}

impl Load {
    /// A device of the load's own, of whose end it tells; not of too little memory while that `is_retried`.
    async fn request_gpu(&self, is_retried: Rc<Cell<bool>>) -> Result<Gpu> {
        let gpu = request_gpu().await?;
        watch(gpu.health.clone(), self.on_lost.clone(), self.asked(), is_retried);
        Ok(gpu)
    }

    /// What is asked of a device's memory, and what smaller choice there is.
    fn asked(&self) -> &'static str {
        match self.options.weight_dtype() {
            WeightDtype::F32 => "weights in float32; `weightDtype: 'float16'` needs less",
            WeightDtype::F16 => "weights in float16; `weightDtype: 'int8'` needs less",
            WeightDtype::I8 => "weights in int8; `weightDtype: 'int4'` needs less",
            WeightDtype::I4 => {
                "weights in int4, which is the smallest there is; a smaller model, or closing \
                 other pages that use the GPU, may help"
            }
        }
    }
}

/// Calls `callback` with an event, if there is one.
fn tell(callback: &Option<Function>, event: Object) {
    if let Some(callback) = callback {
        convert::call(callback, event);
    }
}

/// The same with one that loading gives, if it is for others.
fn tell_load(callback: &Option<Function>, event: LoadEvent<'_>) {
    if let Some(event) = convert::load_event(event) {
        tell(callback, event);
    }
}

fn notifier(callback: &Option<Function>) -> impl Fn(Notice) + '_ {
    |notice| tell(callback, notice_event(notice))
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
