//! How much may be on its way at a time, all files of a model together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;

/// Bytes of chunks held at a time, those on their way included.
pub(super) const WINDOW_BYTES: u64 = if cfg!(test) { 6 * (64 << 10) } else { 48 << 20 };

/// The places of chunks that are on their way, or held in memory. Files that were opened first come
/// first.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Chunks on their way.
    open: Cell<usize>,
    /// Bytes of these and of those that are held.
    bytes: Cell<u64>,
    /// Files that want a place and have none, by the order in which they were opened.
    waiting: RefCell<BTreeMap<u32, Waker>>,
    opened: Cell<u32>,
}

/// A chunk's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    bytes: u64,
    is_open: bool,
}

impl Slots {
    /// The number of a file that is opened now.
    pub fn number(&self) -> u32 {
        let number = self.opened.get();
        self.opened.set(number + 1);
        number
    }

    /// A place for a chunk of `bytes` of the file with this `number`, of `limit` at most. Where there
    /// is none now, `waker` is called when there may be one.
    pub fn take(&self, number: u32, bytes: u64, limit: usize, waker: &Waker) -> Option<Slot<'_>> {
        let (open, held) = (self.open.get(), self.bytes.get());
        // One chunk by itself may be larger than what is held of many.
        let fits = open < limit && (held == 0 || held + bytes <= WINDOW_BYTES);
        let others_first = self.waiting.borrow().range(..number).next().is_some();
        if others_first || !fits {
            self.waiting.borrow_mut().insert(number, waker.clone());
            return None;
        }
        self.open.set(open + 1);
        self.bytes.set(held + bytes);
        Some(Slot { slots: self, bytes, is_open: true })
    }

    /// The file with this `number` wants no place any more.
    pub fn leave(&self, number: u32) {
        if self.waiting.borrow_mut().remove(&number).is_some() {
            self.call_first();
        }
    }

    fn call_first(&self) {
        if let Some(waker) = self.waiting.borrow().values().next() {
            waker.wake_by_ref();
        }
    }
}

impl Slot<'_> {
    /// The chunk has arrived, and is held.
    pub fn arrived(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.slots.open.set(self.slots.open.get() - 1);
            self.slots.call_first();
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.bytes.set(self.slots.bytes.get() - self.bytes);
        self.arrived();
        self.slots.call_first();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicU32);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn called(calls: &Calls) -> bool {
        calls.0.swap(0, Ordering::Relaxed) > 0
    }

    #[test]
    fn who_came_first_is_served_first() {
        let (slots, calls) = (Slots::default(), Arc::new(Calls::default()));
        let (waker, noop) = (Waker::from(calls.clone()), Waker::noop());
        let (first, second) = (slots.number(), slots.number());
        let one = slots.take(second, 1, 1, noop).expect("free");
        assert!(slots.take(first, 1, 1, &waker).is_none());
        assert!(!called(&calls));
        drop(one);
        assert!(called(&calls));
        assert!(slots.take(second, 1, 1, noop).is_none(), "the first has not had its turn");
        let one = slots.take(first, 1, 1, &waker);
        assert!(one.is_some() && slots.take(second, 1, 2, &waker).is_none());
        // Until it wants no more.
        slots.leave(first);
        assert!(called(&calls));
        assert!(slots.take(second, 1, 2, noop).is_some());
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let (slots, noop) = (Slots::default(), Waker::noop());
        let mut large = slots.take(0, 2 * WINDOW_BYTES, 2, noop).expect("by itself");
        assert!(slots.take(0, 1, 2, noop).is_none());
        large.arrived();
        assert!(slots.take(0, 1, 2, noop).is_none(), "it is held");
        drop(large);
        let half = || slots.take(0, WINDOW_BYTES / 2, 9, noop);
        let halves = (half(), half());
        assert!(halves.0.is_some() && halves.1.is_some() && half().is_none());
        drop(halves);
        assert_eq!((slots.open.get(), slots.bytes.get()), (0, 0));
    }
}
