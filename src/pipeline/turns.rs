//! Models that take turns on the device, where it has no room for all of them at once.

use std::borrow::Cow;

use super::base::PipelineBase;
use super::blank::{DIFFUSERS_STEM, TRANSFORMERS_STEM};
use super::single_file::Whole;
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::models::Module;
use crate::weights::original::{Layout, whole_model_place};
use crate::weights::{self, TensorInfo, WeightFiles};

/// How the weights of models that take turns are stored.
#[derive(Debug, Clone)]
pub(super) enum Storage {
    /// Each in its folder.
    Folders,
    /// All in one file, with the keys of the original implementation.
    Whole {
        /// The file's path.
        path: String,
        /// What decides on its keys.
        layout: Layout,
    },
}

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
        let files = files.filter(|_| base.takes_turns());
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
        let (models, storage) = base.models_of(turn);
        match storage {
            Some(Storage::Whole { path, layout }) => {
                let models = models.into_iter().map(|(component, _, model)| (component, model));
                let mut models = Whole(models.collect());
                let place = |tensor: &TensorInfo| whole_model_place(&tensor.name, *layout);
                let opened = WeightFiles::open_whole(files, path, placement.weights, place).await?;
                files.prepare().await?;
                // What is of other models need not be read from the cache.
                weights::load(&mut models, opened.in_part(), &placement, &mut |_| {}).await?;
            }
            Some(Storage::Folders) | None => {
                for (component, stem, model) in models {
                    let opened =
                        WeightFiles::open(files, component, stem, placement.weights).await?;
                    files.prepare().await?;
                    weights::load(model, opened, &placement, &mut |_| {}).await?;
                }
            }
        }
        files.finish().await
    }

    /// Lets go of the models of a turn, once the device is done with them.
    pub fn end(&mut self, turn: Turn) {
        if self.files.is_none() {
            return;
        }
        for (_, _, model) in self.base.to_mut().models_of(turn).0 {
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
        self.in_turn.is_some()
    }

    /// Refuses `what` where models take turns.
    pub(super) fn check_resident(&self, what: &str) -> Result<()> {
        match self.takes_turns() {
            false => Ok(()),
            true => Err(Error::unsupported(format!(
                "{what}, where models are on the device in turn; load all of them at once for that"
            ))),
        }
    }

    /// The models of a turn, each with the stem of its files' names, and how they are stored.
    fn models_of(&mut self, turn: Turn) -> (Vec<TurnModel<'_>>, Option<&Storage>) {
        let models: Vec<TurnModel<'_>> = match turn {
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
        };
        (models, self.in_turn.as_ref())
    }
}

/// A model by its component's name, with the stem of its files' names.
type TurnModel<'a> = (&'static str, &'static str, &'a mut dyn Module);
