//! The parts of a pipeline, which pipelines may share.

use super::{LoadOptions, SafetyCheck, StableDiffusionInstructPix2PixPipeline};
use crate::error::{Error, Result};
use crate::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;

/// Parts of a pipeline (`components` in diffusers), or some of them. A part shares its tensors
/// with every pipeline that it came from or went into. Adapters and learnt words stay behind, except what is fused.
#[derive(Debug, Clone, Default)]
pub struct Components {
    /// `vae`
    pub vae: Option<AutoencoderKL>,
    /// `text_encoder`
    pub text_encoder: Option<ClipTextModel>,
    /// `tokenizer`
    pub tokenizer: Option<ClipTokenizer>,
    /// `unet`
    pub unet: Option<UNet2DConditionModel>,
    /// `scheduler`
    pub scheduler: Option<SchedulerConfig>,
    /// `safety_checker`, with its `feature_extractor`.
    pub safety_checker: Option<SafetyCheck>,
}

impl Components {
    /// A pipeline of these parts, without adapters.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming a part that is missing.
    pub fn build(self, options: LoadOptions) -> Result<StableDiffusionInstructPix2PixPipeline> {
        fn part<T>(name: &str, part: Option<T>) -> Result<T> {
            part.ok_or_else(|| Error::argument(name, "this component is needed"))
        }
        let mut pipeline = StableDiffusionInstructPix2PixPipeline::new(
            part("tokenizer", self.tokenizer)?,
            part("textEncoder", self.text_encoder)?,
            part("vae", self.vae)?,
            part("unet", self.unet)?,
            part("scheduler", self.scheduler)?,
            options,
        );
        pipeline.set_safety_checker(self.safety_checker);
        Ok(pipeline)
    }

    /// Takes the part `name`, as `model_index.json` calls it, over from `other`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name, and for a part that `other` has not.
    pub fn take(
        &mut self,
        name: &str,
        other: &StableDiffusionInstructPix2PixPipeline,
    ) -> Result<()> {
        let mut other = other.clone();
        other.unload_lora();
        other.unload_textual_inversion(None)?;
        match name {
            "vae" => self.vae = Some(other.vae),
            "unet" => self.unet = Some(other.unet),
            "scheduler" => self.scheduler = Some(other.scheduler),
            "text_encoder" => self.text_encoder = Some(other.text_encoder),
            "tokenizer" => self.tokenizer = Some(other.tokenizer),
            "safety_checker" => {
                let missing = || Error::argument("safetyChecker", "that pipeline has none");
                self.safety_checker = Some(other.safety_checker.ok_or_else(missing)?);
            }
            _ => return Err(Error::argument("components", format!("there is no `{name}`"))),
        }
        Ok(())
    }
}
