//! Models by their configurations alone, before there are weights.

use burn::tensor::DType;
use futures_util::future::try_join_all;

use super::base::PipelineBase;
use super::text::TextEncoder;
use super::{
    Components, InstructPix2Pix, LoadEvent, LoadOptions, MemoryNeeds, PartNeeds, Residency, Room,
    SafetyCheck, StableDiffusionInstructPix2PixPipeline, StableDiffusionXLInstructPix2PixPipeline,
    XlConfig,
};
use crate::error::{Error, Result};
use crate::hub::ModelFiles;
use crate::image::ClipImageProcessor;
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, Module, Placement, SafetyCheckerConfig,
    StableDiffusionSafetyChecker, UNet2DConditionConfig, UNet2DConditionModel, WeightDtype,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;

pub(super) const TRANSFORMERS_STEM: &str = "model";
pub(super) const SAFETY_CHECKER: &str = "safety_checker";
pub(super) const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// The classes of pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineClass {
    /// `StableDiffusionInstructPix2PixPipeline`
    Sd,
    /// `StableDiffusionXLInstructPix2PixPipeline`
    Xl,
}

impl PipelineClass {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sd, Self::Xl];

    /// What `model_index.json` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd => "StableDiffusionInstructPix2PixPipeline",
            Self::Xl => "StableDiffusionXLInstructPix2PixPipeline",
        }
    }

    /// The type of the VAE's activations, where the others' is `dtype`: that of SDXL overflows in half precision.
    pub(super) fn vae_dtype(self, vae: &AutoencoderKLConfig, dtype: DType) -> DType {
        match self {
            Self::Xl if vae.force_upcast => DType::F32,
            _ => dtype,
        }
    }

    /// Its text encoders, each with its tokenizer.
    fn texts(self) -> &'static [(&'static str, &'static str)] {
        let all = &TEXTS;
        match self {
            Self::Sd => &all[..1],
            Self::Xl => all,
        }
    }
}

/// Text encoders, each with its tokenizer.
pub(super) const TEXTS: [(&str, &str); 2] =
    [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];

/// Empty models by the configurations of a model, and what else its small files say.
pub(super) struct Blank {
    pub class: PipelineClass,
    config: XlConfig,
    pub texts: Vec<TextEncoder>,
    pub vae: Box<AutoencoderKL>,
    pub unet: Box<UNet2DConditionModel>,
    scheduler: SchedulerConfig,
    pub safety: Option<(Box<StableDiffusionSafetyChecker>, ClipImageProcessor)>,
}

/// A model that is to be filled.
pub(super) enum Part<'a> {
    /// A text encoder.
    Text(&'a mut TextEncoder),
    /// Any other.
    Other(&'a mut dyn Module),
}

impl Part<'_> {
    /// The model.
    pub fn model(&mut self) -> &mut dyn Module {
        match self {
            Self::Text(text) => &mut text.model,
            Self::Other(model) => *model,
        }
    }
}

impl Blank {
    /// What to compile for these models.
    #[cfg(feature = "wgpu")]
    pub fn warm_up(&self, options: &LoadOptions) -> super::WarmUp {
        let vae = self.vae.config().clone();
        super::WarmUp {
            texts: self.texts.iter().map(|text| text.model.config().clone()).collect(),
            unet: self.unet.config().clone(),
            vae_dtype: self.class.vae_dtype(&vae, options.dtype),
            vae,
            options: options.clone(),
        }
    }

