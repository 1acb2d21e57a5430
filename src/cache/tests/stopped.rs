//! Downloads that are stopped, and go on from there.

use std::future::poll_fn;

use super::*;
use crate::hub::{Body, Request, Response};

/// A server whose connections end in an abort once so many bytes of weights were sent in all.
struct Stopped<'a> {
    server: &'a Memory,
    left: Rc<Cell<usize>>,
}

struct StoppedBody {
    inner: Box<dyn Body>,
    left: Rc<Cell<usize>>,
}

/// What arrives at a time, bytes.
const PIECE: usize = 1000;

impl Fetch for Stopped<'_> {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let is_weights = request.url.contains("w.safe");
            let mut response = self.server.get(request).await?;
            if is_weights {
                let (inner, left) = (response.body, self.left.clone());
                response.body = Box::new(StoppedBody { inner, left });
            }
            Ok(response)
        })
    }

    fn wait(&self, _: std::time::Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(pending())
    }

    fn check(&self) -> Result<()> {
        if self.left.get() == 0 { Err(Error::Aborted) } else { Ok(()) }
    }
}

impl Body for StoppedBody {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            // Others have their turn, too.
            let mut is_first = true;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            if self.left.get() < PIECE {
                self.left.set(0);
                return Err(Error::Aborted);
            }
            let piece = self.inner.next_chunk().await?;
            self.left.set(self.left.get() - piece.as_ref().map_or(0, Vec::len));
            Ok(piece)
        })
    }
}

/// Downloads until `bytes` of the weights have come. Tells whether that was all.
fn load_some(server: &Memory, cache: &Cache, policy: CachePolicy, bytes: usize) -> bool {
    server.pieces_of(PIECE);
    let stopped = Stopped { server, left: Rc::new(Cell::new(bytes)) };
    let result = block_on(async {
        let files = Repository::open(&stopped, source(), Some(cache), policy, |_| ()).await?;
        files.read(INDEX).await?;
        let mut reader = files.open(LARGE).await?;
        files.prepare().await?;
        let result = reader.finish(&mut || ()).await;
        drop(reader);
        match result {
            Ok(()) => files.finish().await,
            Err(error) => {
                files.stop().await;
                Err(error)
            }
        }
    });
    match result {
        Ok(()) => true,
        Err(Error::Aborted) => false,
        Err(other) => panic!("{other}"),
    }
}

fn sent(server: &Memory) -> u64 {
    let weights = server.requests().into_iter().filter(|request| request.url.contains("w.safe"));
    weights.filter_map(|request| request.range).map(|range| range.end - range.start).sum()
}

fn parts(store: &MemoryStore) -> Vec<String> {
    let keys = block_on(store.keys("chunk/")).expect("there");
    keys.into_iter().filter(|key| part::parse_part_key(key).is_some()).collect()
}

#[test]
fn nothing_that_has_arrived_is_fetched_twice_when_a_download_is_stopped() {
    for bytes in [1000, 30_000, 100_000, 300_000, 500_000, SIZE - 500] {
        let (server, store) = (hub(), Rc::<MemoryStore>::default());
        let cache = cache_in(&store);
        assert!(!load_some(&server, &cache, CachePolicy::Resume, bytes), "{bytes}");
        assert!(!parts(&store).is_empty(), "{bytes}");
        let kept = block_on(cache.list()).expect("there")[0].bytes - 7;
        assert!(kept + PIECE as u64 > bytes as u64, "{kept} of {bytes} bytes");
        server.forget();
        // As the next page finds it, whatever the size of its ranges.
        let cache = cache_in(&store).with_chunk_bytes(4096);
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == large(0));
        assert_eq!(sent(&server), SIZE as u64 - kept, "{bytes}");
        assert_eq!(loaded.traffic, Traffic { fetched: SIZE as u64 - kept, cached: kept + 7 });
        assert_eq!(loaded.warnings(), [""; 0]);
        assert_eq!(parts(&store), [""; 0], "nothing is left over");
        server.forget();
        assert_eq!(load_hub(&server, &cache).expect("loads").traffic.fetched, 0);
    }
}

