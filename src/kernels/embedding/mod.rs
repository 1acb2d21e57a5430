//! A table of vectors.

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::Matrix;

/// The rows of `table` at `ids`, as floats of type `dtype`. The table itself is never unpacked whole:
/// CLIP's is over WebGPU's default binding size in `f32`.
///
/// # Shapes
/// `ids`: B lists of N; `table`: `[V, C]`; the result: `[B, N, C]`.
///
/// # Panics
/// When the lists differ in length or an id is outside the table.
pub fn embedding(ids: &[Vec<u32>], table: &Matrix, dtype: DType) -> Tensor<3> {
    let [rows, channels] = table.shape();
    let length = ids.first().map_or(0, Vec::len);
    let flat: Vec<i32> = ids.iter().flatten().map(|&id| id as i32).collect();
    assert_eq!(flat.len(), ids.len() * length, "every list of ids has the same length");
    assert!(flat.iter().all(|&id| (id as usize) < rows), "every id is in the table");
    let data = TensorData::new(flat, [ids.len() * length]);
    let indices = Tensor::<1, Int>::from_data(data, (&table.device(), DType::I32));
    table.select(indices, dtype).reshape([ids.len(), length, channels])
}
