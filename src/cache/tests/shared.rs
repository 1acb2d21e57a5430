//! Several tabs with one cache, and archives into it.

use super::*;

/// A cache whose host says which locks were asked for.
fn watched(store: &Rc<MemoryStore>) -> (Cache, Rc<Surroundings>) {
    let host = Rc::new(Surroundings::default());
    let cache = block_on(Cache::open(store.clone(), host.clone(), None)).expect("opens");
    (cache.with_chunk_bytes(CHUNK), host)
}

fn lock() -> String {
    lock_name(&format!("model/{NAME}@{COMMIT}"))
}

#[test]
fn who_lacks_a_part_of_a_complete_model_downloads_it_alone() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    load_hub(&server, &cache_in(&store)).expect("loads");
    block_on(store.delete(&chunk_key(&content(0), 3))).expect("deleted");
    let (cache, host) = watched(&store);
    assert_eq!(load_hub(&server, &cache).expect("loads").traffic.fetched, CHUNK);
    assert_eq!(host.locks.take(), [(lock(), false), (lock(), true)]);
    load_hub(&server, &cache).expect("loads");
    assert_eq!(host.locks.take(), [(lock(), false)]);
}

#[test]
fn what_another_tab_has_stored_meanwhile_is_not_fetched() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    let key = chunk_key(&content(0), 3);
    let chunk = block_on(store.get(&key)).expect("works").expect("there");
    block_on(store.delete(&key)).expect("deleted");
    let traffic = block_on(async {
        let files = Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, |_| ());
        let files = files.await?;
        let mut reader = files.open(LARGE).await?;
        // While this one waits for the lock.
        store.put(&key, &chunk).await?;
        files.prepare().await?;
        reader.finish(&mut || ()).await?;
        Ok::<_, Error>(files.traffic())
    });
    assert_eq!(traffic.expect("loads"), Traffic { fetched: 0, cached: SIZE as u64 });
}

#[test]
fn who_removes_models_waits_for_those_who_load_them() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    for remove_all in [false, true] {
        let (cache, host) = watched(&store);
        load_hub(&server, &cache).expect("loads");
        host.locks.take();
        match remove_all {
            false => assert!(block_on(cache.delete(NAME)).expect("works")),
            true => block_on(cache.clear()).expect("works"),
        }
        assert_eq!(host.locks.take(), [(lock(), true)]);
        assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]));
    }
}

#[test]
fn a_model_is_not_complete_without_what_was_removed_during_its_load() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    let notices = RefCell::new(Vec::new());
    let load_and_remove = |key: &str| {
        notices.take();
        block_on(async {
            let notify = |notice| notices.borrow_mut().push(notice);
            let files =
                Repository::open(&server, source(), Some(&cache), CachePolicy::Resume, notify);
            let files = files.await?;
            files.read(INDEX).await?;
            let mut reader = files.open(LARGE).await?;
            files.prepare().await?;
            reader.finish(&mut || ()).await?;
            store.delete(key).await?;
            files.finish().await
        })
        .expect("loads");
        block_on(cache.list()).expect("there")[0].complete
    };
    let small = format!("git-{}", git_blob(b"index 0"));
    for key in [chunk_key(&content(0), 4), chunk_key(&small, 0)] {
        assert!(load_and_remove("nothing"));
        assert!(!load_and_remove(&key), "{key}");
        let text = format!("{:?}", notices.borrow());
        assert!(text.contains("removed from the cache"), "{text}");
    }
    assert!(load_and_remove("nothing"));
}

#[test]
fn who_only_reads_does_not_bring_back_what_was_removed() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    block_on(async {
        let files = Repository::open(&server, source(), Some(&cache), CachePolicy::Only, |_| ());
        let files = files.await?;
        files.read(INDEX).await?;
        cache.delete(NAME).await?;
        files.finish().await
    })
    .expect("reads");
    assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]));
}

fn exported() -> Vec<u8> {
    let cache = cache_in(&Rc::default());
    load_hub(&hub(), &cache).expect("loads");
    let mut archive = Vec::new();
    block_on(cache.export(NAME, &mut |piece| archive.extend_from_slice(piece))).expect("exports");
    archive
}

/// The archive with a wrong byte in the large file.
fn damaged() -> Vec<u8> {
    let mut archive = exported();
    let weights = archive.len() - 2 * 512 - SIZE.next_multiple_of(512);
    archive[weights + 77] ^= 1;
    archive
}

fn all(store: &MemoryStore) -> Vec<(String, Vec<u8>)> {
    let keys = block_on(store.keys("")).expect("there").into_iter();
    let get = |key: &str| block_on(store.get(key)).expect("works").expect("there");
    keys.map(|key| (key.clone(), get(&key))).collect()
}

