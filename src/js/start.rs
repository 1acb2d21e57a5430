//! What runs once, before anything else.
#![expect(unsafe_code, reason = "only a foreign function names the constructors")]

use wasm_bindgen::prelude::wasm_bindgen;

unsafe extern "C" {
    /// Registers the types of Burn's compiler. The linker makes it.
    fn __wasm_call_ctors();
}

#[wasm_bindgen(start)]
fn start() {
    // A linker that sees nobody call them puts a call into every function that JavaScript calls, down
    // to the allocator's: they would run at every call between the two, milliseconds each time, and
    // what they register would pile up.
    // SAFETY: they take and return nothing, and nothing has called them before.
    unsafe { __wasm_call_ctors() };
    console_error_panic_hook::set_once();
}
