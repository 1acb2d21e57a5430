//! LoRA and textual inversion on a pipeline.
//!
//! Source: diffusers `loaders/lora_pipeline.py`, `StableDiffusionLoraLoaderMixin` and
//! `StableDiffusionXLLoraLoaderMixin`, and `loaders/textual_inversion.py`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::source::{AdapterSource, LORA_FILES};
use super::{AdapterWeight, Adapters, Stored};
use crate::error::{Error, Result};
use crate::hub::FileReader;
use crate::models::Module;
use crate::pipeline::base::PipelineBase;
use crate::pipeline::text::TextEncoder;
use crate::weights::lora::{self, Lora, LoraLayer, Target, Targets};
use crate::weights::textual_inversion::Embedding;
use crate::weights::{HostTensor, StateDict, header_with};

/// LoRA.
impl PipelineBase {
    /// The models that LoRAs reach, and what is known of those that are loaded.
    fn adapted(&mut self) -> (&mut Adapters, Vec<(&'static str, &mut dyn Module)>) {
        let mut models: Vec<(&str, &mut dyn Module)> = vec![("unet", &mut *self.unet)];
        for text in &mut self.texts {
            text.forget_prepared();
            models.push((text.component, &mut text.model));
        }
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
        let placement = self.options.placement.clone();
        let (adapters, mut models) = self.adapted();
        let name = adapters.name(name)?;
        let targets = Targets::new(&mut models);
        let lora = lora::parse(file, bytes, &targets, &mut lora::keeper(&placement))?;
        Ok(adapters.add(&mut models, name, lora))
    }

    /// As [`load_lora`](Self::load_lora) from tensors in memory.
    ///
    /// # Errors
    /// As [`load_lora`](Self::load_lora).
    pub fn load_lora_dict(&mut self, name: Option<&str>, dict: StateDict) -> Result<Vec<String>> {
        let placement = self.options.placement.clone();
        let (adapters, mut models) = self.adapted();
        let name = adapters.name(name)?;
        let targets = Targets::new(&mut models);
        let lora = Lora::new(dict, &targets, &mut lora::keeper(&placement))?;
        Ok(adapters.add(&mut models, name, lora))
    }

    /// As [`load_lora`](Self::load_lora) from a file whose bytes are still to come. Each tensor goes to the device as
    /// soon as it is there, so that a file in safetensors is never whole in memory.
    ///
    /// # Errors
    /// As [`load_lora`](Self::load_lora), for names and shapes before the tensors are read; network errors;
    /// [`Error::HashMismatch`].
    pub async fn load_lora_file(
        &mut self,
        name: Option<&str>,
        file: &str,
        reader: &mut dyn FileReader,
    ) -> Result<Vec<String>> {
        let placement = self.options.placement.clone();
        let (adapters, mut models) = self.adapted();
        let name = adapters.name(name)?;
        let targets = Targets::new(&mut models);
        let mut keep = lora::keeper(&placement);
        let lora = lora::read(file, reader, &targets, &mut keep).await?;
        Ok(adapters.add(&mut models, name, lora))
    }

    /// As [`load_lora_file`](Self::load_lora_file) from a repository or a folder.
    ///
    /// # Errors
    /// As [`load_lora_file`](Self::load_lora_file); [`Error::NotFound`] when there is no such file.
    pub async fn load_lora_from(
        &mut self,
        name: Option<&str>,
        source: AdapterSource<'_>,
    ) -> Result<Vec<String>> {
        let placement = self.options.placement.clone();
        let (adapters, mut models) = self.adapted();
        // Before anything is fetched.
        let name = adapters.name(name)?;
        let targets = Targets::new(&mut models);
        let (file, mut reader) = source.open(LORA_FILES).await?;
        let mut keep = lora::keeper(&placement);
        let lora = lora::read(&file, &mut *reader, &targets, &mut keep).await;
        drop(reader);
        // Nothing is attached unless all of it went well.
        let lora = source.close(lora).await?;
        Ok(adapters.add(&mut models, name, lora))
    }

    /// Makes `names` the active adapters, each with its weight: one number, or several for parts of the models.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown name, another number of weights than of names, a weight that is not
    /// finite, or one for a block that the UNet does not have.
    pub fn set_adapters(&mut self, names: &[String], weights: &[AdapterWeight]) -> Result<()> {
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
    pub fn active_adapters(&self) -> Vec<(String, AdapterWeight)> {
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
        self.check_resident("fuseLora")?;
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
        let mut bytes = Vec::new();
        self.write_lora(name, &mut |piece| bytes.extend_from_slice(piece)).await?;
        Ok(bytes)
    }

    /// As [`save_lora`](Self::save_lora), piece by piece: no more than one tensor is in memory.
    ///
    /// # Errors
    /// As [`save_lora`](Self::save_lora).
    pub async fn write_lora(&self, name: &str, write: &mut dyn FnMut(&[u8])) -> Result<()> {
        let layers = self.lora_layers(name)?;
        let ranks = layers.iter().map(|(target, layer)| {
            // The first axis of the first factor.
            (target, layer.down.shape[0], layer.scaling)
        });
        let metadata = lora::metadata(ranks);
        let tensors: Vec<(String, Stored)> = layers
            .into_iter()
            .flat_map(|(target, layer)| lora::keys(&target).into_iter().zip([layer.down, layer.up]))
            .collect();
        let entries = tensors
            .iter()
            .map(|(key, stored)| (key.as_str(), stored.dtype(), stored.shape.as_slice()));
        write(&header_with(entries, metadata));
        for (_, stored) in tensors {
            write(stored.read().await?.bytes());
        }
        Ok(())
    }

    /// The tensors of [`save_lora`](Self::save_lora), all of them in memory.
    ///
    /// # Errors
    /// As [`save_lora`](Self::save_lora).
    pub async fn lora_file(&self, name: &str) -> Result<StateDict> {
        let mut layers = Vec::new();
        for (target, LoraLayer { down, up, scaling }) in self.lora_layers(name)? {
            let (down, up) = (down.read().await?, up.read().await?);
            layers.push((target, LoraLayer { down, up, scaling }));
        }
        Ok(lora::file(&format!("{name}.safetensors"), layers))
    }

    fn lora_layers(&self, name: &str) -> Result<Vec<(Target, LoraLayer<Stored>)>> {
        // Visiting wants a model of its own; this one shares its tensors.
        let mut copy = self.clone();
        let (adapters, mut models) = copy.adapted();
        adapters.layers(&mut models, name)
    }

    /// The same pipeline with the adapters' weights in `components` times `scale`. It shares its
    /// tensors with this.
    pub(in crate::pipeline) fn with_lora_scale(
        &self,
        scale: f64,
        components: &[&str],
    ) -> Cow<'_, Self> {
        if scale == 1.0 || self.adapters.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut copy = self.clone();
        let (adapters, mut models) = copy.adapted();
        models.retain(|(component, _)| components.contains(component));
        adapters.apply(&mut models, scale);
        Cow::Owned(copy)
    }
}

/// Textual inversion.
impl PipelineBase {
    /// Teaches the word in `bytes`, the contents of `file`: diffusers' `.safetensors` or `.bin`,
    /// A1111's `.pt`, or a file with `clip_l` and `clip_g`, of which the prompt then speaks as
    /// `token`, or by the name in the file. A file with both teaches both text encoders where there
    /// are two; any other the first one that its vectors fit. Returns the tokens that were added,
    /// one for each vector.
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
        let dict = StateDict::parse(file, bytes)?;
        if !Embedding::is_pair(&dict) {
            return self.add_textual_inversion(file, &[word(file, dict, "", token)?]);
        }
        let mut taught = self.texts.clone();
        let mut added: Vec<String> = Vec::new();
        for text in &mut taught {
            let word = word(file, dict.clone(), text.component, token)?;
            let new = self.teach(text, file, &[word])?;
            added
                .extend(new.into_iter().filter(|token| !added.contains(token)).collect::<Vec<_>>());
        }
        self.texts = taught;
        Ok(added)
    }

