//! The cache as a whole, with a server and a store in memory.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::future::{LocalBoxFuture, pending, ready};

mod arrival;
mod kept;
mod memory;
mod rounded;
mod shared;
mod stopped;

use super::*;
use crate::hub::tests::{Fault, Memory, block_on};
use crate::hub::{Fetch, FileReader, ModelFiles, ModelSource, OnArrival, Traffic};

const COMMIT: &str = "1111111111111111111111111111111111111111";
const LATER: &str = "2222222222222222222222222222222222222222";
const CHUNK: u64 = 64 << 10;
const LARGE: &str = "unet/w.safetensors";
const INDEX: &str = "model_index.json";
/// Ten chunks, the last of them short.
const SIZE: usize = 9 * (CHUNK as usize) + 1234;

fn large(seed: u32) -> Vec<u8> {
    (0..SIZE as u32).map(|i| (i.wrapping_mul(2_654_435_761 + seed) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = digest::Sha256::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Puts a repository of two files on the server.
fn publish(server: &Memory, commit: &str, seed: u32) {
    publish_weights(server, commit, seed, &large(seed));
}

fn publish_weights(server: &Memory, commit: &str, seed: u32, weights: &[u8]) {
    let index = format!("index {seed}").into_bytes();
    let size = weights.len();
    let put = |path: &str, bytes: Vec<u8>| server.put(path, bytes);
    put("api/models/a/b/revision/main", format!(r#"{{"sha":"{commit}"}}"#).into());
    let listing = format!(
        r#"[{{"type":"file","path":"{INDEX}","oid":"{}","size":{}}},
            {{"type":"file","path":"{LARGE}","oid":"{commit}","size":{size},"lfs":{{"oid":"{}"}}}}]"#,
        git_blob(&index),
        index.len(),
        sha256(weights),
    );
    put(&format!("api/models/a/b/tree/{commit}"), listing.into());
    put(&format!("a/b/resolve/{commit}/{INDEX}"), index);
    put(&format!("a/b/resolve/{commit}/{LARGE}"), weights.to_vec());
}

fn hub() -> Memory {
    let server = Memory::new();
    publish(&server, COMMIT, 0);
    server
}

/// A folder on a server without the Hub's interface.
fn folder() -> Memory {
    Memory::new()
        .with(&format!("m/{INDEX}"), b"index".to_vec())
        .with(&format!("m/{LARGE}"), large(0))
}

fn source() -> ModelSource {
    ModelSource::parse("a/b", None, Some("http://hub"), None).expect("valid")
}

fn base() -> ModelSource {
    ModelSource::parse("http://hub/m", None, None, None).expect("valid")
}

const NAME: &str = "http://hub/a/b";

#[derive(Default)]
struct Surroundings {
    free: Option<u64>,
    clock: Cell<f64>,
    locks: RefCell<Vec<(String, bool)>>,
    /// What another tab loads.
    busy: RefCell<BTreeSet<String>>,
}

impl Host for Surroundings {
    fn now(&self) -> f64 {
        self.clock.set(self.clock.get() + 1.0);
        self.clock.get()
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        exclusive: bool,
        _: &'a dyn Fn(),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Any>>> {
        self.locks.borrow_mut().push((name.into(), exclusive));
        Box::pin(ready(Ok(Box::new(()) as Box<dyn Any>)))
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Option<Box<dyn Any>>> {
        let is_free = !self.busy.borrow().contains(name);
        Box::pin(ready(is_free.then(|| Box::new(()) as Box<dyn Any>)))
    }

    fn free(&self) -> LocalBoxFuture<'_, Option<u64>> {
        Box::pin(ready(self.free))
    }
}

fn cache_in(store: &Rc<MemoryStore>) -> Cache {
    cache_with(store.clone(), Surroundings::default(), None)
}

fn cache_with(store: Rc<dyn Store>, host: Surroundings, limit: Option<u64>) -> Cache {
    let cache = block_on(Cache::open(store, Rc::new(host), limit)).expect("opens");
    cache.with_chunk_bytes(CHUNK)
}

/// What a load gave.
#[derive(Debug)]
struct Loaded {
    index: Vec<u8>,
    weights: Vec<u8>,
    traffic: Traffic,
    notices: Vec<Notice>,
}

impl Loaded {
    fn warnings(&self) -> Vec<&'static str> {
        let code = |notice: &Notice| match notice {
            Notice::Warning { code, .. } => Some(*code),
            _ => None,
        };
        self.notices.iter().filter_map(code).collect()
    }
}

async fn load(
    fetch: &dyn Fetch,
    source: ModelSource,
    cache: Option<&Cache>,
    policy: CachePolicy,
) -> Result<Loaded> {
    load_as(fetch, source, cache, policy, None).await
}

/// The same, where single precision at some places may be rounded.
async fn load_as(
    fetch: &dyn Fetch,
    source: ModelSource,
    cache: Option<&Cache>,
    policy: CachePolicy,
    values: Option<&[std::ops::Range<u64>]>,
) -> Result<Loaded> {
    let notices = RefCell::new(Vec::new());
    let notify = |notice| notices.borrow_mut().push(notice);
    let files = Repository::open(fetch, source, cache, policy, notify).await?;
    let index = files.read(INDEX).await?;
    let mut reader = match values {
        None => files.open(LARGE).await?,
        Some(_) => files.open_rounded(LARGE).await?,
    };
    files.prepare().await?;
    let arrivals = Cell::new(0);
    let mut on_arrival = || arrivals.set(arrivals.get() + 1);
    for length in [8, 100] {
        assert_eq!(reader.head(length, &mut on_arrival).await?.len() as u64, length);
    }
    if let Some(values) = values {
        reader.round(values.to_vec());
    }
    let weights = read_all(&mut *reader, &mut on_arrival).await?;
    reader.finish(&mut on_arrival).await?;
    drop(reader);
    assert!(arrivals.get() > 0);
    files.finish().await?;
    let traffic = files.traffic();
    drop(files);
    Ok(Loaded { index, weights, traffic, notices: notices.into_inner() })
}

/// All of a file, of which each byte comes once.
async fn read_all(reader: &mut dyn FileReader, on_arrival: &mut OnArrival<'_>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; reader.size() as usize];
    let mut count = 0;
    while let Some(piece) = reader.next(on_arrival).await? {
        let start = piece.start as usize;
        bytes[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        count += piece.bytes.len();
    }
    assert_eq!(count, bytes.len());
    Ok(bytes)
}

fn load_hub(server: &Memory, cache: &Cache) -> Result<Loaded> {
    block_on(load(server, source(), Some(cache), CachePolicy::Resume))
}

#[test]
fn a_model_is_downloaded_once() {
    let (server, store) = (hub(), Rc::default());
    let cache = cache_in(&store);
    let first = load_hub(&server, &cache).expect("loads");
    assert!(first.weights == large(0) && first.index == b"index 0");
    assert_eq!(first.traffic, Traffic { fetched: SIZE as u64 + 7, cached: 0 });
    assert_eq!(first.warnings(), [""; 0]);

    server.forget();
    // As the next page finds it.
    let cache = cache_in(&store);
    let second = load_hub(&server, &cache).expect("loads");
    assert!(second.weights == large(0) && second.index == b"index 0");
    assert_eq!(second.traffic, Traffic { fetched: 0, cached: SIZE as u64 + 7 });
    assert_eq!(server.requests().len(), 1, "the revision's commit: {:?}", server.requests());

    server.forget();
    let pinned = ModelSource::parse("a/b", Some(COMMIT), Some("http://hub"), None).expect("valid");
    block_on(load(&server, pinned, Some(&cache), CachePolicy::Resume)).expect("loads");
    let local = block_on(load(&server, source(), Some(&cache), CachePolicy::Only)).expect("loads");
    assert!(local.weights == large(0));
    assert_eq!(server.requests(), [], "nothing is asked where nothing can be learnt");
}

#[test]
fn without_a_cache_a_model_is_verified_all_the_same() {
    let server = hub();
    let loaded = block_on(load(&server, source(), None, CachePolicy::Resume)).expect("loads");
    assert!(loaded.weights == large(0));
    let path = format!("a/b/resolve/{COMMIT}/{LARGE}");
    let mut wrong = large(0);
    wrong[SIZE - 1] ^= 1;
    server.put(&path, wrong);
    let error = block_on(load(&server, source(), None, CachePolicy::Resume)).expect_err("wrong");
    assert_eq!(error.code(), "hash-mismatch");
}

#[test]
fn what_is_not_cached_is_not_fetched_when_that_is_forbidden() {
    let server = hub();
    let cache = cache_in(&Rc::default());
    for cache in [Some(&cache), None] {
        let error =
            block_on(load(&server, source(), cache, CachePolicy::Only)).expect_err("not there");
        assert_eq!(error.code(), "not-cached");
    }
    load_hub(&server, &cache).expect("loads");
    server.forget();
    block_on(cache.store.delete(&chunk_key(&content(0), 3))).expect("deleted");
    let error =
        block_on(load(&server, source(), Some(&cache), CachePolicy::Only)).expect_err("not there");
    assert!(error.to_string().contains(LARGE), "{error}");
    assert_eq!(server.requests(), []);
}

#[test]
fn a_user_may_have_files_fetched_anew() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let load = |policy| block_on(load(&server, source(), Some(&cache), policy)).expect("loads");
    load(CachePolicy::Resume);
    let whole = Traffic { fetched: SIZE as u64 + 7, cached: 0 };
    assert_eq!(load(CachePolicy::WholeFiles).traffic.fetched, 0);
    assert_eq!(load(CachePolicy::Refetch).traffic, whole);
    // What was fetched took the place of what was there.
    assert_eq!(load(CachePolicy::Only).traffic.cached, whole.fetched);

    let partial = || {
        block_on(cache.clear()).expect("cleared");
        server.fail([Fault::None, Fault::None, Fault::None, Fault::None, Fault::Offline]);
        server.fail_always(Fault::Offline);
        load_hub(&server, &cache).expect_err("broken off");
        server.fail_always(Fault::None);
    };
    partial();
    assert!(load(CachePolicy::Resume).traffic.cached >= CHUNK, "a chunk was there");
    partial();
    // But small files are whole.
    assert_eq!(load(CachePolicy::WholeFiles).traffic, Traffic { fetched: SIZE as u64, cached: 7 });
}

fn content(seed: u32) -> String {
    format!("sha256-{}", sha256(&large(seed)))
}

/// A store whose page ends at a certain write.
struct Mortal {
    inner: Rc<MemoryStore>,
    left: Cell<usize>,
}

impl Store for Mortal {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        self.inner.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        if self.left.get() == 0 {
            return Box::pin(pending());
        }
        self.left.set(self.left.get() - 1);
        self.inner.put(key, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.inner.delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        self.inner.keys(prefix)
    }
}

/// Polls until nothing moves any more, as the last moment of a page.
fn run_until_it_hangs<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
    }
    None
}

#[test]
fn a_download_goes_on_wherever_it_ended() {
    goes_on_wherever_it_ended(&large(0));
}

/// The hash's state is kept behind the last chunk, too, where that is short.
#[test]
fn a_download_whose_last_chunk_is_of_whole_blocks_goes_on_wherever_it_ended() {
    let weights = &large(0)[..9 * CHUNK as usize + 19 * 64];
    goes_on_wherever_it_ended(weights);
}

fn goes_on_wherever_it_ended(weights: &[u8]) {
    let mut ends = 0;
    for writes in 0.. {
        let (server, store) = (Memory::new(), Rc::<MemoryStore>::default());
        publish_weights(&server, COMMIT, 0, weights);
        let mortal = Mortal { inner: store.clone(), left: Cell::new(usize::MAX) };
        let mortal = Rc::new(mortal);
        let cache = cache_with(mortal.clone(), Surroundings::default(), None);
        mortal.left.set(writes);
        if run_until_it_hangs(load(&server, source(), Some(&cache), CachePolicy::Resume)).is_some()
        {
            break;
        }
        ends += 1;
        drop(cache);
        let kept = block_on(store.keys("chunk/sha256")).expect("there").len();
        server.forget();
        let cache = cache_in(&store);
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == weights && loaded.index == b"index 0");
        let fetched = server.requests().iter().filter(|r| r.url.contains("w.safe")).count();
        assert_eq!(fetched, 10 - kept, "after {writes} writes");
        server.forget();
        let again = load_hub(&server, &cache).expect("loads");
        assert_eq!(again.traffic.fetched, 0);
    }
    assert!(ends > 20, "{ends} ends");
}

