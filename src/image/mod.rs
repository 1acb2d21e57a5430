//! Pictures on the host.

mod decode;
mod feature_extractor;
mod processor;
mod resize;
mod watermark;

pub use decode::decode;
pub use feature_extractor::ClipImageProcessor;
pub use processor::{VaeImageProcessor, to_u8};
pub use resize::{Filter, resize};
pub use watermark::watermark;

use crate::error::{Error, Result};

/// A picture: rows of red, green and blue bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// `height * width * 3` bytes, row by row.
    pub data: Vec<u8>,
}

impl RgbImage {
    /// Pairs pixels with their size.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `data` is not `height * width * 3` bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        if width.checked_mul(height).and_then(|n| n.checked_mul(3)) != Some(data.len()) {
            return Err(Error::argument(
                "image",
                format!("{} bytes are no picture of {width} x {height} pixels", data.len()),
            ));
        }
        Ok(Self { width, height, data })
    }

    /// Drops the alpha of `width * height` RGBA pixels, as Pillow's `convert("RGB")` does.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `rgba` has another length.
    pub fn from_rgba(width: usize, height: usize, rgba: &[u8]) -> Result<Self> {
        let (pixels, _) = rgba.as_chunks::<4>();
        let data = pixels.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
        Self::new(width, height, data)
    }

    /// Opaque RGBA pixels.
    pub fn to_rgba(&self) -> Vec<u8> {
        let (pixels, _) = self.data.as_chunks::<3>();
        pixels.iter().flat_map(|[r, g, b]| [*r, *g, *b, 255]).collect()
    }
}
