//! Instructions on their way to what the UNet attends to.

use burn::tensor::{DType, Tensor, TensorData};

use super::base::{PipelineBase, Tidy};
use super::{Floats, LoadOptions, Observer, Prompts, Tap};
use crate::error::{Error, Result};
use crate::models::{AddedConditions, ClipTextModel, ClipTextOutput, Module};
use crate::tokenizer::{ClipTokenizer, MAX_LENGTH};
use crate::weights::textual_inversion::LearntWords;

/// A text encoder with its tokenizer, and the words that both have learnt.
#[derive(Debug, Clone)]
pub(super) struct TextEncoder {
    /// What `model_index.json` calls the model, e.g. `text_encoder_2`.
    pub component: &'static str,
    pub tokenizer: ClipTokenizer,
    pub model: ClipTextModel,
    pub words: LearntWords,
    /// What it makes of texts that will come. To be forgotten when the model changes.
    prepared: Vec<Prepared>,
}

/// What a text encoder makes of the tokens of some texts.
#[derive(Debug, Clone)]
struct Prepared {
    ids: Vec<Vec<u32>>,
    dtype: DType,
    output: ClipTextOutput,
}

impl TextEncoder {
    /// Without learnt words.
    pub fn new(component: &'static str, tokenizer: ClipTokenizer, model: ClipTextModel) -> Self {
        let (words, prepared) = (LearntWords::default(), Vec::new());
        Self { component, tokenizer, model, words, prepared }
    }

    /// Encodes what an edit will ask for, as it will ask for it: says whether that had not been done before.
    pub fn prepare(&mut self, prompts: &Prompts, options: &LoadOptions) -> Result<bool> {
        if !self.prepared.is_empty() {
            return Ok(false);
        }
        let _tidy = Tidy(&options.placement.device);
        for side in [Side::Prompt, Side::Negative] {
            let texts = prompts.texts(side);
            let ids = texts.iter().map(|text| self.tokenizer.encode_to_length(text, MAX_LENGTH));
            let ids = ids.map(|row| row.map(|(ids, _)| ids)).collect::<Result<Vec<_>>>()?;
            let output = self.model.forward(&ids, options.dtype)?;
            self.prepared.push(Prepared { ids, dtype: options.dtype, output });
        }
        // It is computed while the rest is on its way.
        #[cfg(feature = "wgpu")]
        crate::kernels::flush(&options.placement.device);
        Ok(true)
    }

    /// Whether the model has its weights.
    pub fn is_ready(&mut self) -> bool {
        let mut is_ready = true;
        self.model.visit("", &mut |_, parameter| is_ready &= parameter.is_loaded());
        is_ready
    }

    /// Forgets what [`prepare`](Self::prepare) did: the model is about to change.
    pub fn forget_prepared(&mut self) {
        self.prepared.clear();
    }

    /// Encodes texts, each cut and padded to `length` tokens.
    pub fn encode(
        &self,
        texts: &[&str],
        length: usize,
        dtype: DType,
        observer: &mut dyn Observer,
    ) -> Result<ClipTextOutput> {
        let mut ids = Vec::new();
        for text in texts {
            let (row, cut) = self.tokenizer.encode_to_length(text, length)?;
            if let Some(cut) = cut {
                observer.warn(format!(
                    "the prompt is longer than CLIP can read, {length} tokens; this was left out: {cut}"
                ));
            }
            ids.push(row);
        }
        observer.tap("input_ids", Tap::Ids(&ids));
        let prepared = self.prepared.iter().find(|known| known.ids == ids && known.dtype == dtype);
        match prepared {
            Some(Prepared { output, .. }) => Ok(output.clone()),
            None => self.model.forward(&ids, dtype),
        }
    }
}

/// What text encoders make of texts, a row for each.
#[derive(Debug, Clone)]
pub(super) struct Features {
    /// `[N, T, C]`
    pub tokens: Tensor<3>,
    /// `[N, P]`, where the pipeline has a use for it.
    pub pooled: Option<Tensor<2>>,
}