#[test]
fn the_hash_of_the_whole_file_covers_what_came_before_an_interruption() {
    // The first half arrives wrong, then the page ends; the second half is right.
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let mortal = Rc::new(Mortal { inner: store.clone(), left: Cell::new(usize::MAX) });
    let cache = cache_with(mortal.clone(), Surroundings::default(), None);
    mortal.left.set(14);
    let path = format!("a/b/resolve/{COMMIT}/{LARGE}");
    let mut wrong = large(0);
    wrong[5] ^= 1;
    server.put(&path, wrong);
    assert!(
        run_until_it_hangs(load(&server, source(), Some(&cache), CachePolicy::Resume)).is_none()
    );
    assert!(!block_on(store.keys("chunk/sha256")).expect("there").is_empty());
    server.put(&path, large(0));
    let cache = cache_in(&store);
    assert_eq!(load_hub(&server, &cache).expect_err("wrong").code(), "hash-mismatch");
    assert!(load_hub(&server, &cache).expect("anew").weights == large(0));
}

fn damage(store: &MemoryStore, key: &str) {
    let mut bytes = block_on(store.get(key)).expect("works").expect("there");
    bytes[7] ^= 1;
    block_on(store.put(key, &bytes)).expect("stored");
}

#[test]
fn damaged_chunks_are_fetched_again() {
    let (server, store) = (hub(), Rc::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    let id = content(0);
    damage(&store, &chunk_key(&id, 2));
    let short = block_on(store.get(&chunk_key(&id, 5))).expect("works").expect("there");
    block_on(store.put(&chunk_key(&id, 5), &short[..100])).expect("stored");
    let moved = block_on(store.get(&chunk_key(&id, 7))).expect("works").expect("there");
    block_on(store.put(&chunk_key(&id, 6), &moved)).expect("stored");
    let loaded = load_hub(&server, &cache).expect("loads");
    assert!(loaded.weights == large(0));
    assert_eq!(loaded.traffic.fetched, 3 * CHUNK);
    assert_eq!(loaded.warnings(), ["corrupt"; 3]);
    let again = load_hub(&server, &cache).expect("loads");
    assert_eq!((again.traffic.fetched, again.warnings()), (0, vec![]));
}

#[test]
fn what_replaces_a_damaged_chunk_is_verified() {
    let (server, store) = (hub(), Rc::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    damage(&store, &chunk_key(&content(0), 2));
    server.forget();
    server.fail([Fault::None, Fault::Flip(2 * CHUNK + 9)]);
    assert_eq!(load_hub(&server, &cache).expect_err("wrong").code(), "hash-mismatch");
    assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);
}

#[test]
fn damaged_small_files_are_fetched_again() {
    let (server, store) = (hub(), Rc::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    let keys = block_on(store.keys("chunk/git")).expect("there");
    damage(&store, &keys[0]);
    let loaded = load_hub(&server, &cache).expect("loads");
    assert_eq!((loaded.index, loaded.traffic.fetched), (b"index 0".to_vec(), 7));
}

#[test]
fn nothing_is_kept_of_a_file_that_arrives_wrong() {
    for (at, path) in [(0, LARGE), (SIZE - 1, LARGE), (3, INDEX)] {
        let (server, store) = (hub(), Rc::default());
        let cache = cache_in(&store);
        let address = format!("a/b/resolve/{COMMIT}/{path}");
        let right = server.file(&address);
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        server.put(&address, wrong);
        match load_hub(&server, &cache).expect_err("wrong") {
            Error::HashMismatch { file, expected, found } => {
                assert_eq!(file, path);
                assert_ne!(expected, found);
            }
            other => panic!("{other}"),
        }
        let kind = if path == LARGE { "sha256" } else { "git" };
        for prefix in ["chunk", "content"] {
            let keys = block_on(store.keys(&format!("{prefix}/{kind}"))).expect("there");
            assert_eq!(keys, [""; 0], "byte {at} of {path}");
        }
        server.put(&address, right);
        assert!(load_hub(&server, &cache).expect("anew").weights == large(0));
    }
}

#[test]
fn what_makes_no_sense_is_not_kept_unless_it_is_proven() {
    let (server, store) = (hub(), Rc::default());
    let cache = cache_in(&store);
    let read_and_reject = || {
        block_on(async {
            let files =
                Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, |_| ())
                    .await?;
            let mut reader = files.open(LARGE).await?;
            reader.head(8, &mut || ()).await?;
            reader.reject().await;
            Ok::<_, Error>(())
        })
        .expect("reads");
        block_on(store.keys("chunk/sha256")).expect("there").len()
    };
    assert_eq!(read_and_reject(), 0);
    load_hub(&server, &cache).expect("loads");
    assert_eq!(read_and_reject(), 10);
}

#[test]
fn a_full_store_ends_keeping_and_not_loading() {
    for quota in [0, 100, 2000, 3 * CHUNK as usize, SIZE] {
        let store = Rc::new(MemoryStore::with_quota(quota));
        let server = hub();
        let Ok(cache) = block_on(Cache::open(store, Rc::new(Alone), None)) else {
            assert_eq!(quota, 0, "nothing fits, not even the version");
            continue;
        };
        let cache = cache.with_chunk_bytes(CHUNK);
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == large(0));
        assert_eq!(loaded.warnings(), ["storage"], "once, with {quota} bytes");
        let again = load_hub(&server, &cache).expect("loads");
        assert!(again.weights == large(0));
        let error = block_on(load(&server, source(), Some(&cache), CachePolicy::Only))
            .expect_err("not whole");
        assert_eq!(error.code(), "not-cached");
    }
}

