//! A model on its way to where JavaScript writes it.

use futures_util::future::LocalBoxFuture;
use js_sys::{Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::error::{Error, Result};
use crate::pipeline::Sink;

#[wasm_bindgen]
extern "C" {
    /// The package's own writer.
    #[derive(Debug, Clone)]
    pub type JsSink;
    #[wasm_bindgen(method)]
    fn create(this: &JsSink, path: &str) -> Promise;
    #[wasm_bindgen(method)]
    fn write(this: &JsSink, bytes: &Uint8Array) -> Promise;
    #[wasm_bindgen(method)]
    fn close(this: &JsSink) -> Promise;
}

/// Writes with a [`JsSink`].
pub struct Writer(pub JsSink);

async fn done(promise: Promise) -> Result<()> {
    let result = JsFuture::from(promise).await;
    result.map(|_| ()).map_err(|error| {
        let message = Reflect::get(&error, &"message".into()).ok().and_then(|m| m.as_string());
        Error::argument("directory", message.unwrap_or_else(|| format!("{error:?}")))
    })
}

impl Sink for Writer {
    fn create<'a>(&'a mut self, path: &'a str) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(done(self.0.create(path)))
    }

    fn write(&mut self, bytes: Vec<u8>) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(done(self.0.write(&Uint8Array::from(bytes.as_slice()))))
    }

    fn close(&mut self) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(done(self.0.close()))
    }
}
