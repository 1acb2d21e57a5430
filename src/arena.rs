//! Buffers of large activations, which come and go in every step.
//!
//! Burn's pools give a tensor a buffer of its very size, or else of the first size that is not too small. With the one, two
//! dozen sizes of scratch space lie side by side of which one is used at a time; with the other, small tensors sit in
//! large buffers and new ones are taken for large tensors. So large tensors have buffers from here: the smallest free
//! one that is large enough, and not too large.

use std::cell::RefCell;

use burn_wgpu::CubeTensor;
use cubecl::server::Handle;

/// Bytes from which on a tensor's buffer comes from here.
const LARGE: u64 = 1 << 20;
/// Quarters of its size that a tensor's buffer has at most: a little more than twice the size, since scratch space that is
/// to be 64 MiB is a little less, and a picture beside it twice that.
const MOST_QUARTERS: u64 = 9;
/// A new buffer has a multiple of this share of its size: what is a little larger may come next.
const GRAIN: u64 = 8;

thread_local! {
    /// All buffers of this thread's devices. One that only the arena holds is free.
    static BUFFERS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `bytes` on the device of `like`.
pub fn reserve(like: &CubeTensor, bytes: u64) -> Handle {
    // Ranges of buffers are bound by whole words, four for safety.
    if bytes < LARGE || !bytes.is_multiple_of(16) {
        return like.client.empty(bytes as usize);
    }
    BUFFERS.with_borrow_mut(|buffers| {
        let free = |buffer: &&Handle| {
            let size = buffer.size();
            let fits = size >= bytes && size <= bytes * MOST_QUARTERS / 4;
            fits && is_free(buffer, like)
        };
        let buffer = buffers.iter().filter(free).min_by_key(|buffer| buffer.size()).cloned();
        let buffer = buffer.unwrap_or_else(|| {
            // What is too small for this one has been left behind, as by a picture that grows on its way through a
            // decoder. In a loop that settles: every buffer that a round drops makes room for a larger one that stays.
            let all = buffers.len();
            buffers.retain(|buffer| buffer.size() >= bytes || !is_free(buffer, like));
            if buffers.len() < all {
                cleanup(like);
            }
            let most = like.client.properties().memory.max_page_size;
            let buffer = like.client.empty(rounded(bytes, most) as usize);
            buffers.push(buffer.clone());
            buffer
        });
        let spare = buffer.size() - bytes;
        buffer.offset_end(spare)
    })
}

/// The size of a new buffer for `bytes` where a device allows no more than `most`.
const fn rounded(bytes: u64, most: u64) -> u64 {
    let size = bytes.next_multiple_of(bytes.next_power_of_two() / GRAIN);
    if size <= most { size } else { bytes }
}

/// Lets go of what is free on the device of `like`.
pub fn release(like: &CubeTensor) {
    BUFFERS.with_borrow_mut(|buffers| {
        buffers.retain(|buffer| !is_free(buffer, like));
    });
}

/// Whether nobody has the tensor's buffer but the tensor itself: what is written there, nobody misses. Never of a buffer
/// that is not from here.
pub fn is_alone(tensor: &CubeTensor) -> bool {
    BUFFERS.with_borrow_mut(|buffers| {
        let memory = tensor.handle.memory.descriptor();
        let same = |buffer: &Handle| std::ptr::eq(buffer.memory.descriptor(), memory);
        let Some(at) = buffers.iter().position(same) else { return false };
        // The arena's own hold would count as anybody's.
        drop(buffers.swap_remove(at));
        let alone = tensor.handle.can_mut();
        let mut own = tensor.handle.clone();
        (own.offset_start, own.offset_end) = (None, None);
        buffers.push(own);
        alone
    })
}

/// Bytes that are free on the device of `like`, and kept.
#[cfg(feature = "tuning")]
pub fn free_bytes(like: &CubeTensor) -> u64 {
    BUFFERS.with_borrow(|buffers| {
        let free = buffers.iter().filter(|buffer| is_free(buffer, like));
        free.map(Handle::size).sum()
    })
}

/// Has Burn give back to the GPU what it keeps for nobody: also for no work that waits to be handed over.
fn cleanup(like: &CubeTensor) {
    let given = like.client.flush().and_then(|()| like.client.memory_cleanup());
    if let Err(error) = given {
        log::warn!("giving memory back: {error}");
    }
}

fn is_free(buffer: &Handle, like: &CubeTensor) -> bool {
    buffer.service == like.handle.service && buffer.can_mut()
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn sizes_are_rounded_up_within_what_the_device_allows() {
        assert_eq!(rounded(123 << 20, 1 << 31), 128 << 20);
        assert_eq!(rounded(128 << 20, 128 << 20), 128 << 20);
        // What Chromium says of an H100: four bytes under two gibibytes.
        let most = (1 << 31) - 4;
        assert_eq!(rounded(2000 << 20, most), 2000 << 20);
        assert_eq!(rounded(1700 << 20, most), 1792 << 20);
    }
}
