//! The browser's `fetch`.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use js_sys::{Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit};

use super::{Body, Fetch, Request, Response};
use crate::error::{Error, Result};

#[wasm_bindgen]
extern "C" {
    // Looked up in the global scope, which is a window on a page and something else in a worker.
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(url: &str, init: &RequestInit) -> Promise;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, milliseconds: i32) -> JsValue;
}

/// Waits without blocking the thread.
pub async fn sleep(duration: Duration) {
    let promise = Promise::new(&mut |resolve, _| {
        set_timeout(&resolve, duration.as_millis() as i32);
    });
    // A promise that only resolves.
    let _ = JsFuture::from(promise).await;
}

/// Reads with `fetch` until `signal` aborts.
#[derive(Debug, Clone)]
pub struct BrowserFetch {
    /// Stops all requests.
    pub signal: Option<AbortSignal>,
}

struct StreamBody {
    reader: Option<ReadableStreamDefaultReader>,
    url: String,
    signal: Option<AbortSignal>,
}

impl Fetch for BrowserFetch {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(self.start(request))
    }

    fn wait(&self, duration: Duration) -> LocalBoxFuture<'_, ()> {
        Box::pin(sleep(duration))
    }
}

impl BrowserFetch {
    async fn start(&self, request: Request) -> Result<Response> {
        let Request { url, range, token } = request;
        let fail = |cause: JsValue| failure(&self.signal, &url, &cause);
        let headers = Headers::new().map_err(fail)?;
        if let Some(range) = range {
            let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            headers.set("Range", &value).map_err(fail)?;
        }
        if let Some(token) = token {
            headers.set("Authorization", &format!("Bearer {token}")).map_err(fail)?;
        }
        let init = RequestInit::new();
        init.set_headers(&headers);
        init.set_signal(self.signal.as_ref());
        let response = JsFuture::from(global_fetch(&url, &init)).await.map_err(fail)?;
        let response: web_sys::Response = response.dyn_into().map_err(fail)?;
        match response.status() {
            404 => return Err(Error::NotFound { url }),
            status if !response.ok() => return Err(Error::HttpStatus { url, status }),
            _ => {}
        }
        let header = |name| response.headers().get(name).ok().flatten();
        let partial = response.status() == 206;
        let total = if partial {
            header("Content-Range").and_then(|value| value.rsplit_once('/')?.1.parse().ok())
        } else {
            header("Content-Length").and_then(|value| value.parse().ok())
        };
        let reader = response.body().map(|body| body.get_reader().unchecked_into());
        let body = StreamBody { reader, url, signal: self.signal.clone() };
        Ok(Response { total, partial, body: Box::new(body) })
    }
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
        // What is not read any more need not be sent any more.
        if let Some(reader) = self.reader.take() {
            let _ = reader.cancel();
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
