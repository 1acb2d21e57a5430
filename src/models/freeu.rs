//! FreeU: backbone features up, low frequencies of the skips down, without training.
//!
//! Source: Si et al., "FreeU: Free Lunch in Diffusion U-Net"; diffusers `utils/torch_utils.py`,
//! `apply_freeu` and `fourier_filter`.

use burn::tensor::{DType, Tensor, TensorData};

use crate::kernels::product;

/// How strongly the first two stages on the way up are changed; 1 changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FreeU {
    /// Skips of the first stage.
    pub s1: f64,
    /// Skips of the second.
    pub s2: f64,
    /// Backbone of the first stage.
    pub b1: f64,
    /// Backbone of the second.
    pub b2: f64,
}

/// What [`FreeU`] does at one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FreeUStage {
    backbone: f64,
    skip: f64,
}

impl FreeU {
    /// The part for a stage on the way up; none from the third on.
    pub fn stage(&self, index: usize) -> Option<FreeUStage> {
        match index {
            0 => Some(FreeUStage { backbone: self.b1, skip: self.s1 }),
            1 => Some(FreeUStage { backbone: self.b2, skip: self.s2 }),
            _ => None,
        }
    }
}

impl FreeUStage {
    /// Backbone and skip, `[B, H, W, C]` each, before they are joined.
    pub fn apply(self, backbone: Tensor<4>, skip: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let channels = backbone.dims()[3];
        let half = channels / 2;
        let scaled = backbone.clone().narrow(3, 0, half).mul_scalar(self.backbone);
        let rest = backbone.narrow(3, half, channels - half);
        (Tensor::cat(vec![scaled, rest], 3), scale_low_frequencies(skip, self.skip))
    }
}

/// Multiplies the frequencies -1 and 0 of both axes by `scale`: the middle of the shifted spectrum.
///
/// Four frequencies need no Fourier transform of the whole: their share of the picture is a
/// projection on the cosines and sines of each, `x + (scale - 1) / (H W) * basis^T (basis x)`.
fn scale_low_frequencies(x: Tensor<4>, scale: f64) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let pixels = h * w;
    let mut basis = Vec::with_capacity(8 * pixels);
    for (fy, fx) in [(0.0, 0.0), (0.0, -1.0), (-1.0, 0.0), (-1.0, -1.0)] {
        let angle = |pixel: usize| {
            let (y, x) = ((pixel / w) as f64, (pixel % w) as f64);
            std::f64::consts::TAU * (fy * y / h as f64 + fx * x / w as f64)
        };
        basis.extend((0..pixels).map(|pixel| angle(pixel).cos() as f32));
        basis.extend((0..pixels).map(|pixel| angle(pixel).sin() as f32));
    }
    let data = TensorData::new(basis, [8, pixels]);
    let basis = Tensor::<2>::from_data(data, (&x.device(), DType::F32));
    // In f32: a sum over all pixels is more than a half holds.
    let low = (0..b).map(|row| {
        let tokens = x.clone().narrow(0, row, 1).reshape([pixels, c]).cast(DType::F32);
        let spectrum = product(basis.clone(), tokens);
        product(basis.clone().transpose(), spectrum)
    });
    let low = Tensor::cat(low.collect(), 0).mul_scalar((scale - 1.0) / pixels as f64);
    let dtype = x.dtype();
    x.add(low.cast(dtype).reshape([b, h, w, c]))
}
