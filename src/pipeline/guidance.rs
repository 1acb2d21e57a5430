//! Classifier-free guidance on two conditions.
//!
//! Source: Brooks, Holynski and Efros, "InstructPix2Pix", equation 3; diffusers
//! `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py`; for the rescaling Lin
//! et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.4.

use burn::tensor::Tensor;

use crate::kernels::combine;

/// How strongly each condition pulls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// `guidance_scale`
    pub text: f64,
    /// `image_guidance_scale`
    pub image: f64,
    /// `guidance_rescale`: the share of the result that gets the deviation of the text prediction
    /// back, 0 to 1.
    pub rescale: f64,
}

impl Guidance {
    /// Whether the model is called on three rows, `[text, image, unconditional]`, or on one.
    pub fn is_on(self) -> bool {
        self.text > 1.0 && self.image >= 1.0
    }

    /// Combines the three rows, `[3 * B, H, W, C]` to `[B, H, W, C]`:
    /// `unconditional + text * (text - image) + image * (image - unconditional)`.
    pub fn apply(self, prediction: Tensor<4>) -> Tensor<4> {
        if !self.is_on() {
            return prediction;
        }
        let [text, image, unconditional]: [_; 3] =
            prediction.chunk(3, 0).try_into().expect("chunk(3) yields three");
        let guided = combine(&[
            (self.text, &text),
            (self.image - self.text, &image),
            (1.0 - self.image, &unconditional),
        ]);
        if self.rescale <= 0.0 {
            return guided;
        }
        let ratio = deviation(text) / deviation(guided.clone());
        guided * (ratio * self.rescale + (1.0 - self.rescale))
    }
}

/// The standard deviation of each row, unbiased, `[B, H, W, C]` to `[B, 1, 1, 1]`.
fn deviation(x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let x = x.reshape([b, h * w * c]);
    let centred = x.clone() - x.mean_dim(1);
    let sum = (centred.clone() * centred).sum_dim(1);
    (sum / (h * w * c - 1) as f64).sqrt().reshape([b, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn both_scales_decide() {
        let on = |text, image| Guidance { text, image, rescale: 0.0 }.is_on();
        assert!(on(7.5, 1.5) && on(7.5, 1.0));
        assert!(!on(1.0, 1.5) && !on(7.5, 0.9));
    }

    #[test]
    fn the_formula_of_the_paper() {
        let device = Device::flex();
        let rows = Tensor::<1>::from_floats([5.0, 3.0, 2.0], &device).reshape([3, 1, 1, 1]);
        let guided = Guidance { text: 7.5, image: 1.5, rescale: 0.0 }.apply(rows);
        let expected = 2.0 + 7.5 * (5.0 - 3.0) + 1.5 * (3.0 - 2.0);
        assert_eq!(guided.into_data().try_to_vec::<f32>().expect("f32"), [expected]);
    }

    #[test]
    fn rescaling_gives_each_row_its_deviation_back() {
        let device = Device::flex();
        let rows = [
            // Text, picture and neither, of two results each.
            [1.0f32, 2.0, 4.0, 1.0],
            [3.0, 0.0, 0.0, 1.0],
            [0.0, 1.0, 2.0, 2.0],
            [1.0, 1.0, 5.0, 0.0],
            [0.0, 0.0, 1.0, 1.0],
            [2.0, 1.0, 0.0, 0.0],
        ];
        let tensor = || Tensor::<2>::from_floats(rows, &device).reshape([6, 2, 2, 1]);
        let apply = |rescale| {
            let guided = Guidance { text: 5.0, image: 1.5, rescale }.apply(tensor());
            guided.into_data().try_to_vec::<f32>().expect("f32")
        };
        let deviation = |values: &[f32]| {
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let squares = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
            (squares / (values.len() - 1) as f32).sqrt()
        };
        let plain = apply(0.0);
        for share in [0.7, 1.0] {
            for (result, found) in apply(share).chunks(4).enumerate() {
                let plain = &plain[result * 4..][..4];
                let ratio = deviation(&rows[result]) / deviation(plain);
                for (found, plain) in found.iter().zip(plain) {
                    let share = share as f32;
                    let expected = share * (plain * ratio) + (1.0 - share) * plain;
                    assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
                }
            }
        }
    }
}
