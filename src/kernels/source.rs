//! Hand-written WGSL on Burn's buffers.

#[cfg(feature = "tuning")]
use std::cell::Cell;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use burn::tensor::{DType, Device, Shape, Tensor};
use burn_wgpu::{
    CubeBackend, CubeDim, CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous,
};
use cubecl::ir::ElemType;
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::ir::features::Plane;
use cubecl::prelude::{CubeCount, ExecutionMode, KernelDefinition, KernelId, KernelMetadata};
use cubecl::server::{KernelArguments, MetadataBindingInfo};
use cubecl::{CubeKernel, PrecompiledSource};

use super::memory::{self, release_memory};
use super::template::{self, Value};
use crate::arena;
#[cfg(not(target_family = "wasm"))]
use crate::device;

/// Workgroups that a dispatch may have along an axis.
pub const WORKGROUPS_PER_AXIS: usize = 65_535;

/// What a kernel does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`, only written
    Write,
    /// `var<storage, read_write>`, what was there before too
    ReadWrite,
}

/// The tensor's buffer, without gaps, if it lives on a GPU.
pub fn on_gpu<const D: usize>(tensor: &Tensor<D>) -> Option<CubeTensor> {
    tensor.clone().try_into_primitive::<CubeBackend>().ok().map(into_contiguous)
}

/// Back from [`on_gpu`].
pub fn to_tensor<const D: usize>(tensor: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<CubeBackend>(tensor)
}

/// The name of a float type in WGSL.
///
/// # Panics
/// When the type is no float that WGSL has.
pub fn float_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::F32 => "f32",
        _ => panic!("the GPU computes in f32 or f16, not {dtype:?}"),
    }
}

/// Defines how a kernel reads rows of `length`: four values at once where that divides it.
pub fn lanes(kernel: Wgsl, dtype: DType, length: usize) -> Wgsl {
    let (lanes, value, wide) = match (length.is_multiple_of(4), float_name(dtype)) {
        (true, "f16") => (4, "vec4<f16>", "vec4<f32>"),
        (true, _) => (4, "vec4<f32>", "vec4<f32>"),
        (false, float) => (1, float, "f32"),
    };
    kernel.define("LANES", lanes as usize).define("VALUE", value).define("WIDE", wide)
}

/// Bytes of workgroup memory that the device allows.
pub fn workgroup_memory(tensor: &CubeTensor) -> usize {
    tensor.client.properties().hardware.max_shared_memory_size
}

/// Size of subgroups up to which a device counts as narrow.
const NARROW: u32 = 8;
/// Invocations, on narrow devices, of workgroups that meet at barriers.
const NARROW_THREADS: usize = 4;

/// Whether few invocations run together: where the CPU plays the GPU, and on the smallest GPUs. Their workgroup memory
/// is as slow as any other, and a barrier costs as much as hundreds of products.
///
/// Measured on SwiftShader, which runs four: products of 3072 x 128 x 512 without workgroup memory at 3.3 GFLOP/s, by
/// the tiles of large GPUs at about 0.6. Hardware so narrow was not tried.
pub fn is_narrow(tensor: &CubeTensor) -> bool {
    #[cfg(feature = "tuning")]
    if PRETENDED.get().wide {
        return false;
    }
    tensor.client.properties().hardware.plane_size_max <= NARROW
}

/// Of the invocations that a workgroup has where many run together, those that it has here.
pub fn threads(tensor: &CubeTensor, wide: usize) -> usize {
    if is_narrow(tensor) { NARROW_THREADS } else { wide }
}

/// Whether the invocations of a subgroup can exchange values.
pub fn has_subgroups(tensor: &CubeTensor) -> bool {
    #[cfg(feature = "tuning")]
    if PRETENDED.get().no_subgroups {
        return false;
    }
    tensor.client.properties().features.plane.contains(Plane::Ops)
}

/// Whether subgroups of 32 multiply matrices of 16 x 16 halves.
#[cfg(not(target_family = "wasm"))]
pub fn has_matrices(tensor: &CubeTensor) -> bool {
    #[cfg(feature = "tuning")]
    if let Some(matrices) = PRETENDED.get().matrices {
        return matrices;
    }
    device::has_cooperative_matrices(&tensor.device)
}

