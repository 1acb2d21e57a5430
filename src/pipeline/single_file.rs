//! Builds a pipeline from one file with the keys of the original implementation.
//!
//! Source: diffusers `loaders/single_file.py`.

use std::cell::Cell;

use super::blank::{Blank, Part};
use super::load::fill;
use super::turns::Storage;
use super::{
    Components, InstructPix2Pix, LoadEvent, LoadOptions, PipelineClass,
    StableDiffusionInstructPix2PixPipeline,
};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::models::module::{Visitor, join};
use crate::models::{Module, PerBlock, WeightDtype};
use crate::weights::original::{CONV_IN, Layout, is_edm_key, is_xl_key, whole_model_place};
use crate::weights::{self, WeightFiles};

/// A checkpoint in one file with the keys of the original implementation, as trainers write it (`from_single_file`).
#[derive(Clone, Copy)]
pub struct SingleFile<'a> {
    /// Where it is.
    pub files: &'a dyn ModelFiles,
    /// Its path there.
    pub path: &'a str,
    /// A model of the same shape, which has the configurations, the tokenizers and, where it is asked for, the safety
    /// checker.
    pub config: &'a dyn ModelFiles,
    /// Whether nobody chose `config` for this file. Where the height and width of edits that name none are the
    /// model's, they are those of SDXL then, 1024 pixels, as in diffusers, whatever size `config` was trained on.
    pub is_default_config: bool,
}

impl SingleFile<'_> {
    /// Empty models for it, and what decides on its names.
    async fn read(
        &self,
        safety_checker: bool,
        wanted: Option<PipelineClass>,
    ) -> Result<(Blank, Layout)> {
        check_name(self.path)?;
        let given = Box::new(Components::default());
        let blank = Box::pin(Blank::read(self.config, &given, safety_checker, wanted)).await?;
        let PerBlock::All(unet_layers) = blank.unet.config().layers_per_block else {
            let what = "a checkpoint in one file whose blocks differ in layers".to_owned();
            return Err(Error::unsupported(what));
        };
        let vae_blocks = blank.vae.config().block_out_channels.len();
        Ok((blank, Layout { unet_layers, vae_blocks }))
    }

    /// Has models be what its keys say beside their weights.
    fn heed_keys(&self, blank: &mut Blank, is_edm: bool) -> Result<()> {
        if blank.class != PipelineClass::Xl {
            return Ok(());
        }
        if self.is_default_config {
            blank.be_of_sdxl_size();
        }
        if is_edm { blank.be_cosxl() } else { Ok(()) }
    }
}

impl InstructPix2Pix {
    /// Loads a model from one file. A checkpoint that says of itself that it was trained as CosXL was has its sampler,
    /// its way with pictures (`is_cosxl_edit`) and its size, 1024 pixels, whatever the configurations say.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file that is not safetensors; as [`load`](Self::load).
    pub async fn load_single_file(
        file: SingleFile<'_>,
        options: LoadOptions,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        if let Some(prompts) = &options.prompts {
            prompts.check()?;
        }
        let (mut blank, layout) = file.read(options.safety_checker, wanted).await?;
        on_event(LoadEvent::Needs(blank.choice(options.placement.weights)));
        blank.check(&Components::default(), &options.placement)?;
        let is_edm = Cell::new(false);
        let weights = options.placement.weights;
        let opened = WeightFiles::open_whole(file.files, file.path, weights, |tensor| {
            is_edm.set(is_edm.get() || is_edm_key(&tensor.name));
            whole_model_place(&tensor.name, layout)
        });
        let mut opened = opened.await?;
        let mut whole = Whole::of(&mut blank);
        opened.expect(&mut whole);
        let part = Part::Other(&mut whole);
        fill(file.files, vec![("checkpoint", opened, part)], Some(&options), on_event).await?;
        drop(whole);
        file.heed_keys(&mut blank, is_edm.get())?;
        blank.fill_safety_checker(file.config, &options, on_event).await?;
        file.config.finish_part().await?;
        Box::pin(blank.finish(None, options, on_event)).await
    }

