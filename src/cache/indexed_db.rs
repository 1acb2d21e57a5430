//! The browser's own storage: IndexedDB, Web Locks, and what is said about room.
//!
//! The crates for IndexedDB that are kept up, `idb` 0.6.5 and `indexed_db_futures` 0.6.4, were read,
//! and not built with. Both tell when a database is closed or deleted underneath (`close`,
//! `versionchange`), and both leave it to their user to connect anew then. The five calls that are
//! needed here are made directly, because
//! - `indexed_db_futures` aborts a transaction that is dropped before its end: a load that is stopped
//!   would lose the chunks that it is storing. Here a write that has begun goes on without its future.
//! - They turn on features of `web-sys` that nothing else here needs, 13 and 19 of them. wgpu uses
//!   `web-sys` too, so that all of Burn is built once more for them.
//! - `indexed_db_futures` brings tokio and six crates more.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, ArrayBuffer, Date, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;

use super::{Alone, Host, Store, StoreError, StoreResult};
use crate::error::{Error, Result};

/// The database's name.
const DATABASE: &str = "instruct-pix2pix-web";

/// The only object store of it. What the entries look like has a version of its own.
const ENTRIES: &str = "entries";

#[wasm_bindgen]
extern "C" {
    type Factory;
    #[wasm_bindgen(method, catch)]
    fn open(this: &Factory, name: &str, version: u32) -> Result<Request, JsValue>;

    type Request;
    #[wasm_bindgen(method, getter)]
    fn result(this: &Request) -> JsValue;
    #[wasm_bindgen(method, getter)]
    fn error(this: &Request) -> JsValue;
    #[wasm_bindgen(method, setter)]
    fn set_onsuccess(this: &Request, handler: &Function);
    #[wasm_bindgen(method, setter)]
    fn set_onerror(this: &Request, handler: &Function);
    #[wasm_bindgen(method, setter)]
    fn set_onupgradeneeded(this: &Request, handler: &JsValue);

    type Database;
    #[wasm_bindgen(method, catch, js_name = createObjectStore)]
    fn create_object_store(this: &Database, name: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn transaction(this: &Database, name: &str, mode: &str) -> Result<Transaction, JsValue>;
    #[wasm_bindgen(method)]
    fn close(this: &Database);
    #[wasm_bindgen(method, setter)]
    fn set_onversionchange(this: &Database, handler: &JsValue);
    #[wasm_bindgen(method, setter)]
    fn set_onclose(this: &Database, handler: &JsValue);

    type Transaction;
    #[wasm_bindgen(method, catch, js_name = objectStore)]
    fn object_store(this: &Transaction, name: &str) -> Result<ObjectStore, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn error(this: &Transaction) -> JsValue;
    #[wasm_bindgen(method, setter)]
    fn set_oncomplete(this: &Transaction, handler: &Function);
    #[wasm_bindgen(method, setter)]
    fn set_onabort(this: &Transaction, handler: &Function);

    type ObjectStore;
    #[wasm_bindgen(method, catch)]
    fn get(this: &ObjectStore, key: &str) -> Result<Request, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn put(this: &ObjectStore, value: &ArrayBuffer, key: &str) -> Result<Request, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn delete(this: &ObjectStore, key: &str) -> Result<Request, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getAllKeys)]
    fn get_all_keys(this: &ObjectStore, range: &JsValue) -> Result<Request, JsValue>;

    #[wasm_bindgen(catch, js_namespace = IDBKeyRange, js_name = bound)]
    fn key_range(lower: &str, upper: &str) -> Result<JsValue, JsValue>;

    type LockManager;
    #[wasm_bindgen(method)]
    fn request(this: &LockManager, name: &str, options: &Object, callback: &JsValue) -> Promise;
}

/// The database of this origin.
pub struct IndexedDb {
    connection: RefCell<Option<Connection>>,
}

