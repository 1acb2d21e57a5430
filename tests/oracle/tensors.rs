//! The oracle's tensor files.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// A `.safetensors` file in memory.
pub struct TensorFile {
    name: String,
    bytes: Vec<u8>,
}

/// Values with their shape.
#[derive(Debug, Clone)]
pub struct Golden<T> {
    pub shape: Vec<usize>,
    pub values: Vec<T>,
}

impl<T: Clone> Golden<T> {
    /// The entry `index` along the first axis.
    pub fn at(&self, index: usize) -> Golden<T> {
        let size = self.values.len() / self.shape[0];
        Golden {
            shape: self.shape[1..].to_vec(),
            values: self.values[index * size..(index + 1) * size].to_vec(),
        }
    }

    /// The shape as an array.
    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.shape.as_slice().try_into().unwrap_or_else(|_| panic!("rank of {:?}", self.shape))
    }
}

impl TensorFile {
    /// Reads a file.
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name: path.display().to_string(), bytes }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The names in the file.
    pub fn names(&self) -> Vec<String> {
        self.parsed().names().into_iter().map(str::to_owned).collect()
    }

    fn get<const N: usize, T>(
        &self,
        name: &str,
        dtype: Dtype,
        parse: fn([u8; N]) -> T,
    ) -> Option<Golden<T>> {
        let file = self.parsed();
        let tensor = file.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), dtype, "{}: {name}", self.name);
        let values = tensor.data().as_chunks::<N>().0.iter().map(|bytes| parse(*bytes)).collect();
        Some(Golden { shape: tensor.shape().to_vec(), values })
    }

    /// A tensor of `f32`, if there is one of that name.
    pub fn find(&self, name: &str) -> Option<Golden<f32>> {
        self.get(name, Dtype::F32, f32::from_le_bytes)
    }

    /// A tensor of `f32`.
    pub fn f32(&self, name: &str) -> Golden<f32> {
        self.find(name).unwrap_or_else(|| panic!("{} has no `{name}`", self.name))
    }

    /// A tensor of `i32`.
    pub fn i32(&self, name: &str) -> Golden<i32> {
        self.get(name, Dtype::I32, i32::from_le_bytes)
            .unwrap_or_else(|| panic!("{} has no `{name}`", self.name))
    }

    /// A tensor of bytes, if there is one of that name.
    pub fn find_u8(&self, name: &str) -> Option<Golden<u8>> {
        self.get(name, Dtype::U8, |[byte]| byte)
    }

    /// A tensor of bytes.
    pub fn u8(&self, name: &str) -> Golden<u8> {
        self.find_u8(name).unwrap_or_else(|| panic!("{} has no `{name}`", self.name))
    }
}