    /// Reads of a checkpoint in one file no more than its header and the configurations (and the safety checker, where
    /// that is asked for): its models are on the device only in their turn, see [`open`](Self::open). For each edit
    /// `edit_with` reads the models' parts of the file, from the same [`SingleFile::files`].
    ///
    /// # Errors
    /// As [`load_single_file`](Self::load_single_file), except those of tensors.
    pub async fn open_single_file(
        file: SingleFile<'_>,
        options: LoadOptions,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let (mut blank, layout) = file.read(options.safety_checker, wanted).await?;
        on_event(LoadEvent::Needs(blank.choice(options.placement.weights)));
        blank.check(&Components::default(), &options.placement)?;
        let header = weights::peek(file.files, file.path).await?;
        let is_edm = header.tensors.iter().any(|tensor| is_edm_key(&tensor.name));
        file.heed_keys(&mut blank, is_edm)?;
        file.config.finish_part().await?;
        let storage = Storage::Whole { path: file.path.to_owned(), layout };
        blank.in_turn(file.config, storage, options, on_event).await
    }

    /// Reads all of a checkpoint in one file, and keeps nothing but what [`SingleFile::files`] keeps: fills a cache
    /// without a device, for weights that will be kept in a type. Of `config` no more is read than decides on that.
    ///
    /// # Errors
    /// As [`load_single_file`](Self::load_single_file), except those of tensors.
    pub async fn download_single_file(
        file: SingleFile<'_>,
        weights: WeightDtype,
        wanted: Option<PipelineClass>,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<()> {
        let (mut blank, layout) = file.read(false, wanted).await?;
        let opened = WeightFiles::open_whole(file.files, file.path, weights, |tensor| {
            whole_model_place(&tensor.name, layout)
        });
        let mut opened = opened.await?;
        let mut whole = Whole::of(&mut blank);
        opened.expect(&mut whole);
        let part = Part::Other(&mut whole);
        fill(file.files, vec![("checkpoint", opened, part)], None, on_event).await?;
        file.config.finish_part().await
    }

    /// The class that a checkpoint in one file is of, by its keys.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file that is not safetensors, and for one whose UNet takes no picture; network
    /// errors.
    pub async fn class_of_single_file(
        checkpoint: &dyn ModelFiles,
        path: &str,
    ) -> Result<PipelineClass> {
        check_name(path)?;
        let header = weights::peek(checkpoint, path).await?;
        let first = header.tensors.iter().find(|tensor| tensor.name == CONV_IN);
        if let Some(channels) = first.and_then(|tensor| tensor.shape.get(1))
            && *channels != PICTURE_CHANNELS
        {
            let what = format!(
                "{path}, whose UNet takes {channels} channels; one of InstructPix2Pix takes {PICTURE_CHANNELS}"
            );
            return Err(Error::unsupported(what));
        }
        let is_xl = header.tensors.iter().any(|tensor| is_xl_key(&tensor.name));
        Ok(if is_xl { PipelineClass::Xl } else { PipelineClass::Sd })
    }
}

impl StableDiffusionInstructPix2PixPipeline {
    /// Loads a model of this class from one file, as [`InstructPix2Pix::load_single_file`] does.
    ///
    /// # Errors
    /// As [`InstructPix2Pix::load_single_file`].
    pub async fn load_single_file(
        file: SingleFile<'_>,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<Self> {
        let wanted = Some(PipelineClass::Sd);
        // Too large a future for the stack of whoever waits.
        let load = Box::pin(InstructPix2Pix::load_single_file(file, options, wanted, on_event));
        match load.await? {
            InstructPix2Pix::Sd(pipeline) => Ok(pipeline),
            InstructPix2Pix::Xl(_) => unreachable!("the class was asked for"),
        }
    }
}

/// Channels of the noise and of a picture.
const PICTURE_CHANNELS: usize = 8;

/// Refuses what other programs write in one file.
fn check_name(path: &str) -> Result<()> {
    match path.ends_with(".safetensors") {
        true => Ok(()),
        false => Err(Error::unsupported(format!(
            "a checkpoint that is not safetensors, {path}; convert it with `safetensors.torch.save_file`"
        ))),
    }
}

/// Several components as one model: their names begin the keys.
pub(super) struct Whole<'a>(pub Vec<(&'static str, &'a mut dyn Module)>);

impl<'a> Whole<'a> {
    /// All that a checkpoint in one file has.
    fn of(Blank { texts, vae, unet, .. }: &'a mut Blank) -> Self {
        let texts = texts.iter_mut().map(|text| {
            let model: &mut dyn Module = &mut text.model;
            (text.component, model)
        });
        let others: [(_, &mut dyn Module); 2] = [("vae", &mut **vae), ("unet", &mut **unet)];
        Self(texts.chain(others).collect())
    }
}

impl Module for Whole<'_> {
    fn visit(&mut self, path: &str, visitor: &mut Visitor<'_>) {
        for (name, model) in &mut self.0 {
            model.visit(&join(path, name), visitor);
        }
    }
}
