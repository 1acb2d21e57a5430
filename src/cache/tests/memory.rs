//! What becomes of models that cannot be stored.

use std::future::poll_fn;

use super::*;

/// A store that takes its time, so that several chunks find out together that there is no room.
struct Slow(MemoryStore);

impl Store for Slow {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        self.0.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        Box::pin(async move {
            let mut turns = 5;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                turns -= 1;
                if turns > 0 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            self.0.put(key, bytes).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.0.delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        self.0.keys(prefix)
    }
}

fn memory(bytes: usize) -> Rc<MemoryStore> {
    Rc::new(MemoryStore::with_quota(bytes))
}

fn both(store: &Rc<Slow>, memory: &Rc<MemoryStore>) -> Cache {
    cache_with(store.clone(), Surroundings::default(), None).with_memory(memory.clone())
}

fn alone(memory: &Rc<MemoryStore>, limit: Option<u64>) -> Cache {
    let host = Rc::new(Surroundings::default());
    let cache = block_on(Cache::open_in(memory.clone(), host, limit)).expect("opens");
    cache.with_chunk_bytes(CHUNK)
}

fn chunks(store: &dyn Store) -> usize {
    block_on(store.keys("chunk/sha256")).expect("there").len()
}

fn messages(loaded: &Loaded) -> Vec<String> {
    let message = |notice: &Notice| match notice {
        Notice::Warning { message, .. } => Some(message.clone()),
        _ => None,
    };
    loaded.notices.iter().filter_map(message).collect()
}

#[test]
fn what_the_store_has_no_room_for_stays_in_memory() {
    for quota in [10, 100, 2000, 3 * CHUNK as usize, SIZE - 1000, SIZE] {
        let (server, store) = (hub(), Rc::new(Slow(MemoryStore::with_quota(quota))));
        let memory = memory(2 * SIZE);
        let first = load_hub(&server, &both(&store, &memory)).expect("loads");
        assert!(first.weights == large(0));
        let [message] = &messages(&first)[..] else { panic!("{quota}: {:?}", first.notices) };
        assert!(message.contains("memory") && message.contains("no room"), "{message}");
        assert_eq!(chunks(&store.0) + chunks(&*memory), 10, "{quota}: each in one place");

        let second = load_hub(&server, &both(&store, &memory)).expect("loads");
        assert!(second.weights == large(0) && second.index == b"index 0");
        assert_eq!(second.traffic, Traffic { fetched: 0, cached: SIZE as u64 + 7 }, "{quota}");
        assert_eq!(messages(&second), [""; 0]);
        server.forget();
        let cache = both(&store, &memory);
        block_on(load(&server, source(), Some(&cache), CachePolicy::Only)).expect("loads");
        assert_eq!(server.requests(), []);

        // The next page finds what was stored, and is not told that it is all.
        let cache = cache_with(store.clone(), Surroundings::default(), None);
        assert!(block_on(cache.list()).expect("there").iter().all(|model| !model.complete));
        let kept = chunks(&store.0);
        assert!(load_hub(&server, &cache).expect("loads").weights == large(0));
        let fetched = server.requests().iter().filter(|r| r.url.contains("w.safe")).count();
        assert_eq!(fetched, 10 - kept, "{quota}");
    }
}

#[test]
fn what_is_known_to_have_no_room_goes_to_memory_at_once() {
    let (server, store, memory) = (hub(), Rc::<MemoryStore>::default(), memory(2 * SIZE));
    let host = Surroundings { free: Some(1000), ..Surroundings::default() };
    let cache = cache_with(store.clone(), host, None).with_memory(memory.clone());
    let loaded = load_hub(&server, &cache).expect("loads");
    let [message] = &messages(&loaded)[..] else { panic!("{:?}", loaded.notices) };
    assert!(message.contains("memory") && message.contains("1.0 kB free"), "{message}");
    assert_eq!((chunks(&*store), chunks(&*memory)), (0, 10));
}

#[test]
fn of_what_does_not_fit_into_memory_nothing_is_kept_there() {
    for (quota, room, kept) in [
        // All that is missing when it is found out, or nothing of it.
        (8 * CHUNK as usize, 2 * CHUNK as usize, 0),
        (8 * CHUNK as usize, 5 * CHUNK as usize, 2),
        (2 * CHUNK as usize, 5 * CHUNK as usize, 0),
    ] {
        let store = Rc::new(Slow(MemoryStore::with_quota(quota)));
        let (server, memory) = (hub(), memory(room));
        let loaded = load_hub(&server, &both(&store, &memory)).expect("loads");
        assert!(loaded.weights == large(0));
        let [message] = &messages(&loaded)[..] else { panic!("{:?}", loaded.notices) };
        assert_eq!(message.contains("memory"), kept > 0, "{message}");
        assert_eq!(chunks(&*memory), kept, "{quota}, {room}");
        assert!(memory.size() <= room);
        let again = load_hub(&server, &both(&store, &memory)).expect("loads");
        assert_eq!(again.traffic.fetched == 0, kept > 0, "{:?}", again.traffic);
    }
}

#[test]
fn without_a_store_small_models_are_kept_and_small_files_of_large_ones() {
    for (room, limit, fetched) in [
        (2 * SIZE, None, 0),
        (SIZE / 2, None, SIZE as u64),
        (2 * SIZE, Some(SIZE as u64 / 2), SIZE as u64),
    ] {
        let (server, memory) = (hub(), memory(room));
        for wanted in [SIZE as u64 + 7, fetched] {
            let loaded = load_hub(&server, &alone(&memory, limit)).expect("loads");
            assert!(loaded.weights == large(0) && loaded.index == b"index 0");
            assert_eq!(loaded.traffic.fetched, wanted, "{room}, {limit:?}");
            assert_eq!(loaded.notices, [], "who opened it has told");
            assert_eq!(chunks(&*memory) == 0, fetched > 0);
        }
        server.forget();
        let cache = alone(&memory, limit);
        let local = block_on(load(&server, source(), Some(&cache), CachePolicy::Only));
        assert_eq!(local.is_ok(), fetched == 0);
        assert_eq!(server.requests(), []);
    }
}

#[test]
fn the_model_used_least_recently_gives_way_in_memory() {
    let server = hub();
    server.put(&format!("x/{INDEX}"), b"index".to_vec());
    server.put(&format!("x/{LARGE}"), large(7));
    let memory = memory(SIZE * 3 / 2);
    let load_x = |cache: &Cache| {
        let source = ModelSource::Base("http://hub/x".into());
        let loaded = block_on(load(&server, source, Some(cache), CachePolicy::Resume));
        let loaded = loaded.expect("loads");
        assert!(loaded.weights == large(7));
        loaded.traffic.fetched
    };
    let names = || {
        let models = block_on(alone(&memory, None).list()).expect("there").into_iter();
        models.filter(|model| model.complete).map(|model| model.model).collect::<Vec<_>>()
    };
    load_hub(&server, &alone(&memory, None)).expect("loads");
    assert_eq!(names(), [NAME]);
    assert!(load_x(&alone(&memory, None)) > 0);
    assert_eq!(names(), ["http://hub/x"]);
    // A folder's small files are asked for every time.
    assert_eq!(load_x(&alone(&memory, None)), 5);
    // The same where a store has no room.
    let full = Rc::new(Slow(MemoryStore::with_quota(100)));
    load_hub(&server, &both(&full, &memory)).expect("loads");
    assert_eq!(names(), [NAME]);
    assert!(memory.size() <= SIZE * 3 / 2);
}

#[test]
fn nothing_of_a_file_that_arrives_wrong_stays_in_memory() {
    let (server, memory) = (hub(), memory(2 * SIZE));
    let store = Rc::new(Slow(MemoryStore::with_quota(3 * CHUNK as usize)));
    let path = format!("a/b/resolve/{COMMIT}/{LARGE}");
    let mut wrong = large(0);
    wrong[SIZE - 1] ^= 1;
    server.put(&path, wrong);
    let error = load_hub(&server, &both(&store, &memory)).expect_err("wrong");
    assert_eq!(error.code(), "hash-mismatch");
    assert_eq!((chunks(&store.0), chunks(&*memory)), (0, 0));
    server.put(&path, large(0));
    assert!(load_hub(&server, &both(&store, &memory)).expect("anew").weights == large(0));
}
