//! Builds a pipeline from a model's files.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hub::{ModelFiles, Traffic};
use crate::image::ClipImageProcessor;

use crate::models::module::{Visitor, join};
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, Module, PerBlock, Placement,
    SafetyCheckerConfig, StableDiffusionSafetyChecker, UNet2DConditionConfig, UNet2DConditionModel,
    WeightDtype,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::original::{Layout, diffusers_key};
use crate::weights::{self, WeightFiles};
use burn::tensor::DType;
use web_time::Instant;

use super::base::PipelineBase;
use super::speed::Speed;
use super::text::TextEncoder;
use super::{
    Components, SafetyCheck, StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline, XlConfig,
};

/// Where and how a pipeline computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where weights go and how they are kept.
    pub placement: Placement,
    /// The type of activations: `F32` or `F16`. Norms and softmax are `f32` in any case.
    pub dtype: DType,
    /// Whether to load the model's safety checker, where it has one.
    pub safety_checker: bool,
    /// Whether to compile a GPU's kernels while the weights are on their way, for pictures of the
    /// size that the model was made for. Otherwise the first edit waits for them.
    pub warm_up: bool,
}

/// How far loading is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LoadEvent<'a> {
    /// More bytes have arrived.
    Download {
        /// The component, e.g. `unet`.
        component: &'a str,
        /// The file's path inside the model.
        file: &'a str,
        /// Bytes that have arrived of all files together.
        loaded: u64,
        /// Bytes of all files together.
        total: u64,
        /// How many of the bytes loaded came from the cache.
        cached: u64,
        /// Bytes from the network in a second, of late; 0 when none came.
        speed: f64,
        /// Seconds left at that speed, once there is one.
        remaining: Option<f64>,
    },
    /// A component is complete on the device.
    Component {
        /// The component, e.g. `unet`.
        component: &'a str,
    },
}

/// The least time between two reports of one file.
const REPORT_EVERY: Duration = Duration::from_millis(50);

pub(super) const TRANSFORMERS_STEM: &str = "model";
pub(super) const SAFETY_CHECKER: &str = "safety_checker";
pub(super) const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// A loaded pipeline, of the class that its model names.
#[derive(Debug, Clone)]
pub enum InstructPix2Pix {
    /// Of Stable Diffusion 1.5 and its family.
    Sd(StableDiffusionInstructPix2PixPipeline),
    /// Of Stable Diffusion XL.
    Xl(StableDiffusionXLInstructPix2PixPipeline),
}

impl Deref for InstructPix2Pix {
    type Target = PipelineBase;

    fn deref(&self) -> &PipelineBase {
        match self {
            Self::Sd(pipeline) => pipeline,
            Self::Xl(pipeline) => pipeline,
        }
    }
}

impl DerefMut for InstructPix2Pix {
    fn deref_mut(&mut self) -> &mut PipelineBase {
        match self {
            Self::Sd(pipeline) => pipeline,
            Self::Xl(pipeline) => pipeline,
        }
    }
}

impl InstructPix2Pix {
    /// Loads a model, as the class that its `model_index.json` names: configurations first, then
    /// one component after the other, each tensor by itself. Of components that are `given` nothing
    /// is read. With `wanted`, no other class will do.
    ///
    /// # Errors
    /// [`Error::NotFound`] and other network errors; [`Error::Unsupported`] when `model_index.json`
    /// names another pipeline; what parsing and filling the components may say.
    pub async fn load(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Components,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        // Models are large on their own, and futures that hold them would fill a small stack.
        let given = Box::new(given);
        Box::pin(Self::load_boxed(files, options, given, wanted, on_event)).await
    }

    async fn load_boxed(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Box<Components>,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let checker = options.safety_checker;
        let mut blank = Box::pin(Blank::read(files, &given, checker, wanted)).await?;
        #[cfg(feature = "wgpu")]
        if options.warm_up {
            let vae = blank.vae.config();
            let dtype = blank.class.vae_dtype(vae, options.dtype);
            super::warm_up(blank.unet.config(), vae, dtype, &options);
        }
        // All are opened before the first is read, so that the total is known from the start.
        let mut opened = Vec::new();
        for (name, stem, model) in blank.components(&given) {
            let dtype = options.placement.weights;
            opened.push((name, WeightFiles::open(files, name, stem, dtype).await?, model));
        }
        fill(files, opened, Some(&options.placement), on_event).await?;
        Box::pin(blank.finish(given.safety_checker, options)).await
    }

