//! LoRA and textual inversion on a Stable Diffusion pipeline.
//!
//! Source: diffusers `loaders/lora_pipeline.py`, `StableDiffusionLoraLoaderMixin`, and
//! `loaders/textual_inversion.py`.

use std::collections::BTreeMap;

use super::Adapters;
use crate::error::{Error, Result};
use crate::models::Module;
use crate::pipeline::StableDiffusionInstructPix2PixPipeline;
use crate::weights::lora;
use crate::weights::textual_inversion::Embedding;
use crate::weights::{HostTensor, StateDict};

/// LoRA.
impl StableDiffusionInstructPix2PixPipeline {
    /// The models that LoRAs reach, and what is known of those that are loaded.
    fn adapted(&mut self) -> (&mut Adapters, [(&'static str, &mut dyn Module); 2]) {
        let models: [(_, &mut dyn Module); 2] =
            [("unet", &mut self.unet), ("text_encoder", &mut self.text_encoder)];
        (&mut self.adapters, models)
    }

    /// Loads a LoRA from `bytes`, the contents of `file` (safetensors, or what torch writes; in
    /// the names of PEFT, of diffusers before PEFT or of kohya's trainers), and makes it the only
    /// active one. Without a `name` it is called `default_0`, `default_1`, ... Returns the keys
    /// that no layer has a use for.
    ///
    /// # Errors
    /// What [`StateDict::parse`] and [`Lora::new`](lora::Lora::new) say; [`Error::InvalidArgument`] when the name
    /// is taken. Nothing is changed then.
    pub fn load_lora(
        &mut self,
        name: Option<&str>,
        file: &str,
        bytes: &[u8],
    ) -> Result<Vec<String>> {
        self.load_lora_dict(name, StateDict::parse(file, bytes)?)
    }

    /// As [`load_lora`](Self::load_lora) from tensors in memory.
    ///
    /// # Errors
    /// As [`load_lora`](Self::load_lora).
    pub fn load_lora_dict(&mut self, name: Option<&str>, dict: StateDict) -> Result<Vec<String>> {
        let placement = self.options.placement.clone();
        let (adapters, mut models) = self.adapted();
        adapters.load(&mut models, &placement, name, dict)
    }

    /// Makes `names` the active adapters, each with its weight.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name, another number of weights than of names, or
    /// a weight that is not finite.
    pub fn set_adapters(&mut self, names: &[String], weights: &[f64]) -> Result<()> {
        let (adapters, mut models) = self.adapted();
        adapters.set(&mut models, names, weights)
    }

    /// Turns all adapters on or off, without changing which are active; fused ones stay as they
    /// are.
    pub fn enable_lora(&mut self, enabled: bool) {
        let (adapters, mut models) = self.adapted();
        adapters.enable(&mut models, enabled);
    }

    /// Deletes adapters. What is fused stays in the weights until
    /// [`unfuse_lora`](Self::unfuse_lora).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name.
    pub fn delete_adapters(&mut self, names: &[String]) -> Result<()> {
        let (adapters, mut models) = self.adapted();
        adapters.delete(&mut models, names)
    }

    /// Deletes all adapters. What is fused stays in the weights for good, which frees the memory
    /// of those from before.
    pub fn unload_lora(&mut self) {
        let (adapters, mut models) = self.adapted();
        adapters.unload(&mut models);
    }

    /// The loaded adapters of each component, e.g. `unet`.
    pub fn list_adapters(&self) -> BTreeMap<&'static str, Vec<String>> {
        self.adapters.list()
    }

    /// The active adapters, with their weights.
    pub fn active_adapters(&self) -> Vec<(String, f64)> {
        self.adapters.active()
    }

    /// Adds adapters to the weights themselves, each with its weight times `scale`: the active
    /// ones, or those named. An edit then costs what it costs without adapters; the weights from
    /// before are kept, so memory does not get less.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name or a scale that is not finite;
    /// [`Error::Gpu`].
    pub async fn fuse_lora(&mut self, scale: f64, names: Option<&[String]>) -> Result<()> {
        let (adapters, mut models) = self.adapted();
        adapters.fuse(&mut models, scale, names).await
    }

    /// Undoes every [`fuse_lora`](Self::fuse_lora): the weights are those from before, bit for
    /// bit.
    pub fn unfuse_lora(&mut self) {
        let (adapters, mut models) = self.adapted();
        adapters.unfuse(&mut models);
    }

    /// An adapter as a safetensors file that diffusers loads, in PEFT's names.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name; [`Error::Gpu`].
    pub async fn save_lora(&self, name: &str) -> Result<Vec<u8>> {
        // Visiting wants a model of its own; this one shares its tensors.
        let mut copy = self.clone();
        let (adapters, mut models) = copy.adapted();
        let layers = adapters.layers(&mut models, name).await?;
        lora::write(&format!("{name}.safetensors"), layers)
    }

    /// The same pipeline with the adapters' weights times `scale` in the UNet. It shares its
    /// tensors with this. The text encoder's are left alone: diffusers' pipeline gives the scale
    /// only to the UNet (that of SDXL to the text encoders too).
    pub(in crate::pipeline) fn with_lora_scale(&self, scale: f64) -> Self {
        let mut copy = self.clone();
        copy.adapters.apply(&mut [("unet", &mut copy.unet)], scale);
        copy
    }
}

/// Textual inversion.
impl StableDiffusionInstructPix2PixPipeline {
    /// Teaches the word in `bytes`, the contents of `file`: diffusers' `.safetensors` or `.bin`,
    /// A1111's `.pt`, or a file with `clip_l`, of which the prompt then speaks as `token`, or by
    /// the name in the file. Returns the tokens that were added, one for each vector.
    ///
    /// # Errors
    /// What [`StateDict::parse`] and [`Embedding::new`] say; [`Error::InvalidArgument`] when the
    /// token exists already, or neither file nor caller names it; [`Error::ShapeMismatch`] when
    /// the vectors belong to another text encoder. Nothing is changed then.
    pub fn load_textual_inversion(
        &mut self,
        file: &str,
        bytes: &[u8],
        token: Option<&str>,
    ) -> Result<Vec<String>> {
        let Embedding { token: own, vectors } = Embedding::new(StateDict::parse(file, bytes)?, 0)?;
        let token = token.map(str::to_owned).or(own).ok_or_else(|| {
            Error::argument("token", format!("{file} does not name its token; one is needed"))
        })?;
        self.add_textual_inversion(file, &[(token, vectors)])
    }

    /// Teaches words from vectors in memory, `[N, C]` or `[C]` each. `file` is what errors call
    /// them.
    ///
    /// # Errors
    /// As [`load_textual_inversion`](Self::load_textual_inversion).
    pub fn add_textual_inversion(
        &mut self,
        file: &str,
        words: &[(String, HostTensor)],
    ) -> Result<Vec<String>> {
        let Self { words: learnt, tokenizer, text_encoder, options, .. } = self;
        learnt.learn(file, words, tokenizer, text_encoder, &options.placement)
    }

    /// Forgets words with all of their vectors, or every word.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a word was not loaded.
    pub fn unload_textual_inversion(&mut self, words: Option<&[String]>) -> Result<()> {
        let Self { words: learnt, tokenizer, text_encoder, options, .. } = self;
        learnt.forget(words, tokenizer, text_encoder, &options.placement)
    }

    /// The tokens of the words that were taught, in the order of their ids.
    pub fn learnt_tokens(&self) -> Vec<String> {
        self.words.tokens().map(str::to_owned).collect()
    }
}
