//! Convolutions of 3x3 by Winograd's minimal filtering: fewer products, and a pass before and after.
//!
//! Tiles of `side` x `side` of the picture and the 3x3 windows are transformed so that `outputs` x
//! `outputs` pixels take `side^2` products instead of `9 * outputs^2`: 4 times fewer with tiles of 6,
//! 2.25 times fewer with tiles of 4. What is left is `side^2` matrix products, tiles by channels by
//! outputs, which `gemm` multiplies in `f32` whatever the activations: in halves, the transforms
//! would lose their digits.
//!
//! The transformed windows are made anew each time: kept, they would be 4 times the weights.
//!
//! Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks".

use burn::tensor::DType;
use burn_wgpu::CubeTensor;

use crate::kernels::gemm::{Activation, Gemm, batch_tile};
use crate::kernels::matrix::{Buffer, Packing};
use crate::kernels::source::{Access, Wgsl, empty, float_name, line, scratch};

/// Invocations of a workgroup of the transforms.
const THREADS: usize = 64;
/// Bytes of a transformed picture, or of its products, that are held at a time.
const SLAB: usize = 64 << 20;
/// Bytes of transformed windows that are held at a time: WebGPU's default limit of a binding.
const WINDOWS: usize = 128 << 20;
/// Channels and outputs from which the transforms pay, and tiles from which the products keep a large GPU busy.
const CHANNELS_AND_TILES: [usize; 2] = [64, 128];
/// The same where few invocations run together: products count for more there, and a few keep all busy.
const ON_NARROW: [usize; 2] = [32, 16];

const INPUT: &str = concat!(include_str!("transform.wgsl"), include_str!("input.wgsl"));
const WEIGHT: &str = concat!(
    include_str!("transform.wgsl"),
    include_str!("../../scaled.wgsl"),
    include_str!("weight.wgsl")
);
const OUTPUT: &str = concat!(include_str!("transform.wgsl"), include_str!("output.wgsl"));

/// A convolution of 3x3 and stride 1 that adds what its parts say.
#[derive(Debug)]
pub struct Winograd {
    /// `[B, H, W, I]`
    pub input: CubeTensor,
    /// `[O, 9 * I]`
    pub weight: Buffer,
    /// `[O]`, `f32`.
    pub bias: Option<CubeTensor>,
    /// `[B, O]` of the input's type.
    pub added: Option<CubeTensor>,
    /// `[B, H', W', O]` of the input's type.
    pub residual: Option<CubeTensor>,
    /// Pictures, their height, width and channels.
    pub picture: [usize; 4],
    /// Height, width and channels of the output.
    pub output: [usize; 3],
    /// Zeros above and to the left.
    pub padding: [usize; 2],
    /// Doubles the picture by nearest neighbour first.
    pub upsample_2x: bool,
}

impl Winograd {
    /// The outputs of a tile along an axis that suit the size, if any does.
    ///
    /// Measured on an H100 with batch 3, direct, by tiles of 6 and of 4, ms: 320 channels at 64 x 64
    /// 0.65, 0.26, 0.43; 640 at 32 x 32 0.65, 0.30, 0.34; 1280 at 16 x 16 0.64, 0.40, 0.36; 1280 at
    /// 8 x 8 0.25 and no gain.
    pub fn suits(batch: usize, channels: usize, output: [usize; 3], narrow: bool) -> Option<usize> {
        let [height, width, outputs] = output;
        let [least, enough] = if narrow { ON_NARROW } else { CHANNELS_AND_TILES };
        let wide = |channels: usize| channels >= least && channels.is_multiple_of(4);
        let tiles = |out: &usize| batch * height.div_ceil(*out) * width.div_ceil(*out);
        [4, 2]
            .into_iter()
            .find(|out| tiles(out) >= enough)
            .filter(|_| wide(channels) && wide(outputs))
    }

    /// Runs the convolution with tiles of `out` x `out` outputs.
    pub fn run(&self, out: usize) -> CubeTensor {
        let [batch, _, _, channels] = self.picture;
        let [height, width, outputs] = self.output;
        let side = out + 2;
        let tiles = batch * height.div_ceil(out) * width.div_ceil(out);
        let output = empty(&self.input, [batch, height, width, outputs], self.input.dtype);
        let matrix = |rows: usize, columns: usize| {
            scratch(&self.input, [side * side, rows, columns], DType::F32)
        };
        let bytes = |values: usize| side * side * values * 4;
        // Multiples of a tile of the product, so that only the last slab has a ragged edge.
        let at_most = |limit: usize, width: usize| (limit / bytes(width) / 64 * 64).max(64);
        let rows = at_most(SLAB, channels.max(outputs)).min(tiles);
        let columns = at_most(WINDOWS, channels).min(outputs);
        let mut picture = None;
        for first_output in (0..outputs).step_by(columns) {
            let columns = columns.min(outputs - first_output);
            let windows = matrix(columns, channels);
            self.transform_weight(out, &windows, [first_output, columns]);
            for first in (0..tiles).step_by(rows) {
                let rows = rows.min(tiles - first);
                let slab = match picture.take() {
                    Some(slab) => slab,
                    None => {
                        let slab = matrix(rows, channels);
                        self.transform_input(out, &slab, [first, rows]);
                        slab
                    }
                };
                let products = matrix(rows, columns);
                let gemm = Gemm {
                    input: slab.clone(),
                    weight: Buffer::floats(windows.clone()),
                    bias: None,
                    added: None,
                    residual: None,
                    activation: Activation::None,
                    window: None,
                    size: [rows, columns, channels],
                };
                gemm.run_batch("winograd", batch_tile(), side * side, &products);
                let range = [first_output, columns];
                self.transform_output(out, &products, &output, [first, rows], range);
                // The other outputs of the same picture, where it fits into one slab.
                picture = (rows == tiles).then_some(slab);
            }
        }
        output
    }