    /// The same for one text encoder, by its name in `model_index.json`, e.g. `text_encoder_2`.
    ///
    /// # Errors
    /// As [`load_textual_inversion`](Self::load_textual_inversion); [`Error::InvalidArgument`] for
    /// a name that no text encoder of this pipeline has.
    pub fn load_textual_inversion_into(
        &mut self,
        component: &str,
        file: &str,
        bytes: &[u8],
        token: Option<&str>,
    ) -> Result<Vec<String>> {
        let encoder = self.texts.iter().position(|text| text.component == component);
        let encoder = encoder.ok_or_else(|| {
            let known: Vec<&str> = self.texts.iter().map(|text| text.component).collect();
            Error::argument("textEncoder", format!("`{component}` is none of {known:?}"))
        })?;
        let word = word(file, StateDict::parse(file, bytes)?, component, token)?;
        let mut text = self.texts[encoder].clone();
        let added = self.teach(&mut text, file, &[word])?;
        self.texts[encoder] = text;
        Ok(added)
    }

    /// Teaches words from vectors in memory, `[N, C]` or `[C]` each, to the first text encoder that
    /// they fit. `file` is what errors call them.
    ///
    /// # Errors
    /// As [`load_textual_inversion`](Self::load_textual_inversion).
    pub fn add_textual_inversion(
        &mut self,
        file: &str,
        words: &[(String, HostTensor)],
    ) -> Result<Vec<String>> {
        let width = words.first().and_then(|(_, vectors)| vectors.shape().last());
        let fits = |text: &TextEncoder| Some(&text.model.token_channels()) == width;
        let encoder = self.texts.iter().position(fits).unwrap_or_default();
        let mut text = self.texts[encoder].clone();
        let added = self.teach(&mut text, file, words)?;
        self.texts[encoder] = text;
        Ok(added)
    }