#[test]
fn a_download_may_be_stopped_again_and_again() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let mut stops = 0;
    while !load_some(&server, &cache_in(&store), CachePolicy::Resume, 50_000) {
        stops += 1;
        assert!(stops < 20);
        let mut chunks: Vec<_> = parts(&store);
        let count = chunks.len();
        chunks.dedup_by_key(|key| key.split('+').next().map(str::to_owned));
        assert_eq!(chunks.len(), count, "one for each chunk");
    }
    assert!(stops >= SIZE / 50_000, "{stops} times");
    assert_eq!(parts(&store), [""; 0]);
    let cache = cache_in(&store);
    assert!(load_hub(&server, &cache).expect("loads").weights == large(0));
}

#[test]
fn a_damaged_beginning_is_fetched_again() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_some(&server, &cache, CachePolicy::Resume, 300_000);
    let damaged = parts(&store)[0].clone();
    let (_, _, length) = part::parse_part_key(&damaged).expect("a beginning");
    damage(&store, &damaged);
    let kept = block_on(cache.list()).expect("there")[0].bytes - 7;
    let loaded = load_hub(&server, &cache).expect("loads");
    assert!(loaded.weights == large(0));
    assert_eq!(loaded.warnings(), ["corrupt"]);
    assert_eq!(loaded.traffic.fetched, SIZE as u64 - kept + length);
    assert_eq!(parts(&store), [""; 0]);
}

#[test]
fn who_wants_all_anew_gets_nothing_of_what_was_stopped() {
    for policy in [CachePolicy::WholeFiles, CachePolicy::Refetch] {
        let (server, store) = (hub(), Rc::<MemoryStore>::default());
        let cache = cache_in(&store);
        load_some(&server, &cache, CachePolicy::Resume, 300_000);
        let before = parts(&store);
        assert!(!load_some(&server, &cache, policy, 1000));
        assert_eq!(parts(&store), before, "and leaves none");
        let loaded = block_on(load(&server, source(), Some(&cache), policy)).expect("loads");
        assert_eq!(
            loaded.traffic.fetched,
            SIZE as u64 + if policy == CachePolicy::Refetch { 7 } else { 0 }
        );
        assert_eq!(parts(&store), [""; 0], "{policy:?}");
    }
}

#[test]
fn beginnings_that_nobody_needs_go_when_the_file_is_complete() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_some(&server, &cache, CachePolicy::Resume, 450_000);
    let id = content(0);
    // Of a chunk that is there, and a shorter one.
    assert!(block_on(cache.chunks(&id)).expect("there").contains(&0));
    block_on(cache.put_part(&id, 0, vec![1; 100])).expect("stored");
    let index = *block_on(cache.parts(&id)).expect("there").last_key_value().expect("one").0;
    let short = format!("chunk/{id}/{index:05}+7");
    block_on(store.put(&short, b"a part")).expect("stored");
    assert!(load_hub(&server, &cache).expect("loads").weights == large(0));
    assert_eq!(parts(&store), [""; 0]);
}

#[test]
fn beginnings_go_with_their_file() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_some(&server, &cache, CachePolicy::Resume, 300_000);
    assert!(block_on(cache.delete(NAME)).expect("works"));
    assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]));
    // Wrong bytes, of which the hash tells in the end.
    load_some(&server, &cache, CachePolicy::Resume, 300_000);
    for key in parts(&store) {
        let (id, index, length) = part::parse_part_key(&key).expect("a beginning");
        block_on(cache.put_part(id, index, vec![7; length as usize])).expect("stored");
    }
    assert_eq!(load_hub(&server, &cache).expect_err("wrong").code(), "hash-mismatch");
    assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);
    assert!(load_hub(&server, &cache).expect("anew").weights == large(0));
}
