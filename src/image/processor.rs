//! Pictures to the VAE's input and back.
//!
//! Source: diffusers `image_processor.py`, `VaeImageProcessor`.

use super::{Filter, RgbImage, resize};
use crate::error::{Error, Result};

/// `VaeImageProcessor`: sizes become multiples of the VAE's factor, samples go to -1 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaeImageProcessor {
    /// Pixels along one axis for each latent.
    pub vae_scale_factor: usize,
}

/// The smallest side of a picture that is edited, pixels.
const MIN_SIDE: usize = 8;

impl VaeImageProcessor {
    /// Resizes `picture` with Lanczos to `size` (height, width; its own when absent), both rounded
    /// down to multiples of the factor, and returns height, width and samples in -1 to 1,
    /// `[H, W, 3]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a side is under 8 pixels, or under one latent.
    pub fn preprocess(
        &self,
        picture: &RgbImage,
        size: Option<[usize; 2]>,
    ) -> Result<([usize; 2], Vec<f32>)> {
        let [height, width] = self.round(size, [picture.height, picture.width])?;
        let picture = resize(picture, width, height, Filter::Lanczos);
        let samples = picture.data.iter().map(|&x| 2.0 * (f32::from(x) / 255.0) - 1.0).collect();
        Ok(([height, width], samples))
    }

    /// The same for samples `[N, 3, H, W]`, or `[N, H, W, 3]` as numpy has them, in 0 to 1 and `size`, resized to their nearest neighbours; those in -1 to 1 are left
    /// as they are. They are taken to be that where one is negative, as diffusers does.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when there are not three channels, or a side is too small.
    pub fn preprocess_samples(
        &self,
        shape: [usize; 4],
        samples: &[f32],
        size: Option<[usize; 2]>,
    ) -> Result<([usize; 2], Vec<f32>)> {
        const CHANNELS: usize = 3;
        // Strides of a channel, a row and a pixel.
        let (rows, height, width, strides) = match shape {
            [rows, CHANNELS, height, width] => (rows, height, width, [height * width, width, 1]),
            [rows, height, width, CHANNELS] => {
                (rows, height, width, [1, width * CHANNELS, CHANNELS])
            }
            [_, channels, _, _] => {
                let message = format!(
                    "{channels} channels in {shape:?}; samples are [N, 3, H, W] or [N, H, W, 3], \
                     latents have as many channels as the VAE's"
                );
                return Err(Error::argument("image", message));
            }
        };
        if !samples.iter().all(|x| x.is_finite()) {
            return Err(Error::argument("image", "not all samples are finite"));
        }
        let [new_height, new_width] = self.round(size, [height, width])?;
        let normalized = samples.iter().any(|x| *x < 0.0);
        // torch's `interpolate` multiplies by the ratio in single precision.
        let nearest = |i: usize, from: usize, to: usize| {
            ((i as f32 * (from as f32 / to as f32)) as usize).min(from - 1)
        };
        let mut values = Vec::with_capacity(rows * new_height * new_width * CHANNELS);
        for picture in samples.chunks_exact(CHANNELS * height * width) {
            for y in (0..new_height).map(|y| nearest(y, height, new_height)) {
                for x in (0..new_width).map(|x| nearest(x, width, new_width)) {
                    for channel in 0..CHANNELS {
                        let at = channel * strides[0] + y * strides[1] + x * strides[2];
                        let sample = picture[at];
                        values.push(if normalized { sample } else { 2.0 * sample - 1.0 });
                    }
                }
            }
        }
        Ok(([new_height, new_width], values))
    }

    /// Height and width, those asked for or the picture's own, rounded down to multiples of the factor.
    fn round(&self, size: Option<[usize; 2]>, own: [usize; 2]) -> Result<[usize; 2]> {
        let least = MIN_SIDE.max(self.vae_scale_factor);
        let [height, width] = size.unwrap_or(own);
        if height < least || width < least {
            return Err(Error::argument(
                if size.is_some() { "height, width" } else { "image" },
                format!("{width} x {height} pixels; both sides need at least {least}"),
            ));
        }
        Ok([height, width].map(|side| side - side % self.vae_scale_factor))
    }

    /// The VAE's output in about -1 to 1 to samples in 0 to 1.
    pub fn denormalize(&self, samples: &[f32]) -> Vec<f32> {
        samples.iter().map(|x| (x / 2.0 + 0.5).clamp(0.0, 1.0)).collect()
    }
}

/// Samples in 0 to 1 to bytes; halves go to the even neighbour, as numpy rounds.
pub fn to_u8(samples: &[f32]) -> Vec<u8> {
    samples.iter().map(|x| (x * 255.0).round_ties_even() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pictures_are_refused() {
        let processor = VaeImageProcessor { vae_scale_factor: 8 };
        for (width, height) in [(7, 64), (64, 7), (0, 0)] {
            let picture = RgbImage::new(width, height, vec![0; width * height * 3]).expect("valid");
            let error = processor.preprocess(&picture, None).expect_err("too small");
            assert_eq!(error.code(), "invalid-argument");
        }
    }

    #[test]
    fn samples_are_read_in_both_orders() {
        let processor = VaeImageProcessor { vae_scale_factor: 8 };
        let (height, width) = (8, 16);
        let at = |c: usize, y: usize, x: usize| (c * 100 + y * 16 + x) as f32 / 512.0;
        let mut first = Vec::new();
        let mut last = Vec::new();
        for c in 0..3 {
            first.extend((0..height).flat_map(|y| (0..width).map(move |x| at(c, y, x))));
        }
        for y in 0..height {
            last.extend((0..width).flat_map(|x| (0..3).map(move |c| at(c, y, x))));
        }
        let first = processor.preprocess_samples([1, 3, height, width], &first, None);
        let last = processor.preprocess_samples([1, height, width, 3], &last, None);
        assert_eq!(first.expect("three channels"), last.expect("three channels"));
    }
}