    fn teach(
        &self,
        text: &mut TextEncoder,
        file: &str,
        words: &[(String, HostTensor)],
    ) -> Result<Vec<String>> {
        text.forget_prepared();
        let TextEncoder { words: learnt, tokenizer, model, .. } = text;
        learnt.learn(file, words, tokenizer, model, &self.options.placement)
    }

    /// Forgets words with all of their vectors, or every word.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a word was not loaded. Nothing is changed then.
    pub fn unload_textual_inversion(&mut self, words: Option<&[String]>) -> Result<()> {
        let known = self.learnt_tokens();
        for word in words.unwrap_or_default() {
            if !known.contains(word) {
                let message = format!("`{word}` is none of the loaded tokens {known:?}");
                return Err(Error::argument("tokens", message));
            }
        }
        let placement = &self.options.placement;
        for text in &mut self.texts {
            text.forget_prepared();
            let TextEncoder { words: learnt, tokenizer, model, .. } = text;
            let own: Option<Vec<String>> = words.map(|words| {
                let has = |word: &&String| learnt.tokens().any(|token| token == word.as_str());
                words.iter().filter(has).cloned().collect()
            });
            learnt.forget(own.as_deref(), tokenizer, model, placement)?;
        }
        Ok(())
    }

    /// The tokens of the words that were taught, in the order of their ids, those of the first text
    /// encoder first.
    pub fn learnt_tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = Vec::new();
        for token in self.texts.iter().flat_map(|text| text.words.tokens()) {
            if tokens.iter().all(|known| known != token) {
                tokens.push(token.to_owned());
            }
        }
        tokens
    }
}

/// A word and its vectors for a text encoder.
fn word(
    file: &str,
    dict: StateDict,
    component: &str,
    token: Option<&str>,
) -> Result<(String, HostTensor)> {
    let encoder = usize::from(component == "text_encoder_2");
    let Embedding { token: own, vectors } = Embedding::new(dict, encoder)?;
    let token = token.map(str::to_owned).or(own).ok_or_else(|| {
        Error::argument("token", format!("{file} does not name its token; one is needed"))
    })?;
    Ok((token, vectors))
}
