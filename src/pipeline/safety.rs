//! Which pictures are not safe for work.
//!
//! Source: diffusers `pipelines/stable_diffusion/pipeline_stable_diffusion.py`, `run_safety_checker`.

use burn::tensor::{DType, Tensor, TensorData};

use super::{LoadOptions, to_host};
use crate::error::Result;
use crate::image::{ClipImageProcessor, RgbImage};
use crate::models::{SafetyThresholds, StableDiffusionSafetyChecker, judge};

/// A safety checker with what it compares pictures with.
#[derive(Debug, Clone)]
pub struct SafetyCheck {
    checker: StableDiffusionSafetyChecker,
    extractor: ClipImageProcessor,
    concepts: Vec<f32>,
    special_care: Vec<f32>,
    thresholds: SafetyThresholds,
}

impl SafetyCheck {
    /// A loaded checker; its concepts are read back once, they are a few kilobytes.
    ///
    /// # Errors
    /// [`Error::Gpu`](crate::Error::Gpu) when the device fails.
    pub async fn new(
        checker: StableDiffusionSafetyChecker,
        extractor: ClipImageProcessor,
    ) -> Result<Self> {
        let [concepts, special_care] = checker.concepts();
        let [concept_thresholds, special_thresholds] = checker.thresholds();
        Ok(Self {
            concepts: to_host(concepts).await?,
            special_care: to_host(special_care).await?,
            thresholds: SafetyThresholds {
                concepts: to_host(concept_thresholds).await?,
                special_care: to_host(special_thresholds).await?,
            },
            checker,
            extractor,
        })
    }

    /// The checker itself.
    pub(super) fn checker(&mut self) -> &mut StableDiffusionSafetyChecker {
        &mut self.checker
    }

    /// Tells which pictures are not safe for work.
    ///
    /// # Errors
    /// [`Error::Gpu`](crate::Error::Gpu) when the device fails.
    pub async fn judge(&self, images: &[RgbImage], options: &LoadOptions) -> Result<Vec<bool>> {
        let mut flags = Vec::with_capacity(images.len());
        for image in images {
            let ([height, width], samples) = self.extractor.preprocess(image);
            let data = TensorData::new(samples, [1, height, width, 3]);
            let device = &options.placement.device;
            let input = Tensor::<4>::from_data(data, (device, DType::F32)).cast(options.dtype);
            let embedding = to_host(self.checker.embed(input)).await?;
            let verdict = judge(&embedding, &self.concepts, &self.special_care, &self.thresholds);
            flags.push(verdict.has_nsfw_concept);
        }
        Ok(flags)
    }
}
