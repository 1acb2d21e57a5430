//! The two containers of `torch.save`: a zip archive, and before torch 1.6 a row of pickles with
//! the storages behind them.
//!
//! Source: torch `serialization.py`; PKWARE's APPNOTE.TXT for zip.

use std::collections::HashMap;

use super::cursor::{Cursor, Result, text};
use super::graph::{Graph, Value};
use super::machine::run;

/// What the old container starts with, as a pickled integer.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// The version of the old container.
const PROTOCOL: i128 = 1001;

pub const END_OF_DIRECTORY: u32 = 0x0605_4b50;
const END_OF_DIRECTORY_BYTES: usize = 22;
const ZIP64_LOCATOR: u32 = 0x0706_4b50;
const ZIP64_LOCATOR_BYTES: usize = 20;
const ZIP64_END_OF_DIRECTORY: u32 = 0x0606_4b50;
pub const DIRECTORY_ENTRY: u32 = 0x0201_4b50;
pub const LOCAL_HEADER: u32 = 0x0403_4b50;

/// Whether `bytes` start as one of the containers does, and not as safetensors do: with a length,
/// whose bytes may be any, and a brace, which neither container has in its place.
pub fn is_torch_file(bytes: &[u8]) -> bool {
    let is_safetensors = bytes.get(8) == Some(&b'{');
    !is_safetensors && (bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80]))
}

/// The object that a file holds, its storages found.
pub fn read(bytes: &[u8]) -> Result<(Graph<'_>, Value<'_>)> {
    let mut graph = Graph::new(bytes.len());
    let root = if bytes.starts_with(b"PK") {
        read_zip(bytes, &mut graph)?
    } else {
        read_old(bytes, &mut graph)?
    };
    graph.check()?;
    Ok((graph, root))
}

fn read_zip<'a>(bytes: &'a [u8], graph: &mut Graph<'a>) -> Result<Value<'a>> {
    let entries = directory(bytes)?;
    let pickle = entries.iter().find(|entry| entry.name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or("an archive without `data.pkl`")?;
    let folder = pickle.name.trim_end_matches("data.pkl");
    let (root, _) = run(graph, pickle.bytes(bytes)?, 0)?;
    let entries: HashMap<&str, &Entry<'_>> = entries
        .iter()
        .filter_map(|entry| Some((entry.name.strip_prefix(folder)?, entry)))
        .collect();
    if let Some(order) = entries.get("byteorder")
        && order.bytes(bytes)? != b"little"
    {
        return Err("its numbers are big-endian".into());
    }
    for storage in graph.storages_mut() {
        let name = format!("data/{}", storage.key);
        let entry = entries.get(name.as_str()).ok_or_else(|| format!("no entry `{name}`"))?;
        storage.bytes = entry.bytes(bytes)?;
    }
    Ok(root)
}

fn read_old<'a>(bytes: &'a [u8], graph: &mut Graph<'a>) -> Result<Value<'a>> {
    let mut at = 0;
    let mut next = |graph: &mut Graph<'a>| {
        let (value, end) = run(graph, bytes, at)?;
        at = end;
        Ok::<_, String>((value, end))
    };
    let (magic, _) = next(graph)?;
    if !matches!(magic, Value::Int(MAGIC)) {
        return Err("a pickle, but not one that torch wrote".into());
    }
    let (protocol, _) = next(graph)?;
    if !matches!(protocol, Value::Int(PROTOCOL)) {
        return Err(format!("version {protocol:?} of torch's container; 1001 can be read"));
    }
    let (system, _) = next(graph)?;
    if let Some(Value::Bool(false)) = graph.get(system, "little_endian") {
        return Err("its numbers are big-endian".into());
    }
    let (root, _) = next(graph)?;
    let (keys, end) = next(graph)?;
    let sizes: HashMap<&str, usize> =
        graph.storages_mut().map(|storage| (storage.key, storage.element.size())).collect();
    let mut contents = HashMap::new();
    let mut cursor = Cursor::new(bytes, end);
    for key in graph.items(keys).ok_or("no list of storages behind the pickle")? {
        let Value::Text(key) = *key else { return Err("a storage whose name is no text".into()) };
        let size = sizes.get(key).ok_or_else(|| format!("storage `{key}` is used nowhere"))?;
        let length = cursor.u64()?.checked_mul(*size).ok_or("a storage beyond all bounds")?;
        contents.insert(key, cursor.take(length)?);
    }
    for storage in graph.storages_mut() {
        storage.bytes = contents.get(storage.key).copied().unwrap_or_default();
    }
    Ok(root)
}