/// What a device is taken for, whatever it is.
#[cfg(feature = "tuning")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Pretended {
    /// Many invocations run together.
    pub wide: bool,
    /// They cannot exchange values but through workgroup memory.
    pub no_subgroups: bool,
    /// They can multiply matrices together, or not.
    pub matrices: Option<bool>,
    /// No buffer has more bytes; also where there is no GPU.
    pub largest_buffer: Option<u64>,
}

#[cfg(feature = "tuning")]
thread_local! {
    static PRETENDED: Cell<Pretended> = const {
        Cell::new(Pretended {
            wide: false,
            no_subgroups: false,
            matrices: None,
            largest_buffer: None,
        })
    };
}

/// The bytes that no buffer exceeds, while that is pretended.
#[cfg(feature = "tuning")]
pub fn largest_pretended() -> Option<u64> {
    PRETENDED.get().largest_buffer
}

/// Does `work` with the kernels for other devices.
#[cfg(feature = "tuning")]
pub fn pretend<T>(device: Pretended, work: impl FnOnce() -> T) -> T {
    let before = PRETENDED.replace(device);
    let result = work();
    PRETENDED.set(before);
    result
}

/// Does `work` with the kernels for large GPUs, whatever the device.
#[cfg(feature = "tuning")]
pub fn as_wide<T>(work: impl FnOnce() -> T) -> T {
    pretend(Pretended { wide: true, ..Pretended::default() }, work)
}

/// A new, uninitialised tensor beside `like`.
pub fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    #[cfg(feature = "tuning")]
    if let Some(most) = largest_pretended() {
        let bytes = (shape.num_elements() * dtype.size()) as u64;
        assert!(bytes <= most, "{shape:?} takes {bytes} bytes of {most} that a buffer has");
    }
    scratch(like, shape, dtype)
}

/// The same for what is there beside activations: a kernel's own room, which its constants keep within WebGPU's limits, and
/// weights while they are widened.
pub fn scratch(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    let bytes = shape.num_elements() * dtype.size();
    let handle = arena::reserve(like, bytes as u64);
    memory::taken(like);
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
}

/// Compiles the kernels of `work` without running it, nor taking its memory: tensors that come of it hold
/// nothing. Then runs one workgroup of each, on nothing: drivers leave a part of a kernel's work to its first
/// dispatch. On other devices than GPUs nothing is done.
///
/// Meanwhile no launch of this process runs, so `work` must be all that goes on.
pub fn warm_up<T>(device: &Device, work: impl FnOnce() -> T) {
    let Some(probe) = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32))) else { return };
    let before = LAUNCHES.replace(Some(HashMap::new()));
    {
        let _dry_run = cubecl::dry_run::DryRun::new();
        work();
    }
    let launches = LAUNCHES.replace(before).unwrap_or_default();
    if BOUNDED {
        let scratch = || empty(&probe, [SCRATCH], DType::F32);
        let writes = launches.values().map(Launch::writes).max().unwrap_or(0);
        let (read, written) = (scratch(), (0..writes).map(|_| scratch()).collect::<Vec<_>>());
        for (kernel, launch) in launches {
            kernel.run_once(&launch, &read, &written);
        }
    }
    // What was set aside, and never taken.
    release_memory(device);
}

/// Floats that kernels may read and write while they are warmed.
const SCRATCH: usize = 256;
/// Whether buffers end where they end, whatever a kernel asks for: as WebGPU demands, and Vulkan and Direct3D do for
/// kernels that are not checked. Nothing does for those on Metal.
const BOUNDED: bool = cfg!(any(target_family = "wasm", not(target_vendor = "apple")));

/// What a kernel was launched with.
#[derive(Debug)]
struct Launch {
    buffers: Vec<Access>,
    parameters: Vec<u32>,
}

impl Launch {
    /// How many buffers are written.
    fn writes(&self) -> usize {
        self.buffers.iter().filter(|access| **access != Access::Read).count()
    }
}

thread_local! {
    /// The first launch of each kernel, while kernels are warmed.
    static LAUNCHES: RefCell<Option<HashMap<Wgsl, Launch>>> = const { RefCell::new(None) };
}

/// A dispatch of at least `count` workgroups along a line, folded in two where the line is too long.
/// The kernel's index is `workgroup.y * workgroups.x + workgroup.x`, and may lie beyond `count`.
pub fn line(count: usize) -> [usize; 3] {
    let rows = count.div_ceil(WORKGROUPS_PER_AXIS).max(1);
    [count.div_ceil(rows), rows, 1]
}