    /// Reads a model's configurations alone (and its safety checker, where that is asked for). The pipeline's models
    /// are on the device only in their turn, so that it needs room for the largest of them in place of all:
    /// `edit_in_turn` reads them from the same files for each edit, which is slow unless `files` keeps them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn open(
        files: &dyn ModelFiles,
        options: LoadOptions,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let given = Box::new(Components::default());
        let checker = options.safety_checker;
        let mut blank = Box::pin(Blank::read(files, &given, checker, wanted)).await?;
        let mut opened = Vec::new();
        if let Some((checker, _)) = &mut blank.safety {
            let dtype = options.placement.weights;
            let files = WeightFiles::open(files, SAFETY_CHECKER, TRANSFORMERS_STEM, dtype).await?;
            opened.push((SAFETY_CHECKER, files, &mut **checker as &mut dyn Module));
        }
        fill(files, opened, Some(&options.placement), on_event).await?;
        let mut pipeline = Box::pin(blank.finish(None, options)).await?;
        pipeline.takes_turns = true;
        Ok(pipeline)
    }

    /// The class.
    pub fn class(&self) -> PipelineClass {
        match self {
            Self::Sd(_) => PipelineClass::Sd,
            Self::Xl(_) => PipelineClass::Xl,
        }
    }

    /// Reads everything that [`load`](Self::load) would read, and keeps nothing but what `files` keeps: fills a cache
    /// without a device. `weights` and `safety_checker` decide on the files, as there.
    ///
    /// # Errors
    /// As [`load`](Self::load), except those of tensors.
    pub async fn download(
        files: &dyn ModelFiles,
        weights: WeightDtype,
        safety_checker: bool,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<()> {
        let given = Box::new(Components::default());
        let mut blank = Box::pin(Blank::read(files, &given, safety_checker, None)).await?;
        let components = blank.components(&given);
        let mut opened = Vec::new();
        let mut nothing = components.iter().map(|_| Nothing).collect::<Vec<_>>();
        for ((name, stem, _), model) in components.into_iter().zip(&mut nothing) {
            let model: &mut dyn Module = model;
            opened.push((name, WeightFiles::open(files, name, stem, weights).await?, model));
        }
        fill(files, opened, None, on_event).await
    }
}

impl StableDiffusionInstructPix2PixPipeline {
    /// Loads a model of this class, as [`InstructPix2Pix::load`] does.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load(
        files: &dyn ModelFiles,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        // Too large a future for the stack of whoever waits.
        Box::pin(Self::load_with(files, options, Components::default(), on_event)).await
    }

    /// The same with some components given, of which nothing is read then.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load_with(
        files: &dyn ModelFiles,
        options: LoadOptions,
        given: Components,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let wanted = Some(PipelineClass::Sd);
        match InstructPix2Pix::load(files, options, given, wanted, on_event).await? {
            InstructPix2Pix::Sd(pipeline) => Ok(pipeline),
            InstructPix2Pix::Xl(_) => unreachable!("the class was asked for"),
        }
    }

    /// Loads a model from one file with the keys of the original implementation, as trainers write
    /// it (`from_single_file`), and with the configurations, the tokenizer and, where it is asked for,
    /// the safety checker of `config`, a model of the same shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file that is not safetensors; as [`load`](Self::load).
    pub async fn load_single_file(
        checkpoint: &dyn ModelFiles,
        path: &str,
        config: &dyn ModelFiles,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        if !path.ends_with(".safetensors") {
            return Err(Error::unsupported(format!(
                "a checkpoint that is not safetensors, {path}; convert it with `safetensors.torch.save_file`"
            )));
        }
        let given = Box::new(Components::default());
        let (checker, wanted) = (options.safety_checker, Some(PipelineClass::Sd));
        let mut blank = Box::pin(Blank::read(config, &given, checker, wanted)).await?;
        let PerBlock::All(unet_layers) = blank.unet.config().layers_per_block else {
            let what = "a checkpoint in one file whose blocks differ in layers".to_owned();
            return Err(Error::unsupported(what));
        };
        let layout =
            Layout { unet_layers, vae_blocks: blank.vae.config().block_out_channels.len() };
        let opened = WeightFiles::open_whole(checkpoint, path, |key| {
            diffusers_key(key, layout).map(|(component, key)| join(component, &key))
        });
        let opened = opened.await?;
        let Blank { texts, vae, unet, .. } = &mut blank;
        let text = &mut texts[0].model;
        let mut whole = Whole([("text_encoder", text), ("vae", &mut **vae), ("unet", &mut **unet)]);
        let placement = Some(&options.placement);
        fill(checkpoint, vec![("checkpoint", opened, &mut whole)], placement, on_event).await?;
        if let Some((checker, _)) = &mut blank.safety {
            let dtype = options.placement.weights;
            let opened = WeightFiles::open(config, SAFETY_CHECKER, TRANSFORMERS_STEM, dtype);
            let opened = opened.await?;
            let part = (SAFETY_CHECKER, opened, &mut **checker as &mut dyn Module);
            fill(config, vec![part], placement, on_event).await?;
        }
        match blank.finish(None, options).await? {
            InstructPix2Pix::Sd(pipeline) => Ok(pipeline),
            InstructPix2Pix::Xl(_) => unreachable!("the class was asked for"),
        }
    }
}

