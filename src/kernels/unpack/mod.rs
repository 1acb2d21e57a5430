//! Two halves in a `u32` back to floats.

#[cfg(feature = "flex")]
mod reference;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Tensor};

/// Unpacks `words` to floats of type `dtype`; the low half of a word is the earlier column.
///
/// # Shapes
/// `words`: `[rows, columns / 2]`; the result: `[rows, columns]`.
pub fn unpack(words: Tensor<2, Int>, dtype: DType) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Unpack>::unpack(words.into_dispatch(), dtype))
}

/// [`unpack`] per backend.
#[backend_extension(Cube: cfg(feature = "wgpu"), Flex: cfg(feature = "flex"))]
trait Unpack: Backend {
    fn unpack(words: IntTensor<Self>, dtype: DType) -> FloatTensor<Self>;
}

#[cfg(feature = "flex")]
impl Unpack for burn::backend::Flex {
    fn unpack(words: IntTensor<Self>, dtype: DType) -> FloatTensor<Self> {
        reference::unpack::<Self>(words, dtype)
    }
}

#[cfg(feature = "wgpu")]
mod gpu {
    use burn::backend::TensorMetadata;
    use burn_wgpu::{CubeBackend, CubeTensor};

    use super::*;
    use crate::kernels::source::{Access, Wgsl};

    /// Words that one invocation unpacks.
    const WORDS_PER_INVOCATION: usize = 4;

    impl Unpack for CubeBackend {
        fn unpack(words: CubeTensor, dtype: DType) -> CubeTensor {
            let [rows, half] = words.shape().dims();
            let float = match dtype {
                DType::F16 => "f16",
                _ => "f32",
            };
            let kernel = Wgsl::new("unpack", include_str!("kernel.wgsl"))
                .define("float", float)
                .define("enable", if float == "f16" { "enable f16;" } else { "" })
                .define("words_per_invocation", WORDS_PER_INVOCATION.to_string());
            let output = kernel.output(&words, [rows, half * 2], dtype);
            let invocations = (rows * half).div_ceil(WORDS_PER_INVOCATION);
            kernel.launch(invocations, &[(&words, Access::Read), (&output, Access::Write)]);
            output
        }
    }
}
