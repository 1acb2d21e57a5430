//! A weight as the kernels take it.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use half::f16;

use super::quantise::{Bits, Integers, dequantise, quantise};
use super::unpack::{dequantised, unpack};

/// A weight of `rows` output channels by `columns` inputs, on the device.
///
/// Two halves share a `u32` wherever a row's length is even, whatever the arithmetic: that is half
/// the memory of `f32`, and needs no `shader-f16`. Weights kept in `f32`, and rows of odd length,
/// are plain floats. Weights in integers have a scale for each group of a row; where there is no GPU they are
/// kept as the floats that they stand for.
#[derive(Debug, Clone)]
pub struct Matrix {
    shape: [usize; 2],
    storage: Storage,
}

/// How a matrix keeps its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Floats of 32 bits.
    Floats,
    /// Two halves in a word.
    Halves,
    /// Integers in groups, where rows are multiples of 8.
    Integers(Bits),
}

impl Packing {
    /// What rows of `columns` are kept as when this is asked for.
    pub const fn of(self, columns: usize) -> Self {
        match self {
            Self::Integers(_) if !columns.is_multiple_of(8) => Self::Halves.of(columns),
            Self::Halves if !columns.is_multiple_of(2) => Self::Floats,
            packing => packing,
        }
    }

    /// Bytes of a matrix.
    pub const fn bytes(self, shape: [usize; 2]) -> usize {
        let [rows, columns] = shape;
        match self.of(columns) {
            Self::Floats => rows * columns * 4,
            Self::Halves => rows * columns * 2,
            Self::Integers(bits) => bits.bytes(shape),
        }
    }
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
        // An exponent of -6.
        self.words(shape, 0x2400_2400, device)
    }

    /// Scales of integers that stand for values of the same kind.
    fn scales(self, shape: [usize; 2], bits: Bits, device: &Device) -> Tensor<2, Int> {
        // Exponents of -13 and of -9: the integers go up to 127 and to 8.
        let exponents = if bits == Bits::Eight { 0x0800_0800 } else { 0x1800_1800 };
        self.words(shape, exponents, device)
    }

    /// Pairs of halves of any sign and mantissa.
    fn words(self, shape: [usize; 2], exponents: i32, device: &Device) -> Tensor<2, Int> {
        let options = (device, DType::I32);
        match self {
            Self::Nothing => Tensor::empty(shape, options),
            Self::Random => {
                let any = Distribution::Uniform(0.0, f64::from(1 << 30));
                let low = Tensor::<2, Int>::random(shape, any, options);
                // The generator has fewer bits than a word.
                let high = Tensor::<2, Int>::random(shape, any, options).mul_scalar(4);
                low.bitwise_xor(high)
                    .bitwise_and_scalar(0x83ff_83ff_u32 as i32)
                    .bitwise_or_scalar(exponents)
            }
        }
    }
}

/// A [`Matrix`] whose rows come in any order, as halves: on a GPU they are written to the device as they
/// come, so that it is never whole in host memory.
#[derive(Debug)]
pub struct MatrixWriter {
    shape: [usize; 2],
    packing: Packing,
    device: Device,
    /// Bytes of the values, and of their scales.
    written: [usize; 2],
    /// Where there is no GPU.
    host: Vec<u8>,
    #[cfg(feature = "wgpu")]
    gpu: Option<[burn_wgpu::CubeTensor; 2]>,
}

impl MatrixWriter {
    /// Nothing of a matrix of `shape` yet. `None` where its rows are not of whole words, or floats.
    pub fn new(shape: [usize; 2], packing: Packing, device: &Device) -> Option<Self> {
        let [rows, columns] = shape;
        let packing = packing.of(columns);
        #[cfg_attr(not(feature = "wgpu"), expect(unused_variables))]
        let [row_words, scale_words] = words(packing, columns)?;
        #[cfg(feature = "wgpu")]
        let place = |words: usize| {
            // No tensor is empty.
            Tensor::<2, Int>::empty([rows, words.max(1)], (device, DType::I32))
                .try_into_primitive::<burn_wgpu::CubeBackend>()
                .ok()
        };
        #[cfg(feature = "wgpu")]
        let gpu = place(row_words).zip(place(scale_words)).map(|(words, scales)| [words, scales]);
        #[cfg(feature = "wgpu")]
        let on_host = gpu.is_none();
        #[cfg(not(feature = "wgpu"))]
        let on_host = true;
        Some(Self {
            shape,
            packing,
            device: device.clone(),
            written: [0; 2],
            host: if on_host { vec![0; rows * host_bytes(packing, columns)] } else { Vec::new() },
            #[cfg(feature = "wgpu")]
            gpu,
        })
    }

