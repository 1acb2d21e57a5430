use burn::backend::tensor::{Device, FloatTensor, IntTensor};
use burn::backend::{Backend, ExecutionError, TensorMetadata};
use burn::tensor::{DType, TensorData};
use half::f16;

/// The plain twin of the kernel: through the host, so for backends whose memory is the host's.
pub fn unpack<B: Backend>(words: IntTensor<B>, dtype: DType) -> FloatTensor<B> {
    let [rows, half]: [usize; 2] = words.shape().dims();
    let device: Device<B> = words.device();
    let data: Result<TensorData, ExecutionError> =
        futures_util::FutureExt::now_or_never(B::int_into_data(words))
            .expect("a host backend reads at once");
    let words = data.expect("host memory can be read").iter::<i32>().collect::<Vec<_>>();
    let floats: Vec<f32> = words
        .into_iter()
        .flat_map(|word| [word as u16, (word >> 16) as u16])
        .map(|bits| f16::from_bits(bits).to_f32())
        .collect();
    let data = TensorData::new(floats, [rows, half * 2]).convert_dtype(dtype);
    B::float_from_data(data, &device)
}
