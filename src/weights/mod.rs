//! From a checkpoint's bytes to the parameters of a model.

mod assembly;
mod dtype;
mod index;
mod load;
pub mod lora;
pub mod original;
pub mod pickle;
mod safetensors;
mod state_dict;

pub mod textual_inversion;

pub use dtype::{Dtype, HostTensor};
pub use index::shards;
pub use load::{Progress, WeightFiles, load, pass_over, peek};
pub use safetensors::{Header, TensorInfo, header, header_with};
pub use state_dict::{Entry, StateDict};
