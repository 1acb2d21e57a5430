//! Models that take turns on the device, where it has no room for all of them at once.

use std::borrow::Cow;

use super::base::PipelineBase;
use super::blank::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::models::Module;
use crate::weights::{self, WeightFiles};

/// What an edit needs at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// The text encoders.
    Texts,
    /// The VAE.
    Vae,
    /// The UNet.
    UNet,
}

/// A pipeline during an edit: with all of its models, or with those whose turn it is.
pub(super) struct Turns<'a> {
    base: Cow<'a, PipelineBase>,
    /// Where models come from whose turn it is; nothing where all are there.
    files: Option<&'a dyn ModelFiles>,
}

impl<'a> Turns<'a> {
    /// Begins an edit with `base`, which reads from `files` if its models take turns.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when they do, and there are no files.
    pub fn new(base: &'a PipelineBase, files: Option<&'a dyn ModelFiles>) -> Result<Self> {
        if files.is_none() {
            base.check_resident("an edit without the model's files")?;
        }
        let files = files.filter(|_| base.takes_turns);
        // The copy's models come and go; the pipeline itself keeps none.
        let base = match files {
            Some(_) => Cow::Owned(base.clone()),
            None => Cow::Borrowed(base),
        };
        Ok(Self { base, files })
    }

    /// The pipeline, with the models whose turn it is.
    pub fn base(&self) -> &PipelineBase {
        &self.base
    }

    /// Reads the models of a turn.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load`](super::InstructPix2Pix::load).
    pub async fn begin(&mut self, turn: Turn) -> Result<()> {
        let Some(files) = self.files else { return Ok(()) };
        let base = self.base.to_mut();
        let placement = base.options.placement.clone();
        for (component, stem, model) in base.models_of(turn) {
            let opened = WeightFiles::open(files, component, stem, placement.weights).await?;
            files.prepare().await?;
            weights::load(model, opened, &placement, &mut |_| {}).await?;
        }
        files.finish().await
    }

    /// Lets go of the models of a turn, once the device is done with them.
    pub fn end(&mut self, turn: Turn) {
        if self.files.is_none() {
            return;
        }
        for (_, _, model) in self.base.to_mut().models_of(turn) {
            model.unload();
        }
        #[cfg(feature = "wgpu")]
        crate::kernels::release_memory(self.base.device());
    }
}

impl PipelineBase {
    /// Whether the models are on the device only in their turn, see
    /// [`InstructPix2Pix::open`](super::InstructPix2Pix::open).
    pub fn takes_turns(&self) -> bool {
        self.takes_turns
    }

    /// Refuses `what` where models take turns.
    pub(super) fn check_resident(&self, what: &str) -> Result<()> {
        match self.takes_turns {
            false => Ok(()),
            true => Err(Error::unsupported(format!(
                "{what}, where models are on the device in turn; load all of them at once for that"
            ))),
        }
    }

    fn models_of(&mut self, turn: Turn) -> Vec<(&'static str, &'static str, &mut dyn Module)> {
        match turn {
            Turn::Vae => vec![("vae", DIFFUSERS_STEM, &mut *self.vae)],
            Turn::UNet => vec![("unet", DIFFUSERS_STEM, &mut *self.unet)],
            Turn::Texts => {
                let texts = self.texts.iter_mut();
                texts
                    .map(|text| {
                        let model: &mut dyn Module = &mut text.model;
                        (text.component, TRANSFORMERS_STEM, model)
                    })
                    .collect()
            }
        }
    }
}
