//! What is kept as halves, and what needs it as it was served.

use std::ops::Range;

use super::arrival::{Late, poll_on};
use super::*;

const COUNT: u64 = super::super::rounded::LEAST_CHUNKS as u64;
const BYTES: u64 = COUNT * CHUNK - 1234;

/// Values behind a head of two bytes too many for them to be whole in chunks, and others at the end.
const VALUES: [Range<u64>; 2] = [1002..3_000_002, 3_000_010..BYTES - 2_000];

fn single() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..BYTES as u32).map(|i| ((i * 7) >> 3) as u8).collect();
    for range in VALUES {
        let inside = &mut bytes[range.start as usize..range.end as usize];
        for (i, value) in inside.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *value = ((i as f32).sin() / 3.0).to_le_bytes();
        }
    }
    bytes
}

/// A value that no half can hold, in chunk 20.
fn with_large_value() -> Vec<u8> {
    let mut bytes = single();
    let at = 1002 + (20 * CHUNK as usize + 5000) / 4 * 4;
    bytes[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    bytes
}

/// What comes back of a file whose chunks from `first` on were kept as halves, but those `kept` as they were.
fn rounded(bytes: &[u8], kept: impl Fn(u64) -> bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for index in (1..COUNT).filter(|index| !kept(*index)) {
        let chunk = index * CHUNK..((index + 1) * CHUNK).min(BYTES);
        let start = chunk.start as usize;
        for range in super::super::rounded::whole_values(&VALUES, chunk) {
            let inside = &mut bytes[start + range.start..start + range.end];
            for value in inside.as_chunks_mut::<4>().0 {
                let half = half::f16::from_f32(f32::from_le_bytes(*value));
                *value = half.to_f32().to_le_bytes();
            }
        }
    }
    bytes
}

fn server_of(bytes: &[u8]) -> Memory {
    let server = Memory::new();
    publish_weights(&server, COMMIT, 0, bytes);
    server
}

fn load_rounded(server: &dyn Fetch, cache: &Cache) -> Result<Loaded> {
    block_on(load_as(server, source(), Some(cache), CachePolicy::Resume, Some(&VALUES)))
}

fn bytes_kept(cache: &Cache) -> u64 {
    block_on(cache.list()).expect("there")[0].bytes
}

fn keys(store: &MemoryStore, what: &str) -> usize {
    let keys = block_on(store.keys("chunk/sha256")).expect("there");
    keys.iter().filter(|key| key.contains(what)).count()
}

#[test]
fn what_is_rounded_anyway_takes_half_the_room() {
    for source in [source(), base()] {
        let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
        server.put(&format!("m/{INDEX}"), b"index 0".to_vec());
        server.put(&format!("m/{LARGE}"), single());
        let cache = cache_in(&store);
        let load = |cache: &Cache, policy| {
            block_on(load_as(&server, source.clone(), Some(cache), policy, Some(&VALUES)))
        };
        let first = load(&cache, CachePolicy::Resume).expect("loads");
        assert!(first.weights == single(), "as it is served");
        assert_eq!(first.warnings(), [""; 0]);
        // All but the first chunk, and what is no value.
        let half = (BYTES - CHUNK) / 2 + CHUNK;
        let kept = bytes_kept(&cache);
        assert!((half..half + 2_000).contains(&kept), "{kept} bytes of {BYTES}");
        assert!(store.size() as u64 - kept < 3_000, "{} bytes", store.size());

        let cache = cache_in(&store);
        let second = load(&cache, CachePolicy::Only).expect("loads");
        assert!(second.weights == rounded(&single(), |_| false));
        assert_eq!(second.traffic, Traffic { fetched: 0, cached: BYTES + 7 });
        assert_eq!(second.warnings(), [""; 0]);
    }
}

#[test]
fn a_value_that_is_too_large_keeps_its_chunk_as_it_is() {
    let bytes = with_large_value();
    let (server, store) = (server_of(&bytes), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_rounded(&server, &cache).expect("loads");
    let again = load_rounded(&server, &cache).expect("loads");
    assert!(again.weights == rounded(&bytes, |index| index == 20));
    assert_eq!(again.traffic.fetched, 0);
}

#[test]
fn who_needs_single_precision_fetches_it_again() {
    let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_rounded(&server, &cache).expect("loads");
    let halves = bytes_kept(&cache);
    let name = NAME;
    let export = || block_on(cache.export(name, &mut |_| ()));
    let error = export().expect_err("not as it was served");
    assert_eq!(error.code(), "unsupported");
    assert!(error.to_string().contains("weightDtype: 'float32'"), "{error}");
    let local = block_on(load(&server, source(), Some(&cache), CachePolicy::Only));
    assert_eq!(local.expect_err("halves alone").code(), "not-cached");

    let floats = load_hub(&server, &cache).expect("loads");
    assert!(floats.weights == single());
    assert_eq!(floats.traffic, Traffic { fetched: BYTES - CHUNK, cached: CHUNK + 7 });
    assert!(bytes_kept(&cache) > 19 * halves / 10);
    assert_eq!((keys(&store, "~"), keys(&store, "")), (0, COUNT as usize));
    export().expect("as it was served");
    // Both are served by that from then on.
    for values in [None, Some(&VALUES[..])] {
        let load = load_as(&server, source(), Some(&cache), CachePolicy::Only, values);
        assert!(block_on(load).expect("loads").weights == single());
    }
}

#[test]
fn an_archive_brings_back_what_was_served() {
    let server = server_of(&single());
    let (from, to) = (cache_in(&Rc::default()), cache_in(&Rc::default()));
    load_hub(&server, &from).expect("loads");
    let mut archive = Vec::new();
    block_on(from.export(NAME, &mut |bytes| archive.extend(bytes))).expect("whole");
    load_rounded(&server, &to).expect("loads");
    block_on(to.import(&super::Bytes(archive))).expect("works");
    let floats = block_on(load(&server, source(), Some(&to), CachePolicy::Only)).expect("loads");
    assert!(floats.weights == single());
    assert!(bytes_kept(&to) > BYTES && bytes_kept(&to) < BYTES + 100);
}

#[test]
fn small_files_stay_as_they_are() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let load = load_as(&server, source(), Some(&cache), CachePolicy::Resume, Some(&VALUES[..1]));
    block_on(load).expect("loads");
    assert_eq!(keys(&store, "~"), 0);
    block_on(cache.export(NAME, &mut |_| ())).expect("as it was served");
}

/// A store that takes note of nothing any more after some writes, as when a page ends.
struct Ended {
    inner: Rc<MemoryStore>,
    left: Cell<usize>,
}

impl Ended {
    fn goes_on(&self) -> bool {
        self.left.set(self.left.get().saturating_sub(1));
        self.left.get() > 0
    }
}

impl Store for Ended {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        self.inner.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        if self.goes_on() { self.inner.put(key, bytes) } else { Box::pin(pending()) }
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        if self.goes_on() { self.inner.delete(key) } else { Box::pin(pending()) }
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        self.inner.keys(prefix)
    }
}

