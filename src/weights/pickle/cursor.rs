//! Reads little-endian fields without ever going past the end.

/// What is wrong with a file; the caller adds the file's name.
pub type Result<T> = std::result::Result<T, String>;

/// A position in bytes.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At `at`, which may lie beyond the end: then nothing can be read.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// How many bytes have been passed.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = end.unwrap_or(usize::MAX);
        bytes.ok_or_else(|| format!("it ends within {length} bytes that it announces"))
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(*bytes.first_chunk().expect("`take` gives as many as it is asked for"))
    }

    /// The bytes up to the next line feed, which is passed too.
    pub fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("a line without an end")?;
        let line = text(self.take(length)?)?;
        self.take(1)?;
        Ok(line)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, as a length.
    pub fn u64(&mut self) -> Result<usize> {
        let value = self.array().map(u64::from_le_bytes)?;
        usize::try_from(value).map_err(|_| format!("{value} is more than fits into memory"))
    }
}

/// UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".into())
}
