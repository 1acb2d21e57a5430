//! What an edit is asked for.

use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::schedulers::{SchedulerConfig, Timesteps};

/// Numbers on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Floats<const D: usize> {
    /// The length of each axis.
    pub shape: [usize; D],
    /// As many numbers as the shape says.
    pub data: Vec<f32>,
}

impl<const D: usize> Floats<D> {
    /// Pairs numbers with their shape. `name` is the argument that errors name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the shape has not `D` axes, one of them is empty, or there are not as many
    /// numbers as it says.
    pub fn new(name: &'static str, shape: &[usize], data: Vec<f32>) -> Result<Self> {
        let wrong = |message| Err(Error::argument(name, message));
        let Ok(sides) = <[usize; D]>::try_from(shape) else {
            return wrong(format!("shape {shape:?}; {D} axes are needed"));
        };
        let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side));
        if count != Some(data.len()) || data.is_empty() {
            return wrong(format!("{} numbers for shape {shape:?}", data.len()));
        }
        Ok(Self { shape: sides, data })
    }
}

/// A sampler to use in place of the pipeline's own.
#[derive(Debug, Clone)]
pub struct SchedulerChoice {
    /// diffusers' class, e.g. `DDIMScheduler` or `DDIM`.
    pub class_name: String,
    /// Its configuration; the model's own when absent.
    pub config: Option<SchedulerConfig>,
}

/// Pictures, as they come.
#[derive(Debug, Clone)]
pub enum Images {
    /// Resized with Lanczos: to the height and width that are asked for, or, where the pipeline asks for none (they
    /// must be of one size then), to the multiples of the VAE's factor below their own.
    Pictures(Vec<RgbImage>),
    /// Samples in 0 to 1, `[N, 3, H, W]` (in -1 to 1 when one of them is negative, as diffusers
    /// reads them), or latents that are not encoded again, `[N, 4, h, w]`: the VAE's mode, as
    /// [`encode_image`](super::StableDiffusionInstructPix2PixPipeline::encode_image) gives it.
    Tensor(Floats<4>),
}

impl Images {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.len(),
            Self::Tensor(tensor) => tensor.shape[0],
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.count() {
            0 => Err(Error::argument("image", "at least one is needed")),
            _ => Ok(()),
        }
    }

    /// Refuses pictures that differ in size, where each keeps its own.
    pub(super) fn check_sizes(&self) -> Result<()> {
        let Self::Pictures(pictures) = self else { return Ok(()) };
        let sizes = |picture: &RgbImage| [picture.width, picture.height];
        if pictures.iter().any(|picture| sizes(picture) != sizes(&pictures[0])) {
            return Err(Error::argument("image", "all pictures must have the same size"));
        }
        Ok(())
    }
}

/// Instructions, as texts or as what the text encoder makes of them.
#[derive(Debug, Clone)]
pub struct Prompts {
    /// The instructions; none where there are `prompt_embeds`.
    pub prompts: Vec<String>,
    /// The text encoder's output in place of the instructions, `[N, T, C]`.
    pub prompt_embeds: Option<Floats<3>>,
    /// What to keep away from: one for all prompts, or one for each; `""` when absent.
    pub negative_prompts: Option<Vec<String>>,
    /// The text encoder's output in place of `negative_prompts`, of the shape of `prompt_embeds`.
    pub negative_prompt_embeds: Option<Floats<3>>,
    /// Results for each prompt.
    pub num_images_per_prompt: usize,
}

impl Default for Prompts {
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            prompt_embeds: None,
            negative_prompts: None,
            negative_prompt_embeds: None,
            num_images_per_prompt: 1,
        }
    }
}

impl Prompts {
    /// One instruction.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompts: vec![prompt.into()], ..Self::default() }
    }

    /// How many instructions there are.
    pub fn count(&self) -> usize {
        self.prompt_embeds.as_ref().map_or(self.prompts.len(), |embeds| embeds.shape[0])
    }

    /// Results of an edit in all.
    pub fn results(&self) -> usize {
        self.count() * self.num_images_per_prompt
    }

    pub(super) fn check(&self) -> Result<()> {
        let count = self.count();
        let wrong = |name, message: String| Err(Error::argument(name, message));
        if self.prompt_embeds.is_some() && !self.prompts.is_empty() {
            return wrong("promptEmbeds", "give either prompt or promptEmbeds, not both".into());
        }
        if count == 0 {
            return wrong("prompt", "at least one is needed, or promptEmbeds".into());
        }
        if self.num_images_per_prompt < 1 {
            return wrong("numImagesPerPrompt", "0 is under 1".into());
        }
        if self.negative_prompts.is_some() && self.negative_prompt_embeds.is_some() {
            let message = "give either negativePrompt or negativePromptEmbeds, not both";
            return wrong("negativePromptEmbeds", message.into());
        }
        if let Some(negative) = &self.negative_prompts
            && negative.len() != 1
            && negative.len() != count
        {
            let message = format!("{} for {count} prompts; one, or one for each", negative.len());
            return wrong("negativePrompt", message);
        }
        match (&self.prompt_embeds, &self.negative_prompt_embeds) {
            (Some(embeds), Some(negative)) if embeds.shape != negative.shape => {
                let shapes = format!("{:?}; promptEmbeds has {:?}", negative.shape, embeds.shape);
                wrong("negativePromptEmbeds", format!("shape {shapes}"))
            }
            (None, Some(negative)) if negative.shape[0] != count => {
                let rows = negative.shape[0];
                wrong("negativePromptEmbeds", format!("{rows} rows for {count} prompts"))
            }
            _ => Ok(()),
        }
    }
}

