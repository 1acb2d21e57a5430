//! The GPU device as a browser gives it, and as it goes.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use js_sys::Function;
use wasm_bindgen::prelude::*;

use super::error::JsError;
use crate::device::{Failure, Gpu, Health, is_software};
use crate::error::{Error, Result};
use crate::hub::sleep;

/// How often an adapter is asked for before the browser is believed that it has none.
const ADAPTER_ATTEMPTS: u32 = 10;

/// Between those, milliseconds.
const ADAPTER_PAUSE: Duration = Duration::from_millis(500);

/// How long a browser may take to tell that a device is lost whose work has failed.
const NEWS_OF_LOSS: Duration = Duration::from_millis(500);

/// Asks the browser for a device, more than once: the first adapter may come late.
///
/// # Errors
/// [`Error::InsecureContext`], [`Error::NoWebGpu`]; what [`Gpu::request`] says.
pub async fn request_gpu() -> Result<Gpu> {
    let get = |object: &JsValue, key: &str| js_sys::Reflect::get(object, &key.into());
    let global = js_sys::global();
    if get(&global, "isSecureContext").is_ok_and(|secure| secure == JsValue::FALSE) {
        return Err(Error::InsecureContext);
    }
    let gpu = get(&global, "navigator").and_then(|navigator| get(&navigator, "gpu"));
    let Some(webgpu) = gpu.ok().filter(JsValue::is_truthy) else {
        return Err(Error::NoWebGpu);
    };
    let mut attempt = 1;
    loop {
        match Gpu::request().await {
            Err(_) if attempt < ADAPTER_ATTEMPTS => sleep(ADAPTER_PAUSE).await,
            Err(error) => return Err(error),
            Ok(mut gpu) => {
                if gpu.name.is_empty() {
                    gpu.name = adapter_name(&webgpu).await.unwrap_or_default();
                    gpu.software |= is_software(&gpu.name);
                }
                return Ok(gpu);
            }
        }
        attempt += 1;
    }
}

/// Vendor and architecture of the adapter. Browsers keep the description, which is all that wgpu
/// passes on, to themselves.
async fn adapter_name(webgpu: &JsValue) -> Option<String> {
    let get = |object: &JsValue, key: &str| js_sys::Reflect::get(object, &key.into()).ok();
    let request: Function = get(webgpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: js_sys::Promise = request.call0(webgpu).ok()?.dyn_into().ok()?;
    let adapter = wasm_bindgen_futures::JsFuture::from(promise).await.ok()?;
    let info = get(&adapter, "info")?;
    let parts = ["vendor", "architecture"].map(|key| get(&info, key)?.as_string());
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    Some(parts.join(" "))
}

/// Calls `on_lost` with an error when the device ends, but for too little memory while that `is_retried`.
pub fn watch(
    health: Health,
    on_lost: Option<Function>,
    asked: &'static str,
    is_retried: Rc<Cell<bool>>,
) {
    let Some(on_lost) = on_lost else { return };
    wasm_bindgen_futures::spawn_local(async move {
        // Nothing when the device was given back.
        let Some(failure) = health.ended().await else { return };
        if failure == Failure::OutOfMemory && is_retried.get() {
            return;
        }
        let error: JsValue = JsError::from(ended(failure, &|| asked.into())).into();
        // The package's own function, which does not throw.
        let _ = on_lost.call1(&JsValue::UNDEFINED, &error);
    });
}

/// Does something that needs the device, and ends with it. `asked` says what was asked for and what
/// smaller choice there is.
pub async fn on_device<T>(
    health: &Health,
    work: Pin<Box<impl Future<Output = Result<T>> + ?Sized>>,
    asked: impl Fn() -> String,
) -> Result<T> {
    // Boxed, because the futures are large and the stack of wasm is small.
    let result = match select(work, pin!(health.ended())).await {
        Either::Left((result, _)) => Some(result),
        Either::Right((_, work)) => {
            // Before what it holds is given back.
            let failure = health.failure().map(|failure| ended(failure, &asked));
            drop(work);
            if let Some(failure) = failure {
                return Err(failure);
            }
            None
        }
    };
    // An error may come before the news of the loss that it is owed to.
    if matches!(result, Some(Err(Error::Gpu { .. }))) {
        let _ = select(pin!(health.ended()), pin!(sleep(NEWS_OF_LOSS))).await;
    }
    match (health.failure(), result) {
        // What was computed since is worth nothing.
        (Some(failure), _) => Err(ended(failure, &asked)),
        (None, Some(result)) => result,
        (None, None) => Err(Error::DeviceLost { message: "for no reason given".into() }),
    }
}

/// `asked` is called while the device is there.
fn ended(failure: Failure, asked: &dyn Fn() -> String) -> Error {
    match failure {
        Failure::Lost(message) => Error::DeviceLost { message },
        Failure::OutOfMemory => Error::OutOfMemory { message: format!("asked for: {}", asked()) },
    }
}
