//! A weight as the kernels take it.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use half::f16;

use super::unpack::unpack;

/// A weight of `rows` output channels by `columns` inputs, on the device.
///
/// Two halves share a `u32` wherever a row's length is even, whatever the arithmetic: that is half
/// the memory of `f32`, and needs no `shader-f16`. Weights kept in `f32`, and rows of odd length,
/// are plain floats.
#[derive(Debug, Clone)]
pub struct Matrix {
    shape: [usize; 2],
    storage: Storage,
}

/// Values where there are no others, made on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// Whatever the memory holds, for passes that compute nothing.
    Nothing,
    /// Small random numbers, for benchmarks.
    Random,
}

impl StandIn {
    /// Floats of `shape`, of up to 0.06 and either sign.
    pub fn floats<const D: usize>(self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let options = (device, DType::F32);
        match self {
            Self::Nothing => Tensor::empty(shape, options),
            Self::Random => Tensor::random(shape, Distribution::Uniform(-0.06, 0.06), options),
        }
    }

    /// Pairs of halves of the same kind.
    fn halves(self, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
        let options = (device, DType::I32);
        match self {
            Self::Nothing => Tensor::empty(shape, options),
            // Any sign and mantissa, and an exponent of -6.
            Self::Random => {
                let any = Distribution::Uniform(0.0, f64::from(1 << 30));
                let low = Tensor::<2, Int>::random(shape, any, options);
                // The generator has fewer bits than a word.
                let high = Tensor::<2, Int>::random(shape, any, options).mul_scalar(4);
                low.bitwise_xor(high)
                    .bitwise_and_scalar(0x83ff_83ff_u32 as i32)
                    .bitwise_or_scalar(0x2400_2400)
            }
        }
    }
}

/// A [`Matrix`] on the GPU.
#[cfg(feature = "wgpu")]
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Floats, or words of two halves.
    pub tensor: burn_wgpu::CubeTensor,
    /// Whether two halves share a word.
    pub packed: bool,
}

#[derive(Debug, Clone)]
enum Storage {
    Float(Tensor<2>),
    /// `[rows, columns / 2]`, the even column in the low half.
    PackedF16(Tensor<2, Int>),
}

impl Matrix {
    /// A matrix of 32-bit floats from its values, row by row.
    pub fn from_f32(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Self {
        let data = TensorData::new(values, shape);
        Self { shape, storage: Storage::Float(Tensor::from_data(data, (device, DType::F32))) }
    }

    /// A matrix of halves from its values, row by row, packed where `shape` allows.
    pub fn from_f16(values: Vec<f16>, shape: [usize; 2], device: &Device) -> Self {
        let [rows, columns] = shape;
        if columns % 2 == 1 {
            return Self::from_f32(values.into_iter().map(f16::to_f32).collect(), shape, device);
        }
        let words: Vec<i32> = values
            .chunks_exact(2)
            .map(|pair| i32::from(pair[0].to_bits()) | (i32::from(pair[1].to_bits()) << 16))
            .collect();
        let data = TensorData::new(words, [rows, columns / 2]);
        Self { shape, storage: Storage::PackedF16(Tensor::from_data(data, (device, DType::I32))) }
    }

    /// A matrix of the floats of `tensor`, which stay where they are.
    pub fn from_tensor(tensor: Tensor<2>) -> Self {
        Self { shape: tensor.dims(), storage: Storage::Float(tensor) }
    }

    /// A matrix of `shape` that stands for one that is not there yet, packed where `halves` and the
    /// shape allow.
    pub fn stand_in(values: StandIn, shape: [usize; 2], halves: bool, device: &Device) -> Self {
        let [rows, columns] = shape;
        let storage = if halves && columns.is_multiple_of(2) {
            Storage::PackedF16(values.halves([rows, columns / 2], device))
        } else {
            Storage::Float(values.floats(shape, device))
        };
        Self { shape, storage }
    }

    /// Whether two halves share a word.
    pub fn is_packed(&self) -> bool {
        matches!(self.storage, Storage::PackedF16(_))
    }

    /// `[rows, columns]`: outputs and inputs.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Where the matrix lives.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Float(tensor) => tensor.device(),
            Storage::PackedF16(words) => words.device(),
        }
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        let [rows, columns] = self.shape;
        match self.storage {
            Storage::Float(_) => rows * columns * 4,
            Storage::PackedF16(_) => rows * columns * 2,
        }
    }

    /// The matrix as floats of type `dtype`, `[rows, columns]`.
    pub fn to_float(&self, dtype: DType) -> Tensor<2> {
        match &self.storage {
            Storage::Float(tensor) => tensor.clone().cast(dtype),
            Storage::PackedF16(words) => unpack(words.clone(), dtype),
        }
    }

    /// The matrix as it lies on the GPU, if it does.
    #[cfg(feature = "wgpu")]
    pub(super) fn buffer(&self) -> Option<Buffer> {
        use burn_wgpu::CubeBackend;
        use burn_wgpu::into_contiguous;
        let (tensor, packed) = match &self.storage {
            Storage::Float(tensor) => (tensor.clone().try_into_primitive::<CubeBackend>(), false),
            Storage::PackedF16(words) => (words.clone().try_into_primitive::<CubeBackend>(), true),
        };
        Some(Buffer { tensor: into_contiguous(tensor.ok()?), packed })
    }

    /// The rows of `indices` as floats of type `dtype`, `[indices, columns]`.
    pub fn select(&self, indices: Tensor<1, Int>, dtype: DType) -> Tensor<2> {
        match &self.storage {
            Storage::Float(tensor) => tensor.clone().select(0, indices).cast(dtype),
            Storage::PackedF16(words) => unpack(words.clone().select(0, indices), dtype),
        }
    }
}
