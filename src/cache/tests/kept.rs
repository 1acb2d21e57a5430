//! What stays, and what gives way.

use super::*;

/// A store that is emptied underneath, as browsers let users do, before a certain write.
struct Emptied {
    inner: Rc<MemoryStore>,
    left: Cell<usize>,
}

impl Store for Emptied {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        self.inner.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            self.left.set(self.left.get().wrapping_sub(1));
            if self.left.get() == 0 {
                for key in self.inner.keys("").await? {
                    self.inner.delete(&key).await?;
                }
            }
            self.inner.put(key, bytes).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.inner.delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        self.inner.keys(prefix)
    }
}

#[test]
fn entries_of_others_are_left_alone() {
    let store = Rc::<MemoryStore>::default();
    for key in ["mine", "photos/1"] {
        block_on(store.put(key, b"mine")).expect("stored");
    }
    let cache = cache_in(&store);
    let keys = || block_on(store.keys("")).expect("there");
    assert_eq!(keys(), ["mine", "photos/1", "version"]);
    load_hub(&hub(), &cache).expect("loads");
    block_on(cache.clear()).expect("works");
    assert_eq!(keys(), ["mine", "photos/1", "version"]);
}

#[test]
fn what_follows_when_the_store_is_emptied_underneath_is_kept() {
    let mut gone_on = 0;
    for writes in 1.. {
        let (server, store) = (hub(), Rc::<MemoryStore>::default());
        let emptied = Rc::new(Emptied { inner: store.clone(), left: Cell::new(0) });
        let cache = cache_with(emptied.clone(), Surroundings::default(), None);
        emptied.left.set(writes);
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == large(0));
        if emptied.left.get() as isize > 0 {
            break;
        }
        // As the next page finds it.
        let cache = cache_in(&store);
        let kept = block_on(store.keys("chunk/sha256")).expect("there").len();
        let complete = block_on(cache.list()).expect("there").iter().any(|model| model.complete);
        assert!(!complete || kept == 10, "{kept} chunks after {writes} writes");
        server.forget();
        let again = load_hub(&server, &cache).expect("loads");
        assert!(again.weights == large(0));
        let fetched = server.requests().iter().filter(|r| r.url.contains("w.safe")).count();
        assert_eq!(fetched, 10 - kept, "after {writes} writes");
        gone_on += usize::from((1..10).contains(&kept));
        assert_eq!(load_hub(&server, &cache).expect("loads").traffic.fetched, 0);
    }
    assert!(gone_on > 5, "{gone_on} times a part was there");
}

/// A server with `x`, a small model, beside the one of the Hub.
fn with_x(weights: &[u8]) -> Memory {
    let server = Memory::new();
    publish_weights(&server, COMMIT, 0, weights);
    server.put(&format!("x/{INDEX}"), b"index".to_vec());
    server.put(&format!("x/{LARGE}"), large(7));
    server
}

fn load_x(server: &Memory, cache: &Cache) {
    let source = ModelSource::Base("http://hub/x".into());
    block_on(load(server, source, Some(cache), CachePolicy::Resume)).expect("loads");
}

fn complete_models(cache: &Cache) -> Vec<String> {
    let models = block_on(cache.list()).expect("there").into_iter();
    models.filter(|model| model.complete).map(|model| model.model).collect()
}

#[test]
fn nothing_gives_way_for_what_does_not_fit_in_the_end() {
    let weights = [large(0), large(1)].concat();
    let server = with_x(&weights);
    let size = SIZE as u64;
    for (limit, free) in [(size + 10_000, None), (2 * size + 10_000, Some(1000))] {
        let store = Rc::<MemoryStore>::default();
        load_x(&server, &cache_in(&store));
        let host = Surroundings { free, ..Surroundings::default() };
        let cache = cache_with(store, host, Some(limit));
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == weights);
        assert_eq!(loaded.warnings(), ["storage"], "{limit}");
        assert_eq!(complete_models(&cache), ["http://hub/x"], "{limit}");
    }
    // What gives way makes room on the disk, too.
    let store = Rc::<MemoryStore>::default();
    load_x(&server, &cache_in(&store));
    let host = Surroundings { free: Some(size + 10_000), ..Surroundings::default() };
    let cache = cache_with(store, host, Some(2 * size + 10_000));
    assert_eq!(load_hub(&server, &cache).expect("loads").warnings(), [""; 0]);
    assert_eq!(complete_models(&cache), [NAME]);
}

#[test]
fn what_another_tab_loads_does_not_give_way() {
    let server = with_x(&large(0));
    let store = Rc::<MemoryStore>::default();
    load_x(&server, &cache_in(&store));
    let host = Surroundings::default();
    host.busy.borrow_mut().insert(lock_name("model/http://hub/x@-"));
    let cache = cache_with(store, host, Some(SIZE as u64 + 10_000));
    let loaded = load_hub(&server, &cache).expect("loads");
    let text = format!("{:?}", loaded.notices);
    assert!(text.contains("is being loaded elsewhere"), "{text}");
    assert_eq!(complete_models(&cache), ["http://hub/x"]);
}

