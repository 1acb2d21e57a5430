//! Weights in integers of 8 or 4 bits: groups of neighbours in a row share a scale.
//!
//! Eight bits are symmetric, -127 to 127 times the scale. Four bits are -8 to 7 times a scale of either
//! sign, so that the value farthest from zero is met exactly, as llama.cpp's `Q4_0`.

use half::f16;

/// How many bits a weight has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bits {
    /// 8.25 with the scale.
    Eight,
    /// 4.5 with the scale.
    Four,
}

impl Bits {
    /// Bits of a value.
    pub const fn count(self) -> usize {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }

    /// Values that share a scale.
    pub const fn group(self) -> usize {
        match self {
            Self::Eight => 64,
            Self::Four => 32,
        }
    }

    /// Words of a row's values. A row is of whole words where `columns` is a multiple of 8.
    pub const fn words(self, columns: usize) -> usize {
        columns * self.count() / 32
    }

    /// Words of a row's scales, two halves in each.
    pub const fn scale_words(self, columns: usize) -> usize {
        columns.div_ceil(self.group()).div_ceil(2)
    }

    /// Bytes of a matrix.
    pub const fn bytes(self, [rows, columns]: [usize; 2]) -> usize {
        rows * (self.words(columns) + self.scale_words(columns)) * 4
    }
}

/// Rows of integers: their words, and those of their scales.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Integers {
    /// [`Bits::words`] for each row, the first value in the lowest bits.
    pub words: Vec<u8>,
    /// [`Bits::scale_words`] for each row.
    pub scales: Vec<u8>,
}

/// Quantises whole rows of `columns` halves, little-endian.
pub fn quantise(bits: Bits, halves: &[u8], columns: usize) -> Integers {
    let mut result = Integers::default();
    let mut values = Vec::with_capacity(columns);
    for row in halves.chunks_exact(columns * 2) {
        values.clear();
        values.extend(row.as_chunks::<2>().0.iter().map(|half| f16::from_le_bytes(*half).to_f32()));
        let mut scales = Vec::with_capacity(bits.scale_words(columns) * 2);
        for group in values.chunks(bits.group()) {
            scales.push(group_to_integers(bits, group, &mut result.words));
        }
        // The second half of the last word may be nobody's.
        scales.resize(bits.scale_words(columns) * 2, f16::ZERO);
        result.scales.extend(scales.into_iter().flat_map(f16::to_le_bytes));
    }
    result
}

/// Appends a group's integers to `words`, and returns its scale.
fn group_to_integers(bits: Bits, group: &[f32], words: &mut Vec<u8>) -> f16 {
    let farthest =
        group.iter().copied().fold(0.0_f32, |far, x| if x.abs() > far.abs() { x } else { far });
    let scale = match bits {
        Bits::Eight => f16::from_f32(farthest.abs() / 127.0),
        Bits::Four => f16::from_f32(farthest / -8.0),
    };
    // As the kernels will multiply: by the rounded scale.
    let reciprocal = match scale.to_f32() {
        0.0 => 0.0,
        scale => 1.0 / scale,
    };
    match bits {
        Bits::Eight => {
            let integer = |x: &f32| (x * reciprocal).round().clamp(-127.0, 127.0) as i8 as u8;
            words.extend(group.iter().map(integer));
        }
        Bits::Four => {
            let integer = |x: f32| ((x * reciprocal).round().clamp(-8.0, 7.0) + 8.0) as u8;
            let pairs = group.as_chunks::<2>().0.iter();
            words.extend(pairs.map(|[low, high]| integer(*low) | (integer(*high) << 4)));
        }
    }
    scale
}

/// The values that rows of integers stand for.
pub fn dequantise(bits: Bits, integers: &Integers, columns: usize) -> Vec<f32> {
    let scales = integers.scales.as_chunks::<2>().0;
    let per_row = bits.scale_words(columns) * 2;
    let integer = |index: usize| match bits {
        Bits::Eight => f32::from(integers.words[index] as i8),
        Bits::Four => {
            let byte = integers.words[index / 2];
            let nibble = if index.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            f32::from(nibble) - 8.0
        }
    };
    let rows = scales.len() / per_row;
    let place = |row: usize, column: usize| {
        let scale = scales[row * per_row + column / bits.group()];
        integer(row * columns + column) * f16::from_le_bytes(scale).to_f32()
    };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(r, c)| place(r, c))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()
    }

    #[test]
    fn values_come_back_to_half_a_step() {
        // A group and a half.
        let columns = 96;
        let values: Vec<f32> =
            (0..2 * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
        for (bits, step) in [(Bits::Eight, 1.0 / 127.0), (Bits::Four, 1.0 / 8.0)] {
            let integers = quantise(bits, &halves(&values), columns);
            assert_eq!(integers.words.len(), 2 * columns * bits.count() / 8);
            assert_eq!(integers.words.len() + integers.scales.len(), bits.bytes([2, columns]));
            let back = dequantise(bits, &integers, columns);
            let worst = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // The largest is 50 / 64; the scale is rounded to a half. At four bits there is no +8.
            let most = 50.0 / 64.0 * step * if bits == Bits::Four { 1.01 } else { 0.51 };
            assert!(worst <= most, "{bits:?}: {worst} of {most}");
        }
    }

    #[test]
    fn zeros_stay_zeros_and_the_farthest_is_met() {
        for bits in [Bits::Eight, Bits::Four] {
            let zeros = quantise(bits, &halves(&[0.0; 64]), 64);
            assert_eq!(dequantise(bits, &zeros, 64), [0.0; 64]);
            let mut values = [0.0; 64];
            values[5] = -0.75;
            values[40] = 2.0;
            let back = dequantise(bits, &quantise(bits, &halves(&values), 64), 64);
            for (found, expected) in back.iter().zip(values) {
                assert!((found - expected).abs() <= 0.01, "{bits:?}: {found} for {expected}");
            }
        }
    }
}