#[test]
fn room_is_estimated_before_the_download() {
    let host = |free| Surroundings { free: Some(free), ..Surroundings::default() };
    let store = Rc::<MemoryStore>::default();
    let cache = cache_with(store.clone(), host(1_400), None);
    let loaded = load_hub(&hub(), &cache).expect("loads");
    let needed = SIZE as u64;
    assert!(loaded.notices.contains(&Notice::Storage { needed, free: Some(1_400) }));
    let text = format!("{:?}", loaded.notices);
    assert!(text.contains("needs 591.1 kB, 1.4 kB free"), "{text}");
    assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);

    let cache = cache_with(store.clone(), host(10_000_000), None);
    assert_eq!(load_hub(&hub(), &cache).expect("loads").warnings(), [""; 0]);
    // Nothing is needed any more.
    let cache = cache_with(store, host(0), None);
    assert_eq!(load_hub(&hub(), &cache).expect("loads").notices, []);
}

#[test]
fn the_model_used_least_recently_makes_room() {
    let server = hub();
    publish(&server, LATER, 1);
    for name in ["x", "y"] {
        server.put(&format!("{name}/{INDEX}"), b"index".to_vec());
        server.put(&format!("{name}/{LARGE}"), large(name.len() as u32));
    }
    let store = Rc::<MemoryStore>::default();
    let limit = Some(2 * SIZE as u64 + 10_000);
    let cache = cache_with(store, Surroundings::default(), limit);
    let load = |name: &str| {
        let source = ModelSource::Base(format!("http://hub/{name}"));
        block_on(load(&server, source, Some(&cache), CachePolicy::Resume)).expect("loads");
    };
    let names = || {
        let models = block_on(cache.list()).expect("there");
        models.iter().map(|m| m.model.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    };
    load("x");
    load("y");
    load("x");
    let before: Vec<String> = names();
    assert_eq!(before, ["x", "y"]);
    load_hub(&server, &cache).expect("loads");
    let after: Vec<String> = names();
    assert_eq!(after, ["b", "x"]);
}

#[test]
fn a_model_beyond_the_limit_is_not_kept() {
    let cache = cache_with(Rc::<MemoryStore>::default(), Surroundings::default(), Some(100_000));
    let loaded = load_hub(&hub(), &cache).expect("loads");
    assert_eq!(loaded.warnings(), ["storage"]);
    let text = format!("{:?}", loaded.notices);
    assert!(text.contains("the limit is 100.0 kB"), "{text}");
    assert!(!block_on(cache.list()).expect("there")[0].complete);
}

#[test]
fn models_are_listed_and_deleted_and_share_their_contents() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    // The same weights with another index, at a later commit.
    publish(&server, LATER, 0);
    let other = b"another index".to_vec();
    let listing = format!("api/models/a/b/tree/{LATER}");
    let text = String::from_utf8(server.file(&listing)).expect("text");
    let text =
        text.replace(&git_blob(b"index 0"), &git_blob(&other)).replace("\"size\":7", "\"size\":13");
    server.put(&listing, text.into());
    server.put(&format!("a/b/resolve/{LATER}/{INDEX}"), other);
    let later = load_hub(&server, &cache).expect("loads");
    assert_eq!(later.traffic, Traffic { fetched: 13, cached: SIZE as u64 });

    block_on(load(&folder(), base(), Some(&cache), CachePolicy::Resume)).expect("loads");
    let models = block_on(cache.list()).expect("there");
    let found: Vec<_> = models.iter().map(|m| (m.model.as_str(), m.bytes, m.complete)).collect();
    let size = SIZE as u64;
    let wanted = [("http://hub/m", size + 5), (NAME, size + 13), (NAME, size + 7)];
    assert_eq!(found, wanted.map(|(name, bytes)| (name, bytes, true)));
    assert_eq!(models[1].commit.as_deref(), Some(LATER));

    assert!(!block_on(cache.delete("no/such")).expect("works"));
    assert!(block_on(cache.delete(NAME)).expect("works"));
    assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);
    assert_eq!(block_on(cache.list()).expect("there").len(), 1);
    block_on(cache.clear()).expect("works");
    assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]));
}

