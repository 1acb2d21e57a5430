//! What has passed of full runs, so that one that was broken off, or of which something had to be mended, goes on there:
//! a stage is not run again while no file has changed that it reads.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::process::{self, Result};

/// What a stage reads of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reads {
    /// Everything.
    All,
    /// Everything but the front page.
    Sources,
    /// What a browser gets to see, and of the browser tests none but one.
    Browser(Option<PathBuf>),
}

impl Reads {
    fn file(&self, path: &str) -> bool {
        let test = match self {
            Self::All => return true,
            _ if path == "README.md" => return false,
            Self::Sources => return true,
            Self::Browser(test) => test,
        };
        let Some(path) = path.strip_prefix("tests/") else { return true };
        let is_other = path.strip_prefix("browser/").is_some_and(|name| {
            name.ends_with(".test.mjs") && test.as_deref() != Some(Path::new(name))
        });
        !(path.ends_with(".rs") || is_other)
    }

    /// The hash of those of `files`, lines as `git ls-tree` writes them, that are read.
    fn hash(&self, files: &str) -> String {
        let path = |line: &&str| line.split_once('\t').is_none_or(|(_, path)| self.file(path));
        let hash = files
            .lines()
            .filter(path)
            .fold(Sha256::new(), |hash, line| hash.chain_update(line).chain_update("\n"));
        format!("{:x}", hash.finalize())
    }
}

/// The commit that is checked out at the moment, where nothing is changed in it.
pub type Head = Box<dyn Fn() -> Option<String>>;

/// The stages that have passed, of what, and how long each took.
#[derive(Default)]
pub struct Record {
    /// The file, where there is a commit to speak of, and what asks for the commit.
    place: Option<(PathBuf, Head)>,
    commit: String,
    files: String,
    passed: Map<String, Value>,
}

impl Record {
    /// Nothing is written down of a checkout in which something was changed.
    pub fn of_this_checkout() -> Result<Self> {
        let Some(commit) = head() else { return Ok(Self::default()) };
        let files = git(&["ls-tree", "-r", &commit])?;
        let path = process::metadata()?.target.join("passed.json");
        Ok(Self::open(&path, &commit, files, Box::new(head)))
    }

    /// What the file at `path` says, to be compared with a checkout of `commit`: `files` are the lines that `git ls-tree`
    /// writes.
    pub fn open(path: &Path, commit: &str, files: String, head: Head) -> Self {
        let passed = std::fs::read(path).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Self {
            place: Some((path.to_owned(), head)),
            commit: commit.to_owned(),
            files,
            passed: passed.unwrap_or_default(),
        }
    }

    /// The commit of which a stage has passed with the same files, and how many seconds it took.
    pub fn find(&self, stage: &str, reads: &Reads) -> Option<(&str, f64)> {
        let entry = self.passed.get(stage)?;
        let same = entry["files"] == reads.hash(&self.files).as_str();
        Some((entry["commit"].as_str()?, entry["seconds"].as_f64()?)).filter(|_| same)
    }

    /// Writes down that a stage has passed, unless something was changed meanwhile: nobody knows what it read then.
    pub fn add(&mut self, stage: &str, reads: &Reads, seconds: f64) {
        let Some((path, head)) = &self.place else { return };
        if head().as_deref() != Some(self.commit.as_str()) {
            println!("not written down: the checkout is no longer {} as it was", self.commit);
            return;
        }
        let files = reads.hash(&self.files);
        let entry = json!({"files": files, "commit": self.commit, "seconds": seconds});
        self.passed.insert(stage.to_owned(), entry);
        // Where it cannot be written, the stage is run once more.
        let _ = std::fs::write(path, Value::Object(self.passed.clone()).to_string());
    }

    /// The commit of the checkout, if it is one without changes.
    pub fn commit(&self) -> &str {
        &self.commit
    }
}

fn git(args: &[&str]) -> Result<String> {
    process::output(process::command("git").args(args))
}

/// That of this checkout.
fn head() -> Option<String> {
    let clean = git(&["status", "--porcelain"]).is_ok_and(|said| said.trim().is_empty());
    let commit = git(&["rev-parse", "HEAD"]).ok().filter(|_| clean)?;
    Some(commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Head, Reads, Record};

    fn at(commit: &'static str) -> Head {
        Box::new(move || Some(commit.to_owned()))
    }

    fn browser(test: &str) -> Reads {
        Reads::Browser(Some(test.into()))
    }

    #[test]
    fn what_a_browser_does_not_see_is_not_read_by_its_tests() {
        let test = browser("cache.test.mjs");
        for (path, sources, one) in [
            ("src/lib.rs", true, true),
            ("tests/ops.rs", true, false),
            ("tests/oracle/cases.rs", true, false),
            ("tests/fixtures/oracle/cases.json", true, true),
            ("tests/browser/cache.test.mjs", true, true),
            ("tests/browser/faults.test.mjs", true, false),
            ("tests/browser/harness.mjs", true, true),
            ("xtask/src/record.rs", true, true),
            ("README.md", false, false),
            ("pkg-template/README.md", true, true),
        ] {
            assert!(Reads::All.file(path), "{path}");
            assert_eq!(Reads::Sources.file(path), sources, "{path}");
            assert_eq!(test.file(path), one, "{path}");
        }
    }

    #[test]
    fn a_stage_counts_until_a_file_changes_that_it_reads() {
        let folder = std::env::temp_dir().join(format!("xtask-record-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let path = folder.join("passed.json");
        let files = |lib: &str, ops: &str| {
            format!("100644 blob {lib}\tsrc/lib.rs\n100644 blob {ops}\ttests/ops.rs\n")
        };
        let reads = browser("cache.test.mjs");
        let mut first = Record::open(&path, "first", files("a", "b"), at("first"));
        first.add("long", &reads, 60.0);
        first.add("native", &Reads::Sources, 30.0);
        let found = |commit, files| {
            let record = Record::open(&path, commit, files, at(commit));
            let seconds = |stage, reads| record.find(stage, reads).map(|found| found.1);
            [seconds("long", &reads), seconds("native", &Reads::Sources), seconds("other", &reads)]
        };
        assert_eq!(found("second", files("a", "b")), [Some(60.0), Some(30.0), None]);
        assert_eq!(found("third", files("a", "c")), [Some(60.0), None, None]);
        assert_eq!(found("fourth", files("d", "b")), [None, None, None]);
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
    #[test]
    fn what_ran_while_something_was_changed_does_not_count() {
        let folder = std::env::temp_dir().join(format!("xtask-changed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        let path = folder.join("passed.json");
        let is_kept = |head: Head| {
            let _ = std::fs::remove_file(&path);
            Record::open(&path, "first", String::new(), head).add("long", &Reads::All, 60.0);
            let later = Record::open(&path, "first", String::new(), at("first"));
            later.find("long", &Reads::All).is_some()
        };
        assert!(is_kept(at("first")));
        assert!(!is_kept(at("second")));
        assert!(!is_kept(Box::new(|| None)));
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
}
