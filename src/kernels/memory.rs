//! The memory that a device holds for tensors.

use std::cell::Cell;

use burn::tensor::{DType, Device, Tensor};
use burn_wgpu::CubeTensor;

#[cfg(feature = "tuning")]
use super::source::largest_pretended;
use super::source::on_gpu;
use crate::arena;

/// Bytes of the device's memory that `work` would leave held for itself and for what comes later, and the most that would be
/// held on the way, without running or taking any: beside what its result uses.
#[cfg(feature = "tuning")]
pub fn memory_of<T>(device: &Device, work: impl FnOnce() -> T) -> [u64; 2] {
    release_memory(device);
    let bytes = {
        let _dry_run = cubecl::dry_run::DryRun::new();
        MOST.set(Some(0));
        let _result = work();
        let [used, held] = device_memory(device);
        let most = MOST.take().unwrap_or(0).max(held);
        [held - used, most - used]
    };
    release_memory(device);
    bytes
}

#[cfg(feature = "tuning")]
thread_local! {
    /// The most bytes that were held when a buffer was taken, while that is asked for.
    static MOST: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Notes that a buffer was taken beside `like`.
pub fn taken(like: &CubeTensor) {
    #[cfg(feature = "tuning")]
    if let Some(most) = MOST.get() {
        MOST.set(Some(most.max(reserved(like))));
    }
    #[cfg(not(feature = "tuning"))]
    let _ = like;
}

/// Hands over to the device what waits in host memory to be written there. On other devices than GPUs
/// nothing waits.
pub fn flush(device: &Device) {
    let Some(probe) = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32))) else { return };
    if let Err(error) = probe.client.flush() {
        log::warn!("writing to the GPU: {error}");
    }
}

/// The most bytes that a tensor can have on the device; any where it is no GPU.
pub fn largest_buffer(device: &Device) -> Option<u64> {
    #[cfg(feature = "tuning")]
    if let Some(bytes) = largest_pretended() {
        return Some(bytes);
    }
    let probe = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32)))?;
    Some(probe.client.properties().memory.max_page_size)
}

/// Gives memory that no tensor uses back to the GPU: the sizes that one model asks for seldom serve
/// another. On other devices than GPUs nothing is done.
pub fn release_memory(device: &Device) {
    let Some(probe) = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32))) else { return };
    RELEASED.set(RELEASED.get().max(reserved(&probe)));
    arena::release(&probe);
    if let Err(error) = probe.client.memory_cleanup() {
        log::warn!("giving memory back: {error}");
    }
}

thread_local! {
    /// The most bytes that were held when memory was given back since this was asked last.
    static RELEASED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes of the device's memory that are held for tensors, and the most that were since the last call.
/// Nothing on other devices than GPUs.
pub fn held_memory(device: &Device) -> [u64; 2] {
    let probe = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32)));
    let now = probe.map_or(0, |probe| reserved(&probe));
    [now, RELEASED.take().max(now)]
}

fn reserved(probe: &CubeTensor) -> u64 {
    probe.client.memory_report(cubecl::MemoryScope::Device).usage().bytes_reserved
}

/// Bytes of the device's memory that tensors use, and that are held for them and for later ones.
#[cfg(feature = "tuning")]
pub fn device_memory(device: &Device) -> [u64; 2] {
    let probe = on_gpu(&Tensor::<1>::empty([1], (device, DType::F32))).expect("a GPU");
    let usage = probe.client.memory_report(cubecl::MemoryScope::Device).usage();
    [usage.bytes_in_use - arena::free_bytes(&probe), usage.bytes_reserved]
}