#[test]
fn a_newer_revision_does_not_break_the_cached_one() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    publish(&server, LATER, 1);
    // The newer one is begun, and the network breaks off.
    server.fail([Fault::None, Fault::None, Fault::None, Fault::None, Fault::Offline]);
    server.fail_always(Fault::Offline);
    load_hub(&server, &cache).expect_err("broken off");
    for policy in [CachePolicy::Only, CachePolicy::Resume] {
        let loaded = block_on(load(&server, source(), Some(&cache), policy)).expect("loads");
        assert!(loaded.weights == large(0) && loaded.index == b"index 0");
        let warnings = if policy == CachePolicy::Only { vec![] } else { vec!["offline"] };
        assert_eq!(loaded.warnings(), warnings);
    }
    server.fail_always(Fault::None);
    assert!(load_hub(&server, &cache).expect("loads").weights == large(1));
}

#[test]
fn a_plain_folder_is_cached_by_address_size_and_validator() {
    let (server, store) = (folder(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let load = |policy| block_on(load(&server, base(), Some(&cache), policy));
    assert_eq!(load(CachePolicy::Resume).expect("loads").traffic.cached, 0);
    let second = load(CachePolicy::Resume).expect("loads");
    // The index is asked for again: nothing says whether it has changed.
    assert_eq!(second.traffic, Traffic { fetched: 5, cached: SIZE as u64 });
    // Another file, at the same address.
    let longer = [large(3), vec![7; 10]].concat();
    server.put(&format!("m/{LARGE}"), longer.clone());
    assert!(load(CachePolicy::Resume).expect("loads").weights == longer);
    let chunks = block_on(store.keys("chunk/url")).expect("there").len();
    assert_eq!(chunks, 10, "the old file's are gone");
    server.forget();
    assert!(load(CachePolicy::Only).expect("loads").weights == longer);
    assert_eq!(server.requests(), []);
    server.fail_always(Fault::Offline);
    let offline = load(CachePolicy::Resume).expect("loads");
    assert!(offline.weights == longer);
    assert_eq!(offline.warnings(), ["offline"]);
}

#[test]
fn files_that_are_not_there_are_remembered() {
    let server = folder();
    let cache = cache_in(&Rc::default());
    let look = |policy| {
        block_on(async {
            let files = Repository::open(&server, base(), Some(&cache), policy, |_| ()).await?;
            let read = files.read("absent.json").await.expect_err("absent").code();
            let open = files.open("absent.bin").await.err().map(|e| e.code());
            let never = files.read("never.json").await.expect_err("never asked").code();
            let index = files.read(INDEX).await?;
            files.finish().await?;
            Ok::<_, Error>((read, open, never, index))
        })
    };
    look(CachePolicy::Resume).expect("looks");
    // `never.json` was asked for, too; a file that was not is another matter.
    let (read, open, never, _) = look(CachePolicy::Only).expect("looks");
    assert_eq!((read, open, never), ("not-found", Some("not-found"), "not-found"));
    let unknown = block_on(async {
        let files =
            Repository::open(&server, base(), Some(&cache), CachePolicy::Only, |_| ()).await?;
        files.read("unknown.json").await
    });
    assert_eq!(unknown.expect_err("unknown").code(), "not-cached");
}

#[test]
fn files_missing_from_the_listing_are_not_asked_for() {
    let server = hub();
    let files = block_on(Repository::open(&server, source(), None, CachePolicy::Resume, |_| ()))
        .expect("opens");
    server.forget();
    assert_eq!(block_on(files.read("absent.json")).expect_err("absent").code(), "not-found");
    assert_eq!(server.requests(), []);
}

#[test]
fn one_tab_downloads_and_the_others_read() {
    let (server, host) = (hub(), Rc::new(Surroundings::default()));
    let cache = block_on(Cache::open(Rc::<MemoryStore>::default(), host.clone(), None));
    let cache = cache.expect("opens").with_chunk_bytes(CHUNK);
    load_hub(&server, &cache).expect("loads");
    load_hub(&server, &cache).expect("loads");
    block_on(load(&server, source(), Some(&cache), CachePolicy::Only)).expect("loads");
    let name = format!("instruct-pix2pix-web model/{NAME}@{COMMIT}");
    assert_eq!(*host.locks.borrow(), [(name.clone(), true), (name, false)]);
}

#[test]
fn the_layout_is_brought_up_to_date_step_by_step() {
    fn put<'a>(store: &'a dyn Store, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            let there = store.keys("").await?.join(" ");
            store.put(key, there.as_bytes()).await
        })
    }
    let steps: [Migration; 3] = [|s| put(s, "one"), |s| put(s, "two"), |s| put(s, "three")];
    let get = |store: &MemoryStore, key| {
        block_on(store.get(key))
            .expect("works")
            .map(|bytes| String::from_utf8(bytes).expect("text"))
    };
    let store = MemoryStore::default();
    block_on(store.put("version", b"1")).expect("stored");
    block_on(migrate(&store, &steps)).expect("migrates");
    assert_eq!(get(&store, "one"), None);
    assert_eq!(get(&store, "two").as_deref(), Some("version"));
    assert_eq!(get(&store, "three").as_deref(), Some("two version"));
    assert_eq!(get(&store, "version").as_deref(), Some("3"));
    // A step that fails is done again the next time, and those before it are not.
    let failing: [Migration; 4] =
        [steps[0], steps[1], steps[2], |_| Box::pin(ready(Err(StoreError::Full)))];
    block_on(migrate(&store, &failing)).expect_err("full");
    assert_eq!(get(&store, "version").as_deref(), Some("3"));
}