/// What the UNet is told beside the pictures: `[text, negative, negative]` with guidance.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    pub text: Tensor<3>,
    pub added: Option<AddedConditions>,
}

/// Which texts are to be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Side {
    Prompt,
    Negative,
}

impl Prompts {
    /// Whether a text is to be encoded, of what to keep away from where that is `guided`: not all embeddings are given.
    pub(super) fn needs_encoder(&self, guided: bool) -> bool {
        self.prompt_embeds.is_none() || (guided && self.negative_prompt_embeds.is_none())
    }

    /// The instructions, or what to keep away from, a text for each prompt.
    pub(super) fn texts(&self, side: Side) -> Vec<&str> {
        match side {
            Side::Prompt => self.prompts.iter().map(String::as_str).collect(),
            Side::Negative => {
                one_for_each(self.negative_prompts.as_deref().unwrap_or_default(), self.count())
            }
        }
    }
}

/// `texts`, of which one serves for all; empty ones where there is none.
pub(super) fn one_for_each(texts: &[String], count: usize) -> Vec<&str> {
    let each = |i: usize| texts.get(i % texts.len().max(1)).map_or("", String::as_str);
    (0..count).map(each).collect()
}

impl PipelineBase {
    /// The embeddings of instructions and of what to keep away from, a row for each prompt: those that are given, and
    /// else what `embed` makes of the texts, in that many tokens.
    pub(super) fn features(
        &self,
        text: &Prompts,
        guided: bool,
        embed: &mut dyn FnMut(Side, usize) -> Result<Features>,
    ) -> Result<(Features, Option<Features>)> {
        let given = |name: &'static str, embeds: &Floats<3>| {
            let tokens = self.upload_embeds(name, embeds)?;
            Ok::<_, Error>(Features { tokens, pooled: None })
        };
        let prompt = match &text.prompt_embeds {
            Some(embeds) => given("promptEmbeds", embeds)?,
            None => embed(Side::Prompt, MAX_LENGTH)?,
        };
        let [_, length, _] = prompt.tokens.dims();
        let negative = match (&text.negative_prompt_embeds, guided) {
            (_, false) => None,
            (Some(embeds), true) if embeds.shape[1] != length => {
                let message = format!("{} tokens; the prompt has {length}", embeds.shape[1]);
                return Err(Error::argument("negativePromptEmbeds", message));
            }
            (Some(embeds), true) => Some(given("negativePromptEmbeds", embeds)?),
            (None, true) if length > MAX_LENGTH => {
                let message = format!(
                    "{length} tokens, and CLIP reads {MAX_LENGTH}: give negativePromptEmbeds too"
                );
                return Err(Error::argument("promptEmbeds", message));
            }
            (None, true) => Some(embed(Side::Negative, length)?),
        };
        Ok((prompt, negative))
    }

    /// Embeddings as the UNet takes them.
    pub(super) fn upload_embeds(
        &self,
        name: &'static str,
        embeds: &Floats<3>,
    ) -> Result<Tensor<3>> {
        let width = self.unet.config().text_channels();
        if embeds.shape[2] != width {
            let message =
                format!("{} numbers for a token; this model has {width}", embeds.shape[2]);
            return Err(Error::argument(name, message));
        }
        Ok(self.upload(embeds))
    }

    /// Numbers on the device, of the activations' type.
    pub(super) fn upload<const D: usize>(&self, values: &Floats<D>) -> Tensor<D> {
        let data = TensorData::new(values.data.clone(), values.shape);
        Tensor::<D>::from_data(data, (self.device(), DType::F32)).cast(self.options.dtype)
    }
}

/// Puts `[text, negative, negative]` together, or the text alone.
pub(super) fn rows<const D: usize>(text: Tensor<D>, negative: Option<Tensor<D>>) -> Tensor<D> {
    match negative {
        Some(negative) => Tensor::cat(vec![text, negative.clone(), negative], 0),
        None => text,
    }
}