impl PipelineBase {
    /// Loads a safety checker from the folder `folder` of a model, with the model's feature
    /// extractor, and checks every picture from now on.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`].
    pub async fn load_safety_checker(
        &mut self,
        files: &dyn ModelFiles,
        folder: &str,
    ) -> Result<()> {
        let (mut checker, extractor) = read_safety_checker(files, folder).await?;
        let placement = &self.options().placement;
        let opened = WeightFiles::open(files, folder, TRANSFORMERS_STEM, placement.weights).await?;
        files.prepare().await?;
        weights::load(&mut *checker, opened, placement, &mut |_| {}).await?;
        files.finish().await?;
        self.set_safety_checker(Some(SafetyCheck::new(*checker, extractor).await?));
        Ok(())
    }
}

/// The classes of pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineClass {
    /// `StableDiffusionInstructPix2PixPipeline`
    Sd,
    /// `StableDiffusionXLInstructPix2PixPipeline`
    Xl,
}

impl PipelineClass {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sd, Self::Xl];

    /// What `model_index.json` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd => "StableDiffusionInstructPix2PixPipeline",
            Self::Xl => "StableDiffusionXLInstructPix2PixPipeline",
        }
    }

    /// The type of the VAE's activations, where the others' is `dtype`: that of SDXL overflows in half precision.
    pub(super) fn vae_dtype(self, vae: &AutoencoderKLConfig, dtype: DType) -> DType {
        match self {
            Self::Xl if vae.force_upcast => DType::F32,
            _ => dtype,
        }
    }

    /// Its text encoders, each with its tokenizer.
    fn texts(self) -> &'static [(&'static str, &'static str)] {
        let all = &TEXTS;
        match self {
            Self::Sd => &all[..1],
            Self::Xl => all,
        }
    }
}

/// Text encoders, each with its tokenizer.
pub(super) const TEXTS: [(&str, &str); 2] =
    [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];

/// Empty models by the configurations of a model, and what else its small files say.
struct Blank {
    class: PipelineClass,
    config: XlConfig,
    texts: Vec<TextEncoder>,
    vae: Box<AutoencoderKL>,
    unet: Box<UNet2DConditionModel>,
    scheduler: SchedulerConfig,
    safety: Option<(Box<StableDiffusionSafetyChecker>, ClipImageProcessor)>,
}

