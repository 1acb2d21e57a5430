//! The random numbers of `torch.Generator("cpu")`, so that seeds carry over from PyTorch.
//!
//! Source: Matsumoto and Nishimura, "Mersenne Twister"; Box and Muller, "A Note on the Generation of
//! Random Normal Deviates"; PyTorch `aten/src/ATen/core/MT19937RNGEngine.h`,
//! `DistributionsHelper.h` and `native/cpu/DistributionTemplates.h`.

use std::f32::consts::TAU;

use crate::error::{Error, Result};

/// Where an edit's normal noise comes from.
pub trait NoiseSource {
    /// `count` standard normal numbers, in the order of a contiguous `[B, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the source has run dry.
    fn randn(&mut self, count: usize) -> Result<Vec<f32>>;

    /// The results that this has noise for, where that is fixed.
    fn rows(&self) -> Option<usize> {
        None
    }
}

/// Words of the Mersenne Twister's state.
const WORDS: usize = 624;

/// How far ahead a word is mixed in.
const AHEAD: usize = 397;

/// Fewer numbers than this are drawn one at a time in double precision.
const BLOCK: usize = 16;

/// `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct TorchGenerator {
    state: Vec<u32>,
    next: usize,
    spare: Option<f64>,
}

impl TorchGenerator {
    /// Seeds the generator. Only the low 32 bits count, as in PyTorch.
    pub fn new(seed: u64) -> Self {
        let mut state = Vec::with_capacity(WORDS);
        state.push(seed as u32);
        for i in 1..WORDS as u32 {
            let last = state[i as usize - 1];
            state.push((last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i));
        }
        Self { state, next: WORDS, spare: None }
    }

    fn refill(&mut self) {
        for i in 0..WORDS {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let twist = (mixed >> 1) ^ if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + AHEAD) % WORDS] ^ twist;
        }
        self.next = 0;
    }

    fn random(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in 0 to 1 with 24 bits.
    fn uniform_f32(&mut self) -> f32 {
        const BITS: u32 = 24;
        (self.random() & ((1 << BITS) - 1)) as f32 / (1u32 << BITS) as f32
    }

    /// Uniform in 0 to 1 with 53 bits, from two words, the high one first.
    fn uniform_f64(&mut self) -> f64 {
        const BITS: u32 = 53;
        let high = u64::from(self.random());
        let word = (high << 32) | u64::from(self.random());
        (word & ((1 << BITS) - 1)) as f64 / (1u64 << BITS) as f64
    }

    /// One number by Box and Muller in double precision, keeping the other for the next call.
    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = std::f64::consts::TAU * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    fn fill_uniform(&mut self, block: &mut [f32]) {
        block.fill_with(|| self.uniform_f32());
    }
}

/// Uniform numbers to normal ones: the first eight give the radii, the last eight the angles.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * (1.0 - *a).ln()).sqrt();
        let (sin, cos) = (TAU * *b).sin_cos();
        *a = radius * cos;
        *b = radius * sin;
    }
}

impl NoiseSource for TorchGenerator {
    fn randn(&mut self, count: usize) -> Result<Vec<f32>> {
        if count < BLOCK {
            return Ok((0..count).map(|_| self.normal_f64() as f32).collect());
        }
        let mut values = vec![0.0; count];
        self.fill_uniform(&mut values);
        values.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !count.is_multiple_of(BLOCK) {
            // PyTorch draws the last sixteen anew rather than leave a short block.
            let tail = &mut values[count - BLOCK..];
            self.fill_uniform(tail);
            box_muller(tail);
        }
        Ok(values)
    }
}

/// A generator for each result: a list as `generator` in diffusers.
#[derive(Debug, Clone)]
pub struct TorchGenerators(Vec<TorchGenerator>);

impl TorchGenerators {
    /// Seeds a generator for each result.
    pub fn new(seeds: &[u64]) -> Self {
        Self(seeds.iter().map(|seed| TorchGenerator::new(*seed)).collect())
    }
}

impl NoiseSource for TorchGenerators {
    fn randn(&mut self, count: usize) -> Result<Vec<f32>> {
        let each = count / self.0.len().max(1);
        let rows = self.0.iter_mut().map(|generator| generator.randn(each));
        Ok(rows.collect::<Result<Vec<_>>>()?.concat())
    }

    fn rows(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// Numbers drawn elsewhere, played back in order.
#[derive(Debug, Clone)]
pub struct RecordedNoise {
    values: Vec<f32>,
    next: usize,
}

impl RecordedNoise {
    /// Plays `values` back.
    pub fn new(values: Vec<f32>) -> Self {
        Self { values, next: 0 }
    }
}

impl NoiseSource for RecordedNoise {
    fn randn(&mut self, count: usize) -> Result<Vec<f32>> {
        let range = self.next..self.next + count;
        let values = self.values.get(range).ok_or_else(|| {
            Error::argument("noises", format!("only {} numbers were recorded", self.values.len()))
        })?;
        self.next += count;
        Ok(values.to_vec())
    }
}