#[test]
fn an_archive_that_is_refused_changes_nothing() {
    let server = hub();
    // Nothing there, a part of the file, another model.
    for (case, fetched) in [(0, SIZE), (1, 6 * CHUNK as usize), (2, SIZE)] {
        let store = Rc::<MemoryStore>::default();
        let cache = cache_in(&store);
        match case {
            0 => {}
            1 => {
                load_hub(&server, &cache).expect("loads");
                for index in 4..10 {
                    block_on(store.delete(&chunk_key(&content(0), index))).expect("deleted");
                }
                let key = content_key(&content(0));
                let mut record: ContentRecord =
                    block_on(cache.json(&key)).expect("works").expect("there");
                record.complete = false;
                (record.hashed, record.state) = (0, None);
                block_on(cache.put_json(&key, &record)).expect("stored");
            }
            _ => {
                block_on(load(&folder(), base(), Some(&cache), CachePolicy::Resume))
                    .expect("loads");
            }
        }
        let before = all(&store);
        let error = block_on(cache.import(&Bytes(damaged()))).expect_err("wrong");
        assert_eq!(error.code(), "hash-mismatch");
        assert!(all(&store) == before, "case {case}");
        let loaded = load_hub(&server, &cache).expect("loads");
        assert!(loaded.weights == large(0));
        assert!(loaded.traffic.fetched <= fetched as u64 + 7, "{:?}", loaded.traffic);
    }
}

#[test]
fn what_is_there_already_is_not_taken_from_an_archive() {
    let (server, store) = (hub(), Rc::<MemoryStore>::default());
    let cache = cache_in(&store);
    load_hub(&server, &cache).expect("loads");
    // Not even looked at: what is there has been proven.
    block_on(cache.import(&Bytes(damaged()))).expect("imports");
    let loaded = block_on(load(&server, source(), Some(&cache), CachePolicy::Only));
    assert!(loaded.expect("loads").weights == large(0));
}

#[test]
fn an_import_that_fails_midway_leaves_nothing() {
    let archive = exported();
    for quota in [1000, 3 * CHUNK as usize, SIZE] {
        let store = Rc::new(MemoryStore::with_quota(quota));
        let cache = cache_with(store.clone(), Surroundings::default(), None);
        let error = block_on(cache.import(&Bytes(archive.clone()))).expect_err("no room");
        assert_eq!(error.code(), "storage", "{error}");
        assert_eq!(block_on(store.keys("")), Ok(vec!["version".into()]), "{quota} bytes");
    }
}

#[test]
fn an_import_keeps_to_the_limit_and_has_a_lock() {
    let (archive, store) = (exported(), Rc::<MemoryStore>::default());
    let size = SIZE as u64;
    let limited = |limit| cache_with(store.clone(), Surroundings::default(), Some(limit));
    block_on(load(&folder(), base(), Some(&cache_in(&store)), CachePolicy::Resume)).expect("loads");
    let error = block_on(limited(size - 1).import(&Bytes(archive.clone()))).expect_err("too much");
    assert_eq!(error.code(), "storage");
    assert!(error.to_string().contains("the limit is"), "{error}");
    let names = || {
        let models = block_on(cache_in(&store).list()).expect("there");
        models.into_iter().map(|model| model.model).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["http://hub/m"]);
    block_on(limited(size + 10_000).import(&Bytes(archive.clone()))).expect("imports");
    assert_eq!(names(), [NAME]);
    let (cache, host) = watched(&Rc::default());
    block_on(cache.import(&Bytes(archive))).expect("imports");
    assert_eq!(host.locks.take(), [(lock(), true)]);
}

/// A store that tells in which order it was written.
struct Ordered {
    inner: MemoryStore,
    keys: RefCell<Vec<String>>,
}

impl Store for Ordered {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        self.inner.get(key)
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.keys.borrow_mut().push(key.into());
        self.inner.put(key, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        self.inner.delete(key)
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        self.inner.keys(prefix)
    }
}

#[test]
fn contents_belong_to_a_model_before_they_are_imported() {
    let store = Rc::new(Ordered { inner: MemoryStore::default(), keys: RefCell::default() });
    let cache = cache_with(store.clone(), Surroundings::default(), None);
    block_on(cache.import(&Bytes(exported()))).expect("imports");
    let keys = store.keys.take();
    let model = keys.iter().position(|key| key.starts_with("model/")).expect("written");
    let chunk = keys.iter().position(|key| key.starts_with("chunk/")).expect("written");
    assert!(model < chunk, "{keys:?}");
}
