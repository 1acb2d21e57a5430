//! Where a model comes from, as JavaScript says: the Hub, an address or files, through the cache.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, ArrayBuffer, Function, Map, Object, Promise, Reflect, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use super::convert::{self, object};
use crate::cache::{
    Archive, BrowserHost, CHUNK_BYTES, Cache, CachePolicy, IndexedDb, MAX_CHUNK_BYTES,
    MAX_ENTRY_BYTES, MEMORY_BYTES, MemoryStore, Notice, PageHost, Repository, Store, StoreError,
    StoreResult, in_memory_text,
};
use crate::error::{Error, Result};
use crate::hub::{
    Body, BrowserFetch, Fetch, MAX_PARALLEL, ModelSource, PARALLEL, Request, Response, STALL,
};

thread_local! {
    /// What could not be stored, until the page or the worker ends.
    static MEMORY: Rc<MemoryStore> = Rc::new(MemoryStore::with_quota(MEMORY_BYTES));
}

#[wasm_bindgen]
extern "C" {
    /// A file, or a part of one.
    #[derive(Debug, Clone)]
    pub type Blob;
    #[wasm_bindgen(method, getter)]
    fn size(this: &Blob) -> f64;
    #[wasm_bindgen(method)]
    fn slice(this: &Blob, start: f64, end: f64) -> Blob;
    #[wasm_bindgen(method, js_name = arrayBuffer)]
    fn array_buffer(this: &Blob) -> Promise;
}

/// Options that say where a model is and how it is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceOptions {
    model: Option<String>,
    revision: Option<String>,
    endpoint: Option<String>,
    token: Option<String>,
    local_files_only: Option<bool>,
    force_download: Option<bool>,
    resume_download: Option<bool>,
    subfolder: Option<String>,
    /// `false`, or an object with `get`, `put`, `delete` and `keys`.
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    cache: JsValue,
    cache_limit: Option<f64>,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    fetch: JsValue,
    stall_timeout: Option<f64>,
    range_bytes: Option<f64>,
    parallel: Option<f64>,
    /// A `Map` from paths to blobs, in place of a model's name.
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    files: JsValue,
}

impl SourceOptions {
    /// Reads an options object, of which the other properties are somebody else's.
    pub fn parse(options: &JsValue) -> Result<Self> {
        convert::parse(options.clone(), "options")
    }

    /// The same for another model, which is read in the same way.
    pub fn of(&self, model: &str) -> Self {
        let (revision, files) = (None, JsValue::UNDEFINED);
        Self { model: Some(model.to_owned()), revision, files, ..self.clone() }
    }

    /// Whether these options are of that model.
    pub fn is_of(&self, model: &str) -> bool {
        let plain = |name: &str| name.trim_end_matches('/').to_owned();
        self.model.as_deref().map(plain) == Some(plain(model))
    }

    /// What messages call the model.
    pub fn name(&self) -> String {
        self.model.clone().unwrap_or_else(|| "files".into())
    }

    /// The folder inside the model that is meant, where one is named.
    pub fn subfolder(&self) -> Option<&str> {
        self.subfolder.as_deref()
    }

    /// What reads the model's files, and keeps them: in memory where they cannot be stored. `notify` is told
    /// then.
    pub async fn access(
        &self,
        signal: Option<AbortSignal>,
        notify: &dyn Fn(Notice),
    ) -> Result<Access> {
        let opened = self.open_cache(signal.clone()).await?;
        let cache = match opened {
            None => None,
            Some(Ok(cache)) => Some(cache.with_memory(MEMORY.with(Rc::clone))),
            Some(Err(error)) => {
                let message = in_memory_text(&error);
                notify(Notice::Warning { code: "storage", message });
                let memory = MEMORY.with(Rc::clone);
                let cache = Cache::open_in(memory, Rc::new(PageHost), self.limit()?).await;
                Some(cache.map_err(Error::from)?.with_chunk_bytes(self.chunk_bytes()?))
            }
        };
        self.access_through(cache, signal)
    }

    /// What reads the model's files, and stores them for later pages.
    ///
    /// # Errors
    /// [`Error::Storage`] where nothing can be stored.
    pub async fn lasting_access(&self, signal: Option<AbortSignal>) -> Result<Access> {
        let cache = self.open_cache(signal.clone()).await?.transpose()?;
        self.access_through(cache, signal)
    }