impl Blank {
    /// Reads what is not given, of a model of the class that is `wanted`, or of any.
    async fn read(
        files: &dyn ModelFiles,
        given: &Components,
        safety_checker: bool,
        wanted: Option<PipelineClass>,
    ) -> Result<Self> {
        let text = async |path: &str| read_text(files, path).await;
        let (class, index) = parse_index(&text("model_index.json").await?, wanted)?;
        let config = async |component: &str| {
            let path = format!("{component}/config.json");
            let json = text(&path).await?;
            Ok::<_, Error>((path, json))
        };
        let mut texts = Vec::new();
        for (component, folder) in class.texts() {
            let (tokenizer, model) = given.text(component);
            // SDXL's refiner has no first one.
            if model.is_none() && index[*component][0].is_null() && class == PipelineClass::Xl {
                continue;
            }
            let model = match model {
                Some(model) => model.clone(),
                None => {
                    let (path, json) = config(component).await?;
                    ClipTextConfig::parse(&path, &json)?.init()
                }
            };
            let tokenizer = match tokenizer {
                Some(tokenizer) => tokenizer.clone(),
                None => read_tokenizer(files, folder).await?,
            };
            texts.push(TextEncoder::new(component, tokenizer, model));
        }
        if texts.is_empty() {
            let message = "no text encoder; one is needed, `text_encoder_2` with a projection";
            return Err(Error::config("model_index.json", message));
        }
        let vae = Box::new(match &given.vae {
            Some(model) => model.clone(),
            None => {
                let (path, json) = config("vae").await?;
                AutoencoderKLConfig::parse(&path, &json)?.init()
            }
        });
        let unet = Box::new(match &given.unet {
            Some(model) => model.clone(),
            None => {
                let (path, json) = config("unet").await?;
                UNet2DConditionConfig::parse(&path, &json)?.init()
            }
        });
        let scheduler = match &given.scheduler {
            Some(scheduler) => scheduler.clone(),
            None => {
                let path = "scheduler/scheduler_config.json";
                SchedulerConfig::from_json(path, &text(path).await?)?
            }
        };
        let is_wanted = safety_checker && given.safety_checker.is_none();
        let safety = match is_wanted && index[SAFETY_CHECKER][0].is_string() {
            true => Some(read_safety_checker(files, SAFETY_CHECKER).await?),
            false => None,
        };
        let default = XlConfig::default();
        let flag = |name: &str, default: bool| index[name].as_bool().unwrap_or(default);
        let config = XlConfig {
            force_zeros_for_empty_prompt: flag(
                "force_zeros_for_empty_prompt",
                default.force_zeros_for_empty_prompt,
            ),
            is_cosxl_edit: flag("is_cosxl_edit", default.is_cosxl_edit),
            add_watermarker: flag("add_watermarker", default.add_watermarker),
        };
        Ok(Self { class, config, texts, vae, unet, scheduler, safety })
    }

    /// The models that are not given, each with its name and the stem of its files' names.
    fn components(
        &mut self,
        given: &Components,
    ) -> Vec<(&'static str, &'static str, &mut dyn Module)> {
        let mut components: Vec<(&str, &str, &mut dyn Module)> = Vec::new();
        for text in &mut self.texts {
            if given.text(text.component).1.is_none() {
                components.push((text.component, TRANSFORMERS_STEM, &mut text.model));
            }
        }
        if given.vae.is_none() {
            components.push(("vae", DIFFUSERS_STEM, &mut *self.vae));
        }
        if given.unet.is_none() {
            components.push(("unet", DIFFUSERS_STEM, &mut *self.unet));
        }
        if let Some((checker, _)) = &mut self.safety {
            components.push((SAFETY_CHECKER, TRANSFORMERS_STEM, &mut **checker));
        }
        components
    }

    /// The pipeline, once the models are filled.
    async fn finish(
        self,
        given_checker: Option<SafetyCheck>,
        options: LoadOptions,
    ) -> Result<InstructPix2Pix> {
        let Self { class, config, texts, vae, unet, scheduler, safety } = self;
        let mut base = PipelineBase::new(texts, vae, unet, scheduler, options);
        base.set_safety_checker(match safety {
            Some((checker, extractor)) => Some(SafetyCheck::new(*checker, extractor).await?),
            None => given_checker,
        });
        Ok(match class {
            PipelineClass::Sd => {
                InstructPix2Pix::Sd(StableDiffusionInstructPix2PixPipeline::of(base))
            }
            PipelineClass::Xl => {
                InstructPix2Pix::Xl(StableDiffusionXLInstructPix2PixPipeline::of(base, config))
            }
        })
    }
}

/// Several components as one model: their names begin the keys.
struct Whole<'a>([(&'static str, &'a mut dyn Module); 3]);

impl Module for Whole<'_> {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        for (name, model) in &mut self.0 {
            model.visit(&join(path, name), visitor);
        }
    }
}

