//! Models as files to take along: a tar archive whose first member says what the others are.
//!
//! Source: POSIX.1-2001 `pax`, the `ustar` interchange format; sizes beyond its 8 GiB as GNU tar
//! writes them.

use std::collections::BTreeMap;

use super::digest::FileHasher;
use super::repository::{bytes_text, check_hash, file_hash};
use super::{Cache, ContentRecord, FileRecord, ModelRecord, chunk_length, content_key, lock_name};
use crate::error::{Error, Result};

/// Bytes of a member's header, and what members are padded to.
const BLOCK: usize = 512;

/// The first member's name.
pub const MANIFEST: &str = ".instruct-pix2pix-web.json";

/// The longest manifest that is read, bytes.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// A file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The path.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

impl Member {
    /// The header before the file's bytes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the path is too long for the format.
    pub fn header(&self) -> Result<[u8; BLOCK]> {
        let mut header = [0; BLOCK];
        let (prefix, name) = split(&self.path).ok_or_else(|| {
            Error::unsupported(format!("{}: the path is too long for an archive", self.path))
        })?;
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        if self.size < 1 << 33 {
            put(124, format!("{:011o}\0", self.size).as_bytes());
        } else {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &self.size.to_be_bytes());
        }
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        put(345, prefix.as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Ok(header)
    }

    /// Zeros behind the file's bytes.
    pub fn padding(&self) -> usize {
        let rest = (self.size % BLOCK as u64) as usize;
        (BLOCK - rest) % BLOCK
    }

    /// Reads a header. `None` at the archive's end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it is none, or no plain file's.
    pub fn parse(header: &[u8]) -> Result<Option<Self>> {
        let invalid = |message: &str| Error::argument("file", format!("no archive: {message}"));
        if header.len() != BLOCK {
            return Err(invalid("it ends too early"));
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            std::str::from_utf8(&field[..end]).map_err(|_| invalid("a name is no text"))
        };
        let octal = |range| {
            let digits = text(range)?.trim();
            u64::from_str_radix(digits, 8).map_err(|_| invalid("a number is none"))
        };
        let sum = header.iter().enumerate().map(|(at, byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(*byte),
        });
        if sum.sum::<u64>() != octal(148..156)? {
            return Err(invalid("a checksum is wrong"));
        }
        let size = match header[124] {
            0x80 => u64::from_be_bytes(header[128..136].try_into().unwrap_or_default()),
            _ => octal(124..136)?,
        };
        if !matches!(header[156], b'0' | 0) {
            return Err(invalid("it holds more than plain files"));
        }
        let (prefix, name) = (text(345..500)?, text(0..100)?);
        let path = if prefix.is_empty() { name.into() } else { format!("{prefix}/{name}") };
        Ok(Some(Self { path, size }))
    }
}

/// The header's two fields for a path, of 155 and 100 bytes.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    let slashes = path.match_indices('/').map(|(at, _)| at);
    slashes.map(|at| (&path[..at], &path[at + 1..])).find(|(a, b)| a.len() <= 155 && b.len() <= 100)
}

/// An archive that can be read at any place.
pub trait Archive {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// `length` bytes from `start`; fewer at the end.
    fn read(
        &self,
        start: u64,
        length: u64,
    ) -> futures_util::future::LocalBoxFuture<'_, Result<Vec<u8>>>;
}

