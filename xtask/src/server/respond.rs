//! From a request to the response.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::Mount;
use super::http::{self, Range, Request};

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Everything but what depends on the connection.
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
    /// Whether the body is only announced.
    head_only: bool,
}

enum Body {
    /// None, and no length either: 204 and 304.
    None,
    Text(String),
    /// So many bytes from where the file stands.
    File(File, u64),
}

impl Response {
    fn new(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body, head_only: false }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes it all; files in pieces.
    pub fn send(self, mut stream: &TcpStream, keep_alive: bool) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, http::reason(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        // Pages of another port, as the tests have them, may read everything.
        head += "Access-Control-Allow-Origin: *\r\n";
        head += "Access-Control-Expose-Headers: \
                 Accept-Ranges, Content-Length, Content-Range, ETag\r\n";
        // Always asked about, and answered by 304 where nothing changed.
        head += "Cache-Control: no-cache\r\n";
        match &self.body {
            Body::None => {}
            Body::Text(text) => head += &format!("Content-Length: {}\r\n", text.len()),
            Body::File(_, length) => head += &format!("Content-Length: {length}\r\n"),
        }
        head +=
            if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" };
        match self.body {
            Body::Text(text) if !self.head_only => head += &text,
            Body::File(file, length) if !self.head_only => {
                stream.write_all(head.as_bytes())?;
                let sent = io::copy(&mut file.take(length), &mut stream)?;
                // A file that shrank leaves the length untrue: only closing tells the client.
                return if sent == length {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            _ => {}
        }
        stream.write_all(head.as_bytes())
    }
}

/// A status with its words for a body.
pub fn error(status: u16) -> Response {
    let text = format!("{status} {}\n", http::reason(status));
    Response::new(status, Body::Text(text)).with("Content-Type", "text/plain; charset=utf-8")
}

/// Answers a request.
pub fn respond(request: &Request, mounts: &[Mount]) -> Response {
    match request.method.as_str() {
        "GET" => get(request, mounts),
        // The standard knows ranges for GET alone.
        "HEAD" => Response { head_only: true, ..get(request, mounts) },
        "OPTIONS" => {
            let asked = request.header("access-control-request-headers").unwrap_or("Range");
            Response::new(204, Body::None)
                .with("Allow", METHODS)
                .with("Access-Control-Allow-Methods", METHODS)
                .with("Access-Control-Allow-Headers", asked)
                .with("Access-Control-Max-Age", "86400")
        }
        _ => error(405).with("Allow", METHODS),
    }
}

fn get(request: &Request, mounts: &[Mount]) -> Response {
    let Some((path, query)) = path_and_query(&request.target) else {
        return error(400);
    };
    let Some(mut file) = http::segments(path).and_then(|parts| locate(&parts, mounts)) else {
        return error(404);
    };
    if file.is_dir() {
        file.push("index.html");
        if file.is_file() && !path.ends_with('/') {
            // Without the slash, the page's relative addresses would be those of its parent.
            let name = path.rsplit('/').next().unwrap_or_default();
            return error(301).with("Location", format!("./{name}/{query}"));
        }
    } else if path.ends_with('/') {
        return error(404);
    }
    send_file(request, &file).unwrap_or_else(|_| error(404))
}

/// The path of a target, and its query with the question mark. A proxy's target holds the address.
fn path_and_query(target: &str) -> Option<(&str, &str)> {
    let path = match target.strip_prefix("http://") {
        Some(address) => address.find('/').map_or("/", |slash| &address[slash..]),
        None => target,
    };
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    path.starts_with('/').then_some((path, query))
}

/// The file or folder that the segments of a path name.
fn locate(segments: &[String], mounts: &[Mount]) -> Option<PathBuf> {
    let mount = mounts.iter().find(|mount| segments.starts_with(&mount.prefix))?;
    let mut path = mount.folder.clone();
    path.extend(&segments[mount.prefix.len()..]);
    Some(path)
}

fn send_file(request: &Request, path: &Path) -> io::Result<Response> {
    // Before opening, which would wait for ever on a pipe.
    if !path.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let size = metadata.len();
    let time = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let etag = format!("\"{size:x}-{:x}\"", time.as_nanos());

    if request.header("if-none-match").is_some_and(|header| http::names_etag(header, &etag)) {
        return Ok(Response::new(304, Body::None).with("ETag", etag));
    }
    let name = path.to_string_lossy();
    // A range of what the client holds an older part of would be of no use to it.
    let wanted = request.header("if-range").is_none_or(|header| header == etag);
    let header = request.header("range").filter(|_| wanted && request.method == "GET");
    let (status, length, content_range) = match http::range(header, size) {
        Range::Whole => (200, size, None),
        Range::Part(first, last) => {
            file.seek(SeekFrom::Start(first))?;
            (206, last - first + 1, Some(format!("bytes {first}-{last}/{size}")))
        }
        Range::Unsatisfiable => {
            return Ok(error(416).with("Content-Range", format!("bytes */{size}")));
        }
    };
    let mut response = Response::new(status, Body::File(file, length))
        .with("Content-Type", http::content_type(&name))
        .with("Accept-Ranges", "bytes")
        .with("ETag", etag);
    if let Some(content_range) = content_range {
        response = response.with("Content-Range", content_range);
    }
    Ok(response)
}
