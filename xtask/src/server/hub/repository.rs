//! Folders as the Hub sees them: commits, git's names for contents, and what goes to LFS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::generated::{ENDING, Generated};
use crate::files::{self, Doing};
use crate::process::Result;

/// The branch that every repository has.
pub const MAIN: &str = "main";

/// What the Hub's `.gitattributes` sends to LFS whatever its size.
const LFS_ENDINGS: &[&str] =
    &["bin", "ckpt", "h5", "msgpack", "npz", "onnx", "pkl", "pt", "pth", "safetensors"];

/// What is larger goes to LFS whatever its name, bytes.
const LFS_BYTES: u64 = 10 << 20;

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A repository with the commits that it has had while the server runs.
#[derive(Default)]
pub struct Repository {
    branches: BTreeMap<String, Arc<Snapshot>>,
    commits: BTreeMap<String, Arc<Snapshot>>,
}

impl Repository {
    /// Moves a branch, or makes it; what it named before stays to be had by its commit.
    pub fn publish(&mut self, branch: &str, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        self.commits.insert(snapshot.commit.clone(), Arc::clone(&snapshot));
        self.branches.insert(branch.to_owned(), snapshot);
    }

    /// What a branch or a commit names.
    pub fn find(&self, revision: &str) -> Option<&Arc<Snapshot>> {
        self.branches.get(revision).or_else(|| self.commits.get(revision))
    }

    /// Each branch with its commit.
    pub fn branches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.branches.iter().map(|(branch, snapshot)| (branch.as_str(), snapshot.commit.as_str()))
    }

    /// Every content in LFS, of every commit.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &Content)> {
        let contents = self.commits.values().flat_map(|snapshot| snapshot.files.values());
        contents.filter_map(|content| Some((content.lfs.as_ref()?.sha256.as_str(), content)))
    }
}

/// The contents of a folder at one time.
pub struct Snapshot {
    /// 40 digits that follow from the files' names and contents.
    pub commit: String,
    /// By the path from the repository's root, with slashes.
    pub files: BTreeMap<String, Content>,
}

impl Snapshot {
    /// Reads all of `folder`, where a description of a file stands for the file that is made by it.
    ///
    /// # Errors
    /// When a file cannot be read or made, or has a name that is no UTF-8.
    pub fn of(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(format!("there is no folder {} to serve", folder.display()).into());
        }
        let folder = folder.canonicalize().doing("find", folder)?;
        let mut files = BTreeMap::new();
        let mut tree = Sha1::new();
        for path in files::list(&folder)?.iter().filter(|path| !path.starts_with(".git")) {
            let name: Option<Vec<_>> = path.iter().map(|part| part.to_str()).collect();
            let name = name.ok_or_else(|| format!("{} is not UTF-8", path.display()))?.join("/");
            let place = folder.join(path);
            let (name, source) = match name.strip_suffix(ENDING) {
                Some(name) => (name, Source::Generated(Generated::read(&place)?.into())),
                None => (name.as_str(), Source::File(place.clone())),
            };
            let content = Content::of(name, source).doing("read", &place)?;
            tree.update(format!("{name}\0{}\n", content.oid));
            files.insert(name.to_owned(), content);
        }
        Ok(Self { commit: hex(&tree.finalize()), files })
    }

    /// The folders that the files lie in, the root aside.
    pub fn folders(&self) -> BTreeSet<&str> {
        let mut folders = BTreeSet::new();
        for mut path in self.files.keys().map(String::as_str) {
            while let Some((parent, _)) = path.rsplit_once('/') {
                folders.insert(parent);
                path = parent;
            }
        }
        folders
    }
}

/// A file.
#[derive(Clone)]
pub struct Content {
    /// Where its bytes are.
    pub source: Source,
    /// Bytes.
    pub size: u64,
    /// Git's name for the blob: of the file, or of the pointer that stands for it.
    pub oid: String,
    /// Where git holds only a pointer.
    pub lfs: Option<Lfs>,
}

/// A file outside git.
#[derive(Clone)]
pub struct Lfs {
    /// Of the contents.
    pub sha256: String,
    /// What git holds in its place.
    pub pointer: String,
}

/// Where a file's bytes are.
#[derive(Clone)]
pub enum Source {
    /// On the disk.
    File(PathBuf),
    /// Nowhere: they are made when they are asked for.
    Generated(Arc<Generated>),
}

impl Source {
    /// Reads from a place on.
    pub fn open(&self, first: u64) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::File(place) => {
                let mut file = File::open(place)?;
                file.seek(SeekFrom::Start(first))?;
                Box::new(file)
            }
            Self::Generated(file) => Box::new(Arc::clone(file).open(first)),
        })
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::File(place) => Ok(place.metadata()?.len()),
            Self::Generated(file) => Ok(file.size()),
        }
    }

    fn digest<D: Digest>(&self, mut digest: D) -> io::Result<D> {
        let mut source = self.open(0)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece)? {
                0 => return Ok(digest),
                count => digest.update(&piece[..count]),
            }
        }
    }
}

impl Content {
    fn of(name: &str, source: Source) -> io::Result<Self> {
        let size = source.size()?;
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
        if size <= LFS_BYTES && !LFS_ENDINGS.contains(&ending.unwrap_or_default()) {
            let oid = hex(&source.digest(blob(size))?.finalize());
            return Ok(Self { source, size, oid, lfs: None });
        }
        let sha256 = hex(&source.digest(Sha256::new())?.finalize());
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        );
        let oid = hex(&blob(pointer.len() as u64).chain_update(&pointer).finalize());
        Ok(Self { source, size, oid, lfs: Some(Lfs { sha256, pointer }) })
    }
}

/// What git hashes before a blob of `size` bytes.
fn blob(size: u64) -> Sha1 {
    Sha1::new().chain_update(format!("blob {size}\0"))
}

/// In lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
