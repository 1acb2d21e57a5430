//! The parts of a pipeline, which pipelines may share.

use super::{
    LoadOptions, PipelineBase, SafetyCheck, StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline, XlConfig,
};
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
    /// `text_encoder_2`
    pub text_encoder_2: Option<ClipTextModel>,
    /// `tokenizer_2`
    pub tokenizer_2: Option<ClipTokenizer>,
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

    /// The same of SDXL's class, where the first tokenizer and text encoder may both be missing.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_xl(
        self,
        config: XlConfig,
        options: LoadOptions,
    ) -> Result<StableDiffusionXLInstructPix2PixPipeline> {
        let first = match (self.tokenizer, self.text_encoder) {
            (None, None) => None,
            (tokenizer, model) => {
                Some((part("tokenizer", tokenizer)?, part("textEncoder", model)?))
            }
        };
        let mut pipeline = StableDiffusionXLInstructPix2PixPipeline::new(
            first,
            (part("tokenizer2", self.tokenizer_2)?, part("textEncoder2", self.text_encoder_2)?),
            part("vae", self.vae)?,
            part("unet", self.unet)?,
            part("scheduler", self.scheduler)?,
            config,
            options,
        );
        pipeline.set_safety_checker(self.safety_checker);
        Ok(pipeline)
    }

    /// Takes the part `name`, as `model_index.json` calls it, over from `other`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name, and for a part that `other` has not.
    pub fn take(&mut self, name: &str, other: &PipelineBase) -> Result<()> {
        other.check_resident("sharing a component")?;
        let mut other = other.clone();
        other.unload_lora();
        other.unload_textual_inversion(None)?;
        let missing = |name| Error::argument(name, "that pipeline has none");
        let mut text = |component: &str| {
            let index = other.texts.iter().position(|text| text.component == component)?;
            Some(other.texts.swap_remove(index))
        };
        match name {
            "vae" => self.vae = Some(*other.vae),
            "unet" => self.unet = Some(*other.unet),
            "scheduler" => self.scheduler = Some(other.scheduler),
            "text_encoder" => {
                let text = text("text_encoder").ok_or_else(|| missing("textEncoder"))?;
                self.text_encoder = Some(text.model);
            }
            "tokenizer" => {
                let text = text("text_encoder").ok_or_else(|| missing("tokenizer"))?;
                self.tokenizer = Some(text.tokenizer);
            }
            "text_encoder_2" => {
                let text = text("text_encoder_2").ok_or_else(|| missing("textEncoder2"))?;
                self.text_encoder_2 = Some(text.model);
            }
            "tokenizer_2" => {
                let text = text("text_encoder_2").ok_or_else(|| missing("tokenizer2"))?;
                self.tokenizer_2 = Some(text.tokenizer);
            }
            "safety_checker" => {
                let checker = other.safety_checker.ok_or_else(|| missing("safetyChecker"))?;
                self.safety_checker = Some(*checker);
            }
            _ => return Err(Error::argument("components", format!("there is no `{name}`"))),
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let Self { vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2, .. } = self;
        let Self { unet, scheduler, safety_checker, .. } = self;
        let models = vae.is_none() && unet.is_none() && safety_checker.is_none();
        let texts = text_encoder.is_none() && text_encoder_2.is_none();
        let tokenizers = tokenizer.is_none() && tokenizer_2.is_none();
        models && texts && tokenizers && scheduler.is_none()
    }

    /// The tokenizer and the model of a text encoder, as far as they are there.
    pub(super) fn text(&self, component: &str) -> (Option<&ClipTokenizer>, Option<&ClipTextModel>) {
        match component {
            "text_encoder_2" => (self.tokenizer_2.as_ref(), self.text_encoder_2.as_ref()),
            _ => (self.tokenizer.as_ref(), self.text_encoder.as_ref()),
        }
    }
}

fn part<T>(name: &str, part: Option<T>) -> Result<T> {
    part.ok_or_else(|| Error::argument(name, "this component is needed"))
}
