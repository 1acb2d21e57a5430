//! Where the cache keeps its entries.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, ready};

/// Why a store did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// There is no room.
    Full,
    /// Anything else, as the platform tells it.
    Failed(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("there is no room for more (the storage quota is exceeded)"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

/// What a store's operation gives.
pub type StoreResult<T> = Result<T, StoreError>;

/// Bytes by name. Each `put` is there wholly or not at all, whatever happens on the way.
pub trait Store {
    /// The bytes of an entry, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>>;

    /// Writes an entry, or writes it anew. Resolves when it would survive the page's end.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no room for it.
    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>>;

    /// Removes an entry if it is there.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>>;

    /// The names that begin with `prefix`, in order.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>>;
}

/// A store that goes away with its owner.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: RefCell<BTreeMap<String, Vec<u8>>>,
    quota: Cell<Option<usize>>,
}

impl MemoryStore {
    /// A store of at most `quota` bytes.
    pub fn with_quota(quota: usize) -> Self {
        Self { quota: Cell::new(Some(quota)), ..Self::default() }
    }

    /// Bytes that there is room for, where that is limited.
    pub fn quota(&self) -> Option<usize> {
        self.quota.get()
    }

    /// Bytes of all entries.
    pub fn size(&self) -> usize {
        self.entries.borrow().values().map(Vec::len).sum()
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        Box::pin(ready(Ok(self.entries.borrow().get(key).cloned())))
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        let before = self.entries.borrow().get(key).map_or(0, Vec::len);
        let full = self.quota.get().is_some_and(|quota| self.size() - before + bytes.len() > quota);
        if !full {
            self.entries.borrow_mut().insert(key.to_owned(), bytes.to_vec());
        }
        Box::pin(ready(if full { Err(StoreError::Full) } else { Ok(()) }))
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.entries.borrow_mut().remove(key);
        Box::pin(ready(Ok(())))
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        let entries = self.entries.borrow();
        let keys = entries.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        Box::pin(ready(Ok(keys)))
    }
}

/// A store that goes on in memory, once it is told to. What is there stays there, so that no record of
/// the store speaks of what goes away with the memory.
pub(super) struct Overflow {
    pub store: Rc<dyn Store>,
    pub memory: Rc<MemoryStore>,
    /// Whether all that is written goes to memory.
    pub is_over: Rc<Cell<bool>>,
}

impl Store for Overflow {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        if self.memory.entries.borrow().contains_key(key) {
            return self.memory.get(key);
        }
        self.store.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        if self.is_over.get() || self.memory.entries.borrow().contains_key(key) {
            return self.memory.put(key, bytes);
        }
        self.store.put(key, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.memory.entries.borrow_mut().remove(key);
        self.store.delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        Box::pin(async move {
            let mut keys = self.store.keys(prefix).await?;
            keys.extend(self.memory.keys(prefix).await?);
            keys.sort();
            keys.dedup();
            Ok(keys)
        })
    }
}

impl<S: Store + ?Sized> Store for Rc<S> {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        (**self).get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        (**self).put(key, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        (**self).delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        (**self).keys(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::block_on;

    #[test]
    fn a_quota_holds() {
        let store = MemoryStore::with_quota(10);
        block_on(store.put("a", &[0; 6])).expect("fits");
        assert_eq!(block_on(store.put("b", &[0; 5])), Err(StoreError::Full));
        block_on(store.put("a", &[0; 10])).expect("replaces");
        assert_eq!(store.size(), 10);
    }

    #[test]
    fn what_went_over_to_memory_stays_there() {
        let (store, memory) = (Rc::<MemoryStore>::default(), Rc::<MemoryStore>::default());
        let is_over = Rc::new(Cell::new(false));
        let both = Overflow { store: store.clone(), memory: memory.clone(), is_over };
        let put = |key: &str, bytes: &[u8]| block_on(both.put(key, bytes)).expect("stored");
        put("a/1", b"x");
        both.is_over.set(true);
        put("a/1", b"newer");
        put("a/2", b"y");
        both.is_over.set(false);
        put("a/2", b"newer");
        put("a/3", b"z");
        let keys = |store: &dyn Store| block_on(store.keys("a/")).expect("there");
        assert_eq!(keys(&*store), ["a/1", "a/3"]);
        assert_eq!(keys(&*memory), ["a/1", "a/2"]);
        assert_eq!(keys(&both), ["a/1", "a/2", "a/3"]);
        for (key, value) in [("a/1", b"newer".as_slice()), ("a/2", b"newer"), ("a/3", b"z")] {
            assert_eq!(block_on(both.get(key)), Ok(Some(value.to_vec())), "{key}");
            block_on(both.delete(key)).expect("deleted");
            assert_eq!(block_on(both.get(key)), Ok(None), "{key}");
        }
    }

    #[test]
    fn keys_are_found_by_their_beginning() {
        let store = MemoryStore::default();
        for key in ["b/2", "a/1", "b/1", "c"] {
            block_on(store.put(key, b"x")).expect("stored");
        }
        assert_eq!(block_on(store.keys("b/")), Ok(vec!["b/1".into(), "b/2".into()]));
        block_on(store.delete("b/1")).expect("deleted");
        assert_eq!(block_on(store.get("b/1")), Ok(None));
        assert_eq!(block_on(store.keys("")).expect("there").len(), 3);
    }
}
