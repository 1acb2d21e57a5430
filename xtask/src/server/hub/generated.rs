//! Checkpoints that no disk has: every byte follows from its place in the file.
//!
//! A file `NAME.generated.json` in a served folder stands for a file `NAME`, and says
//! `{ "seed": 1, "dtype": "F32", "shapes": { "a.weight": [2, 3] } }`. `NAME` is a safetensors file of
//! these tensors, one behind the other in the order of their names, from a multiple of eight bytes on.
//! The value with the number `i`, counted through all of the file's data, is made of the 32 bits of
//! [`mix`]: see [`single`] and [`half`].
//!
//! It is a file like any other for all that is asked of the server: it has its SHA-256, which is
//! computed once when the folder is published (10 GB in some twenty seconds), so that a client's own
//! hash of what has arrived has something to be compared with.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, json};

use crate::files;
use crate::process::Result;

/// What the name of a description has behind that of its file.
pub const ENDING: &str = ".generated.json";

/// The mantissa of a value of single precision.
const MANTISSA: u32 = (1 << 23) - 1;

/// Its sign.
const SIGN: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
enum Dtype {
    F16,
    F32,
}

impl Dtype {
    const fn size(self) -> u64 {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    seed: u32,
    dtype: Dtype,
    shapes: BTreeMap<String, Vec<u64>>,
}

/// A file by its description.
#[derive(Debug)]
pub struct Generated {
    /// All that is in front of the data.
    head: Vec<u8>,
    seed: u32,
    dtype: Dtype,
    size: u64,
}

impl Generated {
    /// Reads a description.
    ///
    /// # Errors
    /// When it is none, or of more bytes than can be counted.
    pub fn read(path: &Path) -> Result<Self> {
        let described = serde_json::from_slice(&files::read(path)?);
        let file = described.map_err(|error| error.to_string()).and_then(|description| {
            Self::of(&description).ok_or_else(|| "its tensors are too large".to_owned())
        });
        file.map_err(|error| format!("{}: {error}", path.display()).into())
    }

