//! An edit followed by a JavaScript callback and an `AbortSignal`.

use std::ops::ControlFlow;

use js_sys::Function;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;
use web_time::Instant;

use super::convert::{call, object};
use crate::pipeline::{Observer, Step};

/// Calls back after each step.
pub struct JsObserver {
    on_step: Option<Function>,
    signal: Option<AbortSignal>,
    start: Instant,
}

impl JsObserver {
    /// Starts the clock.
    pub fn new(on_step: Option<Function>, signal: Option<AbortSignal>) -> Self {
        Self { on_step, signal, start: Instant::now() }
    }
}

impl Observer for JsObserver {
    fn is_cancelled(&self) -> bool {
        self.signal.as_ref().is_some_and(AbortSignal::aborted)
    }

    fn step(&mut self, step: Step) -> ControlFlow<()> {
        let Some(callback) = &self.on_step else { return ControlFlow::Continue(()) };
        let event = object(&[
            ("step", (step.index as f64).into()),
            ("steps", (step.count as f64).into()),
            ("timestep", step.timestep.into()),
            ("elapsed", (self.start.elapsed().as_secs_f64() * 1e3).into()),
        ]);
        match call(callback, event) {
            Some(value) if value == JsValue::FALSE => ControlFlow::Break(()),
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        }
    }
}
