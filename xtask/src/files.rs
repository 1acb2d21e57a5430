//! Files and folders, with the path in every error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::process::Result;

/// Adds to an I/O error what was being done, and to which file.
pub trait Doing<T> {
    /// For example `fs::read(path).doing("read", path)`.
    fn doing(self, what: &str, path: &Path) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: &str, path: &Path) -> Result<T> {
        self.map_err(|error| format!("cannot {what} {}: {error}", path.display()).into())
    }
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).doing("read", path)
}

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing("read", path)
}

/// Writes a file, and the folders above it; leaves one alone that already has these bytes, so that
/// its time, and with it the server's ETag, stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).doing("make", parent)?;
    }
    fs::write(path, bytes).doing("write", path)
}

/// An empty folder, whatever was there before.
pub fn empty_folder(path: &Path) -> Result {
    if path.exists() {
        fs::remove_dir_all(path).doing("empty", path)?;
    }
    fs::create_dir_all(path).doing("make", path)
}

/// The names of what is directly in `folder`, sorted.
pub fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).doing("list", folder)?;
    let names = entries.map(|entry| Ok(entry.doing("list", folder)?.file_name().into()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Every file below `folder`, relative to it, sorted; symbolic links are followed.
pub fn list(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for name in names(&folder.join(&below))? {
            let name = below.join(name);
            if folder.join(&name).is_dir() {
                open.push(name);
            } else {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

/// Copies every file of `from` over `to`.
pub fn copy_over(from: &Path, to: &Path) -> Result {
    for name in list(from)? {
        write(&to.join(&name), &read(&from.join(&name))?)?;
    }
    Ok(())
}

/// Moves a file within one folder.
pub fn rename(from: &Path, to: &Path) -> Result {
    fs::rename(from, to).doing("rename", from)
}

/// Makes `to` hold the files of `from` and no others.
pub fn mirror(from: &Path, to: &Path) -> Result {
    let wanted = list(from)?;
    if to.exists() {
        for name in list(to)?.difference(&wanted) {
            let path = to.join(name);
            fs::remove_file(&path).doing("remove", &path)?;
        }
    }
    copy_over(from, to)?;
    remove_empty_folders(to)
}

fn remove_empty_folders(folder: &Path) -> Result {
    for name in names(folder)? {
        let path = folder.join(name);
        if path.is_dir() {
            remove_empty_folders(&path)?;
            // Fails on a folder that is not empty, which is what is wanted.
            let _ = fs::remove_dir(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::{env, fs, process};

    use super::{list, mirror, write};

    /// A folder of a test's own, gone at its end.
    pub struct Scratch(PathBuf);

    impl Scratch {
        pub fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("xtask-test-{}-{next}", process::id()));
            fs::create_dir_all(&path).expect("a scratch folder");
            Self(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }

        pub fn with(self, name: &str, bytes: &[u8]) -> Self {
            write(&self.0.join(name), bytes).expect("a scratch file");
            self
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_mirror_drops_what_is_stale_and_leaves_what_is_the_same() {
        let from = Scratch::new().with("same", b"1").with("sub/new", b"2");
        let to = Scratch::new().with("same", b"1").with("old/stale", b"3").with("sub/old", b"4");
        let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let before = time(&to.path().join("same"));
        mirror(from.path(), to.path()).expect("mirrored");
        assert_eq!(list(to.path()).expect("list"), list(from.path()).expect("list"));
        assert_eq!(time(&to.path().join("same")), before);
        assert!(!to.path().join("old").exists());
    }

    #[test]
    fn errors_name_the_file() {
        let scratch = Scratch::new();
        let error = super::read(&scratch.path().join("absent")).expect_err("no such file");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
