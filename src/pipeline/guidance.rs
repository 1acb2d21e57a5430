//! Classifier-free guidance on two conditions.
//!
//! Source: Brooks, Holynski and Efros, "InstructPix2Pix", equation 3; diffusers
//! `pipelines/stable_diffusion/pipeline_stable_diffusion_instruct_pix2pix.py`.

use burn::tensor::Tensor;

use crate::kernels::combine;

/// How strongly each condition pulls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// `guidance_scale`
    pub text: f64,
    /// `image_guidance_scale`
    pub image: f64,
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
        combine(&[
            (self.text, &text),
            (self.image - self.text, &image),
            (1.0 - self.image, &unconditional),
        ])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn both_scales_decide() {
        let on = |text, image| Guidance { text, image }.is_on();
        assert!(on(7.5, 1.5) && on(7.5, 1.0));
        assert!(!on(1.0, 1.5) && !on(7.5, 0.9));
    }

    #[test]
    fn the_formula_of_the_paper() {
        let device = Device::flex();
        let rows = Tensor::<1>::from_floats([5.0, 3.0, 2.0], &device).reshape([3, 1, 1, 1]);
        let guided = Guidance { text: 7.5, image: 1.5 }.apply(rows);
        let expected = 2.0 + 7.5 * (5.0 - 3.0) + 1.5 * (3.0 - 2.0);
        assert_eq!(guided.into_data().try_to_vec::<f32>().expect("f32"), [expected]);
    }
}