/// An open database, and what closes it when it is deleted or changed elsewhere.
struct Connection {
    database: Rc<Database>,
    closed: Rc<Cell<bool>>,
    _on_close: Closure<dyn FnMut()>,
}

impl Connection {
    fn new(database: Database) -> Self {
        let database = Rc::new(database);
        let closed = Rc::new(Cell::new(false));
        let on_close = {
            let (database, closed) = (database.clone(), closed.clone());
            Closure::<dyn FnMut()>::new(move || {
                closed.set(true);
                database.close();
            })
        };
        // Who deletes the database waits for all connections to end.
        database.set_onversionchange(on_close.as_ref());
        database.set_onclose(on_close.as_ref());
        Self { database, closed, _on_close: on_close }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.database.set_onversionchange(&JsValue::NULL);
        self.database.set_onclose(&JsValue::NULL);
        self.database.close();
    }
}

impl IndexedDb {
    /// Opens the database, making it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where the browser has no database, or gives none to this page.
    pub async fn open() -> StoreResult<Self> {
        let this = Self { connection: RefCell::default() };
        this.database().await.map_err(|error| failure(&error))?;
        Ok(this)
    }

    /// The connection's database, while it is open.
    fn connected(&self) -> Option<Rc<Database>> {
        let connection = self.connection.borrow();
        let open = connection.as_ref().filter(|connection| !connection.closed.get())?;
        Some(open.database.clone())
    }

    /// Lets go of a database that was closed underneath, unless another took its place already.
    fn forget(&self, database: &Rc<Database>) {
        let is_it = |connection: &Connection| Rc::ptr_eq(&connection.database, database);
        if self.connection.borrow().as_ref().is_some_and(is_it) {
            self.connection.take();
        }
    }

    async fn database(&self) -> Result<Rc<Database>, JsValue> {
        if let Some(database) = self.connected() {
            return Ok(database);
        }
        let factory = Reflect::get(&js_sys::global(), &"indexedDB".into())?;
        if !factory.is_object() {
            return Err(js_sys::Error::new("this browser has no IndexedDB here").into());
        }
        let request = factory.unchecked_into::<Factory>().open(DATABASE, 1)?;
        let upgraded = request.clone().unchecked_into::<Request>();
        request.set_onupgradeneeded(&Closure::once_into_js(move || {
            let database: Database = upgraded.result().unchecked_into();
            // Fails when the transaction does, which the request's error tells.
            let _ = database.create_object_store(ENTRIES);
        }));
        let connection = Connection::new(settle(&request).await?.unchecked_into());
        // Somebody else may have been as fast; one connection is enough.
        if let Some(database) = self.connected() {
            return Ok(database);
        }
        let database = connection.database.clone();
        self.connection.replace(Some(connection));
        Ok(database)
    }