    /// Reads what is not given, of a model of the class that is `wanted`, or of any.
    pub async fn read(
        files: &dyn ModelFiles,
        given: &Components,
        safety_checker: bool,
        wanted: Option<PipelineClass>,
    ) -> Result<Self> {
        let text = async |path: &str| read_text(files, path).await;
        let (class, index) = parse_index(&text("model_index.json").await?, wanted)?;
        let config = async |component: &str| {
            let path = format!("{component}/config.json");
            let json = text(&path).await?;
            Ok::<_, Error>((path, json))
        };
        let mut texts = Vec::new();
        for (component, folder) in class.texts() {
            let (tokenizer, model) = given.text(component);
            // SDXL's refiner has no first one.
            if model.is_none() && index[*component][0].is_null() && class == PipelineClass::Xl {
                continue;
            }
            let model = match model {
                Some(model) => model.clone(),
                None => {
                    let (path, json) = config(component).await?;
                    ClipTextConfig::parse(&path, &json)?.init()
                }
            };
            let tokenizer = match tokenizer {
                Some(tokenizer) => tokenizer.clone(),
                None => read_tokenizer(files, folder).await?,
            };
            texts.push(TextEncoder::new(component, tokenizer, model));
        }
        if texts.is_empty() {
            let message = "no text encoder; one is needed, `text_encoder_2` with a projection";
            return Err(Error::config("model_index.json", message));
        }
        let vae = Box::new(match &given.vae {
            Some(model) => model.clone(),
            None => {
                let (path, json) = config("vae").await?;
                AutoencoderKLConfig::parse(&path, &json)?.init()
            }
        });
        let unet = Box::new(match &given.unet {
            Some(model) => model.clone(),
            None => {
                let (path, json) = config("unet").await?;
                UNet2DConditionConfig::parse(&path, &json)?.init()
            }
        });
        let scheduler = match &given.scheduler {
            Some(scheduler) => scheduler.clone(),
            None => {
                let path = "scheduler/scheduler_config.json";
                SchedulerConfig::from_json(path, &text(path).await?)?
            }
        };
        let is_wanted = safety_checker && given.safety_checker.is_none();
        if is_wanted && !index[SAFETY_CHECKER][0].is_string() {
            let message = "this model has none; pass a function that judges, or load it without and \
                           set that of another model";
            return Err(Error::argument("safetyChecker", message));
        }
        let safety = match is_wanted {
            true => Some(read_safety_checker(files, SAFETY_CHECKER).await?),
            false => None,
        };
        let default = XlConfig::default();
        let flag = |name: &str, default: bool| index[name].as_bool().unwrap_or(default);
        let config = XlConfig {
            force_zeros_for_empty_prompt: flag(
                "force_zeros_for_empty_prompt",
                default.force_zeros_for_empty_prompt,
            ),
            is_cosxl_edit: flag("is_cosxl_edit", default.is_cosxl_edit),
            add_watermarker: flag("add_watermarker", default.add_watermarker),
        };
        Ok(Self { class, config, texts, vae, unet, scheduler, safety })
    }

    /// Has edits that name no height and width be as large as SDXL's, which checkpoints in one file are taken for.
    ///
    /// Source: diffusers' `DIFFUSERS_DEFAULT_PIPELINE_PATHS`, of which `xl_base` and `xl_refiner` have this `sample_size`.
    pub fn be_of_sdxl_size(&mut self) {
        self.unet.set_sample_side(128);
    }

    /// Has it sample and take pictures as CosXL-Edit does, in its size; that checkpoint has no configuration.
    ///
    /// Source: diffusers' documentation of `StableDiffusionXLInstructPix2PixPipeline`; the noise is that of CosXL's
    /// `edm_vpred`.
    pub fn be_cosxl(&mut self) -> Result<()> {
        let json = r#"{"_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0,
            "prediction_type": "v_prediction", "sigma_schedule": "exponential"}"#;
        self.scheduler = SchedulerConfig::from_json("edm_vpred", json)?;
        self.config.is_cosxl_edit = true;
        self.be_of_sdxl_size();
        Ok(())
    }

    /// The models that are not given, each with its name and the stem of its files' names: text encoders
    /// first.
    pub fn components(
        &mut self,
        given: &Components,
    ) -> Vec<(&'static str, &'static str, Part<'_>)> {
        let mut components = Vec::new();
        for text in &mut self.texts {
            if given.text(text.component).1.is_none() {
                components.push((text.component, TRANSFORMERS_STEM, Part::Text(text)));
            }
        }
        if given.vae.is_none() {
            components.push(("vae", DIFFUSERS_STEM, Part::Other(&mut *self.vae)));
        }
        if given.unet.is_none() {
            components.push(("unet", DIFFUSERS_STEM, Part::Other(&mut *self.unet)));
        }
        if let Some((checker, _)) = &mut self.safety {
            components.push((SAFETY_CHECKER, TRANSFORMERS_STEM, Part::Other(&mut **checker)));
        }
        components
    }

    /// The pipeline, once the models are filled.
    pub async fn finish(
        self,
        given_checker: Option<SafetyCheck>,
        options: LoadOptions,
        on_event: &mut dyn FnMut(LoadEvent<'_>),
    ) -> Result<InstructPix2Pix> {
        let Self { class, config, mut texts, vae, unet, scheduler, safety } = self;
        if let Some(prompts) = &options.prompts {
            // Of text encoders that did not come by themselves.
            let mut encoded = false;
            for text in &mut texts {
                encoded |= text.is_ready() && text.prepare(prompts, &options)?;
            }
            if encoded {
                on_event(LoadEvent::Encoded);
            }
        }
        let options = LoadOptions { prompts: None, ..options };
        let mut base = PipelineBase::new(texts, vae, unet, scheduler, options);
        base.set_safety_checker(match safety {
            Some((checker, extractor)) => Some(SafetyCheck::new(*checker, extractor).await?),
            None => given_checker,
        });
        Ok(match class {
            PipelineClass::Sd => {
                InstructPix2Pix::Sd(StableDiffusionInstructPix2PixPipeline::of(base))
            }
            PipelineClass::Xl => {
                InstructPix2Pix::Xl(StableDiffusionXLInstructPix2PixPipeline::of(base, config))
            }
        })
    }

    /// What the models that are not given take on the device.
    fn needs(&mut self, given: &Components, weights: WeightDtype) -> Vec<PartNeeds> {
        let components = self.components(given).into_iter();
        components.map(|(name, _, mut part)| needs_of(name, part.model(), weights)).collect()
    }

    /// When the models that are not given are on a device.
    ///
    /// # Errors
    /// As [`Residency::plan`].
    pub fn plan(
        &mut self,
        given: &Components,
        weights: WeightDtype,
        room: Room,
    ) -> Result<Residency> {
        Residency::plan(weights, &mut |dtype| self.needs(given, dtype), room)
    }

    /// Refuses a weight that no buffer of the device can hold.
    pub fn check(&mut self, given: &Components, placement: &Placement) -> Result<()> {
        self.plan(given, placement.weights, Room::of(&placement.device)).map(drop)
    }

    fn memory_needs(&mut self, weights: WeightDtype) -> MemoryNeeds {
        MemoryNeeds::of(&self.needs(&Components::default(), weights))
    }

    /// Bytes on the device, and what the next smaller type of weights would take.
    pub fn choice(&mut self, weights: WeightDtype) -> MemoryChoice {
        let asked = self.memory_needs(weights);
        let smaller = weights.smaller().map(|dtype| (dtype, self.memory_needs(dtype)));
        MemoryChoice { weights, asked, smaller }
    }
}

