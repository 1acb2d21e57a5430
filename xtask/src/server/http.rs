//! The parts of HTTP/1.1 that a static server meets: request heads, paths, ranges, ETags.

use std::io::{self, BufRead, Read};

/// The longest request head. Browsers stay far below it.
const LONGEST: u64 = 32 * 1024;

/// What came of waiting for a request.
pub enum Head {
    /// The client has gone.
    End,
    /// Not a request: the status to answer with, before closing.
    Bad(u16),
    /// A request.
    Whole(Request),
}

/// A request without its body, which nothing here has a use for.
pub struct Request {
    pub method: String,
    pub target: String,
    http_1_0: bool,
    /// Names in lower case.
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads up to the empty line that ends a head.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Head> {
        let mut lines = Vec::new();
        let mut limited = reader.take(LONGEST);
        loop {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Ok(if limited.limit() == 0 { Head::Bad(431) } else { Head::End });
            }
            let Ok(line) = String::from_utf8(line) else {
                return Ok(Head::Bad(400));
            };
            match line.trim_end_matches(['\r', '\n']) {
                // Empty lines before the first one are to be forgiven.
                "" if lines.is_empty() => {}
                "" => break,
                // What goes back in an answer must not break its lines.
                line if line.contains(|c: char| c.is_ascii_control() && c != '\t') => {
                    return Ok(Head::Bad(400));
                }
                line => lines.push(line.to_owned()),
            }
        }
        Ok(Self::parse(&lines).map_or_else(Head::Bad, Head::Whole))
    }

    fn parse(lines: &[String]) -> Result<Self, u16> {
        let (first, rest) = lines.split_first().ok_or(400_u16)?;
        let words: Vec<_> = first.split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(400);
        };
        let http_1_0 = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ if version.starts_with("HTTP/") => return Err(505),
            _ => return Err(400),
        };
        let header = |line: &String| {
            let (name, value) = line.split_once(':').ok_or(400_u16)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = rest.iter().map(header).collect::<Result<_, u16>>()?;
        Ok(Self { method: method.to_owned(), target: target.to_owned(), http_1_0, headers })
    }

    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }

    /// Whether another request may follow. After a body none may, since bodies are not read.
    pub fn keeps_alive(&self) -> bool {
        let has_body = self.header("transfer-encoding").is_some()
            || self.header("content-length").is_some_and(|length| length != "0");
        let wishes = self.header("connection").unwrap_or_default().to_ascii_lowercase();
        let wishes = |word| wishes.split(',').any(|wish| wish.trim() == word);
        !has_body && if self.http_1_0 { wishes("keep-alive") } else { !wishes("close") }
    }
}

/// The decoded segments of a request's path, or none where it is not one to be served: bad escapes,
/// or a segment that would lead elsewhere on some system.
pub fn segments(path: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    // Split first: an escaped slash must not make segments of its own.
    for part in path.split('/') {
        let part = percent_decode(part)?;
        match part.as_str() {
            "" | "." => {}
            ".." => return None,
            _ if part.contains(['/', '\\', '\0']) => return None,
            // A drive, or a stream of a file.
            _ if cfg!(windows) && part.contains(':') => return None,
            _ => segments.push(part),
        }
    }
    Some(segments)
}

/// Undoes the escapes of an address; none where they are wrong.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || (rest.next()? as char).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// What a `Range` header comes to for a file.
#[derive(Debug, PartialEq)]
pub enum Range {
    /// Everything: none was asked for, or something other than one range of bytes.
    Whole,
    /// From the first byte to the last, both included.
    Part(u64, u64),
    /// None of these bytes exist.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `size` bytes.
pub fn range(header: Option<&str>, size: u64) -> Range {
    header.and_then(|header| parse_range(header, size)).unwrap_or(Range::Whole)
}

/// None where the header is to be ignored, as the standard has it for what is malformed.
fn parse_range(header: &str, size: u64) -> Option<Range> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = match (first, last) {
        ("", length) => (size.saturating_sub(number(length)?), size.checked_sub(1)),
        (first, "") => (number(first)?, size.checked_sub(1)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            (first, size.checked_sub(1).map(|end| end.min(last)))
        }
    };
    Some(match last {
        Some(last) if first <= last => Range::Part(first, last),
        _ => Range::Unsatisfiable,
    })
}

/// Digits only: `parse` alone would take a sign. What overflows lies beyond every file.
fn number(digits: &str) -> Option<u64> {
    let good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    good.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Whether an `If-None-Match` header names `etag`; weak marks do not matter there.
pub fn names_etag(header: &str, etag: &str) -> bool {
    header
        .split(',')
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
}

/// The content type of a file by its ending.
pub fn content_type(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_ascii_lowercase();
    match end.as_str() {
        "css" => "text/css; charset=utf-8",
        "gif" => "image/gif",
        "html" => "text/html; charset=utf-8",
        "ico" => "image/x-icon",
        "jpg" | "jpeg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "md" | "txt" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// The words that go with a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}