/// A file in an archive.
struct Entry<'a> {
    name: &'a str,
    header: usize,
    length: usize,
    stored: bool,
}

impl Entry<'_> {
    /// The contents, in the archive's `bytes`.
    fn bytes<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        if !self.stored {
            return Err(format!(
                "`{}` is compressed or encrypted, which torch never does",
                self.name
            ));
        }
        let mut header = Cursor::new(bytes, self.header);
        if header.u32()? != LOCAL_HEADER {
            return Err(format!("`{}` is not where the directory says", self.name));
        }
        header.take(22)?;
        let (name, extra) = (header.u16()?, header.u16()?);
        header.take(usize::from(name) + usize::from(extra))?;
        header.take(self.length)
    }
}

/// The central directory.
fn directory(bytes: &[u8]) -> Result<Vec<Entry<'_>>> {
    // A comment of up to 65535 bytes may follow; torch writes none.
    let earliest = bytes.len().saturating_sub(END_OF_DIRECTORY_BYTES + usize::from(u16::MAX));
    let end = (earliest..=bytes.len().saturating_sub(END_OF_DIRECTORY_BYTES))
        .rev()
        .find(|at| bytes[*at..].starts_with(&END_OF_DIRECTORY.to_le_bytes()))
        .ok_or("an archive without a directory: it is cut off")?;
    let mut fields = Cursor::new(bytes, end + 10);
    let mut count = usize::from(fields.u16()?);
    fields.take(4)?;
    let mut start = fields.u32()? as usize;
    if start == u32::MAX as usize || count == usize::from(u16::MAX) {
        (count, start) = zip64_directory(bytes, end)?;
    }
    let mut entries = Vec::new();
    let mut cursor = Cursor::new(bytes, start);
    for _ in 0..count {
        entries.push(entry(&mut cursor)?);
    }
    Ok(entries)
}

fn zip64_directory(bytes: &[u8], end: usize) -> Result<(usize, usize)> {
    let locator = end.checked_sub(ZIP64_LOCATOR_BYTES).ok_or("no 64-bit directory")?;
    let mut locator = Cursor::new(bytes, locator);
    if locator.u32()? != ZIP64_LOCATOR {
        return Err("no 64-bit directory".into());
    }
    locator.take(4)?;
    let mut record = Cursor::new(bytes, locator.u64()?);
    if record.u32()? != ZIP64_END_OF_DIRECTORY {
        return Err("no 64-bit directory where its locator says".into());
    }
    record.take(28)?;
    let count = record.u64()?;
    record.take(8)?;
    Ok((count, record.u64()?))
}

fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<Entry<'a>> {
    if cursor.u32()? != DIRECTORY_ENTRY {
        return Err("the archive's directory is broken".into());
    }
    cursor.take(4)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.take(8)?;
    let (packed, mut length) = (cursor.u32()? as usize, cursor.u32()? as usize);
    let (name, extra, comment) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    cursor.take(8)?;
    let mut header = cursor.u32()? as usize;
    let name = text(cursor.take(name.into())?)?;
    let extra = cursor.take(extra.into())?;
    cursor.take(comment.into())?;
    let wide = |value: usize| value == u32::MAX as usize;
    let mut extra = Cursor::new(extra, 0);
    // Where a field is all ones, its value is in the extra field 1, in this order.
    while let (Ok(id), Ok(size)) = (extra.u16(), extra.u16()) {
        let mut fields = Cursor::new(extra.take(size.into())?, 0);
        if id == 1 {
            if wide(length) {
                length = fields.u64()?;
            }
            if wide(packed) {
                fields.u64()?;
            }
            if wide(header) {
                header = fields.u64()?;
            }
        }
    }
    let stored = method == 0 && flags & 1 == 0;
    Ok(Entry { name, header, length, stored })
}
