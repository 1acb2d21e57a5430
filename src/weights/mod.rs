//! From a checkpoint's bytes to the parameters of a model.

mod dtype;
mod load;
pub mod pickle;
mod safetensors;

pub use dtype::{Dtype, HostTensor};
pub use load::{Progress, WeightFiles, load};
pub use safetensors::{Header, TensorInfo};
