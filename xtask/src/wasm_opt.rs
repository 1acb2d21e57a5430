//! `wasm-opt`, from the npm package `binaryen`. It takes its time, so the last result is kept.

use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use crate::process::{self, Result};
use crate::{browser, files};

/// Smallest first, with the features that rustc's wasm32 target uses (`rustc --print cfg`) and the
/// vector instructions, which every browser with WebGPU has.
const OPTIONS: &[&str] = &[
    "-O1",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

/// Optimises a wasm file in place. `cache` holds what came of the last one, named by its key.
pub fn optimise(wasm: &Path, cache: &Path) -> Result {
    browser::npm_packages()?;
    let binaryen = browser::folder().join("node_modules").join("binaryen");
    let key = key(&files::read(wasm)?, &files::read(&binaryen.join("package.json"))?);
    cached(wasm, &cache.join(format!("{key}.wasm")), |output| {
        let start = Instant::now();
        // By node, because Windows cannot start the script itself.
        let mut command = process::command("node");
        command.arg(binaryen.join("bin").join("wasm-opt")).args(OPTIONS);
        process::run(command.arg(wasm).arg("--output").arg(output))?;
        println!("wasm-opt: {:.1} s", start.elapsed().as_secs_f32());
        Ok(())
    })
}

/// Replaces `file` by `kept`, which `make` makes where it is missing. Its folder keeps no other.
fn cached(file: &Path, kept: &Path, make: impl FnOnce(&Path) -> Result) -> Result {
    if !kept.is_file() {
        files::empty_folder(kept.parent().unwrap_or(kept))?;
        // Moved into place when whole, so that an interrupted run leaves nothing to be found.
        let partial = kept.with_extension("partial");
        make(&partial)?;
        files::rename(&partial, kept)?;
    }
    files::write(file, &files::read(kept)?)
}

/// Names all that the result depends on: the input, the release of binaryen and the options.
fn key(wasm: &[u8], manifest: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [wasm, manifest, OPTIONS.join(" ").as_bytes()] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{cached, key};
    use crate::files;
    use crate::files::tests::Scratch;

    #[test]
    fn the_key_depends_on_the_input_and_on_binaryen() {
        let keys = [key(b"a", b"b"), key(b"a", b"c"), key(b"c", b"b"), key(b"", b"ab")];
        assert!((1..keys.len()).all(|i| !keys[..i].contains(&keys[i])), "{keys:?}");
        assert_eq!(keys[0], key(b"a", b"b"));
        assert_eq!(keys[0].len(), 64);
    }

    #[test]
    fn only_the_last_result_is_kept_and_a_failure_leaves_none() {
        let scratch = Scratch::new().with("in", b"input").with("cache/old", b"stale");
        let (input, cache) = (scratch.path().join("in"), scratch.path().join("cache"));
        let kept = cache.join("key.wasm");
        let half = |output: &std::path::Path| {
            files::write(output, b"half")?;
            Err("interrupted".into())
        };
        cached(&input, &kept, half).expect_err("passed on");
        assert!(!kept.exists());
        assert_eq!(files::read(&input).expect("input"), b"input");

        cached(&input, &kept, |output| files::write(output, b"small")).expect("made");
        assert_eq!(files::names(&cache).expect("cache"), [std::path::Path::new("key.wasm")]);
        cached(&input, &kept, |_| unreachable!("it is there")).expect("from the cache");
        assert_eq!(files::read(&input).expect("output"), b"small");
    }
}