#[test]
fn what_is_stored_is_not_needed_again() {
    let server = hub();
    let limit = Some(SIZE as u64 + 10_000);
    let cache = cache_with(Rc::<MemoryStore>::default(), Surroundings::default(), limit);
    let notices = RefCell::new(Vec::new());
    let notify = |notice| notices.borrow_mut().push(notice);
    block_on(async {
        let files = Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, notify);
        let files = files.await?;
        // As a model does whose parts are downloaded first, and then loaded.
        for _ in 0..2 {
            let mut reader = files.open(LARGE).await?;
            files.prepare().await?;
            reader.finish(&mut || ()).await?;
        }
        files.finish().await
    })
    .expect("loads");
    let needed = SIZE as u64;
    assert_eq!(notices.into_inner(), [Notice::Storage { needed, free: None }]);
}

#[test]
fn what_takes_the_place_of_other_bytes_needs_no_room() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    load_hub(&server, &cache_in(&store)).expect("loads");
    let host = Surroundings { free: Some(1000), ..Surroundings::default() };
    let cache = cache_with(store, host, Some(SIZE as u64 + 10_000));
    let loaded = block_on(load(&server, source(), Some(&cache), CachePolicy::Refetch));
    let loaded = loaded.expect("loads");
    assert_eq!((loaded.traffic.fetched, loaded.warnings()), (SIZE as u64 + 7, vec![]));
}

#[test]
fn who_must_keep_a_model_hears_when_that_cannot_be() {
    let keep = |server: &Memory, cache: &Cache| {
        block_on(async {
            let files =
                Repository::open(server, source(), Some(cache), CachePolicy::Resume, |_| ());
            let files = files.await?.must_keep();
            files.read(INDEX).await?;
            let mut reader = files.open(LARGE).await?;
            files.prepare().await?;
            reader.finish(&mut || ()).await?;
            files.finish().await
        })
    };
    for quota in [2000, 3 * CHUNK as usize] {
        let store = Rc::new(MemoryStore::with_quota(quota));
        let server = hub();
        let cache = cache_with(store, Surroundings::default(), None);
        let error = keep(&server, &cache).expect_err("no room");
        assert_eq!(error.code(), "storage", "{error}");
        assert!(server.ranges_asked().len() < 10, "it goes on with {quota} bytes");
    }
    let host = Surroundings { free: Some(1000), ..Surroundings::default() };
    let (server, cache) = (hub(), cache_with(Rc::<MemoryStore>::default(), host, None));
    let error = keep(&server, &cache).expect_err("no room");
    assert!(error.to_string().contains("1.0 kB free"), "{error}");
    assert_eq!(server.ranges_asked(), [], "it is known before");
    keep(&hub(), &cache_in(&Rc::default())).expect("there is room");
}

#[test]
fn the_cached_version_serves_when_a_newer_one_cannot_be_had() {
    let server = hub();
    let cache = cache_in(&Rc::default());
    // Requests for the revision, and for the listing of a newer one.
    let refusals = [
        vec![Fault::Status(404)],
        vec![Fault::Status(401)],
        vec![Fault::Status(403)],
        vec![Fault::None, Fault::Status(404)],
        vec![Fault::None, Fault::Status(403)],
        vec![Fault::None, Fault::Html, Fault::Html, Fault::Html, Fault::Html, Fault::Html],
    ];
    for refusal in &refusals {
        server.fail(refusal.clone());
        load_hub(&server, &cache).expect_err("nothing is cached");
        server.fail([]);
        block_on(cache.clear()).expect("works");
    }
    load_hub(&server, &cache).expect("loads");
    publish(&server, LATER, 1);
    for refusal in refusals {
        server.fail(refusal.clone());
        let loaded = load_hub(&server, &cache).expect("loads");
        server.fail([]);
        assert!(loaded.weights == large(0), "{refusal:?}");
        assert_eq!(loaded.warnings(), ["offline"], "{refusal:?}");
    }
    assert!(load_hub(&server, &cache).expect("loads").weights == large(1));
}

/// Reads the index for something else, as configurations are read for a checkpoint in one file.
async fn read_in_part(
    server: &Memory,
    source: ModelSource,
    cache: &Cache,
    policy: CachePolicy,
) -> Result<Vec<u8>> {
    let files = Repository::open_part(server, source, Some(cache), policy, |_| ()).await?;
    let index = files.read(INDEX).await?;
    files.finish_part().await?;
    Ok(index)
}

#[test]
fn what_was_read_of_a_model_in_part_is_read_again_without_a_network() {
    for (source, server) in [(source(), hub()), (base(), folder())] {
        let store = Rc::<MemoryStore>::default();
        let cache = cache_in(&store);
        let read = |policy| block_on(read_in_part(&server, source.clone(), &cache, policy));
        let first = read(CachePolicy::Resume).expect("reads");
        server.fail_always(Fault::Offline);
        for policy in [CachePolicy::Resume, CachePolicy::Only] {
            assert_eq!(read(policy).expect("reads"), first, "{source:?} {policy:?}");
        }
        // The model itself is not there by that.
        assert_eq!(complete_models(&cache), [""; 0]);
        let load = || block_on(load(&server, source.clone(), Some(&cache), CachePolicy::Resume));
        let error = load().map(drop).expect_err("no weights are there");
        assert_eq!(error.code(), "network", "{source:?}");
        server.fail_always(Fault::None);
        load().expect("loads");
        let whole = complete_models(&cache);
        assert_eq!(whole.len(), 1);
        // Nor is it less there when a part is read again.
        read(CachePolicy::Resume).expect("reads");
        assert_eq!(complete_models(&cache), whole);
    }
}