/// Loads until nothing goes on; tells whether it came to its end.
fn load_on(fetch: &dyn Fetch, cache: &Cache) -> bool {
    let mut running =
        pin!(load_as(fetch, source(), Some(cache), CachePolicy::Resume, Some(&VALUES)));
    poll_on(running.as_mut()).is_ready()
}

#[test]
fn a_page_that_ends_anywhere_goes_on_from_there() {
    let bytes = single();
    let server = server_of(&bytes);
    let mut resumed = 0;
    for (writes, late) in (1..).step_by(3).zip([None, Some(5), None].into_iter().cycle()) {
        let store = Rc::<MemoryStore>::default();
        let ended = Rc::new(Ended { inner: store.clone(), left: Cell::new(writes + 1) });
        let cache = cache_with(ended.clone(), Surroundings::default(), None);
        let fetch = late.map(|chunk| Late::new(&server, chunk));
        let fetch: &dyn Fetch = fetch.as_ref().map_or(&server, |late| late);
        if load_on(fetch, &cache) {
            break;
        }
        let cache = cache_in(&store);
        let again = load_rounded(&server, &cache).expect("loads");
        let cached = again.traffic.cached;
        resumed += usize::from(cached > BYTES / 2);
        // Of what was there, some is rounded, and nothing else is other than it was served.
        let halves = rounded(&bytes, |_| false);
        for (i, chunk) in again.weights.chunks(CHUNK as usize).enumerate() {
            let at = i * CHUNK as usize..i * CHUNK as usize + chunk.len();
            assert!(chunk == &bytes[at.clone()] || chunk == &halves[at], "{i} after {writes}");
        }
        // At most what was not hashed comes again.
        assert!(block_on(cache.list()).expect("there")[0].complete, "after {writes}");
        assert_eq!(load_rounded(&server, &cache).expect("loads").traffic.fetched, 0);
        assert_eq!(keys(&store, ""), COUNT as usize, "each chunk once, after {writes}");
    }
    assert!(resumed > 5, "{resumed}");
}

#[test]
fn chunks_behind_a_late_one_are_rounded_when_they_are_hashed() {
    let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let late = Late::new(&server, 5);
    let load = load_as(&late, source(), Some(&cache), CachePolicy::Resume, Some(&VALUES));
    let mut running = pin!(load);
    assert!(poll_on(running.as_mut()).is_pending());
    let (halves, all) = (keys(&store, "~"), keys(&store, ""));
    // Four that were hashed, and as many as are held until they are.
    assert_eq!((halves, all), (4 + 3, COUNT as usize - 1), "the others are left to the cache");
    late.let_go();
    let Poll::Ready(loaded) = poll_on(running.as_mut()) else { panic!("it hangs") };
    assert!(loaded.expect("loads").weights == single());
    assert_eq!((keys(&store, "~"), keys(&store, "")), (COUNT as usize - 1, COUNT as usize));
}