    fn access_through(&self, cache: Option<Cache>, signal: Option<AbortSignal>) -> Result<Access> {
        let (source, policy) = (self.source()?, self.policy()?);
        let parallel = number("parallel", self.parallel, 1.0..=MAX_PARALLEL as f64)?;
        let parallel = parallel.map_or(PARALLEL, |parallel| parallel as usize);
        let is_given = self.files.is_object();
        Ok(Access { fetch: self.fetch(signal)?, source, cache, policy, parallel, is_given })
    }

    /// Whether it was asked for that nothing is kept.
    pub fn keeps_nothing(&self) -> bool {
        self.cache == JsValue::FALSE || self.files.is_object()
    }

    fn policy(&self) -> Result<CachePolicy> {
        let is = |option: Option<bool>| option.unwrap_or(false);
        match (is(self.local_files_only), is(self.force_download)) {
            (true, true) => {
                let message = "nothing can be fetched anew with `localFilesOnly`";
                Err(Error::argument("forceDownload", message))
            }
            (true, false) => Ok(CachePolicy::Only),
            (false, true) => Ok(CachePolicy::Refetch),
            (false, false) if self.resume_download == Some(false) => Ok(CachePolicy::WholeFiles),
            (false, false) => Ok(CachePolicy::Resume),
        }
    }

    /// Where the model is.
    fn source(&self) -> Result<ModelSource> {
        if self.files.is_object() {
            return Ok(ModelSource::Base(String::new()));
        }
        ModelSource::parse(
            self.model.as_deref().unwrap_or_default(),
            self.revision.as_deref(),
            self.endpoint.as_deref(),
            self.token.as_deref(),
        )
    }

    /// What reads from there.
    fn fetch(&self, signal: Option<AbortSignal>) -> Result<Box<dyn Fetch>> {
        let stall = match self.stall_timeout {
            None => STALL,
            Some(milliseconds) if (1.0..=1e9).contains(&milliseconds) => {
                Duration::from_secs_f64(milliseconds / 1e3)
            }
            Some(other) => {
                let message = format!("{other} is outside 1 to 1e9 milliseconds");
                return Err(Error::argument("stallTimeout", message));
            }
        };
        let custom = self.fetch.dyn_ref::<Function>().cloned();
        let network = BrowserFetch { signal, custom, stall };
        match self.files.dyn_ref::<Map>() {
            Some(files) => Ok(Box::new(BlobFetch { files: files.clone(), clock: network })),
            None => Ok(Box::new(network)),
        }
    }

    fn limit(&self) -> Result<Option<u64>> {
        number("cacheLimit", self.cache_limit, 0.0..=2f64.powi(53))
    }

    fn chunk_bytes(&self) -> Result<u64> {
        let largest = MAX_ENTRY_BYTES as f64;
        let chunk_bytes = number("rangeBytes", self.range_bytes, 4096.0..=largest)?;
        Ok(chunk_bytes.unwrap_or(CHUNK_BYTES).min(MAX_CHUNK_BYTES) / 64 * 64)
    }

    /// The cache, unless it is turned off, or why it cannot be had.
    async fn open_cache(&self, signal: Option<AbortSignal>) -> Result<Option<StoreResult<Cache>>> {
        let (limit, chunk_bytes) = (self.limit()?, self.chunk_bytes()?);
        if self.keeps_nothing() {
            return Ok(None);
        }
        let cache = open_cache(&self.cache, signal, limit).await;
        Ok(Some(cache.map(|cache| cache.with_chunk_bytes(chunk_bytes))))
    }
}

/// A number of an option, without what is behind its point.
fn number(name: &str, value: Option<f64>, range: RangeInclusive<f64>) -> Result<Option<u64>> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (least, most) = (range.start(), range.end());
            Err(Error::argument(name, format!("{value} is outside {least} to {most}")))
        }
        value => Ok(value.map(|value| value as u64)),
    }
}

/// A model within reach.
pub struct Access {
    fetch: Box<dyn Fetch>,
    source: ModelSource,
    cache: Option<Cache>,
    policy: CachePolicy,
    parallel: usize,
    is_given: bool,
}

