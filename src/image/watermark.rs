//! The invisible watermark of Stable Diffusion XL's pipelines: 48 bits in the blue chroma.
//!
//! Source: the Python package `invisible-watermark`, `imwatermark/maxDct.py` (its method `dwtDct`,
//! which despite the name transforms with a wavelet alone), and diffusers
//! `pipelines/stable_diffusion_xl/watermark.py`. Two oddities are kept, so that pictures are those
//! that diffusers gives: the wavelet's horizontal and vertical details come back exchanged, and the
//! way back from YUV is not quite the inverse of the way there.

/// The message, its first bit the highest.
const MESSAGE: u64 = 0xb3ec_907b_b19e;

/// Bits of the message.
const BITS: usize = 48;

/// A bit is in the place of a coefficient between multiples of this: a quarter or three quarters.
const SCALE: f32 = 36.0;

/// Rows and columns of coefficients that hold one bit.
const BLOCK: usize = 4;

/// Pictures that are narrower than this, pixels, or smaller than its square, are left as they are.
const LEAST: usize = 256;

/// What OpenCV adds to the chroma of floats.
const OFFSET: f32 = 0.5;

/// Puts the watermark into a picture, `[H, W, 3]` of red, green and blue in 0 to 255, which may lie
/// outside; nothing is rounded. Tells whether the picture is large enough; it is unchanged if not.
///
/// # Panics
/// When there are not as many samples as `height` and `width` say.
pub fn watermark(samples: &mut [f32], [height, width]: [usize; 2]) -> bool {
    assert_eq!(samples.len(), height * width * 3, "three samples for each pixel");
    if width < LEAST || height * width < LEAST * LEAST {
        return false;
    }
    let mut chroma: Vec<f32> = samples
        .as_chunks::<3>()
        .0
        .iter()
        .map(|pixel| (pixel[2] - luma(pixel)) * 0.492 + OFFSET)
        .collect();
    embed(&mut chroma, [height, width]);
    for (pixel, blue) in samples.as_chunks_mut::<3>().0.iter_mut().zip(chroma) {
        let y = luma(pixel);
        let red = (pixel[0] - y) * 0.877;
        let blue = blue - OFFSET;
        *pixel = [y + 1.140 * red, y - 0.395 * blue - 0.581 * red, y + 2.032 * blue];
    }
    true
}

fn luma([red, green, blue]: &[f32; 3]) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// Puts the message into a plane, as often as there is room.
fn embed(plane: &mut [f32], [height, width]: [usize; 2]) {
    // A multiple of four, so that the wavelet has an even number of both.
    let [rows, columns] = [height, width].map(|side| side / 4 * 2);
    let at = |row: usize, column: usize| {
        let above = 2 * row * width + 2 * column;
        [above, above + 1, above + width, above + width + 1]
    };
    let mut averages = vec![0.0; rows * columns];
    for row in 0..rows {
        for column in 0..columns {
            averages[row * columns + column] =
                at(row, column).iter().map(|i| plane[*i]).sum::<f32>() / 2.0;
        }
    }
    let blocks = (0..rows / BLOCK)
        .flat_map(|row| (0..columns / BLOCK).map(move |column| (row * BLOCK, column * BLOCK)));
    for (number, (row, column)) in blocks.enumerate() {
        let place = strongest(&averages, columns, (row, column));
        let bit = MESSAGE >> (BITS - 1 - number % BITS) & 1;
        let value = averages[place];
        let moved = ((value.abs() / SCALE).floor() + 0.25 + 0.5 * bit as f32) * SCALE;
        averages[place] = if value < 0.0 { -moved } else { moved };
    }
    for row in 0..rows {
        for column in 0..columns {
            let places = at(row, column);
            let [a, b, c, d] = places.map(|i| plane[i]);
            let (horizontal, vertical) = ((a + b - c - d) / 2.0, (a - b + c - d) / 2.0);
            let diagonal = (a - b - c + d) / 2.0;
            let average = averages[row * columns + column];
            // Exchanged, as in the package.
            let (horizontal, vertical) = (vertical, horizontal);
            let values = [
                average + horizontal + vertical + diagonal,
                average + horizontal - vertical - diagonal,
                average - horizontal + vertical - diagonal,
                average - horizontal - vertical + diagonal,
            ];
            for (place, value) in places.into_iter().zip(values) {
                plane[place] = value / 2.0;
            }
        }
    }
}