fn damage(store: &MemoryStore, chunk: &str) {
    let keys = block_on(store.keys("chunk/sha256")).expect("there");
    let key = keys.iter().find(|key| key.contains(chunk)).expect("there");
    let mut bytes = block_on(store.get(key)).expect("works").expect("there");
    bytes[77] ^= 1;
    block_on(store.put(key, &bytes)).expect("works");
}

#[test]
fn a_damaged_chunk_alone_is_fetched_again() {
    let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_rounded(&server, &cache).expect("loads");
    damage(&store, "/00007~");
    server.forget();
    let again = load_rounded(&server, &cache).expect("loads");
    assert_eq!(again.warnings(), ["corrupt"]);
    assert!(again.weights == rounded(&single(), |index| index == 7), "it came as it is served");
    assert_eq!(again.traffic.fetched, CHUNK);
    assert_eq!(
        server.ranges_asked(),
        std::slice::from_ref(&(7 * CHUNK..8 * CHUNK)),
        "what it was is known"
    );
    let third = load_rounded(&server, &cache).expect("loads");
    assert!(third.weights == rounded(&single(), |_| false));
    assert_eq!((third.traffic.fetched, keys(&store, "")), (0, COUNT as usize));
}

#[test]
fn what_takes_the_place_of_a_chunk_is_proven() {
    // Of the first chunk nothing says what it was: the whole file is hashed anew, as it is served.
    let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_rounded(&server, &cache).expect("loads");
    damage(&store, "/00000");
    server.forget();
    load_rounded(&server, &cache).expect("loads");
    assert_eq!(server.ranges_asked().len(), COUNT as usize);
    // And where it is another one, it is found out.
    for chunk in ["/00000", "/00009~"] {
        let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
        let cache = cache_in(&store);
        load_rounded(&server, &cache).expect("loads");
        damage(&store, chunk);
        let mut wrong = single();
        wrong.iter_mut().for_each(|byte| *byte ^= 1);
        server.put(&format!("a/b/resolve/{COMMIT}/{LARGE}"), wrong);
        let error = load_rounded(&server, &cache).expect_err("wrong");
        assert_eq!(error.code(), "hash-mismatch", "{chunk}");
        assert_eq!(keys(&store, ""), 0);
    }
}

#[test]
fn wrong_bytes_are_found_before_they_are_rounded() {
    let (server, store) = (server_of(&single()), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let mut wrong = single();
    // Nothing that a half would show.
    wrong[30 * CHUNK as usize + 2] ^= 1;
    server.put(&format!("a/b/resolve/{COMMIT}/{LARGE}"), wrong);
    assert_eq!(load_rounded(&server, &cache).expect_err("wrong").code(), "hash-mismatch");
    assert_eq!(keys(&store, ""), 0);
}

#[test]
fn the_storage_that_is_needed_is_known_before_the_header() {
    let server = server_of(&single());
    let needed = |expected: u64, rounds: bool| {
        let cache = cache_in(&Rc::default());
        let notices = RefCell::new(Vec::new());
        let notify = |notice| notices.borrow_mut().push(notice);
        let storage = block_on(async {
            let files =
                Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, notify);
            let files = files.await?;
            let mut reader = match rounds {
                true => files.open_rounded(LARGE).await?,
                false => files.open(LARGE).await?,
            };
            reader.expect_rounded(expected);
            assert_eq!(files.missing(), BYTES);
            files.prepare().await?;
            Ok::<_, Error>(files.storage())
        });
        let storage = storage.expect("works");
        assert_eq!(notices.into_inner(), [Notice::Storage { needed: storage, free: None }]);
        storage
    };
    let half = (BYTES - CHUNK) / 2 + CHUNK;
    assert!(needed(BYTES / 2, true).abs_diff(half) < 2);
    assert_eq!(needed(0, true), BYTES);
    assert_eq!(needed(BYTES / 2, false), BYTES);
    // A limit that halves alone keep to.
    for (limit, warnings) in [(half + 10_000, 0), (half - 10_000, 1)] {
        let cache = cache_with(Rc::<MemoryStore>::default(), Surroundings::default(), Some(limit));
        let notices = RefCell::new(Vec::new());
        let notify = |notice| notices.borrow_mut().push(notice);
        block_on(async {
            let files =
                Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, notify);
            let files = files.await?;
            let mut reader = files.open_rounded(LARGE).await?;
            reader.expect_rounded(BYTES / 2);
            files.prepare().await
        })
        .expect("works");
        let notices = notices.into_inner();
        let warned = notices.iter().filter(|n| matches!(n, Notice::Warning { .. })).count();
        assert_eq!(warned, warnings, "{limit}");
    }
}
