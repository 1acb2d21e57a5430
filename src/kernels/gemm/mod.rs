//! The matrix product behind dense layers and convolutions, on the GPU.

mod plan;

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

#[cfg(feature = "tuning")]
pub use plan::{Plan, with_plan};
pub use plan::{Tile, batch_tile, plan};

use super::matrix::{Buffer, Packing};
use super::source::{
    Access, WORKGROUPS_PER_AXIS, Wgsl, empty, float_name, is_narrow, line, workgroup_memory,
};

/// What happens to an output before it is written, besides bias and residual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * Phi(x)`
    Gelu,
    /// The first half of the weight's rows times the GELU of the second.
    GeGlu,
}

/// How rows are gathered from pictures, for a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height, width and channels of a picture.
    pub picture: [usize; 3],
    /// Height and width of an output picture.
    pub output: [usize; 2],
    /// Width of the window.
    pub kernel_width: usize,
    /// Step between windows.
    pub stride: usize,
    /// Zeros above and to the left of a picture.
    pub padding: [usize; 2],
    /// Doubles the picture by nearest neighbour first.
    pub upsample_2x: bool,
}

impl Window {
    /// Rows whose place is worked out one by one among the four of a block: a block within one line
    /// of the picture needs only its first.
    fn rows_of_a_block(self) -> usize {
        if self.output[1].is_multiple_of(4) { 1 } else { 4 }
    }
}

/// `output[m, n] = activation(input[m, k] weight[n, k]^T + bias + added) + residual`
#[derive(Debug)]
pub struct Gemm {
    /// `[m, k]`, or pictures that `window` slides over.
    pub input: CubeTensor,
    /// `[n, k]`, with [`Activation::GeGlu`] `[2 * n, k]`.
    pub weight: Buffer,
    /// A value for each row of the weight, `f32`.
    pub bias: Option<CubeTensor>,
    /// A row for each picture of the output, of the input's type; needs a `window`.
    pub added: Option<CubeTensor>,
    /// `[m, n]` of the input's type.
    pub residual: Option<CubeTensor>,
    /// What is done to each output.
    pub activation: Activation,
    /// How rows are gathered.
    pub window: Option<Window>,
    /// Rows, columns and depth of the product.
    pub size: [usize; 3],
}

/// What the third axis of workgroups has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nothing.
    Whole,
    /// So many parts of the depth, each so deep.
    Parts(usize, usize),
    /// So many products, whose matrices lie one after the other.
    Batch(usize),
}

impl Cut {
    /// How many products run side by side.
    const fn count(self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Parts(count, _) | Self::Batch(count) => count,
        }
    }
}

const TILED: &str = concat!(
    include_str!("operands.wgsl"),
    include_str!("kernel.wgsl"),
    include_str!("../scaled.wgsl"),
    include_str!("epilogue.wgsl")
);
const DIRECT: &str = concat!(
    include_str!("operands.wgsl"),
    include_str!("direct.wgsl"),
    include_str!("../scaled.wgsl"),
    include_str!("epilogue.wgsl")
);
const REDUCE: &str = concat!(include_str!("reduce.wgsl"), include_str!("epilogue.wgsl"));

/// Invocations of a workgroup of the reduction.
const REDUCE_THREADS: usize = 256;
/// Invocations of a workgroup without workgroup memory, and those where there are so many rows that no dispatch has room
/// for their workgroups otherwise.
const DIRECT_THREADS: [usize; 2] = [8, 64];
/// Rows, and columns, that one of them computes: those of a `vec4`.
const DIRECT_SIDE: usize = 4;
/// Rows up to which a weight is read as it is: more read it so often that it is made floats first.
const FEW_ROWS: usize = 4;