impl Cache {
    /// Writes a model as an archive, piece by piece.
    ///
    /// # Errors
    /// [`Error::NotCached`] when the model is not there, or not whole; [`Error::Unsupported`] when not all of it is
    /// kept as it was served; [`Error::Storage`].
    pub async fn export(&self, model: &str, write: &mut dyn FnMut(&[u8])) -> Result<()> {
        let missing = |file: &str| Error::NotCached { model: model.into(), file: file.into() };
        let record = self.find(model, None).await?.filter(|record| record.complete);
        let mut record = record.ok_or_else(|| missing("model_index.json"))?;
        let mut contents = BTreeMap::new();
        for file in record.files.values() {
            let Some(content) = self.content(&file.content).await? else { continue };
            if self.is_whole(&file.content, content.count()).await? {
                if !self.is_as_served(&file.content, content.count()).await? {
                    let what = format!(
                        "an archive of {model}, of which float32 weights are kept in float16; download it with \
                         `weightDtype: 'float32'` first"
                    );
                    return Err(Error::unsupported(what));
                }
                contents.insert(file.content.clone(), content);
            }
        }
        record.files.retain(|_, file| contents.contains_key(&file.content));
        let manifest =
            serde_json::to_vec(&record).map_err(|e| Error::Storage { message: e.to_string() })?;
        let member = Member { path: MANIFEST.into(), size: manifest.len() as u64 };
        write(&member.header()?);
        write(&manifest);
        write(&vec![0; member.padding()]);
        for (path, file) in &record.files {
            let content = &contents[&file.content];
            let member = Member { path: path.clone(), size: content.size };
            write(&member.header()?);
            for index in 0..content.count() {
                let length = chunk_length(content.size, content.chunk_bytes, index);
                let chunk = self.chunk(&file.content, index, length).await?;
                write(&chunk.ok_or_else(|| missing(path))?);
            }
            write(&vec![0; member.padding()]);
        }
        write(&[0; 2 * BLOCK]);
        Ok(())
    }

    /// Adds a model from an archive that [`export`](Self::export) wrote, after the loads of it that are
    /// on their way. The hash of every file that has one is compared before anything is written, and
    /// what is there already stays as it is. Returns the model's name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when it is none; [`Error::HashMismatch`]; [`Error::Storage`], also
    /// when the model would exceed the limit.
    pub async fn import(&self, archive: &dyn Archive) -> Result<String> {
        let invalid = |message: &str| Error::argument("file", message.to_owned());
        let mut at = 0;
        let first = next_member(archive, &mut at).await?;
        let first = first.filter(|m| m.path == MANIFEST && m.size <= MAX_MANIFEST_BYTES);
        let first = first.ok_or_else(|| invalid("no archive that `export` wrote"))?;
        let json = archive.read(at, first.size).await?;
        let mut record: ModelRecord = serde_json::from_slice(&json)
            .map_err(|e| invalid(&format!("its manifest cannot be read: {e}")))?;
        at += first.size + first.padding() as u64;
        let mut members = BTreeMap::new();
        while let Some(member) = next_member(archive, &mut at).await? {
            let entry = record.files.get(&member.path).cloned();
            let entry = entry.filter(|entry| entry.size == member.size);
            let entry = entry.ok_or_else(|| {
                invalid(&format!("{} is not what the manifest says", member.path))
            })?;
            let file = ArchivedFile::new(archive, at, &member.path, entry, self.chunk_bytes)?;
            members.insert(member.path.clone(), file);
            at += member.size + member.padding() as u64;
        }
        if record.files.keys().any(|path| !members.contains_key(path)) {
            return Err(invalid("files of its manifest are missing"));
        }
        let key = record.key();
        let _lock = self.host.lock(&lock_name(&key), true, &|| ()).await?;
        let mut new = BTreeMap::new();
        for file in members.into_values() {
            let content = self.content(&file.entry.content).await?;
            let content =
                content.filter(|record| record.complete && record.size == file.entry.size);
            let is_there = match content {
                Some(content) => self.is_as_served(&file.entry.content, content.count()).await?,
                None => false,
            };
            if is_there {
                continue;
            }
            file.verify().await?;
            let size = file.entry.size;
            let other = new.insert(file.entry.content.clone(), file);
            if other.is_some_and(|other: ArchivedFile<'_>| other.entry.size != size) {
                return Err(invalid("its manifest has two sizes for one content"));
            }
        }
        let before = self.store.get(&key).await?;
        let needed = new.values().map(|file| file.entry.size).sum();
        let Some(room) = self.plan_room(needed, &key).await? else {
            let limit = bytes_text(self.limit.unwrap_or_default());
            let message = format!("needs {}, the limit is {limit}", bytes_text(needed));
            return Err(Error::Storage { message });
        };
        self.make_room(&room).await?;
        // A listing names more than what is there: the Hub is asked when it is needed.
        record.complete = false;
        record.used = self.host.now();
        let import = async {
            // Before the contents, so that they are not taken for nobody's.
            self.put_json(&key, &record).await?;
            for file in new.values() {
                self.import_file(file).await?;
            }
            self.put_json(&key, &ModelRecord { complete: true, ..record.clone() }).await?;
            Ok(())
        };
        if let Err(error) = import.await {
            // As it was; this is what may fail again where nothing can be written.
            let _ = match before {
                Some(before) => self.store.put(&key, &before).await,
                None => self.store.delete(&key).await,
            };
            let _ = self.collect().await;
            return Err(error);
        }
        Ok(record.model)
    }

