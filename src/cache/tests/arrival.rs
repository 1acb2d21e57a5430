//! The order in which chunks come, and what a late one holds up.

use std::future::poll_fn;

use super::*;
use crate::hub::{Request, Response};

/// A server one of whose chunks does not come until it is let go.
pub(super) struct Late<'a> {
    server: &'a Memory,
    chunk: u64,
    is_late: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl<'a> Late<'a> {
    pub(super) fn new(server: &'a Memory, chunk: u64) -> Self {
        Self { server, chunk, is_late: Cell::new(true), waker: RefCell::default() }
    }

    pub(super) fn let_go(&self) {
        self.is_late.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Fetch for Late<'_> {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            if request.range.as_ref().is_some_and(|range| range.start == self.chunk * CHUNK) {
                poll_fn(|context| {
                    if !self.is_late.get() {
                        return Poll::Ready(());
                    }
                    self.waker.replace(Some(context.waker().clone()));
                    Poll::Pending
                })
                .await;
            }
            self.server.get(request).await
        })
    }

    /// No connection is given up, however long it takes.
    fn wait(&self, _: std::time::Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(pending())
    }
}

/// Polls until nothing moves any more.
pub(super) fn poll_on<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Poll::Ready(value);
        }
    }
    Poll::Pending
}

#[test]
fn a_late_chunk_does_not_hold_up_the_others() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let late = Late::new(&server, 1);
    let mut running = pin!(load(&late, source(), Some(&cache), CachePolicy::Resume));
    assert!(poll_on(running.as_mut()).is_pending());
    let kept = block_on(store.keys("chunk/sha256")).expect("there");
    // More than six of them, which is what may be held in memory.
    assert_eq!(kept.len(), 9, "{kept:?}");
    assert!(!kept.contains(&chunk_key(&content(0), 1)));
    late.let_go();
    let Poll::Ready(loaded) = poll_on(running.as_mut()) else { panic!("it hangs") };
    let loaded = loaded.expect("loads");
    assert!(loaded.weights == large(0));
    // What was read back from the cache meanwhile is not counted again.
    assert_eq!(loaded.traffic, Traffic { fetched: SIZE as u64 + 7, cached: 0 });
    assert_eq!(loaded.warnings(), [""; 0]);
}

#[test]
fn what_was_left_to_the_cache_is_the_same_when_it_is_hashed() {
    // What was handed out is wrong, and gone from the cache when it is its turn to be hashed.
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let late = Late::new(&server, 1);
    let path = format!("a/b/resolve/{COMMIT}/{LARGE}");
    let mut wrong = large(0);
    wrong[3 * CHUNK as usize + 5] ^= 1;
    server.put(&path, wrong);
    let mut running = pin!(load(&late, source(), Some(&cache), CachePolicy::Resume));
    assert!(poll_on(running.as_mut()).is_pending());
    server.put(&path, large(0));
    for index in 2..9 {
        block_on(store.delete(&chunk_key(&content(0), index))).expect("deleted");
    }
    late.let_go();
    let Poll::Ready(loaded) = poll_on(running.as_mut()) else { panic!("it hangs") };
    assert_eq!(loaded.expect_err("other bytes").code(), "invalid-response");
}

#[test]
fn where_nothing_is_stored_a_late_chunk_bounds_what_is_held() {
    let server = hub();
    let host = Surroundings { free: Some(0), ..Surroundings::default() };
    let cache = cache_with(Rc::<MemoryStore>::default(), host, None);
    let late = Late::new(&server, 1);
    let mut running = pin!(load(&late, source(), Some(&cache), CachePolicy::Resume));
    assert!(poll_on(running.as_mut()).is_pending());
    let asked = server.ranges_asked().iter().map(|range| range.start / CHUNK).collect::<Vec<_>>();
    assert_eq!(asked, [0, 2, 3, 4, 5, 6], "and the late one");
    late.let_go();
    let Poll::Ready(loaded) = poll_on(running.as_mut()) else { panic!("it hangs") };
    assert!(loaded.expect("loads").weights == large(0));
}