    fn transform_input(&self, out: usize, slab: &CubeTensor, [first, rows]: [usize; 2]) {
        let [_, height, width, channels] = self.picture;
        let scale = if self.upsample_2x { 2 } else { 1 };
        let [tiles_h, tiles_w] = self.tiles(out);
        let vectors = channels / 4;
        let parameters = [
            [rows, first, vectors, width],
            [height * scale, width * scale, tiles_h, tiles_w],
            [height * width * vectors, self.padding[0], self.padding[1], 0],
        ];
        kernel("winograd_input", INPUT, out)
            .define("VALUE", vec4(self.input.dtype))
            .define("UPSAMPLE", self.upsample_2x)
            .launch(
                line((rows * vectors).div_ceil(THREADS)),
                &[(&self.input, Access::Read), (slab, Access::Write)],
                &parameters.concat().iter().map(|&x| x as u32).collect::<Vec<_>>(),
            );
    }

    fn transform_weight(&self, out: usize, windows: &CubeTensor, [first, rows]: [usize; 2]) {
        let vectors = self.picture[3] / 4;
        let stored = match self.weight.packing {
            Packing::Floats => "vec4<f32>",
            Packing::Halves => "vec2<u32>",
            Packing::Integers(_) => "u32",
        };
        let mut buffers: Vec<_> =
            self.weight.tensors().map(|tensor| (tensor, Access::Read)).collect();
        buffers.push((windows, Access::Write));
        kernel("winograd_weight", WEIGHT, out)
            .define("WEIGHT", stored)
            .define("WEIGHTS", "input")
            .define("PACKED", self.weight.packing == Packing::Halves)
            .define_all(&self.weight.constants())
            .launch(
                line((rows * vectors).div_ceil(THREADS)),
                &buffers,
                &[rows, first, vectors].map(|x| x as u32),
            );
    }

    fn transform_output(
        &self,
        out: usize,
        products: &CubeTensor,
        output: &CubeTensor,
        [first, rows]: [usize; 2],
        [first_output, columns]: [usize; 2],
    ) {
        let [height, width, outputs] = self.output;
        let [tiles_h, tiles_w] = self.tiles(out);
        let mut buffers = vec![(products, Access::Read), (output, Access::Write)];
        let more = self.bias.iter().chain(&self.added).chain(&self.residual);
        buffers.extend(more.map(|tensor| (tensor, Access::Read)));
        let parameters = [
            [rows, first, columns / 4, height],
            [width, tiles_h, tiles_w, outputs / 4],
            [first_output / 4, 0, 0, 0],
        ];
        kernel("winograd_output", OUTPUT, out)
            .define("VALUE", vec4(self.input.dtype))
            .define("BIAS", self.bias.is_some())
            .define("ADDED", self.added.is_some())
            .define("RESIDUAL", self.residual.is_some())
            .launch(
                line((rows * columns / 4).div_ceil(THREADS)),
                &buffers,
                &parameters.concat().iter().map(|&x| x as u32).collect::<Vec<_>>(),
            );
    }

    fn tiles(&self, out: usize) -> [usize; 2] {
        let [height, width, _] = self.output;
        [height.div_ceil(out), width.div_ceil(out)]
    }
}

fn kernel(name: &'static str, text: &'static str, out: usize) -> Wgsl {
    Wgsl::new(name, text).define_all(&[("THREADS", THREADS), ("OUT", out), ("SIDE", out + 2)])
}

fn vec4(dtype: DType) -> &'static str {
    match float_name(dtype) {
        "f16" => "vec4<f16>",
        _ => "vec4<f32>",
    }
}

#[cfg(test)]
mod tests {
    use super::Winograd;

    #[test]
    fn small_pictures_and_few_channels_are_convolved_directly() {
        let suits = |batch, channels, side, outputs| {
            Winograd::suits(batch, channels, [side, side, outputs], false)
        };
        assert_eq!(suits(3, 320, 64, 320), Some(4));
        assert_eq!(suits(3, 1280, 16, 1280), Some(2));
        assert_eq!(suits(3, 1280, 8, 1280), None);
        assert_eq!(suits(3, 8, 64, 320), None);
        assert_eq!(suits(3, 320, 64, 4), None);
        assert_eq!(suits(3, 48, 32, 48), None);
        assert_eq!(Winograd::suits(3, 48, [32, 32, 48], true), Some(4));
    }
}