impl Access {
    /// Whether files are stored, for later pages too.
    pub fn is_stored(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| !cache.is_in_memory())
    }

    /// Whether the user gave the files themselves, so that reading them again needs no network.
    pub fn is_given(&self) -> bool {
        self.is_given
    }

    /// Some of the model's files: configurations, or what lies beside it.
    pub async fn open_part<'a>(&'a self, notify: impl Fn(Notice) + 'a) -> Result<Repository<'a>> {
        let (source, cache) = (self.source.clone(), self.cache.as_ref());
        let open = Repository::open_part(&*self.fetch, source, cache, self.policy, notify);
        Ok(open.await?.with_parallel(self.parallel))
    }

    /// The model's files.
    pub async fn open<'a>(&'a self, notify: impl Fn(Notice) + 'a) -> Result<Repository<'a>> {
        let cache = self.cache.as_ref();
        let open = Repository::open(&*self.fetch, self.source.clone(), cache, self.policy, notify);
        Ok(open.await?.with_parallel(self.parallel))
    }
}

/// The user's own store where there is one, else the browser's database.
async fn open_cache(
    custom: &JsValue,
    signal: Option<AbortSignal>,
    limit: Option<u64>,
) -> StoreResult<Cache> {
    let is_in_browser = !custom.is_object();
    let store: Rc<dyn Store> = match is_in_browser {
        true => Rc::new(IndexedDb::open().await?),
        false => Rc::new(CustomStore(custom.clone())),
    };
    Cache::open(store, Rc::new(BrowserHost { signal, is_in_browser }), limit).await
}

/// A notice as an event.
pub fn notice_event(notice: Notice) -> Object {
    match notice {
        Notice::Warning { code, message } => object(&[
            ("type", "warning".into()),
            ("code", code.into()),
            ("message", message.into()),
        ]),
        Notice::Storage { needed, free } => object(&[
            ("type", "storage".into()),
            ("needed", (needed as f64).into()),
            ("free", free.map(|free| free as f64).into()),
        ]),
        Notice::Waiting => object(&[("type", "waiting".into())]),
    }
}

/// The user's own store.
struct CustomStore(JsValue);

impl CustomStore {
    async fn call(&self, method: &str, arguments: &Array) -> StoreResult<JsValue> {
        let called = async {
            let function: Function = Reflect::get(&self.0, &method.into())?.dyn_into()?;
            let answer = Reflect::apply(&function, &self.0, arguments)?;
            JsFuture::from(Promise::resolve(&answer)).await
        };
        called.await.map_err(|error| {
            let text = |key: &str| Reflect::get(&error, &key.into()).ok()?.as_string();
            if text("name").as_deref() == Some("QuotaExceededError") {
                return StoreError::Full;
            }
            let cause = text("message").unwrap_or_else(|| format!("{error:?}"));
            StoreError::Failed(format!("cache.{method}: {cause}"))
        })
    }
}

fn bytes_of(value: &JsValue) -> Option<Vec<u8>> {
    let is_bytes = value.is_instance_of::<ArrayBuffer>() || value.is_instance_of::<Uint8Array>();
    is_bytes.then(|| Uint8Array::new(value).to_vec())
}

impl Store for CustomStore {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        Box::pin(async move { Ok(bytes_of(&self.call("get", &Array::of1(&key.into())).await?)) })
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        let arguments = Array::of2(&key.into(), &Uint8Array::from(bytes).buffer());
        Box::pin(async move { self.call("put", &arguments).await.map(|_| ()) })
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        Box::pin(async move { self.call("delete", &Array::of1(&key.into())).await.map(|_| ()) })
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        Box::pin(async move {
            let keys = self.call("keys", &Array::new()).await?;
            let keys = js_sys::try_iter(&keys)
                .ok()
                .flatten()
                .ok_or_else(|| StoreError::Failed("cache.keys: it gave no list".into()))?;
            let mut keys: Vec<String> = keys.filter_map(|key| key.ok()?.as_string()).collect();
            keys.retain(|key| key.starts_with(prefix));
            keys.sort();
            Ok(keys)
        })
    }
}

/// Reads files that the user gave.
struct BlobFetch {
    files: Map,
    clock: BrowserFetch,
}

struct BlobBody(Option<Blob>, String);