/// What an edit returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputType {
    /// Pictures of bytes.
    #[default]
    Pictures,
    /// Samples in 0 to 1, `[N, H, W, 3]` (`np`).
    Nhwc,
    /// Samples in 0 to 1, `[N, 3, H, W]` (`pt`).
    Nchw,
    /// No more than the latents, which are not decoded.
    Latent,
}

/// What to do with which pictures.
#[derive(Debug, Clone)]
pub struct EditRequest {
    /// As many as there are prompts, or a number that divides theirs: prompt `i` edits picture `i` modulo their number.
    pub images: Images,
    /// The instructions.
    pub text: Prompts,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// Timesteps for the sampler in place of its own, descending.
    pub timesteps: Option<Vec<f64>>,
    /// Noise levels for the sampler in place of its own, descending.
    pub sigmas: Option<Vec<f64>>,
    /// How closely to follow the instruction; above 1 turns guidance on.
    pub guidance_scale: f64,
    /// How closely to stay with the picture; 1 or more keeps guidance on.
    pub image_guidance_scale: f64,
    /// Share of fresh noise, for the samplers that have it, 0 to 1.
    pub eta: f64,
    /// Another sampler.
    pub scheduler: Option<SchedulerChoice>,
    /// How much the adapters contribute in this edit, times their own weights: diffusers'
    /// `cross_attention_kwargs["scale"]`. SDXL's text encoders heed it, that of Stable Diffusion
    /// 1.5 does not.
    pub lora_scale: f64,
    /// The initial noise, `[B, C, h, w]`, before the sampler scales it; drawn when absent.
    pub latents: Option<Floats<4>>,
    /// What is wanted.
    pub output: OutputType,
}

impl Default for EditRequest {
    /// diffusers' defaults, without pictures and prompts.
    fn default() -> Self {
        Self {
            images: Images::Pictures(Vec::new()),
            text: Prompts::default(),
            num_inference_steps: 100,
            timesteps: None,
            sigmas: None,
            guidance_scale: 7.5,
            image_guidance_scale: 1.5,
            eta: 0.0,
            scheduler: None,
            lora_scale: 1.0,
            latents: None,
            output: OutputType::default(),
        }
    }
}

impl EditRequest {
    /// How many steps the sampler is asked for.
    pub(super) fn inference_steps(&self) -> usize {
        let given = self.timesteps.as_ref().or(self.sigmas.as_ref());
        given.map_or(self.num_inference_steps, Vec::len)
    }

    /// Checks what can be checked before any work is done.
    pub(super) fn check(&self) -> Result<()> {
        self.text.check()?;
        self.images.check()?;
        let (images, prompts) = (self.images.count(), self.text.count());
        if !prompts.is_multiple_of(images) {
            let message = format!("{images} pictures for {prompts} prompts; one, or one for each");
            return Err(Error::argument("image", message));
        }
        if self.num_inference_steps < 1 {
            return Err(Error::argument("numInferenceSteps", "0 is under 1"));
        }
        let finite = [
            ("guidanceScale", self.guidance_scale),
            ("imageGuidanceScale", self.image_guidance_scale),
            ("eta", self.eta),
            ("crossAttentionKwargs", self.lora_scale),
        ];
        for (name, value) in finite {
            if !value.is_finite() {
                return Err(Error::argument(name, format!("{value} is not finite")));
            }
        }
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(Error::argument("eta", format!("{} is outside 0 to 1", self.eta)));
        }
        let lists = [("timesteps", &self.timesteps), ("sigmas", &self.sigmas)];
        for (name, list) in lists {
            let Some(list) = list else { continue };
            if list.is_empty() || list.iter().any(|value| !value.is_finite()) {
                return Err(Error::argument(name, "a list of finite numbers is needed"));
            }
        }
        if self.timesteps.is_some() && self.sigmas.is_some() {
            return Err(Error::argument("sigmas", "give either timesteps or sigmas, not both"));
        }
        Ok(())
    }

    /// The steps that the sampler is to take.
    pub(super) fn schedule(&self) -> Timesteps {
        match (&self.timesteps, &self.sigmas) {
            (Some(timesteps), _) => Timesteps::Custom(timesteps.clone()),
            (None, Some(sigmas)) => Timesteps::Sigmas(sigmas.clone()),
            (None, None) => Timesteps::Count(self.num_inference_steps),
        }
    }
}