/// Bytes of a device's memory that a model's weights take, and would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryChoice {
    /// The type that was asked for.
    pub weights: WeightDtype,
    /// What they take in it.
    pub asked: MemoryNeeds,
    /// The next smaller type, where there is one, and what they would take in that.
    pub smaller: Option<(WeightDtype, MemoryNeeds)>,
}

/// What a model's parameters take on the device.
fn needs_of(component: &'static str, model: &mut dyn Module, weights: WeightDtype) -> PartNeeds {
    let mut needs = PartNeeds { component, bytes: 0, largest: 0 };
    model.visit("", &mut |_, parameter| {
        let (shape, packing) = (parameter.shape(), parameter.packing(weights));
        let [rows, columns] = match shape {
            [length] => [1, *length],
            _ => [shape[0], shape[1..].iter().product()],
        };
        let bytes = packing.bytes([rows, columns]) as u64;
        needs.bytes += bytes;
        needs.largest = needs.largest.max(bytes);
    });
    needs
}

pub(super) async fn read_text(files: &dyn ModelFiles, path: &str) -> Result<String> {
    let bytes = files.read(path).await?;
    String::from_utf8(bytes).map_err(|e| Error::config(path, e))
}

/// An empty safety checker by its configuration, and the feature extractor.
pub(super) async fn read_safety_checker(
    files: &dyn ModelFiles,
    folder: &str,
) -> Result<(Box<StableDiffusionSafetyChecker>, ClipImageProcessor)> {
    let path = format!("{folder}/config.json");
    let checker = SafetyCheckerConfig::parse(&path, &read_text(files, &path).await?)?;
    let path = "feature_extractor/preprocessor_config.json";
    let extractor = ClipImageProcessor::parse(path, &read_text(files, path).await?)?;
    Ok((Box::new(checker.init()), extractor))
}

/// What a tokenizer consists of, the last two where they are there.
pub(super) const TOKENIZER: [&str; 4] =
    ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];

/// Reads all of [`TOKENIZER`], so that a cache has it when the model is saved without a network.
async fn read_tokenizer(files: &dyn ModelFiles, folder: &str) -> Result<ClipTokenizer> {
    let read = TOKENIZER.map(|file| async move {
        match read_text(files, &format!("{folder}/{file}")).await {
            Ok(text) => Ok(Some(text)),
            Err(Error::NotFound { .. }) if file.contains("token") => Ok(None),
            Err(error) => Err(error),
        }
    });
    let mut texts = try_join_all(read).await?.into_iter();
    let mut next = || texts.next().flatten();
    let (vocab, merges) = (next().unwrap_or_default(), next().unwrap_or_default());
    ClipTokenizer::new(&vocab, &merges, next().or_else(next).as_deref())
}

/// The class that `model_index.json` names, and its other contents.
fn parse_index(
    json: &str,
    wanted: Option<PipelineClass>,
) -> Result<(PipelineClass, serde_json::Value)> {
    let file = "model_index.json";
    let index: serde_json::Value =
        serde_json::from_str(json).map_err(|e| Error::config(file, e))?;
    let name = index["_class_name"].as_str().unwrap_or_default();
    let mut known =
        PipelineClass::ALL.into_iter().filter(|class| wanted.is_none_or(|one| one == *class));
    match known.clone().find(|class| class.name() == name) {
        Some(class) => Ok((class, index)),
        None => {
            let known = known.by_ref().map(PipelineClass::name).collect::<Vec<_>>().join(" and ");
            Err(Error::unsupported(format!("pipeline `{name}` of {file}; {known} can be loaded")))
        }
    }
}