impl Gemm {
    /// Runs the product; the result has the shape `shape` of `m * n` elements.
    pub fn run(&self, name: &'static str, shape: impl Into<Shape>) -> CubeTensor {
        let [m, n, k] = self.size;
        let gated = self.is_gated();
        let output = empty(&self.input, shape, self.input.dtype);
        if is_narrow(&self.input) {
            self.multiply_directly(name, Cut::Whole, &output);
            return output;
        }
        let plan = plan(self.size, gated, workgroup_memory(&self.input));
        let splits = if gated { 1 } else { plan.splits };
        let part = k.div_ceil(splits).next_multiple_of(plan.tile.depth);
        let parts = k.div_ceil(part);
        if parts == 1 {
            self.multiply(name, plan.tile, Cut::Whole, &output);
        } else {
            let partial = empty(&self.input, [parts, m, n], DType::F32);
            self.multiply(name, plan.tile, Cut::Parts(parts, part), &partial);
            self.reduce(&partial, parts, &output);
        }
        output
    }

    /// Runs `count` products of this size, whose matrices lie one after the other, into `output` of
    /// `[count, m, n]` in `f32`. There is no window, and nothing is added.
    pub fn run_batch(&self, name: &'static str, tile: Tile, count: usize, output: &CubeTensor) {
        match is_narrow(&self.input) {
            true => self.multiply_directly(name, Cut::Batch(count), output),
            false => self.multiply(name, tile, Cut::Batch(count), output),
        }
    }

    fn multiply(&self, name: &'static str, tile: Tile, cut: Cut, output: &CubeTensor) {
        let [m, n, _] = self.size;
        let columns = if self.is_gated() { tile.columns / 2 } else { tile.columns };
        let workgroups = [n.div_ceil(columns), m.div_ceil(tile.rows), cut.count()];
        let kernel = Wgsl::new(name, TILED)
            .define("WINDOW_ROWS", self.window.map_or(0, Window::rows_of_a_block))
            .define_all(&tile.constants());
        self.launch(kernel, &self.weight, cut, output, workgroups);
    }

    /// Without workgroup memory.
    fn multiply_directly(&self, name: &'static str, cut: Cut, output: &CubeTensor) {
        let [m, n, k] = self.size;
        let weight = self.weight.clone();
        let weight = if m > FEW_ROWS { weight.into_floats(k) } else { weight };
        let [few, many] = DIRECT_THREADS;
        let threads = if m > few * DIRECT_SIDE * WORKGROUPS_PER_AXIS { many } else { few };
        let workgroups = [m.div_ceil(threads * DIRECT_SIDE), n.div_ceil(DIRECT_SIDE), cut.count()];
        let kernel = Wgsl::new(name, DIRECT)
            .define("FLOATS", weight.packing == Packing::Floats)
            .define("THREADS", threads);
        self.launch(kernel, &weight, cut, output, workgroups);
    }

    fn is_gated(&self) -> bool {
        self.activation == Activation::GeGlu
    }

