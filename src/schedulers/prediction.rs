//! From the model's output to the denoised sample and the noise, and the limits of the former.
//!
//! Follows the `prediction_type` branches of `step` and `convert_model_output`, and
//! `_threshold_sample`, which the classes in `diffusers/schedulers` share.
//!
//! Papers: "Progressive Distillation for Fast Sampling of Diffusion Models" (2202.00512) for
//! `v_prediction`, "Photorealistic Text-to-Image Diffusion Models with Deep Language
//! Understanding" (2205.11487) for dynamic thresholding.

use burn::tensor::{DType, Tensor};

use super::StepInput;
use super::config::{PredictionType, Settings};
use crate::kernels::combine;

/// A linear function of the sample and the model's output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) sample: f64,
    pub(super) output: f64,
}

impl Affine {
    /// The denoised sample, where `sample = alpha * denoised + sigma * noise`.
    pub(super) fn original(prediction: PredictionType, alpha: f64, sigma: f64) -> Self {
        let (sample, output) = match prediction {
            PredictionType::Epsilon => (1.0 / alpha, -sigma / alpha),
            PredictionType::Sample => (0.0, 1.0),
            PredictionType::VPrediction => (alpha, -sigma),
            PredictionType::FlowPrediction => (1.0, -sigma),
        };
        Self { sample, output }
    }

    /// The noise, where `sample = alpha * denoised + sigma * noise`.
    pub(super) fn epsilon(prediction: PredictionType, alpha: f64, sigma: f64) -> Self {
        match prediction {
            PredictionType::Epsilon => Self { sample: 0.0, output: 1.0 },
            PredictionType::VPrediction => Self { sample: sigma, output: alpha },
            PredictionType::Sample | PredictionType::FlowPrediction => {
                Self::original(prediction, alpha, sigma).noise(alpha, sigma)
            }
        }
    }

    /// The noise in the sample, if this is what the sample was denoised.
    pub(super) fn noise(self, alpha: f64, sigma: f64) -> Self {
        Self { sample: (1.0 - alpha * self.sample) / sigma, output: -alpha * self.output / sigma }
    }

    /// The denoised sample, where `sample = denoised + sigma * noise` and the model saw the sample
    /// scaled to unit variance.
    pub(super) fn original_of_exploding(prediction: PredictionType, sigma: f64) -> Self {
        let variance = sigma * sigma + 1.0;
        let (sample, output) = match prediction {
            PredictionType::Epsilon | PredictionType::FlowPrediction => (1.0, -sigma),
            PredictionType::Sample => (0.0, 1.0),
            PredictionType::VPrediction => (1.0 / variance, -sigma / variance.sqrt()),
        };
        Self { sample, output }
    }

    /// The function's value.
    pub(super) fn of(self, input: &StepInput<'_>) -> Tensor<4> {
        self.at(input.sample, input.model_output)
    }

    /// The function's value, for a sample other than the input's.
    pub(super) fn at(self, sample: &Tensor<4>, output: &Tensor<4>) -> Tensor<4> {
        if self.sample == 0.0 && self.output == 1.0 {
            return output.clone();
        }
        weighted_sum(&[(self.sample, sample), (self.output, output)])
    }
}

/// [`combine`] without the terms that are zero.
pub(super) fn weighted_sum(terms: &[(f64, &Tensor<4>)]) -> Tensor<4> {
    let present: Vec<_> = terms.iter().copied().filter(|(factor, _)| *factor != 0.0).collect();
    combine(if present.is_empty() { &terms[..1] } else { &present })
}

/// What happens to a denoised sample that goes too far.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    None,
    Clip(f64),
    Dynamic { ratio: f64, max: f64 },
}

impl Limit {
    /// As the configuration asks, for classes that know both kinds.
    pub(super) fn of(settings: &Settings) -> Self {
        match Self::thresholding(settings) {
            Self::None => Self::clipping(settings),
            dynamic => dynamic,
        }
    }