#[test]
fn entries_without_a_version_are_forgotten_and_newer_ones_left_alone() {
    let store = Rc::<MemoryStore>::default();
    block_on(store.put("model/x@-", b"{}")).expect("stored");
    let open = || block_on(Cache::open(store.clone(), Rc::new(Alone), None));
    let _ = open().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]));
    block_on(store.put("version", b"7")).expect("stored");
    block_on(store.put("model/x@-", b"{}")).expect("stored");
    let Err(error) = open() else { panic!("a newer layout") };
    assert!(error.to_string().contains("newer"), "{error}");
    assert_eq!(block_on(store.keys("")).expect("there").len(), 2);
}

#[test]
fn records_that_cannot_be_read_are_as_good_as_none() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    for prefix in ["model/", "content/"] {
        for key in block_on(store.keys(prefix)).expect("there") {
            block_on(store.put(&key, b"{\"size\": nonsense")).expect("stored");
        }
        assert!(load_hub(&server, &cache).expect("loads").weights == large(0), "{prefix}");
    }
}

struct Bytes(Vec<u8>);

impl Archive for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, start: u64, length: u64) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let end = (start + length).min(self.size()) as usize;
        Box::pin(ready(Ok(self.0.get(start as usize..end).unwrap_or_default().to_vec())))
    }
}

