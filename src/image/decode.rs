//! Picture files, where there is no browser to decode them.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use crate::error::{Error, Result};

/// The largest side of a picture that is decoded, pixels.
const MAX_SIDE: u32 = 32_768;

/// The most memory that decoding may take, bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Decodes PNG, JPEG or WebP to RGBA and turns it as its EXIF orientation says.
/// Returns width, height and `height * width * 4` bytes.
///
/// # Errors
/// [`Error::ImageDecode`] when it is none of these, damaged, or unreasonably large.
pub fn decode(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>)> {
    let fail = |message: String| Error::ImageDecode { message };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| fail(e.to_string()))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| fail(e.to_string()))?;
    let orientation = decoder.orientation().map_err(|e| fail(e.to_string()))?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| fail(e.to_string()))?;
    picture.apply_orientation(orientation);
    let rgba = picture.into_rgba8();
    Ok((rgba.width() as usize, rgba.height() as usize, rgba.into_raw()))
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgb, Rgba, RgbaImage};

    use super::*;

    fn encoded(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("can be encoded");
        bytes.into_inner()
    }

    #[test]
    fn png_keeps_colours_under_transparency() {
        let picture = RgbaImage::from_fn(3, 2, |x, y| Rgba([x as u8 * 80, y as u8 * 90, 7, 0]));
        let (width, height, rgba) =
            decode(&encoded(picture.clone().into(), ImageFormat::Png)).expect("valid");
        assert_eq!((width, height), (3, 2));
        assert_eq!(rgba, picture.into_raw());
    }

    #[test]
    fn jpeg_is_turned_as_its_exif_says() {
        let picture = image::RgbImage::from_fn(16, 8, |x, _| {
            if x < 8 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) }
        });
        let mut jpeg = encoded(picture.into(), ImageFormat::Jpeg);
        // APP1 with one EXIF entry: orientation 6, a quarter turn clockwise.
        let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        jpeg.splice(2..2, exif.iter().copied());
        let (width, height, rgba) = decode(&jpeg).expect("valid");
        assert_eq!((width, height), (8, 16));
        assert!(rgba[0] > 200 && rgba[2] < 50, "red on top");
        let bottom = &rgba[15 * 8 * 4..];
        assert!(bottom[0] < 50 && bottom[2] > 200, "blue below");
    }

    #[test]
    fn what_is_no_picture_is_a_typed_error() {
        let mut png = encoded(RgbaImage::new(30, 30).into(), ImageFormat::Png);
        png.truncate(60);
        for bytes in [&b""[..], b"GIF89a", b"<html>", &png] {
            assert_eq!(decode(bytes).expect_err("no picture").code(), "image-decode");
        }
    }
}