    /// As the configuration asks, for classes that only know clipping.
    pub(super) fn clipping(settings: &Settings) -> Self {
        if settings.clip_sample { Self::Clip(settings.clip_sample_range) } else { Self::None }
    }

    /// As the configuration asks, for classes that only know dynamic thresholding.
    pub(super) fn thresholding(settings: &Settings) -> Self {
        if settings.thresholding {
            let (ratio, max) = (settings.dynamic_thresholding_ratio, settings.sample_max_value);
            Self::Dynamic { ratio, max }
        } else {
            Self::None
        }
    }

    /// Whether this leaves everything as it is.
    pub(super) fn is_none(self) -> bool {
        matches!(self, Self::None)
    }

    /// The sample within the limit.
    pub(super) fn apply(self, sample: Tensor<4>) -> Tensor<4> {
        match self {
            Self::None => sample,
            Self::Clip(range) => sample.clamp(-range, range),
            Self::Dynamic { ratio, max } => threshold(sample, ratio, max),
        }
    }
}

/// Clips each sample of the batch to the `ratio` quantile of its magnitudes, and divides by it.
fn threshold(sample: Tensor<4>, ratio: f64, max: f64) -> Tensor<4> {
    let (shape, dtype) = (sample.shape(), sample.dtype());
    let flat = sample.cast(DType::F32).reshape([shape[0] as i32, -1]);
    // torch.clamp lets the upper bound win when the two cross.
    let bound = quantile(flat.clone().abs(), ratio).clamp_min(1.0).clamp_max(max);
    let bound = bound.expand(flat.shape());
    let clipped = flat.max_pair(bound.clone().neg()).min_pair(bound.clone());
    (clipped / bound).reshape(shape).cast(dtype)
}

/// `torch.quantile` of every row of non-negative values.
///
/// Sorting would bring the values to the host, which a browser cannot wait for. Counting does not:
/// bisection narrows an interval around the wanted order statistic down to neighbouring floats.
fn quantile(rows: Tensor<2>, ratio: f64) -> Tensor<2> {
    let position = ratio.clamp(0.0, 1.0) * (rows.dims()[1] - 1) as f64;
    let rank = position.floor();
    let at_most = |bound: &Tensor<2>| {
        rows.clone().lower_equal(bound.clone().expand(rows.shape())).int().sum_dim(1)
    };
    let mut high = rows.clone().max_dim(1);
    let mut low = high.zeros_like().sub_scalar(1.0);
    for _ in 0..40 {
        let middle = combine(&[(0.5, &low), (0.5, &high)]);
        let enough = at_most(&middle).greater_elem(rank as i64);
        high = high.mask_where(enough.clone(), middle.clone());
        low = middle.mask_where(enough, low);
    }
    // The greatest value in the interval, and the least one above it.
    let above = rows.clone().greater(high.clone().expand(rows.shape()));
    let lower = rows.clone().mask_fill(above.clone(), 0.0).max_dim(1);
    let next = rows.clone().mask_fill(above.bool_not(), f32::MAX).min_dim(1);
    let repeated = at_most(&lower).greater_elem(rank as i64 + 1);
    let last = next.clone().greater_equal_elem(f32::MAX);
    let upper = next.mask_where(repeated.bool_or(last), lower.clone());
    let weight = position - rank;
    combine(&[(1.0 - weight, &lower), (weight, &upper)])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::quantile;

    #[test]
    fn quantile_equals_torch() {
        let rows = [[3.0_f32, 0.0, 1.0, 2.0], [5.0, 5.0, 0.25, 5.0], [0.0; 4]];
        let rows = Tensor::<2>::from_data(rows, &Device::flex());
        for (ratio, expected) in
            [(0.5, [1.5_f32, 5.0, 0.0]), (0.9, [2.7, 5.0, 0.0]), (0.0, [0.0, 0.25, 0.0])]
        {
            let found: Vec<f32> =
                quantile(rows.clone(), ratio).into_data().try_to_vec().expect("rows are float32");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{ratio}: {found} for {expected}");
            }
        }
    }
}