    /// Does something with the database; once more with a new connection when it was closed
    /// underneath.
    async fn attempt<T>(
        &self,
        operation: impl AsyncFn(&Database) -> Result<T, JsValue>,
    ) -> StoreResult<T> {
        let mut again = true;
        loop {
            let database = self.database().await.map_err(|error| failure(&error))?;
            match operation(&database).await {
                Ok(value) => return Ok(value),
                Err(error) if again && is_closed(&error) => {
                    again = false;
                    self.forget(&database);
                }
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    async fn write(
        &self,
        change: impl Fn(&ObjectStore) -> Result<Request, JsValue>,
    ) -> StoreResult<()> {
        self.attempt(async |database| {
            let transaction = database.transaction(ENTRIES, "readwrite")?;
            let done = Promise::new(&mut |resolve, reject| {
                transaction.set_oncomplete(&resolve);
                transaction.set_onabort(&reject);
            });
            let done = JsFuture::from(done);
            change(&transaction.object_store(ENTRIES)?)?;
            done.await.map(|_| ()).map_err(|_| transaction.error())
        })
        .await
    }

    async fn read(
        &self,
        ask: impl Fn(&ObjectStore) -> Result<Request, JsValue>,
    ) -> StoreResult<JsValue> {
        self.attempt(async |database| {
            let transaction = database.transaction(ENTRIES, "readonly")?;
            settle(&ask(&transaction.object_store(ENTRIES)?)?).await
        })
        .await
    }
}

impl Store for IndexedDb {
    fn get<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<Option<Vec<u8>>>> {
        Box::pin(async move {
            let value = self.read(|store| store.get(key)).await?;
            Ok(value.dyn_ref::<ArrayBuffer>().map(|buffer| Uint8Array::new(buffer).to_vec()))
        })
    }

    fn put<'a>(&'a self, key: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, StoreResult<()>> {
        // A buffer of its own, of exactly these bytes.
        let buffer = Uint8Array::from(bytes).buffer();
        Box::pin(async move { self.write(|store| store.put(&buffer, key)).await })
    }

    fn delete<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, StoreResult<()>> {
        Box::pin(self.write(move |store| store.delete(key)))
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> LocalBoxFuture<'a, StoreResult<Vec<String>>> {
        Box::pin(async move {
            let end = format!("{prefix}\u{ffff}");
            let keys = self.read(|store| store.get_all_keys(&key_range(prefix, &end)?)).await?;
            Ok(Array::from(&keys).iter().filter_map(|key| key.as_string()).collect())
        })
    }
}

async fn settle(request: &Request) -> Result<JsValue, JsValue> {
    let settled = Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(&resolve);
        request.set_onerror(&reject);
    });
    match JsFuture::from(settled).await {
        Ok(_) => Ok(request.result()),
        Err(_) => Err(request.error()),
    }
}

fn text(error: &JsValue, key: &str) -> String {
    Reflect::get(error, &key.into()).ok().and_then(|value| value.as_string()).unwrap_or_default()
}

fn is_closed(error: &JsValue) -> bool {
    let names = ["InvalidStateError", "AbortError", "NotFoundError", "UnknownError"];
    error.is_null() || names.contains(&text(error, "name").as_str())
}

fn failure(error: &JsValue) -> StoreError {
    let name = text(error, "name");
    if name == "QuotaExceededError" {
        return StoreError::Full;
    }
    let message = text(error, "message");
    StoreError::Failed(if message.is_empty() { name } else { format!("{name}: {message}") })
}

/// The browser around the cache.
#[derive(Debug, Clone, Default)]
pub struct BrowserHost {
    /// Ends waiting.
    pub signal: Option<AbortSignal>,
    /// Whether the cache lies in the browser's own room, and not in a store of the user's.
    pub is_in_browser: bool,
}

/// A Web Lock, until it is dropped.
struct Held(Function);

impl Drop for Held {
    fn drop(&mut self) {
        // The function of a promise, which does not throw.
        let _ = self.0.call0(&JsValue::UNDEFINED);
    }
}

impl Host for BrowserHost {
    fn now(&self) -> f64 {
        Date::now()
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        exclusive: bool,
        on_wait: &'a dyn Fn(),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Any>>> {
        Box::pin(async move {
            // Where there are no locks, tabs may download the same bytes twice: no more than that.
            let Some(locks) = navigator("locks") else { return Ok(Box::new(()) as Box<dyn Any>) };
            let mode = if exclusive { "exclusive" } else { "shared" };
            if let Ok(Some(held)) = at_once(&locks, name, mode).await {
                return Ok(Box::new(held) as Box<dyn Any>);
            }
            on_wait();
            let waiting = options(&[("mode", mode.into())]);
            if let Some(signal) = &self.signal {
                // Cannot fail: the object is new and not frozen.
                let _ = Reflect::set(&waiting, &"signal".into(), signal);
            }
            match acquire(&locks, name, &waiting).await {
                Ok(held) => Ok(Box::new(held) as Box<dyn Any>),
                Err(_) if self.signal.as_ref().is_some_and(AbortSignal::aborted) => {
                    Err(Error::Aborted)
                }
                Err(_) => Ok(Box::new(()) as Box<dyn Any>),
            }
        })
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Option<Box<dyn Any>>> {
        Box::pin(async move {
            // Where there are no locks, nobody can have it.
            let Some(locks) = navigator("locks") else { return Some(Box::new(()) as Box<dyn Any>) };
            match at_once(&locks, name, "exclusive").await {
                Ok(held) => held.map(|held| Box::new(held) as Box<dyn Any>),
                Err(_) => Some(Box::new(()) as Box<dyn Any>),
            }
        })
    }

    fn free(&self) -> LocalBoxFuture<'_, Option<u64>> {
        Box::pin(async {
            let storage = navigator("storage").filter(|_| self.is_in_browser)?;
            let estimate: Function = property(&storage, "estimate")?.dyn_into().ok()?;
            let promise: Promise = estimate.call0(&storage).ok()?.dyn_into().ok()?;
            let estimate = JsFuture::from(promise).await.ok()?;
            let number = |key| property(&estimate, key)?.as_f64();
            Some((number("quota")? - number("usage")?).max(0.0) as u64)
        })
    }
}

/// The browser around a cache that other tabs do not see: none has to wait for another one.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageHost;

impl Host for PageHost {
    fn now(&self) -> f64 {
        Date::now()
    }

