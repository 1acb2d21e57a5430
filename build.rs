//! Linking for browsers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        // A megabyte is the default. Futures that nest as deep as a load do take frames of that size.
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=4194304");
    }
}
