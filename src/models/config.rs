//! What the configuration files have in common.

use serde::Deserialize;

use crate::error::{Error, Result};
pub use crate::json::{bounded, parse};

/// A setting given once for all blocks, or once for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum PerBlock<T> {
    /// The same for every block.
    All(T),
    /// One for each block, outermost first.
    Each(Vec<T>),
}

impl<T: Clone> PerBlock<T> {
    /// One value for each of `blocks` blocks.
    pub fn expand(&self, blocks: usize, file: &str, key: &str) -> Result<Vec<T>> {
        match self {
            Self::All(value) => Ok(vec![value.clone(); blocks]),
            Self::Each(values) if values.len() == blocks => Ok(values.clone()),
            Self::Each(values) => Err(Error::config(
                file,
                format!("`{key}` has {} entries for {blocks} blocks", values.len()),
            )),
        }
    }
}

/// Channels, entries of a table or pixels at most: no network has as many, and what is computed
/// from them stays a number.
pub const MAX_SIZE: usize = 1 << 20;

/// Layers of one kind, one after the other, at most.
pub const MAX_LAYERS: usize = 64;

/// Stages of different sizes at most.
pub const MAX_STAGES: usize = 8;

/// Fails when a configuration asks for something that is not implemented.
pub fn require(supported: bool, message: impl FnOnce() -> String) -> Result<()> {
    if supported { Ok(()) } else { Err(Error::unsupported(message())) }
}
