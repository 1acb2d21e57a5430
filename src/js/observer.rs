//! An edit followed by JavaScript callbacks and an `AbortSignal`.

use std::ops::ControlFlow;

use futures_util::future::LocalBoxFuture;
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::AbortSignal;
use web_time::Instant;

use super::convert::{self, object};
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::pipeline::{CONTINUE, Observer, Step, StepTensorNames, StepTensors};

/// Calls back after each step, and with the pictures to be judged.
pub struct JsObserver {
    on_step: Option<Function>,
    judge: Option<Function>,
    signal: Option<AbortSignal>,
    tensor_inputs: StepTensorNames,
    start: Instant,
    /// What was warned of.
    pub warnings: Vec<String>,
    /// Why the edit was stopped, where that was the callback's mistake.
    pub error: Option<Error>,
}

impl JsObserver {
    /// Starts the clock.
    pub fn new(
        on_step: Option<Function>,
        judge: Option<Function>,
        signal: Option<AbortSignal>,
        tensor_inputs: StepTensorNames,
    ) -> Self {
        let (start, warnings) = (Instant::now(), Vec::new());
        Self { on_step, judge, signal, tensor_inputs, start, warnings, error: None }
    }
}

impl Observer for JsObserver {
    fn is_cancelled(&self) -> bool {
        self.signal.as_ref().is_some_and(AbortSignal::aborted)
    }

    fn tensor_inputs(&self) -> StepTensorNames {
        match self.on_step {
            Some(_) => self.tensor_inputs,
            None => StepTensorNames::default(),
        }
    }

    fn step<'a>(
        &'a mut self,
        step: Step,
        tensors: StepTensors,
    ) -> LocalBoxFuture<'a, ControlFlow<(), StepTensors>> {
        Box::pin(async move {
            let Some(callback) = &self.on_step else { return CONTINUE };
            let event = object(&[
                ("step", (step.index as f64).into()),
                ("steps", (step.count as f64).into()),
                ("timestep", step.timestep.into()),
                ("inferenceStep", step.inference_step.map(|index| index as f64).into()),
                ("elapsed", (self.start.elapsed().as_secs_f64() * 1e3).into()),
            ]);
            let tensors = [
                ("latents", tensors.latents.as_ref().map(convert::tensor)),
                ("promptEmbeds", tensors.prompt_embeds.as_ref().map(convert::tensor)),
                ("imageLatents", tensors.image_latents.as_ref().map(convert::tensor)),
            ];
            for (key, tensor) in tensors {
                if let Some(tensor) = tensor {
                    // Cannot fail: the object is new and not frozen.
                    let _ = Reflect::set(&event, &key.into(), &tensor);
                }
            }
            match ask(callback, &event).await {
                Ok(value) if value != JsValue::FALSE => match convert::step_tensors(&value) {
                    Ok(changed) => ControlFlow::Continue(changed),
                    Err(error) => {
                        self.error = Some(error);
                        ControlFlow::Break(())
                    }
                },
                _ => ControlFlow::Break(()),
            }
        })
    }

    fn judge<'a>(
        &'a mut self,
        images: &'a [RgbImage],
    ) -> LocalBoxFuture<'a, Option<Result<Vec<bool>>>> {
        Box::pin(async move {
            let callback = self.judge.as_ref()?;
            let invalid =
                || Error::argument("safetyChecker", "it must return a boolean for each picture");
            let pictures: Object = object(&[("images", convert::pictures(images).into())]);
            let Ok(value) = ask(callback, &pictures).await else {
                return Some(Err(Error::Aborted));
            };
            let flags = value.dyn_ref::<Array>().and_then(|flags| {
                flags.iter().map(|flag| flag.as_bool()).collect::<Option<Vec<bool>>>()
            });
            Some(flags.filter(|flags| flags.len() == images.len()).ok_or_else(invalid))
        })
    }

    fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }
}

/// What `callback` answers, now or later.
async fn ask(callback: &Function, event: &Object) -> std::result::Result<JsValue, JsValue> {
    let answer = callback.call1(&JsValue::UNDEFINED, event)?;
    JsFuture::from(Promise::resolve(&answer)).await
}
