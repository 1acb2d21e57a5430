//! The matrix product behind dense layers and convolutions, on the GPU.

#[cfg(not(target_family = "wasm"))]
mod cooperative;
mod plan;

use burn::tensor::{DType, Shape};
use burn_wgpu::CubeTensor;

#[cfg(feature = "tuning")]
pub use plan::{Plan, with_plan};
pub use plan::{Tile, batch_tile, plan};

use super::matrix::{Buffer, Packing};
use super::source::{
    Access, WORKGROUPS_PER_AXIS, Wgsl, empty, float_name, is_narrow, line, scratch,
    workgroup_memory,
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
#[cfg(not(target_family = "wasm"))]
const COOPERATIVE: &str = concat!(
    include_str!("operands.wgsl"),
    include_str!("cooperative.wgsl"),
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
        let gated = self.is_gated();
        let output = empty(&self.input, shape, self.input.dtype);
        if is_narrow(&self.input) {
            self.multiply_directly(name, Cut::Whole, &output);
            return output;
        }
        #[cfg(not(target_family = "wasm"))]
        if self.is_cooperative() {
            let (tile, splits) = cooperative::plan(self.size, gated);
            self.in_parts(splits, tile.depth, &output, |cut, output| {
                self.multiply_together(name, tile, cut, output);
            });
            return output;
        }
        let plan = plan(self.size, gated, workgroup_memory(&self.input));
        let (tile, splits) = (plan.tile, if gated { 1 } else { plan.splits });
        self.in_parts(splits, tile.depth, &output, |cut, output| {
            self.multiply(name, tile, cut, output);
        });
        output
    }

    /// Multiplies parts of the depth side by side, each of whole slices, and sums them.
    fn in_parts(
        &self,
        splits: usize,
        slice: usize,
        output: &CubeTensor,
        multiply: impl FnOnce(Cut, &CubeTensor),
    ) {
        let [m, n, k] = self.size;
        let part = k.div_ceil(splits).next_multiple_of(slice);
        let parts = k.div_ceil(part);
        if parts == 1 {
            multiply(Cut::Whole, output);
        } else {
            let partial = scratch(&self.input, [parts, m, n], DType::F32);
            multiply(Cut::Parts(parts, part), &partial);
            self.reduce(&partial, parts, output);
        }
    }

    /// Whether the product is for cooperative matrices.
    #[cfg(not(target_family = "wasm"))]
    pub fn is_cooperative(&self) -> bool {
        let [m, _, k] = self.size;
        let channels = self.window.map_or(k, |window| window.picture[2]);
        cooperative::suits(&self.input, &self.weight, m, k, channels)
    }

    /// Nothing is, in a browser.
    #[cfg(target_family = "wasm")]
    pub const fn is_cooperative(&self) -> bool {
        false
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
        self.launch(kernel, &self.weight, cut, tile.depth, output, workgroups);
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
        self.launch(kernel, &weight, cut, DIRECT_SIDE, output, workgroups);
    }

    /// By cooperative matrices.
    #[cfg(not(target_family = "wasm"))]
    fn multiply_together(
        &self,
        name: &'static str,
        tile: cooperative::Tile,
        cut: Cut,
        output: &CubeTensor,
    ) {
        let [m, n, _] = self.size;
        let columns = if self.is_gated() { tile.columns / 2 } else { tile.columns };
        let workgroups = [n.div_ceil(columns), m.div_ceil(tile.rows), cut.count()];
        let kernel = Wgsl::new(name, COOPERATIVE).define_all(&tile.constants());
        self.launch(kernel, &self.weight, cut, tile.depth, output, workgroups);
    }

    fn is_gated(&self) -> bool {
        self.activation == Activation::GeGlu
    }

    /// Runs a kernel that takes the depth in slices of `slice`.
    fn launch(
        &self,
        kernel: Wgsl,
        weight: &Buffer,
        cut: Cut,
        slice: usize,
        output: &CubeTensor,
        workgroups: [usize; 3],
    ) {
        let [m, n, k] = self.size;
        let part = if let Cut::Parts(_, part) = cut { part } else { k };
        // Either way, sums are written as they are, one product after the other.
        let split = cut != Cut::Whole;
        let kernel = self.operands(kernel, weight, cut, slice);
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

    /// Defines what the operands are, and what becomes of the outputs.
    fn operands(&self, kernel: Wgsl, weight: &Buffer, cut: Cut, slice: usize) -> Wgsl {
        let k = self.size[2];
        let split = cut != Cut::Whole;
        let channels = self.window.map_or(k, |window| window.picture[2]);
        let vector = k.is_multiple_of(4) && channels.is_multiple_of(4);
        let float = float_name(self.input.dtype);
        let input = match (vector, float) {
            (true, "f16") => "vec4<f16>",
            (true, _) => "vec4<f32>",
            (false, float) => float,
        };
        let batch = matches!(cut, Cut::Batch(_));
        // Halves go through workgroup memory as they are.
        let together = self.is_cooperative() && !batch;
        let (four, stored) = match (vector, weight.packing) {
            (true, Packing::Halves) if together => ("vec4<f16>", "vec4<f16>"),
            (true, Packing::Halves) => ("vec2<u32>", "vec2<u32>"),
            (true, Packing::Floats) => ("vec4<f32>", "vec4<f32>"),
            // With the scale beside them.
            (_, Packing::Integers(_)) => ("vec2<u32>", "u32"),
            (false, Packing::Halves) => ("u32", "u32"),
            (false, Packing::Floats) => ("f32", "f32"),
        };
        self.epilogue(kernel, split)
            .define("INPUT", input)
            .define("WEIGHT", four)
            .define("STORED", stored)
            .define("PACKED", weight.packing == Packing::Halves && !together)
            .define("LANE", if together { "f16" } else { "f32" })
            .define("WEIGHTS", "weight")
            .define_all(&weight.constants())
            .define("VECTOR", vector)
            .define("ALIGNED", k.is_multiple_of(slice))
            .define("BATCH", batch)
            .define("WINDOW", self.window.is_some())
            .define("UPSAMPLE", self.window.is_some_and(|window| window.upsample_2x))
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

#[cfg(all(test, feature = "tuning"))]
mod tests {
    use burn::tensor::Tensor;
    use burn::tensor::wgpu::wgpu::naga;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;
    use crate::kernels::source::{Pretended, on_gpu, pretend};
    use crate::kernels::{Matrix, Packing, StandIn};

    /// Few machines can run these kernels. Everywhere else they must at least be WGSL.
    #[test]
    fn kernels_of_cooperative_matrices_are_valid_wherever_they_cannot_run() {
        let gpu = pollster::block_on(crate::device::Gpu::request())
            .expect("a GPU; on Debian, the package mesa-vulkan-drivers plays one");
        let device = &gpu.device;
        let pretended = Pretended { wide: true, matrices: Some(true), ..Pretended::default() };
        let window = Window {
            picture: [8, 8, 8],
            output: [8, 8],
            kernel_width: 3,
            stride: 1,
            padding: [1, 1],
            upsample_2x: true,
        };
        let float = |shape: [usize; 2], dtype| {
            on_gpu(&Tensor::<2>::ones(shape, (device, dtype))).expect("it is there")
        };
        pretend(pretended, || {
            for (activation, window) in [
                (Activation::GeGlu, None),
                (Activation::None, Some(window)),
                (Activation::Silu, None),
            ] {
                for packing in [Packing::Halves, Packing::Integers(crate::kernels::Bits::Eight)] {
                    for cut in [Cut::Whole, Cut::Parts(2, 64)] {
                        let [m, n, k] = [64, 32, 72];
                        let gated = activation == Activation::GeGlu;
                        if gated && cut != Cut::Whole {
                            continue;
                        }
                        let rows = if gated { 2 * n } else { n };
                        let weight = Matrix::stand_in(StandIn::Nothing, [rows, k], packing, device);
                        let gemm = Gemm {
                            input: float([m, if window.is_some() { 8 } else { k }], DType::F16),
                            weight: weight.buffer().expect("on the GPU"),
                            bias: Some(float([1, rows], DType::F32)),
                            added: window.map(|_| float([1, n], DType::F16)),
                            residual: (!gated).then(|| float([m, n], DType::F16)),
                            activation,
                            window,
                            size: [m, n, k],
                        };
                        assert!(gemm.is_cooperative());
                        let (tile, _) = cooperative::plan(gemm.size, gated);
                        let kernel = Wgsl::new("gemm", COOPERATIVE).define_all(&tile.constants());
                        let text = gemm.operands(kernel, &gemm.weight, cut, tile.depth).text();
                        let module = naga::front::wgsl::Frontend::new_with_options(
                            naga::front::wgsl::Options {
                                parse_doc_comments: false,
                                capabilities: Capabilities::all(),
                            },
                        )
                        .parse(&text)
                        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
                        let valid = Validator::new(ValidationFlags::all(), Capabilities::all())
                            .validate(&module);
                        if let Err(error) = valid {
                            panic!("{}", error.emit_to_string(&text));
                        }
                    }
                }
            }
        });
    }
}