    /// Writes whole rows from row `first` on: their values as halves, little-endian.
    pub fn write(&mut self, first: usize, halves: Vec<u8>) {
        let [_, columns] = self.shape;
        let parts = match self.packing {
            Packing::Integers(bits) => {
                let integers = quantise(bits, &halves, columns);
                [integers.words, integers.scales]
            }
            _ => [halves, Vec::new()],
        };
        for (written, bytes) in self.written.iter_mut().zip(&parts) {
            *written += bytes.len();
        }
        #[cfg(feature = "wgpu")]
        if let Some(tensors) = &self.gpu {
            let row = words(self.packing, columns).unwrap_or_default().map(|words| words * 4);
            for (i, bytes) in parts.into_iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
                // Of the values' bytes; the handle's own size is rounded up.
                let start = first * row[i];
                let end = self.ends()[i] - start - bytes.len();
                let place = tensors[i].handle.clone();
                let place = place.offset_start(start as u64).offset_end(end as u64);
                tensors[i].client.write(&place, burn::tensor::Bytes::from_bytes_vec(bytes));
            }
            return;
        }
        let [words, scales] = parts;
        let bytes = match self.packing {
            Packing::Integers(bits) => {
                let floats = dequantise(bits, &Integers { words, scales }, columns);
                floats.into_iter().flat_map(f32::to_le_bytes).collect()
            }
            _ => words,
        };
        let start = first * host_bytes(self.packing, columns);
        self.host[start..start + bytes.len()].copy_from_slice(&bytes);
    }

    /// Bytes of the whole.
    fn ends(&self) -> [usize; 2] {
        let [rows, columns] = self.shape;
        words(self.packing, columns).unwrap_or_default().map(|words| rows * words * 4)
    }

    /// Whether as many rows were written as there are.
    pub fn is_full(&self) -> bool {
        self.written == self.ends()
    }

    /// The matrix.
    ///
    /// # Panics
    /// When fewer rows, or more, were written than there are.
    pub fn finish(self) -> Matrix {
        assert!(self.is_full());
        let Self { shape, packing, device, host, .. } = self;
        #[cfg(feature = "wgpu")]
        if let Some(tensors) = self.gpu {
            let [words, scales] = tensors.map(Tensor::from_primitive::<burn_wgpu::CubeBackend>);
            let storage = match packing {
                Packing::Integers(bits) => {
                    Storage::Integers(Box::new(Grouped { bits, words, scales }))
                }
                _ => Storage::PackedF16(words),
            };
            return Matrix { shape, storage };
        }
        match packing {
            Packing::Integers(_) => {
                let floats = host.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
                Matrix::from_f32(floats.collect(), shape, &device)
            }
            _ => Matrix::from_f16_bytes(host, shape, &device),
        }
    }
}

/// Bytes of a row in host memory: integers are kept as the floats that they stand for.
const fn host_bytes(packing: Packing, columns: usize) -> usize {
    match packing {
        Packing::Integers(_) => columns * 4,
        _ => columns * 2,
    }
}

/// Words of a row's values and of its scales, where it is of whole words.
const fn words(packing: Packing, columns: usize) -> Option<[usize; 2]> {
    match packing {
        Packing::Floats => None,
        Packing::Halves => Some([columns / 2, 0]),
        Packing::Integers(bits) => Some([bits.words(columns), bits.scale_words(columns)]),
    }
}

/// A [`Matrix`] on the GPU.
#[cfg(feature = "wgpu")]
#[derive(Debug, Clone)]
pub struct Buffer {
    /// Floats, or words.
    pub tensor: burn_wgpu::CubeTensor,
    /// What they are.
    pub packing: Packing,
    /// The scales of integers.
    pub scales: Option<burn_wgpu::CubeTensor>,
}

#[cfg(feature = "wgpu")]
impl Buffer {
    /// Plain floats.
    pub fn floats(tensor: burn_wgpu::CubeTensor) -> Self {
        Self { tensor, packing: Packing::Floats, scales: None }
    }

    /// The same values as floats, where this is a matrix of so many columns.
    pub fn into_floats(self, columns: usize) -> Self {
        Self::floats(match (self.packing, self.scales) {
            (Packing::Integers(bits), Some(scales)) => {
                super::unpack::gpu::dequantised(bits, &self.tensor, &scales, columns, DType::F32)
            }
            (Packing::Halves, _) => super::unpack::gpu::unpacked(&self.tensor, DType::F32),
            _ => self.tensor,
        })
    }