/// Bytes read at once.
const PIECE_BYTES: f64 = 8_388_608.0;

impl Fetch for BlobFetch {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let url = request.url.trim_start_matches('/').to_owned();
            let path =
                js_sys::decode_uri_component(&url).map_or_else(|_| url.clone(), String::from);
            let file = self.files.get(&path.as_str().into());
            if !file.is_object() {
                return Err(Error::NotFound { url: path });
            }
            let file: Blob = file.unchecked_into();
            let total = file.size() as u64;
            let partial = request.range.is_some();
            let range = request.range.unwrap_or(0..total);
            let part = file.slice(range.start as f64, range.end.min(total) as f64);
            Ok(Response {
                total: Some(total),
                partial,
                start: Some(range.start),
                url: String::new(),
                content_type: None,
                validator: None,
                next: None,
                body: Box::new(BlobBody(Some(part), path)),
            })
        })
    }

    fn wait(&self, duration: Duration) -> LocalBoxFuture<'_, Result<()>> {
        self.clock.wait(duration)
    }

    fn check(&self) -> Result<()> {
        self.clock.check()
    }
}

impl Body for BlobBody {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async {
            let Some(blob) = self.0.take().filter(|blob| blob.size() > 0.0) else {
                return Ok(None);
            };
            let head = read_blob(&blob.slice(0.0, PIECE_BYTES)).await;
            self.0 = Some(blob.slice(PIECE_BYTES, blob.size()));
            let fail = |message| Error::Network { url: self.1.clone(), message };
            head.map(Some).map_err(fail)
        })
    }
}

async fn read_blob(blob: &Blob) -> std::result::Result<Vec<u8>, String> {
    match JsFuture::from(blob.array_buffer()).await {
        Ok(buffer) => Ok(Uint8Array::new(&buffer).to_vec()),
        Err(error) => {
            let message = Reflect::get(&error, &"message".into()).ok();
            Err(message.and_then(|m| m.as_string()).unwrap_or_else(|| format!("{error:?}")))
        }
    }
}

struct BlobArchive(Blob);

impl Archive for BlobArchive {
    fn size(&self) -> u64 {
        self.0.size() as u64
    }

    fn read(&self, start: u64, length: u64) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let part = self.0.slice(start as f64, (start + length) as f64);
            read_blob(&part).await.map_err(|message| Error::argument("file", message))
        })
    }
}

/// The models that are kept.
#[wasm_bindgen]
pub struct ModelCache(Cache);

#[wasm_bindgen]
impl ModelCache {
    /// Opens the browser's, or the user's own, of at most `limit` bytes.
    pub async fn open(store: JsValue, limit: Option<f64>) -> super::error::JsResult<ModelCache> {
        let limit = limit.map(|bytes| bytes as u64);
        Ok(Self(open_cache(&store, None, limit).await.map_err(Error::from)?))
    }

    /// What is there.
    pub async fn list(&self) -> super::error::JsResult<Array> {
        let models = self.0.list().await?;
        let model = |model: crate::cache::CachedModel| {
            object(&[
                ("model", model.model.into()),
                ("revision", model.commit.into()),
                ("bytes", (model.bytes as f64).into()),
                ("complete", model.complete.into()),
                ("lastUsed", model.used.into()),
            ])
        };
        Ok(models.into_iter().map(model).collect())
    }

    /// Removes a model; tells whether it was there.
    pub async fn delete(&self, model: &str) -> super::error::JsResult<bool> {
        Ok(self.0.delete(model).await?)
    }

    /// Removes everything.
    pub async fn clear(&self) -> super::error::JsResult<()> {
        Ok(self.0.clear().await?)
    }

    /// Writes a model as an archive, calling `write` with pieces of it.
    pub async fn export(&self, model: &str, write: Function) -> super::error::JsResult<()> {
        let mut write = |bytes: &[u8]| {
            // Only makes a blob, which does not throw.
            let _ = write.call1(&JsValue::UNDEFINED, &Uint8Array::from(bytes));
        };
        Ok(self.0.export(model, &mut write).await?)
    }

    /// Adds a model from an archive. Returns its name.
    pub async fn import(&self, file: Blob) -> super::error::JsResult<String> {
        Ok(self.0.import(&BlobArchive(file)).await?)
    }
}