/// The place of a block's greatest coefficient, which the first one of the block never is.
fn strongest(values: &[f32], columns: usize, (row, column): (usize, usize)) -> usize {
    let place = |i: usize| (row + i / BLOCK) * columns + column + i % BLOCK;
    let places = (1..BLOCK * BLOCK).map(place);
    // The first of equals, as numpy's argmax.
    places
        .reduce(|best, next| if values[next].abs() > values[best].abs() { next } else { best })
        .expect("a block has more than one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::to_u8;
    use safetensors::SafeTensors;

    /// A picture by a formula that Python has, too; some of it lies outside 0 to 255.
    fn picture([height, width]: [usize; 2]) -> Vec<f32> {
        let places = (0..height * width * 3).map(|i| (i / 3 / width, i / 3 % width, i % 3));
        places
            .map(|(y, x, c)| {
                let wave = (x * 3 + y + 90 * c) % 512;
                // No two places are alike, so that no rounding decides which is the strongest.
                let noise = (x * 73_856_093) ^ (y * 19_349_663) ^ (c * 83_492_791);
                wave.min(511 - wave) as f32 + (noise % 4001) as f32 / 250.0 - 8.0
            })
            .collect()
    }

    /// Reads the message out of a picture of bytes, as the package's decoder does.
    fn read(bytes: &[u8], [height, width]: [usize; 2]) -> u64 {
        let pixels: Vec<f32> = bytes.iter().map(|x| f32::from(*x)).collect();
        let chroma = |i: usize| {
            let pixel = &pixels.as_chunks::<3>().0[i];
            (pixel[2] - luma(pixel)) * 0.492 + OFFSET
        };
        let [rows, columns] = [height, width].map(|side| side / 4 * 2);
        let averages: Vec<f32> = (0..rows * columns)
            .map(|i| {
                let above = 2 * (i / columns) * width + 2 * (i % columns);
                [0, 1, width, width + 1].iter().map(|step| chroma(above + step)).sum::<f32>() / 2.0
            })
            .collect();
        let mut votes = [0i32; BITS];
        for number in 0..(rows / BLOCK) * (columns / BLOCK) {
            let (row, column) = (number / (columns / BLOCK), number % (columns / BLOCK));
            let place = strongest(&averages, columns, (row * BLOCK, column * BLOCK));
            let is_set = averages[place].abs() % SCALE > SCALE / 2.0;
            votes[number % BITS] += if is_set { 1 } else { -1 };
        }
        votes.iter().fold(0, |message, votes| message << 1 | u64::from(*votes > 0))
    }

    #[test]
    fn pictures_are_those_of_the_package() {
        let golden = include_bytes!("../../tests/fixtures/watermark.safetensors");
        let golden = SafeTensors::deserialize(golden).expect("valid");
        for size in [[256, 256], [262, 301]] {
            let name = format!("{}x{}", size[0], size[1]);
            let tensor = golden.tensor(&name).expect("a golden");
            let expected = tensor.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
            let mut samples = picture(size);
            assert!(watermark(&mut samples, size));
            let found = samples.iter().step_by(97);
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.zip(expected).enumerate() {
                assert!((found - expected).abs() < 1e-3, "{name}, {i}: {found}, not {expected}");
            }
        }
    }

    /// `IP2P_SAVE=folder` keeps the pictures, for `gen_watermark.py` with that folder: the package's own decoder.
    #[test]
    fn the_message_survives_rounding_to_bytes() {
        // Of strong colours as above the package's own decoder does not get all bits back.
        for size in [[262, 301], [512, 512]] {
            let mut samples: Vec<f32> = picture(size).iter().map(|x| x * 0.1 + 80.0).collect();
            let bytes =
                |samples: &[f32]| to_u8(&samples.iter().map(|x| x / 255.0).collect::<Vec<_>>());
            assert_ne!(read(&bytes(&samples), size), MESSAGE);
            watermark(&mut samples, size);
            assert_eq!(read(&bytes(&samples), size), MESSAGE);
            if let Some(folder) = std::env::var_os("IP2P_SAVE") {
                let [height, width] = size.map(|side| side as u32);
                let path = std::path::Path::new(&folder).join(format!("{height}x{width}.png"));
                let color = ::image::ColorType::Rgb8;
                ::image::save_buffer(path, &bytes(&samples), width, height, color).expect("saved");
            }
        }
    }

    #[test]
    fn small_pictures_are_left_alone() {
        for size in [[512, 255], [255, 256], [8, 8]] {
            let mut samples = picture(size);
            assert!(!watermark(&mut samples, size));
            assert_eq!(samples, picture(size));
        }
    }
}
