//! The browser's `fetch`, or the user's own in its place.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, ReadableStreamDefaultReader};
use web_time::Instant;

use super::{Body, Fetch, Request, Response, STALL};
use crate::error::{Error, Result};

#[wasm_bindgen]
extern "C" {
    // Looked up in the global scope, which is a window on a page and something else in a worker.
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(url: &str, init: &Object) -> Promise;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: f64) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);

    type AbortController;

    #[wasm_bindgen(constructor)]
    fn new() -> AbortController;

    #[wasm_bindgen(method)]
    fn abort(this: &AbortController);

    #[wasm_bindgen(method, getter)]
    fn signal(this: &AbortController) -> AbortSignal;

    #[wasm_bindgen(js_namespace = AbortSignal, js_name = any)]
    fn any_signal(signals: &Array) -> AbortSignal;
}

/// Ends a timer that nobody waits for any more.
struct Timer(JsValue);

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.0);
    }
}

/// Waits without blocking the thread.
pub async fn sleep(duration: Duration) {
    let mut timer = JsValue::UNDEFINED;
    let promise = Promise::new(&mut |resolve, _| {
        timer = set_timeout(&resolve, duration.as_millis() as f64);
    });
    let _timer = Timer(timer);
    // A promise that only resolves.
    let _ = JsFuture::from(promise).await;
}

/// Reads with `fetch` until `signal` aborts.
#[derive(Debug, Clone)]
pub struct BrowserFetch {
    /// Stops all requests.
    pub signal: Option<AbortSignal>,
    /// Called in place of the browser's `fetch`, with the same arguments.
    pub custom: Option<Function>,
    /// How long a connection may send nothing.
    pub stall: Duration,
}

impl BrowserFetch {
    /// The browser's `fetch`.
    pub fn new(signal: Option<AbortSignal>) -> Self {
        Self { signal, custom: None, stall: STALL }
    }
}

/// Ends its request when it is dropped: what is not read any more need not be sent any more.
struct Ender(AbortController);

impl Drop for Ender {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct StreamBody {
    reader: Option<ReadableStreamDefaultReader>,
    url: String,
    signal: Option<AbortSignal>,
    _ender: Ender,
}

impl Fetch for BrowserFetch {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(self.start(request))
    }

    fn wait(&self, duration: Duration) -> LocalBoxFuture<'_, Result<()>> {
        // In slices, so that an abort is seen soon. Timers of hidden pages come late: the clock counts.
        Box::pin(async move {
            const SLICE: Duration = Duration::from_millis(100);
            let start = Instant::now();
            loop {
                self.check()?;
                let left = duration.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Ok(());
                }
                sleep(left.min(SLICE)).await;
            }
        })
    }

    fn check(&self) -> Result<()> {
        match self.signal.as_ref().is_some_and(AbortSignal::aborted) {
            true => Err(Error::Aborted),
            false => Ok(()),
        }
    }

    fn stall(&self) -> Duration {
        self.stall
    }
}

impl BrowserFetch {
    async fn start(&self, request: Request) -> Result<Response> {
        self.check()?;
        let Request { url, range, token, no_store } = request;
        let fail = |cause: JsValue| failure(&self.signal, &url, &cause);
        let headers = Object::new();
        let set = |object: &Object, key: &str, value: &JsValue| {
            // Cannot fail: the objects are new and not frozen.
            let _ = Reflect::set(object, &key.into(), value);
        };
        if let Some(range) = &range {
            let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            set(&headers, "Range", &value.into());
        }
        if let Some(token) = token {
            set(&headers, "Authorization", &format!("Bearer {}", token.secret()).into());
        }
        let ender = Ender(AbortController::new());
        let signal = match &self.signal {
            Some(signal) => any_signal(&Array::of2(signal, &ender.0.signal())),
            None => ender.0.signal(),
        };
        let init = Object::new();
        set(&init, "headers", &headers);
        set(&init, "signal", &signal);
        if no_store {
            set(&init, "cache", &"no-store".into());
        }
        let promise = match &self.custom {
            Some(custom) => {
                let answer = custom.call2(&JsValue::UNDEFINED, &(&url).into(), &init);
                Promise::resolve(&answer.map_err(fail)?)
            }
            None => global_fetch(&url, &init),
        };
        let response = JsFuture::from(promise).await.map_err(fail)?;
        // Of another frame's class, perhaps, when it is the user's.
        let response: web_sys::Response = response.unchecked_into();
        let header = |name| response.headers().get(name).ok().flatten();
        match response.status() {
            404 => return Err(Error::NotFound { url }),
            status if !response.ok() => {
                let retry_after = header("Retry-After").and_then(|value| retry_after(&value));
                return Err(Error::HttpStatus { url, status, retry_after });
            }
            _ => {}
        }
        let partial = response.status() == 206;
        let content_range = header("Content-Range");
        let content_range = content_range.as_deref().and_then(parse_content_range);
        let (start, total) = match (partial, content_range) {
            (true, Some((start, total))) => (Some(start), total),
            (true, None) => (None, None),
            (false, _) => (None, header("Content-Length").and_then(|value| value.parse().ok())),
        };
        let reader = response.body().map(|body| body.get_reader().unchecked_into());
        Ok(Response {
            total,
            partial,
            start,
            url: response.url(),
            content_type: header("Content-Type"),
            // `Last-Modified` may be read from other origins, too, which `ETag` needs leave for.
            validator: header("ETag").or_else(|| header("Last-Modified")),
            next: header("Link").as_deref().and_then(next_link),
            body: Box::new(StreamBody { reader, url, signal: self.signal.clone(), _ender: ender }),
        })
    }
}

/// `bytes 0-9/100`: the first byte and the whole length, which may be `*`.
fn parse_content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.rsplit_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Seconds, or a date.
fn retry_after(value: &str) -> Option<f64> {
    let seconds = value.trim().parse().ok();
    seconds.or_else(|| {
        let date = js_sys::Date::parse(value);
        (!date.is_nan()).then(|| (date - js_sys::Date::now()) / 1e3)
    })
}

/// `<https://…>; rel="next"`.
fn next_link(value: &str) -> Option<String> {
    value.split(',').find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then(|| url.to_owned())
    })
}

impl Body for StreamBody {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async {
            let Some(reader) = &self.reader else { return Ok(None) };
            let fail = |cause: JsValue| failure(&self.signal, &self.url, &cause);
            let result = JsFuture::from(reader.read()).await.map_err(fail)?;
            let done = Reflect::get(&result, &"done".into()).map_err(fail)?;
            if done.is_truthy() {
                self.reader = None;
                return Ok(None);
            }
            let value = Reflect::get(&result, &"value".into()).map_err(fail)?;
            Ok(Some(Uint8Array::new(&value).to_vec()))
        })
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The promise rejects when the connection has broken off, which nobody needs to hear.
            let _ = Promise::all_settled(&Array::of1(&reader.cancel()));
        }
    }
}

fn failure(signal: &Option<AbortSignal>, url: &str, cause: &JsValue) -> Error {
    if signal.as_ref().is_some_and(AbortSignal::aborted) {
        return Error::Aborted;
    }
    let message = Reflect::get(cause, &"message".into()).ok().and_then(|m| m.as_string());
    Error::Network { url: url.to_owned(), message: message.unwrap_or_else(|| format!("{cause:?}")) }
}
