//! Words back to floats: two halves in each, or integers.

#[cfg(feature = "flex")]
mod reference;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Tensor};

use super::quantise::Bits;

/// Unpacks `words` to floats of type `dtype`; the low half of a word is the earlier column.
///
/// # Shapes
/// `words`: `[rows, columns / 2]`; the result: `[rows, columns]`.
pub fn unpack(words: Tensor<2, Int>, dtype: DType) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Unpack>::unpack(words.into_dispatch(), dtype))
}

/// The floats of type `dtype` that integers stand for; only on a GPU are there any.
///
/// # Shapes
/// `words`: `[rows, Bits::words(columns)]`; `scales`: `[rows, Bits::scale_words(columns)]`; the result: `[rows, columns]`.
pub fn dequantised(
    bits: Bits,
    words: Tensor<2, Int>,
    scales: Tensor<2, Int>,
    dtype: DType,
) -> Tensor<2> {
    #[cfg(feature = "wgpu")]
    {
        use super::source::to_tensor;
        use burn_wgpu::{CubeBackend, into_contiguous};
        let [_, row_words] = words.dims();
        let on_gpu = |tensor: Tensor<2, Int>| tensor.try_into_primitive::<CubeBackend>().ok();
        if let (Some(words), Some(scales)) = (on_gpu(words), on_gpu(scales)) {
            let (words, scales) = (into_contiguous(words), into_contiguous(scales));
            let columns = row_words * 32 / bits.count();
            return to_tensor(gpu::dequantised(bits, &words, &scales, columns, dtype));
        }
    }
    #[cfg(not(feature = "wgpu"))]
    let _ = (bits, words, scales, dtype);
    unreachable!("a matrix has integers on a GPU only")
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
pub(super) mod gpu {
    use burn::backend::TensorMetadata;
    use burn_wgpu::{CubeBackend, CubeTensor, into_contiguous};

    use super::*;
    use crate::kernels::source::{Access, Wgsl, float_name, line, scratch};

    /// Invocations of a workgroup.
    const THREADS: usize = 256;

    const INTEGERS: &str = concat!(include_str!("../scaled.wgsl"), include_str!("integers.wgsl"));

    /// The floats of type `dtype` that integers in rows of `columns` stand for; nothing has gaps.
    pub fn dequantised(
        bits: Bits,
        words: &CubeTensor,
        scales: &CubeTensor,
        columns: usize,
        dtype: DType,
    ) -> CubeTensor {
        let [rows, _]: [usize; 2] = words.shape().dims();
        let output = scratch(words, [rows, columns], dtype);
        Wgsl::new("dequantise", INTEGERS)
            .define("WEIGHTS", "words")
            .define("SCALED", true)
            .define("BITS", bits.count())
            .define("GROUP", bits.group())
            .define("FLOAT", float_name(dtype))
            .define("THREADS", THREADS)
            .launch(
                line((rows * columns / 4).div_ceil(THREADS)),
                &[(words, Access::Read), (scales, Access::Read), (&output, Access::Write)],
                &[rows as u32, columns as u32],
            );
        output
    }

    /// The floats of type `dtype` of halves in pairs, without gaps.
    pub fn unpacked(words: &CubeTensor, dtype: DType) -> CubeTensor {
        let [rows, half]: [usize; 2] = words.shape().dims();
        let output = scratch(words, [rows, half * 2], dtype);
        Wgsl::new("unpack", include_str!("kernel.wgsl"))
            .define("FLOAT", float_name(dtype))
            .define("THREADS", THREADS)
            .launch(
                line((rows * half).div_ceil(THREADS)),
                &[(words, Access::Read), (&output, Access::Write)],
                &[(rows * half) as u32],
            );
        output
    }

    impl Unpack for CubeBackend {
        fn unpack(words: CubeTensor, dtype: DType) -> CubeTensor {
            unpacked(&into_contiguous(words), dtype)
        }
    }
}
