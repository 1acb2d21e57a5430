//! What an edit is asked for, read from JavaScript's options.

use js_sys::Uint8Array;
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use super::convert::{JsTensor, parse, scheduler};
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::pipeline::{
    EditRequest, Floats, Images, OutputType, PipelineClass, Prompts, SecondTexts, StepTensorNames,
    XlEditRequest,
};

/// Pictures: of bytes, or a tensor of samples or latents.
#[derive(Debug, Deserialize)]
struct ImageOptions {
    images: Option<Vec<Picture>>,
    tensor: Option<JsTensor>,
}

#[derive(Debug, Deserialize)]
struct Picture {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Uint8Array,
    width: usize,
    height: usize,
}

/// Instructions, as texts or as embeddings.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptOptions {
    prompts: Option<Vec<String>>,
    prompt_embeds: Option<JsTensor>,
    negative_prompts: Option<Vec<String>>,
    negative_prompt_embeds: Option<JsTensor>,
    num_images_per_prompt: Option<f64>,
    do_classifier_free_guidance: Option<bool>,
    lora_scale: Option<f64>,
    #[serde(rename = "prompts2")]
    prompts_2: Option<Vec<String>>,
    #[serde(rename = "negativePrompts2")]
    negative_prompts_2: Option<Vec<String>>,
    pooled_prompt_embeds: Option<JsTensor>,
    negative_pooled_prompt_embeds: Option<JsTensor>,
}

/// What an edit takes beside pictures and instructions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtherOptions {
    num_inference_steps: Option<f64>,
    timesteps: Option<Vec<f64>>,
    sigmas: Option<Vec<f64>>,
    guidance_scale: Option<f64>,
    image_guidance_scale: Option<f64>,
    eta: Option<f64>,
    /// Decimal digits: serde has no big integers of 64 bits.
    seeds: Option<Vec<String>>,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    scheduler: JsValue,
    lora_scale: Option<f64>,
    latents: Option<JsTensor>,
    noises: Option<JsTensor>,
    output_type: Option<String>,
    tensor_inputs: Option<Vec<String>>,
    denoising_end: Option<f64>,
    guidance_rescale: Option<f64>,
    original_size: Option<[f64; 2]>,
    crops_coords_top_left: Option<[f64; 2]>,
    target_size: Option<[f64; 2]>,
    aesthetic_score: Option<f64>,
    negative_aesthetic_score: Option<f64>,
}

/// The height and width of results.
#[derive(Debug, Deserialize)]
struct SizeOptions {
    height: Option<f64>,
    width: Option<f64>,
}

impl SizeOptions {
    fn sides(&self) -> Result<[Option<usize>; 2]> {
        let side = |name, value: Option<f64>| value.map(|value| count(name, value)).transpose();
        Ok([side("height", self.height)?, side("width", self.width)?])
    }
}

impl ImageOptions {
    fn images(&self) -> Result<Images> {
        if let Some(tensor) = &self.tensor {
            return Ok(Images::Tensor(tensor.floats("image")?));
        }
        let pictures = self.images.iter().flatten().map(|picture| {
            RgbImage::from_rgba(picture.width, picture.height, &picture.data.to_vec())
        });
        Ok(Images::Pictures(pictures.collect::<Result<_>>()?))
    }
}

impl PromptOptions {
    fn texts(self) -> Result<Texts> {
        Ok(Texts {
            first: Prompts {
                prompts: self.prompts.unwrap_or_default(),
                prompt_embeds: embeds("promptEmbeds", self.prompt_embeds)?,
                negative_prompts: self.negative_prompts,
                negative_prompt_embeds: embeds(
                    "negativePromptEmbeds",
                    self.negative_prompt_embeds,
                )?,
                num_images_per_prompt: count(
                    "numImagesPerPrompt",
                    self.num_images_per_prompt.unwrap_or(1.0),
                )?,
            },
            second: SecondTexts {
                prompts: self.prompts_2,
                negative_prompts: self.negative_prompts_2,
                pooled_prompt_embeds: embeds("pooledPromptEmbeds", self.pooled_prompt_embeds)?,
                negative_pooled_prompt_embeds: embeds(
                    "negativePooledPromptEmbeds",
                    self.negative_pooled_prompt_embeds,
                )?,
            },
            guided: self.do_classifier_free_guidance.unwrap_or(true),
            lora_scale: self.lora_scale.unwrap_or(1.0),
        })
    }
}

fn embeds<const D: usize>(
    name: &'static str,
    tensor: Option<JsTensor>,
) -> Result<Option<Floats<D>>> {
    tensor.map(|tensor| tensor.floats(name)).transpose()
}

/// What `Pipeline.encodePrompt` is given.
#[derive(Debug)]
pub struct Texts {
    /// For the first text encoder.
    pub first: Prompts,
    /// For SDXL's second.
    pub second: SecondTexts,
    /// Whether what to keep away from is to be encoded too.
    pub guided: bool,
    /// How much the adapters of SDXL's text encoders contribute.
    pub lora_scale: f64,
}

