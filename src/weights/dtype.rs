//! A tensor in host memory, as a file stores it.

use half::{bf16, f16};

/// The element types that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A tensor's bytes, little-endian and row-major, with what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl HostTensor {
    /// Pairs `bytes` with their meaning.
    ///
    /// # Panics
    /// When the length is not what shape and type say; [`Header`](super::Header) checks that first.
    pub fn new(shape: Vec<usize>, dtype: Dtype, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * dtype.size());
        Self { shape, dtype, bytes }
    }

    /// The shape in the file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The elements, little-endian and row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A tensor of single precision.
    ///
    /// # Panics
    /// When `shape` has another number of elements.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        Self::new(shape, Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// The same values, of a matrix whose columns are there one after the other.
    ///
    /// # Panics
    /// When it has not two axes.
    pub fn from_columns(&self) -> Self {
        let &[rows, columns] = &self.shape[..] else { panic!("a matrix has two axes") };
        let size = self.dtype.size();
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for row in 0..rows {
            for column in 0..columns {
                let at = (column * rows + row) * size;
                bytes.extend_from_slice(&self.bytes[at..at + size]);
            }
        }
        Self::new(self.shape.clone(), self.dtype, bytes)
    }

    /// The values as single precision; exact for every type.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F16 => self.elements(f16::from_le_bytes, f16::to_f32),
            Dtype::Bf16 => self.elements(bf16::from_le_bytes, bf16::to_f32),
            Dtype::F32 => self.elements(f32::from_le_bytes, |x| x),
        }
    }

    /// The values as half precision, rounded to nearest even where the type has more bits.
    pub fn to_f16(&self) -> Vec<f16> {
        match self.dtype {
            Dtype::F16 => self.elements(f16::from_le_bytes, |x| x),
            Dtype::Bf16 => self.elements(bf16::from_le_bytes, |x| f16::from_f32(x.to_f32())),
            Dtype::F32 => self.elements(f32::from_le_bytes, f16::from_f32),
        }
    }

    /// The bytes of [`to_f16`](Self::to_f16), in the memory that this one's are in: a model's largest
    /// tensor is not copied.
    pub fn into_f16_bytes(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        match self.dtype {
            Dtype::F16 => {}
            Dtype::Bf16 => {
                for value in bytes.as_chunks_mut::<2>().0 {
                    *value = f16::from_f32(bf16::from_le_bytes(*value).to_f32()).to_le_bytes();
                }
            }
            Dtype::F32 => {
                let count = bytes.len() / 4;
                for i in 0..count {
                    let [a, b, c, d] = [0, 1, 2, 3].map(|j| bytes[4 * i + j]);
                    let half = f16::from_f32(f32::from_le_bytes([a, b, c, d])).to_le_bytes();
                    // Never beyond what has been read.
                    bytes[2 * i..2 * i + 2].copy_from_slice(&half);
                }
                bytes.truncate(2 * count);
                bytes.shrink_to_fit();
            }
        }
        bytes
    }

    fn elements<const N: usize, S, T>(&self, parse: fn([u8; N]) -> S, to: fn(S) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|bytes| to(parse(*bytes))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        let columns = HostTensor::from_f32(vec![2, 3], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(columns.from_columns().to_f32(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn every_type_reads_as_both() {
        let values = [1.5f32, -0.25, 65504.0, 6.103_515_6e-5];
        let stored = [
            (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
            (Dtype::F16, values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()),
        ];
        for (dtype, bytes) in stored {
            let tensor = HostTensor::new(vec![2, 2], dtype, bytes);
            assert_eq!(tensor.to_f32(), values);
            assert_eq!(tensor.to_f16(), values.map(f16::from_f32));
            let halves: Vec<u8> = tensor.to_f16().iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!(tensor.into_f16_bytes(), halves);
        }
        let bytes = [1.5f32, -0.25].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let tensor = HostTensor::new(vec![2], Dtype::Bf16, bytes);
        assert_eq!(tensor.to_f32(), [1.5, -0.25]);
        assert_eq!(tensor.to_f16(), [1.5, -0.25].map(f16::from_f32));
        let halves = [1.5f32, -0.25].map(|x| f16::from_f32(x).to_le_bytes()).concat();
        assert_eq!(tensor.into_f16_bytes(), halves);
    }
}
