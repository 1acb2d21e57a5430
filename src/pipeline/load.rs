//! Builds a pipeline from a model's files.

use crate::error::{Error, Result};
use crate::hub::{Fetch, ModelSource, read_file};
use crate::image::ClipImageProcessor;
use crate::models::{
    AutoencoderKLConfig, ClipTextConfig, Module, Placement, SafetyCheckerConfig,
    StableDiffusionSafetyChecker, UNet2DConditionConfig,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{self, WeightFiles};
use burn::tensor::DType;

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
    /// Whether to compile a GPU's kernels while the weights are on their way, for pictures of the
    /// size that the model was made for. Otherwise the first edit waits for them.
    pub warm_up: bool,
}

/// How far loading is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LoadEvent<'a> {
    /// More weights have been read.
    Download {
        /// The component, e.g. `unet`.
        component: &'a str,
        /// The file's path inside the model.
        file: &'a str,
        /// Bytes read of all weight files together.
        loaded: u64,
        /// Bytes of all weight files together.
        total: u64,
    },
    /// A component is complete on the device.
    Component {
        /// The component, e.g. `unet`.
        component: &'a str,
    },
}

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
        fetch: &dyn Fetch,
        source: &ModelSource,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let text = async |path: &str| read_text(fetch, source, path).await;
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
            true => Some(read_safety_checker(fetch, source, SAFETY_CHECKER).await?),
            false => None,
        };
        let vocab = text("tokenizer/vocab.json").await?;
        let merges = text("tokenizer/merges.txt").await?;
        let tokenizer = ClipTokenizer::new(&vocab, &merges, settings.as_deref())?;
        drop((vocab, merges));

        #[cfg(feature = "wgpu")]
        if options.warm_up {
            super::warm_up(unet.config(), vae.config(), &options);
        }

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
            opened.push((name, WeightFiles::open(fetch, source, name, stem, dtype).await?, model));
        }
        let total = opened.iter().map(|(_, files, _)| files.size()).sum();
        let mut loaded = 0;
        for (component, files, model) in opened {
            let mut on_progress = |progress: weights::Progress<'_>| {
                loaded += progress.bytes;
                let weights::Progress { component, file, .. } = progress;
                on_event(LoadEvent::Download { component, file, loaded, total });
            };
            let unused = weights::load(model, files, &options.placement, &mut on_progress).await?;
            if !unused.is_empty() {
                log::debug!("{component}: unused keys {unused:?}");
            }
            on_event(LoadEvent::Component { component });
        }
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
        fetch: &dyn Fetch,
        source: &ModelSource,
        folder: &str,
    ) -> Result<()> {
        let (mut checker, extractor) = read_safety_checker(fetch, source, folder).await?;
        let placement = &self.options().placement;
        let files =
            WeightFiles::open(fetch, source, folder, TRANSFORMERS_STEM, placement.weights).await?;
        weights::load(&mut checker, files, placement, &mut |_| {}).await?;
        self.set_safety_checker(Some(SafetyCheck::new(checker, extractor).await?));
        Ok(())
    }
}

async fn read_text(fetch: &dyn Fetch, source: &ModelSource, path: &str) -> Result<String> {
    let bytes = read_file(fetch, source, path).await?;
    String::from_utf8(bytes).map_err(|e| Error::config(path, e))
}

/// An empty safety checker by its configuration, and the feature extractor.
async fn read_safety_checker(
    fetch: &dyn Fetch,
    source: &ModelSource,
    folder: &str,
) -> Result<(StableDiffusionSafetyChecker, ClipImageProcessor)> {
    let path = format!("{folder}/config.json");
    let checker = SafetyCheckerConfig::parse(&path, &read_text(fetch, source, &path).await?)?;
    let path = "feature_extractor/preprocessor_config.json";
    let extractor = ClipImageProcessor::parse(path, &read_text(fetch, source, path).await?)?;
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