    fn launch(
        &self,
        kernel: Wgsl,
        weight: &Buffer,
        cut: Cut,
        output: &CubeTensor,
        workgroups: [usize; 3],
    ) {
        let [m, n, k] = self.size;
        let part = if let Cut::Parts(_, part) = cut { part } else { k };
        // Either way, sums are written as they are, one product after the other.
        let split = cut != Cut::Whole;
        let channels = self.window.map_or(k, |window| window.picture[2]);
        let vector = k.is_multiple_of(4) && channels.is_multiple_of(4);
        let float = float_name(self.input.dtype);
        let input = match (vector, float) {
            (true, "f16") => "vec4<f16>",
            (true, _) => "vec4<f32>",
            (false, float) => float,
        };
        let (four, stored) = match (vector, weight.packing) {
            (true, Packing::Halves) => ("vec2<u32>", "vec2<u32>"),
            (true, Packing::Floats) => ("vec4<f32>", "vec4<f32>"),
            // With the scale beside them.
            (_, Packing::Integers(_)) => ("vec2<u32>", "u32"),
            (false, Packing::Halves) => ("u32", "u32"),
            (false, Packing::Floats) => ("f32", "f32"),
        };
        let kernel = self
            .epilogue(kernel, split)
            .define("INPUT", input)
            .define("WEIGHT", four)
            .define("STORED", stored)
            .define("PACKED", weight.packing == Packing::Halves)
            .define("WEIGHTS", "weight")
            .define_all(&weight.constants())
            .define("VECTOR", vector)
            .define("BATCH", matches!(cut, Cut::Batch(_)))
            .define("WINDOW", self.window.is_some())
            .define("UPSAMPLE", self.window.is_some_and(|window| window.upsample_2x));
        let mut buffers = vec![(&self.input, Access::Read)];
        buffers.extend(weight.tensors().map(|tensor| (tensor, Access::Read)));
        buffers.push((output, Access::Write));
        if !split {
            buffers.extend(self.epilogue_buffers());
        }
        let mut parameters = vec![m, n, k, part];
        if let Some(window) = &self.window {
            let [height, width, channels] = window.picture;
            let scale = if window.upsample_2x { 2 } else { 1 };
            parameters.extend([channels, width, height * width * channels]);
            parameters.extend([height * scale, width * scale]);
            parameters.extend([window.output[1], window.output[0] * window.output[1]]);
            parameters.extend([window.kernel_width, window.stride]);
            parameters.extend(window.padding);
        }
        // The struct has its size whether there is a window or not.
        parameters.resize(16, 0);
        let parameters: Vec<u32> = parameters.into_iter().map(|x| x as u32).collect();
        kernel.launch(workgroups, &buffers, &parameters);
    }

    fn reduce(&self, partial: &CubeTensor, parts: usize, output: &CubeTensor) {
        let [m, n, _] = self.size;
        let kernel = self
            .epilogue(Wgsl::new("gemm_reduce", REDUCE), false)
            .define("PART", if n.is_multiple_of(4) { "vec4<f32>" } else { "f32" })
            .define("THREADS", REDUCE_THREADS);
        let mut buffers = vec![(partial, Access::Read), (output, Access::Write)];
        buffers.extend(self.epilogue_buffers());
        let area = self.window.map_or(0, |window| window.output[0] * window.output[1]);
        let parameters = [m, n, parts, area].map(|x| x as u32);
        kernel.launch(line((m * n.div_ceil(4)).div_ceil(REDUCE_THREADS)), &buffers, &parameters);
    }

    /// What the epilogue reads, in the order of its bindings.
    fn epilogue_buffers(&self) -> impl Iterator<Item = (&CubeTensor, Access)> {
        let tensors = self.bias.iter().chain(&self.added).chain(&self.residual);
        tensors.map(|tensor| (tensor, Access::Read))
    }

    fn epilogue(&self, kernel: Wgsl, split: bool) -> Wgsl {
        // A part of a split product has no epilogue, whatever the product's: one kernel for all.
        let activation = if split { Activation::None } else { self.activation };
        let vector = self.size[1].is_multiple_of(4);
        // Parts are summed in f32.
        let float = if split { "f32" } else { float_name(self.input.dtype) };
        let output = match (vector, float) {
            (true, "f16") => "vec4<f16>",
            (true, _) => "vec4<f32>",
            (false, float) => float,
        };
        kernel
            .define("VECTOR_OUT", vector)
            .define("OUTPUT", output)
            .define("BIAS_TYPE", if vector { "vec4<f32>" } else { "f32" })
            .define("SPLIT", split)
            .define("BIAS", !split && self.bias.is_some())
            .define("ADDED", !split && self.added.is_some())
            .define("RESIDUAL", !split && self.residual.is_some())
            .define("GATED", activation == Activation::GeGlu)
            .define("ACTIVATION", activation as usize)
            .define("QUICK_GELU", Activation::QuickGelu as usize)
            .define("SILU", Activation::Silu as usize)
            .define("GELU", Activation::Gelu as usize)
    }
}