    async fn import_file(&self, file: &ArchivedFile<'_>) -> Result<()> {
        let id = &file.entry.content;
        for index in 0..file.count() {
            let mut bytes = file.chunk(index).await?;
            self.put_chunk(id, index, &mut bytes).await?;
            self.drop_rounded(id, index, None).await?;
        }
        let (size, chunk_bytes) = (file.entry.size, file.chunk_bytes);
        let content = ContentRecord { size, chunk_bytes, hashed: 0, state: None, complete: true };
        Ok(self.put_json(&content_key(id), &content).await?)
    }
}

/// A file inside an archive.
struct ArchivedFile<'a> {
    archive: &'a dyn Archive,
    start: u64,
    path: String,
    entry: FileRecord,
    chunk_bytes: u64,
    /// Whether it is read in chunks, and not whole.
    is_large: bool,
}

impl<'a> ArchivedFile<'a> {
    /// The file at `start`, if what the manifest says of it makes sense.
    fn new(
        archive: &'a dyn Archive,
        start: u64,
        path: &str,
        entry: FileRecord,
        chunk_bytes: u64,
    ) -> Result<Self> {
        let id = &entry.content;
        if id.is_empty() || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err(Error::argument("file", format!("`{id}` is no name of a content")));
        }
        // A manifest may say anything; what follows counts the pieces in 32 bits.
        if start.checked_add(entry.size).is_none_or(|end| end > archive.size()) {
            return Err(Error::argument("file", format!("it ends within {path}")));
        }
        // Small files are read whole, as one chunk.
        let is_large = id.starts_with("sha256-") || id.starts_with("url-");
        let chunk_bytes = if is_large { chunk_bytes } else { entry.size.max(1) };
        Ok(Self { archive, start, path: path.to_owned(), entry, chunk_bytes, is_large })
    }

    fn count(&self) -> u32 {
        let count = self.entry.size.div_ceil(self.chunk_bytes) as u32;
        count.max(u32::from(!self.is_large))
    }

    async fn chunk(&self, index: u32) -> Result<Vec<u8>> {
        let length = chunk_length(self.entry.size, self.chunk_bytes, index);
        let start = self.start + u64::from(index) * self.chunk_bytes;
        let bytes = self.archive.read(start, length).await?;
        if bytes.len() as u64 != length {
            return Err(Error::argument("file", format!("it ends within {}", self.path)));
        }
        Ok(bytes)
    }

    /// Compares the hash, where there is one.
    async fn verify(&self) -> Result<()> {
        let Some(hash) = file_hash(&self.entry.content) else { return Ok(()) };
        let mut hasher = FileHasher::new(&hash, self.entry.size);
        for index in 0..self.count() {
            hasher.update(&self.chunk(index).await?);
        }
        check_hash(&self.path, &hash, hasher)
    }
}

/// The header at `at`, which goes on to the member's bytes.
async fn next_member(archive: &dyn Archive, at: &mut u64) -> Result<Option<Member>> {
    if *at >= archive.size() {
        return Ok(None);
    }
    let header = archive.read(*at, BLOCK as u64).await?;
    *at += BLOCK as u64;
    Member::parse(&header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_carry_path_and_size() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        for (path, size) in [("unet/config.json", 743), (&long, 0), ("big", 10_300_000_000)] {
            let member = Member { path: path.into(), size };
            let header = member.header().expect("fits");
            assert_eq!(Member::parse(&header).expect("valid"), Some(member));
        }
        assert!(Member { path: "x".repeat(101), size: 0 }.header().is_err());
        assert_eq!(Member::parse(&[0; 512]).expect("the end"), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let header = Member { path: "a".into(), size: 5 }.header().expect("fits");
        let mut wrong = header;
        wrong[0] = b'b';
        assert!(Member::parse(&wrong).is_err());
        assert!(Member::parse(&header[..511]).is_err());
        assert!(Member::parse(&[7; 512]).is_err());
    }

    #[test]
    fn padding_fills_blocks() {
        let padding = |size| Member { path: "a".into(), size }.padding();
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