/// A model without parameters.
struct Nothing;

impl Module for Nothing {
    fn visit(&mut self, _: &str, _: &mut Visitor<'_>) {}
}

/// Fills models from their opened files, or passes over those without a placement, and tells how far it is.
async fn fill(
    files: &dyn ModelFiles,
    opened: Vec<(&str, WeightFiles<'_>, &mut dyn Module)>,
    placement: Option<&Placement>,
    on_event: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<()> {
    let weights: u64 = opened.iter().map(|(_, files, _)| files.size()).sum();
    let total = files.traffic().total() + weights;
    files.prepare().await?;
    let mut speed = Speed::new(Instant::now(), files.traffic().fetched);
    let mut reported: Option<(Instant, Traffic)> = None;
    for (component, opened, model) in opened {
        let mut last_file = None;
        let mut on_progress = |progress: weights::Progress<'_>| {
            let (now, traffic) = (Instant::now(), files.traffic());
            let is_new = last_file.as_deref() != Some(progress.file);
            if is_new {
                last_file = Some(progress.file.to_owned());
            }
            let due = reported.is_none_or(|(at, before)| {
                let complete = traffic.total() == total && traffic != before;
                is_new || complete || now - at >= REPORT_EVERY
            });
            if !due {
                return;
            }
            reported = Some((now, traffic));
            let loaded = traffic.total();
            let bytes_per_second = speed.update(now, traffic.fetched);
            on_event(LoadEvent::Download {
                component: progress.component,
                file: progress.file,
                loaded,
                total,
                cached: traffic.cached,
                speed: bytes_per_second,
                remaining: (bytes_per_second > 0.0)
                    .then(|| total.saturating_sub(loaded) as f64 / bytes_per_second),
            });
        };
        match placement {
            Some(placement) => {
                let unused = weights::load(model, opened, placement, &mut on_progress).await?;
                if !unused.is_empty() {
                    log::debug!("{component}: unused keys {unused:?}");
                }
            }
            None => weights::pass_over(opened, &mut on_progress).await?,
        }
        on_event(LoadEvent::Component { component });
    }
    files.finish().await
}

pub(super) async fn read_text(files: &dyn ModelFiles, path: &str) -> Result<String> {
    let bytes = files.read(path).await?;
    String::from_utf8(bytes).map_err(|e| Error::config(path, e))
}

/// An empty safety checker by its configuration, and the feature extractor.
async fn read_safety_checker(
    files: &dyn ModelFiles,
    folder: &str,
) -> Result<(Box<StableDiffusionSafetyChecker>, ClipImageProcessor)> {
    let path = format!("{folder}/config.json");
    let checker = SafetyCheckerConfig::parse(&path, &read_text(files, &path).await?)?;
    let path = "feature_extractor/preprocessor_config.json";
    let extractor = ClipImageProcessor::parse(path, &read_text(files, path).await?)?;
    Ok((Box::new(checker.init()), extractor))
}

async fn read_tokenizer(files: &dyn ModelFiles, folder: &str) -> Result<ClipTokenizer> {
    let text = async |file: &str| read_text(files, &format!("{folder}/{file}")).await;
    let settings = match text("tokenizer_config.json").await {
        Ok(settings) => Some(settings),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let (vocab, merges) = (text("vocab.json").await?, text("merges.txt").await?);
    ClipTokenizer::new(&vocab, &merges, settings.as_deref())
}

/// The class that `model_index.json` names, and its other contents.
fn parse_index(
    json: &str,
    wanted: Option<PipelineClass>,
) -> Result<(PipelineClass, serde_json::Value)> {
    let file = "model_index.json";
    let index: serde_json::Value =
        serde_json::from_str(json).map_err(|e| Error::config(file, e))?;
    let name = index["_class_name"].as_str().unwrap_or_default();
    let mut known =
        PipelineClass::ALL.into_iter().filter(|class| wanted.is_none_or(|one| one == *class));
    match known.clone().find(|class| class.name() == name) {
        Some(class) => Ok((class, index)),
        None => {
            let known = known.by_ref().map(PipelineClass::name).collect::<Vec<_>>().join(" and ");
            Err(Error::unsupported(format!("pipeline `{name}` of {file}; {known} can be loaded")))
        }
    }
}
