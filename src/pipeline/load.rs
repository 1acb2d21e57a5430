//! Builds a pipeline from a model's files.

use crate::error::{Error, Result};
use crate::hub::{Fetch, ModelSource, read_file};
use crate::models::{
    AutoencoderKLConfig, ClipTextConfig, Module, Placement, UNet2DConditionConfig,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{self, WeightFiles};
use burn::tensor::DType;

use super::StableDiffusionInstructPix2PixPipeline;

/// Where and how a pipeline computes.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where weights go and how they are kept.
    pub placement: Placement,
    /// The type of activations: `F32` or `F16`. Norms and softmax are `f32` in any case.
    pub dtype: DType,
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
        let text = async |path: &str| {
            let bytes = read_file(fetch, source, path).await?;
            String::from_utf8(bytes).map_err(|e| Error::config(path, e))
        };
        check_index(&text("model_index.json").await?)?;
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
        let vocab = text("tokenizer/vocab.json").await?;
        let merges = text("tokenizer/merges.txt").await?;
        let tokenizer = ClipTokenizer::new(&vocab, &merges, settings.as_deref())?;
        drop((vocab, merges));

        let components: [(&str, &str, &mut dyn Module); 3] = [
            ("text_encoder", TRANSFORMERS_STEM, &mut text_encoder),
            ("vae", DIFFUSERS_STEM, &mut vae),
            ("unet", DIFFUSERS_STEM, &mut unet),
        ];
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
        Ok(Self::new(tokenizer, text_encoder, vae, unet, scheduler, options))
    }
}

fn check_index(json: &str) -> Result<()> {
    let file = "model_index.json";
    let index: serde_json::Value =
        serde_json::from_str(json).map_err(|e| Error::config(file, e))?;
    let class = index["_class_name"].as_str().unwrap_or_default();
    if class == "StableDiffusionInstructPix2PixPipeline" {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "pipeline `{class}` of {file}; StableDiffusionInstructPix2PixPipeline is"
    )))
}
