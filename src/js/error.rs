//! Errors as JavaScript's.

use js_sys::Reflect;
use wasm_bindgen::prelude::*;

use crate::error::Error;

/// A result that becomes a JavaScript exception.
pub type JsResult<T> = std::result::Result<T, JsError>;

/// An [`Error`] on its way out: a JavaScript `Error` with `name`, `code` and `retryable`.
#[derive(Debug)]
pub struct JsError(Error);

impl From<Error> for JsError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<JsError> for JsValue {
    fn from(JsError(error): JsError) -> Self {
        let value: JsValue = js_sys::Error::new(&error.to_string()).into();
        let properties: [(&str, JsValue); 3] = [
            ("name", "InstructPix2PixError".into()),
            ("code", error.code().into()),
            ("retryable", error.is_retryable().into()),
        ];
        for (key, property) in properties {
            // Cannot fail: the object was made above and is not frozen.
            let _ = Reflect::set(&value, &key.into(), &property);
        }
        value
    }
}