    /// The constants that tell `scaled.wgsl` how to read it.
    pub fn constants(&self) -> [(&'static str, usize); 3] {
        let (bits, group) = match self.packing {
            Packing::Floats => (32, 1),
            Packing::Halves => (16, 1),
            Packing::Integers(bits) => (bits.count(), bits.group()),
        };
        [("BITS", bits), ("GROUP", group), ("SCALED", usize::from(bits < 16))]
    }

    /// What is bound: the values, then their scales.
    pub fn tensors(&self) -> impl Iterator<Item = &burn_wgpu::CubeTensor> {
        std::iter::once(&self.tensor).chain(&self.scales)
    }
}

/// Integers and their scales.
#[derive(Debug, Clone)]
struct Grouped {
    bits: Bits,
    words: Tensor<2, Int>,
    scales: Tensor<2, Int>,
}

#[derive(Debug, Clone)]
enum Storage {
    Float(Tensor<2>),
    /// `[rows, columns / 2]`, the even column in the low half.
    PackedF16(Tensor<2, Int>),
    /// Only on a GPU: `[rows, Bits::words]` and `[rows, Bits::scale_words]`.
    Integers(Box<Grouped>),
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

    /// A matrix of `shape` that stands for one that is not there yet.
    pub fn stand_in(values: StandIn, shape: [usize; 2], packing: Packing, device: &Device) -> Self {
        let [rows, columns] = shape;
        let storage = match packing.of(columns) {
            Packing::Floats => Storage::Float(values.floats(shape, device)),
            Packing::Halves => Storage::PackedF16(values.halves([rows, columns / 2], device)),
            Packing::Integers(bits) => Storage::Integers(Box::new(Grouped {
                bits,
                // Any word will do.
                words: values.halves([rows, bits.words(columns)], device),
                scales: values.scales([rows, bits.scale_words(columns)], bits, device),
            })),
        };
        Self { shape, storage }
    }

    /// Whether values have less than single precision.
    pub fn is_packed(&self) -> bool {
        !matches!(self.storage, Storage::Float(_))
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
            Storage::Integers(grouped) => grouped.words.device(),
        }
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        let packing = match self.storage {
            Storage::Float(_) => Packing::Floats,
            Storage::PackedF16(_) => Packing::Halves,
            Storage::Integers(ref grouped) => Packing::Integers(grouped.bits),
        };
        packing.bytes(self.shape)
    }

    /// The matrix as floats of type `dtype`, `[rows, columns]`.
    pub fn to_float(&self, dtype: DType) -> Tensor<2> {
        match &self.storage {
            Storage::Float(tensor) => tensor.clone().cast(dtype),
            Storage::PackedF16(words) => unpack(words.clone(), dtype),
            Storage::Integers(grouped) => {
                let Grouped { bits, words, scales } = (**grouped).clone();
                dequantised(bits, words, scales, dtype)
            }
        }
    }

    /// The matrix as it lies on the GPU, if it does.
    #[cfg(feature = "wgpu")]
    pub(super) fn buffer(&self) -> Option<Buffer> {
        use burn_wgpu::CubeBackend;
        use burn_wgpu::into_contiguous;
        let whole = |words: &Tensor<2, Int>| {
            words.clone().try_into_primitive::<CubeBackend>().ok().map(into_contiguous)
        };
        Some(match &self.storage {
            Storage::Float(tensor) => {
                let tensor = tensor.clone().try_into_primitive::<CubeBackend>().ok()?;
                Buffer::floats(into_contiguous(tensor))
            }
            Storage::PackedF16(words) => {
                Buffer { tensor: whole(words)?, packing: Packing::Halves, scales: None }
            }
            Storage::Integers(grouped) => Buffer {
                tensor: whole(&grouped.words)?,
                packing: Packing::Integers(grouped.bits),
                scales: Some(whole(&grouped.scales)?),
            },
        })
    }

    /// The rows of `indices` as floats of type `dtype`, `[indices, columns]`.
    pub fn select(&self, indices: Tensor<1, Int>, dtype: DType) -> Tensor<2> {
        match &self.storage {
            Storage::Float(tensor) => tensor.clone().select(0, indices).cast(dtype),
            Storage::PackedF16(words) => unpack(words.clone().select(0, indices), dtype),
            Storage::Integers(grouped) => {
                let Grouped { bits, words, scales } = (**grouped).clone();
                let [words, scales] = [words, scales].map(|all| all.select(0, indices.clone()));
                dequantised(bits, words, scales, dtype)
            }
        }
    }
}