impl Texts {
    /// Reads the options.
    pub fn parse(options: JsValue) -> Result<Self> {
        parse::<PromptOptions>(options, "options")?.texts()
    }
}

/// A whole number. The pipeline says how great it must be.
fn count(name: &'static str, value: f64) -> Result<usize> {
    if value.fract() == 0.0 && (0.0..=1e6).contains(&value) {
        return Ok(value as usize);
    }
    Err(Error::argument(name, format!("{value} is no whole number of 1 or more")))
}

/// The pictures of `Pipeline.encodeImage`, and the height and width that they are to have.
pub fn images(options: JsValue) -> Result<(Images, [Option<usize>; 2])> {
    let images = parse::<ImageOptions>(options.clone(), "image")?.images()?;
    let other: SizeOptions = parse(options, "options")?;
    Ok((images, other.sides()?))
}

/// An edit, with what it draws from and what it shows.
#[derive(Debug)]
pub struct Edit {
    /// What is asked for; the defaults of the pipeline's class for what is left out. What is only for SDXL is
    /// ignored by others.
    pub request: XlEditRequest,
    /// Seeds: one, or one for each result; drawn when none is given.
    pub seeds: Vec<u64>,
    /// Recorded noise to play back in place of drawn.
    pub noises: Option<Vec<f32>>,
    /// What each step shows.
    pub tensor_inputs: StepTensorNames,
}

impl Edit {
    /// Reads the options of `Pipeline.edit`, with the defaults of a class.
    pub fn parse(options: JsValue, class: PipelineClass) -> Result<Self> {
        let defaults = XlEditRequest {
            edit: match class {
                PipelineClass::Sd => EditRequest::default(),
                PipelineClass::Xl => XlEditRequest::default().edit,
            },
            ..XlEditRequest::default()
        };
        let (images, [height, width]) = images(options.clone())?;
        let Texts { first, second, .. } = Texts::parse(options.clone())?;
        let other: OtherOptions = parse(options, "options")?;
        let names = other.tensor_inputs.iter().flatten().map(String::as_str);
        let steps = other.num_inference_steps.map(|steps| count("numInferenceSteps", steps));
        Ok(Self {
            tensor_inputs: StepTensorNames::parse(names)?,
            seeds: other.seeds()?,
            noises: other.noises.as_ref().map(JsTensor::to_vec),
            request: XlEditRequest {
                edit: EditRequest {
                    images,
                    text: first,
                    num_inference_steps: steps
                        .transpose()?
                        .unwrap_or(defaults.edit.num_inference_steps),
                    guidance_scale: other.guidance_scale.unwrap_or(defaults.edit.guidance_scale),
                    image_guidance_scale: other
                        .image_guidance_scale
                        .unwrap_or(defaults.edit.image_guidance_scale),
                    eta: other.eta.unwrap_or(defaults.edit.eta),
                    scheduler: scheduler(&other.scheduler)?,
                    lora_scale: other.lora_scale.unwrap_or(defaults.edit.lora_scale),
                    latents: other.latents.map(|latents| latents.floats("latents")).transpose()?,
                    output: output_type(other.output_type.as_deref())?,
                    timesteps: other.timesteps,
                    sigmas: other.sigmas,
                },
                second,
                height,
                width,
                denoising_end: other.denoising_end,
                guidance_rescale: other.guidance_rescale.unwrap_or(defaults.guidance_rescale),
                original_size: other.original_size,
                crops_coords_top_left: other
                    .crops_coords_top_left
                    .unwrap_or(defaults.crops_coords_top_left),
                target_size: other.target_size,
                aesthetic_score: other.aesthetic_score,
                negative_aesthetic_score: other.negative_aesthetic_score,
            },
        })
    }
}

/// diffusers' `output_type`, by its name here.
fn output_type(name: Option<&str>) -> Result<OutputType> {
    match name {
        None | Some("image" | "blob") => Ok(OutputType::Pictures),
        Some("np") => Ok(OutputType::Nhwc),
        Some("pt") => Ok(OutputType::Nchw),
        Some("latent") => Ok(OutputType::Latent),
        Some(name) => {
            let message = format!("`{name}` is none of image, blob, np, pt, latent");
            Err(Error::argument("outputType", message))
        }
    }
}

impl OtherOptions {
    /// The seeds; one is drawn when none is given.
    fn seeds(&self) -> Result<Vec<u64>> {
        let parse = |digits: &String| {
            let signed = || digits.parse::<i64>().map(|seed| seed as u64);
            digits.parse::<u64>().or_else(|_| signed()).map_err(|_| {
                let message = format!("{digits} is no whole number of at most 64 bits");
                Error::argument("seed", message)
            })
        };
        match &self.seeds {
            Some(seeds) => seeds.iter().map(parse).collect(),
            // PyTorch's generator looks at no more than 32 bits.
            None => getrandom::u32()
                .map(|seed| vec![u64::from(seed)])
                .map_err(|e| Error::argument("seed", format!("none could be drawn: {e}"))),
        }
    }
}