/// A kernel's text and constants; see [`template`]. Each set of constants is compiled once.
///
/// In the text, `${kernel}` is the name of the entry point, which errors of the compiler show.
#[derive(Debug, Clone)]
pub struct Wgsl {
    name: &'static str,
    text: &'static str,
    values: Vec<(&'static str, Value)>,
}

// Kernels are told apart at every launch, so texts by where they are.
impl PartialEq for Wgsl {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.text, other.text)
            && self.name == other.name
            && self.values == other.values
    }
}

impl Eq for Wgsl {}

impl Hash for Wgsl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.values.hash(state);
    }
}

impl Wgsl {
    /// The kernel `name`, whose text is a `kernel.wgsl`.
    pub fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, values: Vec::new() }
    }

    /// Gives a constant its value.
    pub fn define(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.values.push((name, value.into()));
        self
    }

    /// Gives several constants their values.
    pub fn define_all(mut self, values: &[(&'static str, usize)]) -> Self {
        self.values.extend(values.iter().map(|&(name, value)| (name, value.into())));
        self
    }

    /// The kernel's WGSL.
    #[cfg(test)]
    pub fn text(self) -> String {
        Shared(Arc::new(self)).source().complete()
    }

    /// Runs the kernel: `buffers` are bound in order, without gaps, then `parameters` as a
    /// `var<uniform>` of 32-bit numbers.
    pub fn launch(
        self,
        workgroups: [usize; 3],
        buffers: &[(&CubeTensor, Access)],
        parameters: &[u32],
    ) {
        if workgroups.contains(&0) {
            return;
        }
        LAUNCHES.with_borrow_mut(|launches| {
            if let Some(launches) = launches {
                launches.entry(self.clone()).or_insert_with(|| Launch {
                    buffers: buffers.iter().map(|(_, access)| *access).collect(),
                    parameters: parameters.to_vec(),
                });
            }
        });
        let [x, y, z] = workgroups.map(|count| count as u32);
        let mut arguments = KernelArguments::new();
        for (tensor, access) in buffers {
            let io = match access {
                Access::Read => BufferIOAttr::ReadOnly,
                Access::Write => BufferIOAttr::WriteOnly,
                Access::ReadWrite => BufferIOAttr::ReadWrite,
            };
            arguments = arguments.with_buffer_io(tensor.handle.clone().binding(), io);
        }
        // A uniform buffer's size is a multiple of 16 bytes.
        let mut words: Vec<u64> = Vec::with_capacity(parameters.len().div_ceil(4) * 2);
        for four in parameters.chunks(4) {
            let at = |i: usize| u64::from(four.get(i).copied().unwrap_or(0));
            words.extend([at(0) | (at(1) << 32), at(2) | (at(3) << 32)]);
        }
        arguments.info = MetadataBindingInfo::custom(words);
        let client = buffers[0].0.client.clone();
        let kernel = Named {
            name: self.name,
            // The size only serves the compiler of Burn's own kernels.
            inner: SourceKernel::new(Shared(Arc::new(self)), CubeDim::new_1d(1)),
        };
        client.launch(Box::new(kernel), CubeCount::Static(x, y, z), arguments);
    }

    /// Runs one workgroup of what `launch` was, on other buffers, which may be smaller: all reads from one, but each
    /// write to its own of `written`, since WebGPU binds none for two writes.
    fn run_once(self, launch: &Launch, read: &CubeTensor, written: &[CubeTensor]) {
        let mut written = written.iter();
        let of = |access: &Access| match access {
            Access::Read => Some((read, Access::Read)),
            access => written.next().map(|tensor| (tensor, *access)),
        };
        let buffers: Vec<_> = launch.buffers.iter().filter_map(of).collect();
        self.launch([1; 3], &buffers, &launch.parameters);
    }
}

/// A kernel as it is launched, which asks for its identity several times.
struct Shared(Arc<Wgsl>);

impl KernelSource for Shared {
    fn source(&self) -> SourceTemplate {
        let mut scope: template::Scope =
            self.0.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        scope.insert("kernel".into(), self.0.name.into());
        let mut text = template::expand(self.0.text, &scope);
        if text.contains("f16>") {
            text.insert_str(0, "enable f16;\n");
        }
        if text.contains("coop_mat") {
            text.insert_str(0, "enable wgpu_cooperative_matrix;\n");
        }
        // Without a browser, subgroups need no word, and bear none.
        let subgroups = ("SUBGROUPS", Value::from(true));
        if cfg!(target_family = "wasm") && self.0.values.contains(&subgroups) {
            text.insert_str(0, "enable subgroups;\n");
        }
        SourceTemplate::new(text)
    }

    fn id(&self) -> KernelId {
        // Checked kernels get a counter in every loop; these end by construction.
        KernelId::new::<Self>().info(self.0.clone()).mode(ExecutionMode::Unchecked)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// A source kernel whose entry point has the kernel's name instead of `main`.
struct Named {
    name: &'static str,
    inner: SourceKernel<Shared>,
}

impl KernelMetadata for Named {
    fn name(&self) -> &'static str {
        self.name
    }

    fn id(&self) -> KernelId {
        self.inner.id()
    }

    fn address_type(&self) -> ElemType {
        self.inner.address_type()
    }
}

impl CubeKernel for Named {
    fn define(&self) -> KernelDefinition {
        self.inner.define()
    }

    fn source(&self) -> Option<PrecompiledSource> {
        let source = self.inner.source()?;
        Some(PrecompiledSource { entrypoint_name: self.name.into(), ..source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shader that is refused must be an error that names it, never whatever the memory held.
    #[test]
    fn a_kernel_that_does_not_compile_is_an_error_with_its_name() {
        let gpu = pollster::block_on(crate::device::Gpu::request())
            .expect("a GPU; on Debian, the package mesa-vulkan-drivers plays one");
        let input = Tensor::<1>::ones([4], (&gpu.device, DType::F32));
        let input = on_gpu(&input).expect("it is there");
        let output = empty(&input, [4], DType::F32);
        Wgsl::new("misspelt", "fn ${kernel}() { no_such_function(); }").launch(
            [1, 1, 1],
            &[(&input, Access::Read), (&output, Access::Write)],
            &[0],
        );
        let read = pollster::block_on(crate::pipeline::to_host(to_tensor::<1>(output)));
        let error = read.expect_err("nothing was written").to_string();
        assert!(error.contains("misspelt"), "{error}");
    }

    /// A dry run alone would leave a part of the first use to the first edit.
    #[test]
    fn what_is_warmed_is_run_for_one_workgroup_within_the_bounds_of_other_buffers() {
        const TEXT: &str = "
            @group(0) @binding(0) var<storage, read> input: array<f32>;
            @group(0) @binding(1) var<storage, read_write> output: array<f32>;
            @group(0) @binding(2) var<storage, read_write> other: array<f32>;
            @group(0) @binding(3) var<uniform> p: vec4<u32>;
            @compute @workgroup_size(1)
            fn ${kernel}(@builtin(workgroup_id) workgroup: vec3<u32>) {
                output[workgroup.x] = f32(p.x) + min(0.0, input[p.y]);
                output[p.y] = 1.0;
                other[workgroup.x] = 9.0;
            }";
        let gpu = pollster::block_on(crate::device::Gpu::request())
            .expect("a GPU; on Debian, the package mesa-vulkan-drivers plays one");
        let device = &gpu.device;
        let of = |value: f32, length| {
            let tensor = Tensor::<1>::full([length], value, (device, DType::F32));
            on_gpu(&tensor).expect("it is there")
        };
        let (input, output, other) = (of(1.0, 4), of(0.0, 4), of(0.0, 4));
        let kernel = || Wgsl::new("writes", TEXT);
        LAUNCHES.set(Some(HashMap::new()));
        for first in [7, 8] {
            let buffers =
                [(&input, Access::Read), (&output, Access::Write), (&other, Access::Write)];
            kernel().launch([2, 1, 1], &buffers, &[first, 1 << 20]);
        }
        let launches = LAUNCHES.take().expect("it was set");
        assert_eq!(launches.len(), 1, "once for a kernel");
        assert_eq!(launches[&kernel()].writes(), 2);
        let written = [of(-1.0, 4), of(-1.0, 4)];
        kernel().run_once(&launches[&kernel()], &input, &written);
        let values = written.map(|tensor| {
            let read = pollster::block_on(crate::pipeline::to_host(to_tensor::<1>(tensor)));
            read.expect("it can be read").to_vec()
        });
        let [first, second] = values.each_ref().map(|values| &values[..3]);
        assert_eq!(first, [7.0, -1.0, -1.0], "the first launch's, and no second workgroup");
        assert_eq!(second, [9.0, -1.0, -1.0], "two writes go to two buffers");
    }
}
