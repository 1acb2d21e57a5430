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
    use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};

    use super::*;
    use crate::kernels::source::{Access, Wgsl, empty, float_name, line};

    /// Invocations of a workgroup.
    const THREADS: usize = 256;

    impl Unpack for CubeBackend {
        fn unpack(words: CubeTensor, dtype: DType) -> CubeTensor {
            let [rows, half]: [usize; 2] = words.shape().dims();
            let words = into_contiguous(words);
            let output = empty(&words, [rows, half * 2], dtype);
            Wgsl::new("unpack", include_str!("kernel.wgsl"))
                .define("FLOAT", float_name(dtype))
                .define("THREADS", THREADS)
                .launch(
                    line((rows * half).div_ceil(THREADS)),
                    &[(&words, Access::Read), (&output, Access::Write)],
                    &[(rows * half) as u32],
                );
            output
        }
    }
}