/// The numbers of the chunks that are handed out while one does not come.
fn handed_out_without(late: u64, cache: &Cache) -> Vec<u64> {
    let server = hub();
    let late = Late::new(&server, late);
    let chunks = RefCell::new(Vec::new());
    let mut start = pin!(async {
        let files = Repository::open(&late, source(), Some(cache), CachePolicy::Resume, |_| ());
        let files = files.await?;
        let mut reader = files.open(LARGE).await?;
        files.prepare().await?;
        reader.head(8, &mut || ()).await?;
        while let Some(piece) = reader.next(&mut || ()).await? {
            let start = piece.start as usize;
            assert!(*piece.bytes == large(0)[start..start + piece.bytes.len()]);
            chunks.borrow_mut().push(piece.start / CHUNK);
        }
        Ok::<_, Error>(())
    });
    if let Poll::Ready(result) = poll_on(start.as_mut()) {
        panic!("it does not wait: {result:?}, {chunks:?}");
    }
    chunks.take()
}

#[test]
fn what_has_arrived_is_handed_out_whatever_is_missing() {
    let stored = || cache_in(&Rc::default());
    let full = || {
        let host = Surroundings { free: Some(0), ..Surroundings::default() };
        cache_with(Rc::<MemoryStore>::default(), host, None)
    };
    let last = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(
        (handed_out_without(9, &stored()), handed_out_without(9, &full())),
        (last.into(), last.into())
    );
    assert_eq!(handed_out_without(1, &stored()), [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    // Where nothing is stored, what waits for its turn to be hashed is held.
    assert_eq!(handed_out_without(1, &full()), [0, 2, 3, 4, 5, 6]);
}

#[test]
fn a_server_without_ranges_is_read_once() {
    for cached in [false, true] {
        let mut server = hub();
        server.ranges = false;
        let cache = cache_in(&Rc::default());
        let cache = cached.then_some(&cache);
        let read = || block_on(load(&server, source(), cache, CachePolicy::Resume)).expect("loads");
        let loaded = read();
        assert!(loaded.weights == large(0));
        assert_eq!(loaded.traffic.fetched, SIZE as u64 + 7);
        assert_eq!(server.ranges_asked().len(), 1, "{:?}", server.ranges_asked());
    }
}

#[test]
fn a_server_without_ranges_may_break_off_and_is_gone_on_with() {
    let (mut server, store) = (hub(), Rc::<MemoryStore>::default());
    server.ranges = false;
    let cache = cache_in(&store);
    // In the midst of the fifth chunk; then again further on.
    let cut = |chunks: u64| Fault::CutAfter((chunks * CHUNK + 100) as usize);
    server.fail([Fault::None, Fault::None, Fault::None, cut(4), cut(7)]);
    assert!(load_hub(&server, &cache).expect("loads").weights == large(0));
    assert_eq!(server.ranges_asked().len(), 3);
    // Where pieces are there already, those between are passed over.
    for index in [2, 5] {
        block_on(store.delete(&chunk_key(&content(0), index))).expect("deleted");
    }
    server.forget();
    let again = load_hub(&server, &cache).expect("loads");
    assert!(again.weights == large(0));
    assert_eq!(again.traffic.fetched, 2 * CHUNK);
}

#[test]
fn a_header_may_be_longer_than_a_chunk() {
    let server = hub();
    let cache = cache_in(&Rc::default());
    for _ in 0..2 {
        block_on(async {
            let files =
                Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, |_| ());
            let files = files.await?;
            let mut reader = files.open(LARGE).await?;
            for length in [8, 2 * CHUNK + 5, 0, CHUNK] {
                let head = reader.head(length, &mut || ()).await?;
                assert!(head == large(0)[..length as usize]);
            }
            assert!(server.ranges_asked().len() <= 3, "no more than that yet");
            let error = reader.head(SIZE as u64 + 1, &mut || ()).await.expect_err("too long");
            assert_eq!(error.code(), "network");
            assert!(read_all(&mut *reader, &mut || ()).await? == large(0));
            reader.finish(&mut || ()).await
        })
        .expect("reads");
        server.forget();
    }
}

/// A server that counts what is asked of it at once.
struct Counting<'a> {
    server: &'a Memory,
    open: Cell<usize>,
    most: Cell<usize>,
}