#[test]
fn models_travel_as_archives() {
    let server = hub();
    let cache = cache_in(&Rc::default());
    assert_eq!(block_on(cache.export(NAME, &mut |_| ())).expect_err("none").code(), "not-cached");
    load_hub(&server, &cache).expect("loads");
    let mut archive = Vec::new();
    block_on(cache.export(NAME, &mut |piece| archive.extend_from_slice(piece))).expect("exports");
    assert_eq!(archive.len() % 512, 0);

    let other = cache_in(&Rc::default());
    let name = block_on(other.import(&Bytes(archive.clone()))).expect("imports");
    assert_eq!(name, NAME);
    server.forget();
    let loaded = block_on(load(&server, source(), Some(&other), CachePolicy::Only)).expect("loads");
    assert!(loaded.weights == large(0) && loaded.index == b"index 0");
    assert_eq!(server.requests(), []);
    // The Hub's listing is known, too: it costs one request to see that nothing has changed.
    assert_eq!(load_hub(&server, &other).expect("loads").traffic.fetched, 0);

    let weights = archive.len() - 2 * 512 - SIZE.next_multiple_of(512);
    let mut wrong = archive.clone();
    wrong[weights + 77] ^= 1;
    let store = Rc::<MemoryStore>::default();
    let error = block_on(cache_in(&store).import(&Bytes(wrong))).expect_err("wrong");
    assert_eq!(error.code(), "hash-mismatch");
    assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);
    for length in [0, 100, 512, 2000, weights + 10, weights - 512] {
        let cut = Bytes(archive[..length].to_vec());
        let error = block_on(cache_in(&Rc::default()).import(&cut)).expect_err("cut off");
        assert_eq!(error.code(), "invalid-argument", "{length} bytes: {error}");
    }
}

