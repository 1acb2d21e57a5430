//! Hand-written WGSL on Burn's buffers.

use burn::tensor::{DType, Shape};
use burn_wgpu::{CubeDim, CubeTensor, KernelSource, SourceKernel, SourceTemplate, into_contiguous};
use cubecl::ir::attributes::BufferIOAttr;
use cubecl::prelude::{CubeCount, KernelId};
use cubecl::server::KernelArguments;

/// Invocations of a workgroup; every `kernel.wgsl` declares the same.
pub const WORKGROUP_SIZE: u32 = 256;

/// What a kernel does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`, only written
    Write,
}

/// A WGSL text with its `{{ placeholders }}` and their values.
///
/// The values are part of the pipeline's key, so each set of them is compiled once.
#[derive(Debug, Clone)]
pub struct Wgsl {
    name: &'static str,
    text: &'static str,
    values: Vec<(&'static str, String)>,
}

impl Wgsl {
    /// The kernel `name`, whose text is a `kernel.wgsl`.
    pub fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, values: Vec::new() }
    }

    /// Gives a placeholder its value.
    pub fn define(mut self, placeholder: &'static str, value: impl Into<String>) -> Self {
        self.values.push((placeholder, value.into()));
        self
    }

    /// A new, uninitialised tensor beside `like`.
    pub fn output(&self, like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
        burn_cubecl::ops::numeric::empty_device_contiguous_dtype(
            like.client.clone(),
            like.device.clone(),
            shape.into(),
            dtype,
        )
    }

    /// Runs the kernel with at least `invocations` invocations on buffers bound in order.
    pub fn launch(&self, invocations: usize, buffers: &[(&CubeTensor, Access)]) {
        let client = buffers[0].0.client.clone();
        let workgroups = invocations.div_ceil(WORKGROUP_SIZE as usize) as u32;
        let limit = 65_535;
        let count = if workgroups <= limit {
            CubeCount::Static(workgroups, 1, 1)
        } else {
            let rows = workgroups.div_ceil(limit);
            CubeCount::Static(workgroups.div_ceil(rows), rows, 1)
        };
        let mut arguments = KernelArguments::new();
        for (tensor, access) in buffers {
            let tensor = into_contiguous((*tensor).clone());
            let io = match access {
                Access::Read => BufferIOAttr::ReadOnly,
                Access::Write => BufferIOAttr::WriteOnly,
            };
            arguments = arguments.with_buffer_io(tensor.handle.binding(), io);
        }
        let kernel = SourceKernel::new(self.clone(), CubeDim::new_1d(WORKGROUP_SIZE));
        client.launch(Box::new(kernel), count, arguments);
    }
}

impl KernelSource for Wgsl {
    fn source(&self) -> SourceTemplate {
        let template = SourceTemplate::new(self.text);
        self.values.iter().fold(template, |template, (k, v)| template.register(*k, v.clone()))
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((self.name, self.values.clone()))
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}
