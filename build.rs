//! Linking for browsers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm") {
        // A megabyte is the default, and was not enough for a load before its futures were boxed.
        println!("cargo::rustc-link-arg-cdylib=-zstack-size=4194304");
    }
}