/// Repeats each row, `[a, b]` to `[a, a, b, b]`.
pub(super) fn repeat_each<const D: usize>(x: Tensor<D>, times: usize) -> Tensor<D> {
    if times == 1 {
        return x;
    }
    let rows = x.dims()[0];
    let each = (0..rows).flat_map(|row| vec![x.clone().narrow(0, row, 1); times]);
    Tensor::cat(each.collect(), 0)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;

    use super::*;
    use crate::cache::Repository;
    use crate::hub::{Directory, ModelSource};
    use crate::image::RgbImage;
    use crate::models::{Placement, WeightDtype};
    use crate::pipeline::{EditRequest, Images, InstructPix2Pix, TorchGenerator, Unobserved};
    use crate::weights::HostTensor;

    fn load(model: &str, prompts: Option<Prompts>) -> Result<InstructPix2Pix> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(model);
        let fetch = Directory(folder);
        let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
        let placement = Placement { device: Device::flex(), weights: WeightDtype::F16 };
        let (safety_checker, warm_up) = (false, false);
        let dtype = DType::F32;
        let options = LoadOptions { placement, dtype, safety_checker, warm_up, prompts };
        let (given, mut on_event) = (Default::default(), |_: super::super::LoadEvent<'_>| {});
        pollster::block_on(InstructPix2Pix::load(&files, options, given, None, &mut on_event))
    }

    fn texts() -> Prompts {
        let negative_prompts = Some(vec!["blurry".into()]);
        Prompts { negative_prompts, ..Prompts::new("make it snowy") }
    }

    fn edit(pipeline: &InstructPix2Pix, text: Prompts) -> Vec<f32> {
        let pixels = (0..16 * 16 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let request = EditRequest {
            images: Images::Pictures(vec![RgbImage::new(16, 16, pixels).expect("valid")]),
            text,
            num_inference_steps: 1,
            ..EditRequest::default()
        };
        let (mut noise, mut observer) = (TorchGenerator::new(7), Unobserved);
        let InstructPix2Pix::Sd(pipeline) = pipeline else { panic!("another class") };
        let edit = pipeline.edit(&request, &mut noise, &mut observer);
        pollster::block_on(edit).expect("edits").latents.data
    }

    const TINY: &str = "www/models/tiny-random";

    #[test]
    fn what_was_encoded_before_serves_the_edits_that_ask_for_it() {
        let plain = load(TINY, None).expect("loads");
        let mut prepared = load(TINY, Some(texts())).expect("loads");
        let expected = edit(&plain, texts());
        assert_eq!(edit(&prepared, texts()), expected);
        assert_eq!(edit(&prepared, Prompts::new("else")), edit(&plain, Prompts::new("else")));
        // It is used indeed.
        for known in &mut prepared.texts[0].prepared {
            let tokens = &mut known.output.last_hidden_state;
            *tokens = tokens.zeros_like();
        }
        assert_ne!(edit(&prepared, texts()), expected);
        assert_eq!(edit(&prepared, Prompts::new("else")), edit(&plain, Prompts::new("else")));
    }

    #[test]
    fn what_was_encoded_before_goes_when_the_text_encoder_changes() {
        let changes: [fn(&mut InstructPix2Pix); 4] = [
            |pipeline| pipeline.unload_lora(),
            |pipeline| pipeline.enable_lora(false),
            |pipeline| pipeline.unload_textual_inversion(None).expect("there is none"),
            |pipeline| {
                let width = pipeline.texts[0].model.token_channels();
                let vector = HostTensor::from_f32(vec![width], &vec![0.5; width]);
                pipeline.add_textual_inversion("x", &[("<x>".into(), vector)]).expect("fits");
            },
        ];
        let pipeline = load(TINY, Some(texts())).expect("loads");
        for change in changes {
            let mut pipeline = pipeline.clone();
            assert_eq!(pipeline.texts[0].prepared.len(), 2);
            change(&mut pipeline);
            assert!(pipeline.texts[0].prepared.is_empty());
        }
    }

    #[test]
    fn wrong_prompts_are_refused_before_anything_is_read() {
        let none = Prompts { prompts: Vec::new(), ..texts() };
        let error = load("no/such/model", Some(none)).expect_err("no prompt");
        assert_eq!(error.code(), "invalid-argument", "{error}");
    }
}
