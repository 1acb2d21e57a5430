//! Builds a pipeline from a model's files.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::hub::{ModelFiles, Traffic};
use crate::image::ClipImageProcessor;
use crate::models::{
    AutoencoderKLConfig, ClipTextConfig, Module, Placement, SafetyCheckerConfig,
    StableDiffusionSafetyChecker, UNet2DConditionConfig,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{self, WeightFiles};
use burn::tensor::DType;
use web_time::Instant;

use super::speed::Speed;
use super::{SafetyCheck, StableDiffusionInstructPix2PixPipeline};

/// Where and how a pipeline computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where weights go and how they are kept.
    pub placement: Placement,
    /// The type of activations: `F32` or `F16`. Norms and softmax are `f32` in any case.
    pub dtype: DType,
    /// Whether to load the model's safety checker, where it has one.
    pub safety_checker: bool,
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

const TRANSFORMERS_STEM: &str = "model";
const SAFETY_CHECKER: &str = "safety_checker";
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

impl StableDiffusionInstructPix2PixPipeline {
    /// Loads a model: configurations first, then one component after the other, each tensor by
    /// itself.
    ///
    /// # Errors
    /// [`Error::NotFound`] and other network errors; [`Error::Unsupported`] when `model_index.json`
    /// names another pipeline; what parsing and filling the components may say.
    pub async fn load(
        files: &dyn ModelFiles,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let text = async |path: &str| read_text(files, path).await;
        let index = parse_index(&text("model_index.json").await?)?;
        let config = async |component: &str| {
            let path = format!("{component}/config.json");
            let json = text(&path).await?;
            Ok::<_, Error>((path, json))
        };
        let (path, json) = config("text_encoder").await?;
        let mut text_encoder = ClipTextConfig::parse(&path, &json)?.init();
        let (path, json) = config("vae").await?;
        let mut vae = AutoencoderKLConfig::parse(&path, &json)?.init();
        let (path, json) = config("unet").await?;
        let mut unet = UNet2DConditionConfig::parse(&path, &json)?.init();
        let scheduler = SchedulerConfig::from_json(
            "scheduler/scheduler_config.json",
            &text("scheduler/scheduler_config.json").await?,
        )?;
        let settings = match text("tokenizer/tokenizer_config.json").await {
            Ok(settings) => Some(settings),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut safety = match options.safety_checker && index[SAFETY_CHECKER][0].is_string() {
            true => Some(read_safety_checker(files, SAFETY_CHECKER).await?),
            false => None,
        };
        let vocab = text("tokenizer/vocab.json").await?;
        let merges = text("tokenizer/merges.txt").await?;
        let tokenizer = ClipTokenizer::new(&vocab, &merges, settings.as_deref())?;
        drop((vocab, merges));

        let mut components: Vec<(&str, &str, &mut dyn Module)> = vec![
            ("text_encoder", TRANSFORMERS_STEM, &mut text_encoder),
            ("vae", DIFFUSERS_STEM, &mut vae),
            ("unet", DIFFUSERS_STEM, &mut unet),
        ];
        if let Some((checker, _)) = &mut safety {
            components.push((SAFETY_CHECKER, TRANSFORMERS_STEM, checker));
        }
        // All are opened before the first is read, so that the total is known from the start.
        let mut opened = Vec::new();
        for (name, stem, model) in components {
            let dtype = options.placement.weights;
            opened.push((name, WeightFiles::open(files, name, stem, dtype).await?, model));
        }
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
            let unused = weights::load(model, opened, &options.placement, &mut on_progress).await?;
            if !unused.is_empty() {
                log::debug!("{component}: unused keys {unused:?}");
            }
            on_event(LoadEvent::Component { component });
        }
        files.finish().await?;
        let mut pipeline = Self::new(tokenizer, text_encoder, vae, unet, scheduler, options);
        if let Some((checker, extractor)) = safety {
            pipeline.set_safety_checker(Some(SafetyCheck::new(checker, extractor).await?));
        }
        Ok(pipeline)
    }

    /// Loads a safety checker from the folder `folder` of a model, with the model's feature
    /// extractor, and checks every picture from now on.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_safety_checker(
        &mut self,
        files: &dyn ModelFiles,
        folder: &str,
    ) -> Result<()> {
        let (mut checker, extractor) = read_safety_checker(files, folder).await?;
        let placement = &self.options().placement;
        let opened = WeightFiles::open(files, folder, TRANSFORMERS_STEM, placement.weights).await?;
        files.prepare().await?;
        weights::load(&mut checker, opened, placement, &mut |_| {}).await?;
        files.finish().await?;
        self.set_safety_checker(Some(SafetyCheck::new(checker, extractor).await?));
        Ok(())
    }
}

async fn read_text(files: &dyn ModelFiles, path: &str) -> Result<String> {
    let bytes = files.read(path).await?;
    String::from_utf8(bytes).map_err(|e| Error::config(path, e))
}

/// An empty safety checker by its configuration, and the feature extractor.
async fn read_safety_checker(
    files: &dyn ModelFiles,
    folder: &str,
) -> Result<(StableDiffusionSafetyChecker, ClipImageProcessor)> {
    let path = format!("{folder}/config.json");
    let checker = SafetyCheckerConfig::parse(&path, &read_text(files, &path).await?)?;
    let path = "feature_extractor/preprocessor_config.json";
    let extractor = ClipImageProcessor::parse(path, &read_text(files, path).await?)?;
    Ok((checker.init(), extractor))
}

fn parse_index(json: &str) -> Result<serde_json::Value> {
    let file = "model_index.json";
    let index: serde_json::Value =
        serde_json::from_str(json).map_err(|e| Error::config(file, e))?;
    let class = index["_class_name"].as_str().unwrap_or_default();
    if class == "StableDiffusionInstructPix2PixPipeline" {
        return Ok(index);
    }
    Err(Error::unsupported(format!(
        "pipeline `{class}` of {file}; StableDiffusionInstructPix2PixPipeline is"
    )))
}
