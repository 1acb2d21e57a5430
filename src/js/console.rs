//! The `log` crate's records on the browser's console.

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn error(message: &str);
    #[wasm_bindgen(js_namespace = console)]
    fn warn(message: &str);
    #[wasm_bindgen(js_namespace = console)]
    fn info(message: &str);
    #[wasm_bindgen(js_namespace = console)]
    fn debug(message: &str);
}

struct Console;

impl Log for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries have to say is for those who look for a fault.
        metadata.target().starts_with("instruct_pix2pix") || ::log::max_level() == Level::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = format!("instruct-pix2pix-web: {}", record.args());
        match record.level() {
            Level::Error => error(&message),
            Level::Warn => warn(&message),
            Level::Info => info(&message),
            Level::Debug | Level::Trace => debug(&message),
        }
    }

    fn flush(&self) {}
}

/// How talkative the console is to be: 0 is silent, 1 shows errors, 2 warnings too, then information
/// and what helps to find a fault.
#[wasm_bindgen(js_name = setLogLevel)]
pub fn set_log_level(level: usize) {
    // Fails where it was called before, and then the logger is there already.
    let _ = ::log::set_logger(&Console);
    let levels = [LevelFilter::Off, LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info];
    ::log::set_max_level(levels.get(level).copied().unwrap_or(LevelFilter::Debug));
}