impl Fetch for Counting<'_> {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            self.open.set(self.open.get() + 1);
            self.most.set(self.most.get().max(self.open.get()));
            let mut is_first = true;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            self.open.set(self.open.get() - 1);
            self.server.get(request).await
        })
    }

    fn wait(&self, _: std::time::Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(pending())
    }
}

#[test]
fn no_more_ranges_are_under_way_than_were_asked_for() {
    for (parallel, most) in [(None, 6), (Some(1), 1), (Some(3), 3), (Some(16), 16)] {
        let server = hub();
        let cache = cache_in(&Rc::default()).with_chunk_bytes(CHUNK / 4);
        let counting = Counting { server: &server, open: Cell::default(), most: Cell::default() };
        block_on(async {
            let files =
                Repository::open(&counting, source(), Some(&cache), CachePolicy::Resume, |_| ());
            let mut files = files.await?;
            if let Some(parallel) = parallel {
                files = files.with_parallel(parallel);
            }
            let mut reader = files.open(LARGE).await?;
            files.prepare().await?;
            assert!(read_all(&mut *reader, &mut || ()).await? == large(0));
            reader.finish(&mut || ()).await
        })
        .expect("loads");
        assert_eq!(counting.most.get(), most);
    }
}

#[test]
fn chunks_without_use_are_left_out_where_nothing_is_to_be_proven_of_them() {
    // Of ten chunks the fourth and the fifth, and the last; the first has the head.
    let wanted = [3 * CHUNK + 5..4 * CHUNK + 7, 9 * CHUNK + 1..9 * CHUNK + 2];
    let some = BTreeSet::from([0, 3, 4, 9]);
    let all: BTreeSet<u64> = (0..10).collect();
    let read = |fetch: &dyn Fetch, source: ModelSource, cache: Option<&Cache>| {
        block_on(async {
            let files = Repository::open(fetch, source, cache, CachePolicy::Resume, |_| ()).await?;
            let mut files = files;
            files.chunk_bytes = CHUNK;
            let mut reader = files.open(LARGE).await?;
            files.prepare().await?;
            reader.head(8, &mut || ()).await?;
            reader.only(&wanted);
            let mut found = BTreeSet::new();
            while let Some(piece) = reader.next(&mut || ()).await? {
                let start = piece.start as usize;
                assert!(large(0)[start..start + piece.bytes.len()] == piece.bytes[..]);
                assert!(found.insert(piece.start / CHUNK));
            }
            reader.finish(&mut || ()).await?;
            drop(reader);
            files.finish().await?;
            Ok::<_, Error>(found)
        })
        .expect("reads")
    };
    for (server, source) in [(hub(), source()), (folder(), base())] {
        let store = Rc::<MemoryStore>::default();
        let cache = cache_in(&store);
        // Of what comes from the network all is kept, and proven.
        assert_eq!(read(&server, source.clone(), Some(&cache)), all);
        assert_eq!(read(&server, source.clone(), Some(&cache_in(&store))), some);
        // Not where a part is missing, whichever.
        let keys = block_on(store.keys("chunk/")).expect("there");
        let id = keys.iter().find_map(|key| key.strip_prefix("chunk/")?.strip_suffix("/00009"));
        block_on(store.delete(&chunk_key(id.expect("there"), 7))).expect("there");
        assert_eq!(read(&server, source.clone(), Some(&cache_in(&store))), all);
        assert_eq!(read(&server, source, Some(&cache_in(&store))), some);
    }
    // Nothing is kept: what has a hash is proven all the same.
    assert_eq!(read(&hub(), source(), None), all);
    assert_eq!(read(&folder(), base(), None), some);
}