#[test]
fn an_archive_may_promise_any_size() {
    let cache = cache_in(&Rc::default());
    load_hub(&hub(), &cache).expect("loads");
    let mut archive = Vec::new();
    block_on(cache.export(NAME, &mut |piece| archive.extend_from_slice(piece))).expect("exports");
    let weights = archive.len() - 3 * 512 - SIZE.next_multiple_of(512);
    let member = |path: &str, size: u64| archive::Member { path: path.into(), size };
    let manifest = archive::Member::parse(&archive[..512]).expect("valid").expect("there");
    let end = 512 + manifest.size as usize;
    let after = end.next_multiple_of(512);
    let text = String::from_utf8_lossy(&archive[512..end]).into_owned();
    for promised in [SIZE as u64 + 4096, 1 << 40, u64::MAX] {
        let text = text.replace(&format!("\"size\":{SIZE}"), &format!("\"size\":{promised}"));
        let manifest = member(&manifest.path, text.len() as u64);
        let mut lie = manifest.header().expect("a header").to_vec();
        lie.extend(text.bytes());
        lie.extend(vec![0; manifest.padding()]);
        lie.extend(&archive[after..weights]);
        lie.extend(member(LARGE, promised).header().expect("a header"));
        lie.extend(&archive[weights + 512..]);
        let store = Rc::<MemoryStore>::default();
        let error = block_on(cache_in(&store).import(&Bytes(lie))).expect_err("a lie");
        assert_eq!(error.code(), "invalid-argument", "{error}");
        assert!(error.to_string().contains(LARGE), "{error}");
        assert_eq!(block_on(store.keys("chunk/sha256")).expect("there"), [""; 0]);
    }
}

#[test]
fn sizes_read_well() {
    assert_eq!(repository::bytes_text(2_134_000_000), "2.1 GB");
    assert_eq!(repository::bytes_text(1_050_000), "1.1 MB");
}
