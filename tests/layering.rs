//! The layers of `src/`: a file may use only what is above it in this list.

use std::fs;
use std::path::{Path, PathBuf};

/// Places from the bottom up, and what of the outside world each may use.
const LAYERS: [(&str, &[&str]); 19] = [
    ("error", &[]),
    ("json", &[]),
    ("names", &[]),
    ("image", &[]),
    ("tokenizer", &[]),
    ("hub", &[]),
    ("cache", &[]),
    ("weights/dtype", &[]),
    ("weights/safetensors", &[]),
    ("weights/pickle", &[]),
    ("arena", &["burn"]),
    ("device", &["burn"]),
    ("kernels", &["burn"]),
    ("schedulers", &["burn"]),
    ("models", &["burn"]),
    ("weights", &["burn"]),
    ("pipeline", &["burn"]),
    ("bench", &["burn"]),
    ("js", &["burn", "browser"]),
];

/// The leaves that may speak to the browser from below.
const BROWSER_LEAVES: [&str; 2] = ["hub/fetch.rs", "cache/indexed_db.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The layer of a path below `src/`, or of a path of modules.
fn layer(path: &str) -> Option<usize> {
    let belongs = |name: &str| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    };
    // The longest name wins: `weights/dtype` before `weights`.
    LAYERS
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| belongs(name))
        .max_by_key(|(_, (name, _))| name.len())
        .map(|(i, _)| i)
}

#[test]
fn nothing_uses_what_stands_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).expect("below").to_string_lossy().replace('\\', "/");
        if name == "lib.rs" {
            continue;
        }
        let own = layer(&name).unwrap_or_else(|| panic!("{name} is in no layer"));
        let text = fs::read_to_string(&file).expect("readable");
        // Unit tests at a file's end may look around.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for used in code.split("crate::").skip(1) {
            let end = used.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let used = used[..end.unwrap_or(used.len())].replace("::", "/");
            // `weights` re-exports what is below the models; its own files say which they mean.
            let of_weights =
                matches!(used.as_str(), "weights/HostTensor" | "weights/Dtype" | "weights/");
            if !of_weights && layer(&used).is_some_and(|layer| layer > own) {
                wrong.push(format!("src/{name} uses {used}"));
            }
        }
        let (_, allowed) = LAYERS[own];
        let mentions = |names: &[&str]| {
            names.iter().any(|name| {
                code.contains(&format!("use {name}::")) || code.contains(&format!(" {name}::"))
            })
        };
        if !allowed.contains(&"burn") && mentions(&["burn"]) {
            wrong.push(format!("src/{name} uses Burn"));
        }
        let browser = mentions(&["wasm_bindgen", "js_sys", "web_sys"]);
        let leaf = BROWSER_LEAVES.contains(&name.as_str());
        if browser && !leaf && !allowed.contains(&"browser") {
            wrong.push(format!("src/{name} uses the browser"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
