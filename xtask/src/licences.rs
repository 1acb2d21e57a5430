//! `THIRD_PARTY_LICENSES.txt`: the licences of the crates whose code is in the wasm.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files;
use crate::process::{self, PACKAGE, Result};

/// The file's name in the package.
pub const FILE: &str = "THIRD_PARTY_LICENSES.txt";

/// How the names of files begin that hold a licence or what goes with one.
const NAMES: &[&str] = &["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// A crate whose code is in the wasm.
#[derive(Debug)]
struct Crate {
    /// Name and version.
    title: String,
    /// The SPDX expression that it declares.
    licence: String,
    folder: PathBuf,
}

/// The text of the file, for the crates that a build for `target` with `features` links.
pub fn text(target: &str, features: &str) -> Result<String> {
    let build = ["--locked", "--no-default-features", "--features", features];
    // Of these two, only `tree` knows the features of this build alone, and only `metadata` the folders.
    let mut tree = process::cargo();
    tree.args(["tree", "--package", PACKAGE, "--target", target]).args(build);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let mut metadata = process::cargo();
    metadata.args(["metadata", "--format-version", "1", "--filter-platform", target]).args(build);
    let metadata: Value = serde_json::from_str(&process::output(&mut metadata)?)?;
    write(&linked(&process::output(&mut tree)?, &metadata)?)
}

/// The crates of `cargo tree`, except this package.
fn linked(tree: &str, metadata: &Value) -> Result<Vec<Crate>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    // `name v1.2.3`, and sometimes remarks.
    let named: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .filter(|(name, _)| *name != PACKAGE)
        .collect();
    if named.is_empty() {
        return Err("`cargo tree` names no dependency: the licences cannot be told".into());
    }
    let found = named.into_iter().map(|(name, version)| {
        let is_it = |package: &&Value| package["name"] == name && package["version"] == version;
        let package = packages.iter().find(is_it);
        let package = package.ok_or_else(|| format!("{name} {version} is not in the metadata"))?;
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        Ok(Crate {
            title: format!("{name} {version}"),
            licence: match package["license"].as_str() {
                Some(licence) => licence.replace('/', " OR "),
                None => text(&package["license_file"]),
            },
            folder: manifest.parent().unwrap_or(Path::new(".")).to_owned(),
        })
    });
    found.collect()
}

/// A list of all, then every text once, under the names of those that it is the text of.
fn write(crates: &[Crate]) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut said = String::from(
        "instruct_pix2pix_bg.wasm is built of this package's own code, of Rust's standard library (MIT OR \
         Apache-2.0) and of the crates below.\n\n",
    );
    for each in crates {
        if each.licence.is_empty() {
            return Err(format!("{} declares no licence: may it be shipped?", each.title).into());
        }
        said += &format!("{}: {}\n", each.title, each.licence);
        for name in files::names(&each.folder)? {
            let lower = name.to_string_lossy().to_lowercase();
            let path = each.folder.join(&name);
            if NAMES.iter().any(|start| lower.starts_with(start)) && path.is_file() {
                let text = files::read_text(&path)?.replace("\r\n", "\n").trim().to_owned();
                let of = texts.entry(text).or_default();
                if of.last() != Some(&each.title.as_str()) {
                    of.push(&each.title);
                }
            }
        }
    }
    let line = "-".repeat(80);
    let mut texts: Vec<_> = texts.into_iter().map(|(text, of)| (of.join(", "), text)).collect();
    texts.sort();
    for (of, text) in texts {
        said += &format!("\n{line}\n{of}\n{line}\n\n{text}\n");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Crate, linked, write};
    use crate::files::tests::Scratch;
    use crate::process::PACKAGE;

    #[test]
    fn only_what_is_linked_is_named() {
        let package = |name: &str, version: &str| {
            json!({ "name": name, "version": version, "license": "MIT/Apache-2.0",
                    "manifest_path": format!("/{name}-{version}/Cargo.toml") })
        };
        let packages = [package("a", "1.0.0"), package("a", "2.0.0"), package("b", "1.0.0")];
        let metadata = json!({ "packages": packages });
        let tree = format!("{PACKAGE} v0.1.0 (/here)\nb v1.0.0\na v2.0.0\nb v1.0.0 (*)\n");
        let found = linked(&tree, &metadata).expect("all are known");
        let titles: Vec<_> = found.iter().map(|each| each.title.as_str()).collect();
        assert_eq!(titles, ["a 2.0.0", "b 1.0.0"]);
        assert_eq!(found[0].licence, "MIT OR Apache-2.0");
        assert!(found[0].folder.ends_with("a-2.0.0"));
        assert!(linked("c v1.0.0", &metadata).is_err());
        assert!(linked("", &metadata).is_err());
    }

    #[test]
    fn the_same_text_is_written_once() {
        let one = Scratch::new().with("LICENSE-MIT", b"Do as you like.\r\n").with("README", b"no");
        let two = Scratch::new().with("license.txt", b"Do as you like.").with("NOTICE", b"Mine.");
        let of = |title: &str, folder: &Scratch, licence: &str| Crate {
            title: title.into(),
            licence: licence.into(),
            folder: folder.path().to_owned(),
        };
        let said = write(&[of("one 1", &one, "MIT"), of("two 2", &two, "MIT")]).expect("written");
        assert!(said.contains("one 1: MIT\ntwo 2: MIT\n"), "{said}");
        assert_eq!(said.matches("Do as you like.").count(), 1, "{said}");
        assert!(said.contains("\none 1, two 2\n") && said.contains("Mine."), "{said}");
        assert!(!said.contains("no\n"), "{said}");
        let error = write(&[of("none 3", &one, "")]).expect_err("no licence").to_string();
        assert!(error.contains("none 3"), "{error}");
    }
}