    fn lock<'a>(
        &'a self,
        name: &'a str,
        exclusive: bool,
        on_wait: &'a dyn Fn(),
    ) -> LocalBoxFuture<'a, Result<Box<dyn Any>>> {
        Alone.lock(name, exclusive, on_wait)
    }

    fn try_lock<'a>(&'a self, name: &'a str) -> LocalBoxFuture<'a, Option<Box<dyn Any>>> {
        Alone.try_lock(name)
    }

    fn free(&self) -> LocalBoxFuture<'_, Option<u64>> {
        Alone.free()
    }
}

fn property(object: &JsValue, key: &str) -> Option<JsValue> {
    let value = Reflect::get(object, &key.into()).ok()?;
    (!value.is_undefined() && !value.is_null()).then_some(value)
}

fn navigator(key: &str) -> Option<JsValue> {
    property(&property(&js_sys::global(), "navigator")?, key)
}

fn options(entries: &[(&str, JsValue)]) -> Object {
    let object = Object::new();
    for (key, value) in entries {
        // Cannot fail: the object is new and not frozen.
        let _ = Reflect::set(&object, &(*key).into(), value);
    }
    object
}

/// A lock, if it is available.
async fn at_once(locks: &JsValue, name: &str, mode: &str) -> Result<Option<Held>, JsValue> {
    let options = options(&[("mode", mode.into()), ("ifAvailable", true.into())]);
    acquire(locks, name, &options).await
}

/// Asks for a lock; `None` when it is not available and `ifAvailable` is set.
async fn acquire(locks: &JsValue, name: &str, options: &Object) -> Result<Option<Held>, JsValue> {
    let granted = Promise::new(&mut |resolve, reject| {
        let callback = Closure::once_into_js(move |lock: JsValue| -> JsValue {
            let answer = |value: &JsValue| {
                // The function of a promise, which does not throw.
                let _ = resolve.call1(&JsValue::UNDEFINED, value);
            };
            if lock.is_null() {
                answer(&JsValue::NULL);
                return JsValue::UNDEFINED;
            }
            // The lock is held until this promise is settled.
            Promise::new(&mut |release, _| answer(&release)).into()
        });
        let locks: &LockManager = locks.unchecked_ref();
        let outcome = locks.request(name, options, &callback);
        if let Some(then) = property(&outcome, "then").and_then(|f| f.dyn_into::<Function>().ok()) {
            // A promise's own method, which does not throw.
            let _ = then.call2(&outcome, &JsValue::UNDEFINED, &reject);
        }
    });
    let release = JsFuture::from(granted).await?;
    Ok(release.dyn_into::<Function>().ok().map(Held))
}
