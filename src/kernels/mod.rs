//! The operations that carry the work, one folder each: `mod.rs` is the safe wrapper that models
//! call, `reference.rs` its twin in plain Burn operations, which every backend can run.

mod combine;

pub use combine::combine;
