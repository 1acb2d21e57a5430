//! Between the device's channels-last `f32` and the outside's `[B, C, H, W]`.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::error::{Error, Result};

/// Uploads values in the order `shape` = `[B, C, H, W]` as `[B, H, W, C]`.
///
/// # Panics
/// When there are not as many values as `shape` says.
pub fn from_nchw(values: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
    let tensor = Tensor::from_data(TensorData::new(values, shape), (device, DType::F32));
    tensor.permute([0, 2, 3, 1])
}

/// Downloads `[B, H, W, C]` in the order `[B, C, H, W]`.
///
/// # Errors
/// [`Error::Gpu`] when the device fails.
pub async fn to_nchw(tensor: Tensor<4>) -> Result<Vec<f32>> {
    to_host(tensor.permute([0, 3, 1, 2])).await
}

/// Downloads a tensor as it is.
///
/// # Errors
/// [`Error::Gpu`] when the device fails.
pub async fn to_host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let gpu = |message: String| Error::Gpu { message };
    let data = tensor.cast(DType::F32).into_data_async().await.map_err(|e| gpu(e.to_string()))?;
    #[cfg(feature = "wgpu")]
    if let Some(message) = crate::device::take_fault() {
        return Err(gpu(message));
    }
    data.try_into_vec::<f32>().map_err(|e| gpu(format!("{e:?}")))
}
