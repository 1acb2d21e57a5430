//! Pictures to CLIP's input.
//!
//! Source: transformers `models/clip/image_processing_clip.py`, `CLIPImageProcessor`.

use serde::Deserialize;

use super::{Filter, RgbImage, resize};
use crate::error::Result;
use crate::json;

/// Pixels of a side of what an encoder sees at most.
const MAX_SIDE: usize = 1 << 12;

/// `preprocessor_config.json` of a `CLIPImageProcessor`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClipImageProcessor {
    /// What the shorter side becomes, pixels.
    size: Size,
    /// What is cut from the middle, pixels.
    crop_size: Size,
    do_resize: bool,
    do_center_crop: bool,
    do_rescale: bool,
    do_normalize: bool,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

/// A size as a number, by the shorter side, or by both.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shortest { shortest_edge: usize },
    Both { height: usize, width: usize },
}

impl Default for ClipImageProcessor {
    fn default() -> Self {
        Self {
            size: Size::Shortest { shortest_edge: 224 },
            crop_size: Size::Both { height: 224, width: 224 },
            do_resize: true,
            do_center_crop: true,
            do_rescale: true,
            do_normalize: true,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

impl ClipImageProcessor {
    /// Parses `json`, the contents of `file`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig) when it is no such configuration.
    pub fn parse(file: &str, json: &str) -> Result<Self> {
        let processor: Self = json::parse(file, json)?;
        let sides = |key, size: Size| size.both().map(|side| (key, side));
        json::bounded(file, MAX_SIDE, sides("size", processor.size))?;
        json::bounded(file, MAX_SIDE, sides("crop_size", processor.crop_size))?;
        Ok(processor)
    }

    /// Resizes with bicubic interpolation, cuts out the middle and normalises. Returns height, width
    /// and samples, `[H, W, 3]`.
    pub fn preprocess(&self, picture: &RgbImage) -> ([usize; 2], Vec<f32>) {
        let mut picture = picture.clone();
        if self.do_resize {
            let [height, width] = self.resized(&picture);
            picture = resize(&picture, width, height, Filter::Bicubic);
        }
        if self.do_center_crop {
            picture = centre(&picture, self.crop_size.both());
        }
        let scale = if self.do_rescale { self.rescale_factor } else { 1.0 };
        let normalize = |(i, x): (usize, &u8)| {
            let value = (f64::from(*x) * scale) as f32;
            match i % 3 {
                c if self.do_normalize => (value - self.image_mean[c]) / self.image_std[c],
                _ => value,
            }
        };
        let samples = picture.data.iter().enumerate().map(normalize).collect();
        ([picture.height, picture.width], samples)
    }

    fn resized(&self, picture: &RgbImage) -> [usize; 2] {
        let RgbImage { width, height, .. } = *picture;
        match self.size {
            Size::Both { height, width } => [height, width],
            Size::Side(short) | Size::Shortest { shortest_edge: short } => {
                let long =
                    |long: usize, than: usize| (short as f64 * long as f64 / than as f64) as usize;
                if width <= height {
                    [long(height, width), short]
                } else {
                    [short, long(width, height)]
                }
            }
        }
    }
}

impl Size {
    fn both(self) -> [usize; 2] {
        match self {
            Self::Side(side) | Self::Shortest { shortest_edge: side } => [side; 2],
            Self::Both { height, width } => [height, width],
        }
    }
}

/// The middle of a picture; black where the picture ends before.
fn centre(picture: &RgbImage, [height, width]: [usize; 2]) -> RgbImage {
    let mut data = vec![0; height * width * 3];
    let offset = |have: usize, want: usize| (have as i64 - want as i64).div_euclid(2);
    let (top, left) = (offset(picture.height, height), offset(picture.width, width));
    let source = |to: usize, offset: i64, limit: usize| {
        usize::try_from(to as i64 + offset).ok().filter(|from| *from < limit)
    };
    for y in 0..height {
        let Some(from_y) = source(y, top, picture.height) else { continue };
        for x in 0..width {
            let Some(from_x) = source(x, left, picture.width) else { continue };
            let from = (from_y * picture.width + from_x) * 3;
            let to = (y * width + x) * 3;
            data[to..to + 3].copy_from_slice(&picture.data[from..from + 3]);
        }
    }
    RgbImage { width, height, data }
}
