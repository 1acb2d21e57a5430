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

/// A [`Matrix`] of halves whose rows come in any order: on a GPU they are written to the device as
/// they come, so that it is never whole in host memory.
#[derive(Debug)]
pub struct MatrixWriter {
    shape: [usize; 2],
    device: Device,
    /// Bytes.
    written: usize,
    /// Where there is no GPU.
    host: Vec<u8>,
    #[cfg(feature = "wgpu")]
    gpu: Option<burn_wgpu::CubeTensor>,
}

impl MatrixWriter {
    /// Nothing of a matrix of `shape` yet. `None` where its rows are not of whole words.
    pub fn new(shape: [usize; 2], device: &Device) -> Option<Self> {
        let [rows, columns] = shape;
        if columns % 2 == 1 {
            return None;
        }
        #[cfg(feature = "wgpu")]
        let gpu = Tensor::<2, Int>::empty([rows, columns / 2], (device, DType::I32))
            .try_into_primitive::<burn_wgpu::CubeBackend>()
            .ok();
        #[cfg(feature = "wgpu")]
        let on_host = gpu.is_none();
        #[cfg(not(feature = "wgpu"))]
        let on_host = true;
        Some(Self {
            shape,
            device: device.clone(),
            written: 0,
            host: if on_host { vec![0; rows * columns * 2] } else { Vec::new() },
            #[cfg(feature = "wgpu")]
            gpu,
        })
    }

    /// Writes whole rows from row `first` on: their values' bytes, little-endian.
    pub fn write(&mut self, first: usize, bytes: Vec<u8>) {
        let start = first * self.shape[1] * 2;
        self.written += bytes.len();
        #[cfg(feature = "wgpu")]
        if let Some(tensor) = &self.gpu {
            // Of the values' bytes; the handle's own size is rounded up.
            let [rows, columns] = self.shape;
            let end = (rows * columns * 2 - start - bytes.len()) as u64;
            let place = tensor.handle.clone().offset_start(start as u64).offset_end(end);
            tensor.client.write(&place, burn::tensor::Bytes::from_bytes_vec(bytes));
            return;
        }
        self.host[start..start + bytes.len()].copy_from_slice(&bytes);
    }

    /// Whether as many rows were written as there are.
    pub fn is_full(&self) -> bool {
        let [rows, columns] = self.shape;
        self.written == rows * columns * 2
    }

    /// The matrix.
    ///
    /// # Panics
    /// When fewer rows, or more, were written than there are.
    pub fn finish(self) -> Matrix {
        assert!(self.is_full());
        #[cfg(feature = "wgpu")]
        if let Some(tensor) = self.gpu {
            let words = Tensor::from_primitive::<burn_wgpu::CubeBackend>(tensor);
            return Matrix { shape: self.shape, storage: Storage::PackedF16(words) };
        }
        Matrix::from_f16_bytes(self.host, self.shape, &self.device)
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
        let bytes = values.into_iter().flat_map(f16::to_le_bytes).collect();
        Self::from_f16_bytes(bytes, shape, device)
    }

    /// The same from the values' bytes, little-endian, which are not copied.
    pub fn from_f16_bytes(bytes: Vec<u8>, shape: [usize; 2], device: &Device) -> Self {
        let [rows, columns] = shape;
        if columns % 2 == 1 {
            let halves = bytes.as_chunks::<2>().0.iter();
            let values = halves.map(|half| f16::from_le_bytes(*half).to_f32()).collect();
            return Self::from_f32(values, shape, device);
        }
        // Two halves after one another are a word with the first in its low half.
        let data = TensorData::from_bytes_vec(bytes, [rows, columns / 2], DType::I32);
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