    fn of(description: &Description) -> Option<Self> {
        let &Description { seed, dtype, ref shapes } = description;
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut end = 0_u64;
        for (name, shape) in shapes {
            let start = end;
            let bytes = shape.iter().try_fold(dtype.size(), |bytes, side| bytes.checked_mul(*side));
            end = end.checked_add(bytes?)?;
            let entry = json!({
                "dtype": format!("{dtype:?}"), "shape": shape, "data_offsets": [start, end],
            });
            header.insert(name.clone(), entry);
        }
        let mut json = serde_json::Value::from(header).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut head = (json.len() as u64).to_le_bytes().to_vec();
        head.append(&mut json);
        Some(Self { size: end.checked_add(head.len() as u64)?, head, seed, dtype })
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The bytes from `at` on.
    pub fn open(self: Arc<Self>, at: u64) -> impl Read {
        Opened { file: self, at }
    }

    /// Makes the bytes from `at` on, all of which the file has.
    fn fill(&self, at: u64, mut bytes: &mut [u8]) {
        let head = self.head.get(at as usize..).unwrap_or_default();
        let (front, rest) = bytes.split_at_mut(head.len().min(bytes.len()));
        front.copy_from_slice(&head[..front.len()]);
        bytes = rest;
        let at = (at + front.len() as u64).saturating_sub(self.head.len() as u64);
        match self.dtype {
            Dtype::F16 => fill(at, bytes, |i| half(mix(self.seed, i)).to_le_bytes()),
            Dtype::F32 => fill(at, bytes, |i| single(mix(self.seed, i)).to_le_bytes()),
        }
    }
}

/// Makes the bytes from `at` on of the values that `value` gives by their numbers.
fn fill<const N: usize>(at: u64, bytes: &mut [u8], value: impl Fn(u64) -> [u8; N]) {
    let (first, inside) = (at / N as u64, (at % N as u64) as usize);
    // The rest of a value that began before.
    let cut = if inside > 0 { (N - inside).min(bytes.len()) } else { 0 };
    let (front, bytes) = bytes.split_at_mut(cut);
    front.copy_from_slice(&value(first)[inside..inside + cut]);
    let first = first + u64::from(inside > 0);
    let (values, end) = bytes.as_chunks_mut::<N>();
    for (i, bytes) in (first..).zip(&mut *values) {
        *bytes = value(i);
    }
    end.copy_from_slice(&value(first + values.len() as u64)[..end.len()]);
}

/// 32 bits that look like chance.
///
/// Source: `lowbias32` of Chris Wellons' hash-prospector, of the index and the seed.
const fn mix(seed: u32, index: u64) -> u32 {
    let high = ((index >> 32) as u32).wrapping_mul(0x9e37_79b9);
    let mut x = index as u32 ^ seed.wrapping_add(high);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// The bits of a value of half precision, normal or not, of less than two: those of `random`, the exponent's
/// upper bit aside.
const fn half(random: u32) -> u16 {
    random as u16 & 0xbfff
}

/// How a value of single precision is made of random bits.
#[derive(Clone, Copy)]
struct Recipe {
    /// The bits that stay random.
    kept: u32,
    /// The bits that are ones.
    set: u32,
    /// What is added to all of that.
    added: u32,
}

/// By the eight bits from the 23rd on.
static RECIPES: [Recipe; 256] = recipes();

const fn recipes() -> [Recipe; 256] {
    let mut recipes = [Recipe { kept: MANTISSA, set: 0, added: 0 }; 256];
    let mut i = 0;
    while i < recipes.len() {
        let (exponent, kind) = (i as u32 & 31, i as u32 >> 5);
        recipes[i].set = (126 - exponent) << 23;
        if kind < 3 {
            // What rounding takes off the mantissa: more of halves that are subnormal, below 2^-14, and the
            // mantissa whole, with the one in front of it, of what is halfway between nothing and the least.
            let cut = if exponent > 13 { exponent } else { 13 };
            recipes[i].kept = if cut < 23 { MANTISSA >> cut << cut } else { 0 };
            recipes[i].set |= if cut < 24 { 1 << (cut - 1) } else { 0 };
            recipes[i].added = [0, 1, u32::MAX][kind as usize];
        }
        i += 1;
    }
    recipes
}

/// The bits of a value of single precision that is at most one: sign and mantissa are those of `random`, and
/// of the bits between them the lower five say by which power of two it is smaller, down to 2^-32, of which
/// halves have nothing.
///
/// Where the upper three are 0 to 2, the mantissa is not all random: three in eight are halfway between two
/// halves, the next larger value, or the next smaller one. Rounded to nearest even, each of them tells
/// whether it was done right.
fn single(random: u32) -> u32 {
    let Recipe { kept, set, added } = RECIPES[(random >> 23 & 255) as usize];
    (random & kept | set).wrapping_add(added) | random & SIGN
}

struct Opened {
    file: Arc<Generated>,
    at: u64,
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.size.saturating_sub(self.at);
        let length = left.min(buffer.len() as u64) as usize;
        self.file.fill(self.at, &mut buffer[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dtype: Dtype) -> Arc<Generated> {
        let shapes = [("b.weight", vec![300, 7]), ("a.bias", vec![5]), ("none", vec![0, 4])];
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape)).into();
        Arc::new(Generated::of(&Description { seed: 7, dtype, shapes }).expect("small"))
    }

    fn bytes(file: &Arc<Generated>, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Arc::clone(file).open(from).take(to - from).read_to_end(&mut bytes).expect("made");
        bytes
    }

    #[test]
    fn any_part_is_that_of_the_whole() {
        for dtype in [Dtype::F16, Dtype::F32] {
            let file = file(dtype);
            let whole = bytes(&file, 0, u64::MAX);
            assert_eq!(whole.len() as u64, file.size());
            let data = file.head.len() as u64;
            let ends = [0, 3, 8, data - 1, data, data + 1, data + 2, data + 3, data + 103];
            for from in ends.into_iter().chain([file.size() - 5]) {
                for length in [0, 1, 2, 3, 4, 5, 6, 7, 64, 1000] {
                    let to = (from + length).min(file.size());
                    let part = &whole[from as usize..to as usize];
                    assert_eq!(bytes(&file, from, to), part, "{from} to {to} of {dtype:?}");
                }
            }
            assert!(bytes(&file, file.size(), file.size() + 9).is_empty());
        }
    }

    #[test]
    fn the_head_is_that_of_a_safetensors_file() {
        let file = file(Dtype::F32);
        let whole = bytes(&file, 0, u64::MAX);
        let (length, rest) = whole.split_first_chunk().expect("a length");
        let length = u64::from_le_bytes(*length) as usize;
        assert!(length.is_multiple_of(8));
        let header: serde_json::Value = serde_json::from_slice(&rest[..length]).expect("JSON");
        let tensor = |shape: &[u64], offsets: [u64; 2]| json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
        assert_eq!(header["a.bias"], tensor(&[5], [0, 20]));
        assert_eq!(header["b.weight"], tensor(&[300, 7], [20, 8420]));
        assert_eq!(header["none"], tensor(&[0, 4], [8420, 8420]));
        assert_eq!(rest.len() - length, 8420);
    }

    #[test]
    fn values_are_as_described() {
        let file = file(Dtype::F32);
        let data = bytes(&file, file.head.len() as u64, u64::MAX);
        for (i, value) in (0..).zip(data.as_chunks::<4>().0) {
            assert_eq!(u32::from_le_bytes(*value), single(mix(7, i)));
        }
        // Files larger than the index's lower half do not repeat.
        assert_ne!(mix(7, 1), mix(7, 1 + (1 << 32)));
        assert_ne!(mix(7, 1), mix(8, 1));
        let value = |random: u32| f32::from_bits(single(random));
        let kind =
            |kind: u32, exponent: u32, mantissa: u32| value(kind << 28 | exponent << 23 | mantissa);
        let power = |exponent: i32| 2_f32.powi(exponent);
        // Random to their last bit.
        assert_eq!(kind(3, 0, 0), 0.5);
        assert_eq!(kind(7, 2, 1), 0.125 + power(-26));
        assert_eq!(value(SIGN | 7 << 28 | 31 << 23), -power(-32));
        // Halfway between 1/2 and the next half, 1/2 + 2^-11; and next to it.
        let halfway = 0.5 + power(-12);
        assert_eq!(kind(0, 0, 0x1234), halfway);
        assert_eq!(kind(1, 0, 0x1234), halfway.next_up());
        assert_eq!(kind(2, 0, 0x1234), halfway.next_down());
        // The bits that halves have stay random.
        assert_eq!(kind(0, 0, 0x3fff), halfway + power(-11));
        // Among halves below 2^-14, which are 2^-24 apart.
        assert_eq!(kind(0, 14, 0), power(-15) + power(-25));
        assert_eq!(kind(0, 23, MANTISSA), power(-24) + power(-25));
        // Halfway between nothing and the least of them.
        assert_eq!(kind(0, 24, MANTISSA), power(-25));
        assert_eq!(kind(1, 24, MANTISSA), power(-25).next_up());
        let halves = [0x0000, 0x8000, 0x3fff, 0xbfff].map(|bits| half(bits | 0x5555_0000));
        assert_eq!(halves, [0, 0x8000, 0x3fff, 0xbfff]);
        assert_eq!(half(0x7c00), 0x3c00, "one, and not infinity");
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let scratch = files::tests::Scratch::new();
        let read = |text: &str| {
            let path = scratch.path().join("x");
            files::write(&path, text.as_bytes()).expect("written");
            Generated::read(&path).map(|file| file.size()).map_err(|error| error.to_string())
        };
        assert!(read(r#"{"seed":1,"dtype":"F16","shapes":{"a":[3]}}"#).is_ok());
        for text in [
            "",
            r#"{"seed":1,"dtype":"F16"}"#,
            r#"{"seed":1,"dtype":"I8","shapes":{}}"#,
            r#"{"seed":1,"dtype":"F32","shapes":{"a":[4294967296,4294967296]}}"#,
            r#"{"seed":1,"dtype":"F16","shapes":{"a":[9223372036854775807],"b":[2]}}"#,
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains("/x: "), "{error}");
        }
    }
}
