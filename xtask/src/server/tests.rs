//! A test per behaviour, through real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::http::{Range, content_type, names_etag, range, segments};
use super::{Mount, Server};
use crate::files::tests::Scratch;

/// A server over a scratch folder, and its other folder under `/pkg`.
struct Site {
    address: SocketAddr,
    www: Scratch,
    _pkg: Scratch,
}

fn site() -> Site {
    let www = Scratch::new()
        .with("index.html", b"<p>home</p>")
        .with("a b.txt", b"0123456789")
        .with("empty", b"")
        .with("sub/index.html", b"<p>sub</p>")
        .with("bare/file.bin", b"x")
        .with("pkg/hidden.js", b"not this one");
    let pkg = Scratch::new().with("module.js", b"export {}").with("module.wasm", b"\0asm");
    let mount = |prefix, folder: &Scratch| {
        Mount::new(prefix, folder.path().to_owned()).expect("a folder to serve")
    };
    let server = Server::bind(vec![mount("/", &www), mount("/pkg", &pkg)], 0).expect("bound");
    let address = server.address();
    thread::spawn(move || server.run());
    Site { address, www, _pkg: pkg }
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The value of a header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|header| header.0.eq_ignore_ascii_case(name));
        found.map_or("", |header| &header.1)
    }

    fn read(stream: &mut BufReader<TcpStream>, has_body: bool) -> Self {
        let mut answer = Self::read_head(stream);
        let length = answer.header("Content-Length").parse().unwrap_or(0);
        answer.body.resize(if has_body { length } else { 0 }, 0);
        stream.read_exact(&mut answer.body).expect("the body");
        answer
    }

    /// Reads up to where the body starts.
    pub(super) fn read_head(stream: &mut BufReader<TcpStream>) -> Self {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a status line");
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut answer = Self { status, headers: Vec::new(), body: Vec::new() };
        loop {
            line.clear();
            stream.read_line(&mut line).expect("a header");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        answer
    }
}

impl Site {
    fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).expect("connected"))
    }

    /// Sends the head on a connection of its own; nothing may follow the answer.
    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = self.connect();
        let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        stream.get_mut().write_all(head.as_bytes()).expect("sent");
        let answer = Answer::read(&mut stream, method != "HEAD");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("closed");
        assert_eq!(rest, b"", "bytes after the answer");
        answer
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }
}

#[test]
fn files_are_served_with_type_length_and_validator() {
    let site = site();
    let answer = site.get("/a%20b.txt?query=1");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"0123456789"[..]));
    assert_eq!(answer.header("Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("Content-Length"), "10");
    assert_eq!(answer.header("Accept-Ranges"), "bytes");
    assert_eq!(answer.header("Cache-Control"), "no-cache");
    assert!(answer.header("ETag").starts_with('"') && answer.header("ETag").ends_with('"'));
    assert_eq!(site.get("/empty").body, b"");
}

#[test]
fn mounts_come_before_the_root() {
    let site = site();
    assert_eq!(site.get("/pkg/module.js").body, b"export {}");
    assert_eq!(site.get("/pkg/module.wasm").header("Content-Type"), "application/wasm");
    assert_eq!(site.get("/pkg/hidden.js").status, 404);
    assert_eq!(site.get("/pkgs").status, 404);
}

#[test]
fn folders_answer_with_their_index() {
    let site = site();
    assert_eq!(site.get("/").body, b"<p>home</p>");
    assert_eq!(site.get("/").header("Content-Type"), "text/html; charset=utf-8");
    assert_eq!(site.get("/sub/").body, b"<p>sub</p>");
    let moved = site.get("/sub?a=b");
    assert_eq!((moved.status, moved.header("Location")), (301, "./sub/?a=b"));
    assert_eq!(site.get("/bare").status, 404);
    assert_eq!(site.get("/bare/").status, 404);
    assert_eq!(site.get("/empty/").status, 404);
}

#[test]
fn what_is_not_there_is_404_and_readable_by_other_origins() {
    let site = site();
    let answer = site.get("/absent");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("Access-Control-Allow-Origin"), "*");
    assert!(!answer.body.is_empty());
}

#[test]
fn head_announces_the_body_without_sending_it() {
    let answer = site().ask("HEAD", "/a%20b.txt", "Range: bytes=2-3\r\n");
    assert_eq!((answer.status, answer.header("Content-Length")), (200, "10"));
}

#[test]
fn ranges_are_served_as_parts() {
    let site = site();
    let part = |range| site.ask("GET", "/a%20b.txt", &format!("Range: {range}\r\n"));
    for (range, wanted, content_range) in [
        ("bytes=2-4", &b"234"[..], "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ] {
        let answer = part(range);
        assert_eq!((answer.status, answer.body.as_slice()), (206, wanted), "{range}");
        assert_eq!(answer.header("Content-Range"), content_range);
    }
    let beyond = part("bytes=10-");
    assert_eq!((beyond.status, beyond.header("Content-Range")), (416, "bytes */10"));
    assert_eq!(part("bytes=0-1,4-5").status, 200);
}

#[test]
fn a_range_of_another_version_is_the_whole_file() {
    let site = site();
    let etag = site.get("/a%20b.txt").header("ETag").to_owned();
    let ask = |etag: &str| {
        let headers = format!("Range: bytes=0-0\r\nIf-Range: {etag}\r\n");
        site.ask("GET", "/a%20b.txt", &headers).status
    };
    assert_eq!((ask(&etag), ask("\"other\"")), (206, 200));
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let site = site();
    let etag = site.get("/a%20b.txt").header("ETag").to_owned();
    let ask = || site.ask("GET", "/a%20b.txt", &format!("If-None-Match: \"x\", {etag}\r\n"));
    let answer = ask();
    assert_eq!((answer.status, answer.header("ETag")), (304, etag.as_str()));
    assert_eq!(answer.header("Content-Length"), "");
    std::fs::write(site.www.path().join("a b.txt"), "changed").expect("written");
    assert_eq!((ask().status, ask().body.as_slice()), (200, &b"changed"[..]));
}

#[test]
fn other_origins_may_read_everything() {
    let site = site();
    let answer = site.ask("GET", "/a%20b.txt", "Origin: http://127.0.0.1:1\r\n");
    assert_eq!(answer.header("Access-Control-Allow-Origin"), "*");
    for name in ["Content-Range", "ETag", "Content-Length", "Accept-Ranges"] {
        assert!(answer.header("Access-Control-Expose-Headers").contains(name), "{name}");
    }
    let asks = "Access-Control-Request-Method: GET\r\n\
                Access-Control-Request-Headers: range, x-other\r\n";
    let preflight = site.ask("OPTIONS", "/a%20b.txt", asks);
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("Access-Control-Allow-Headers"), "range, x-other");
    assert!(preflight.header("Access-Control-Allow-Methods").contains("GET"));
}

#[test]
fn nothing_outside_the_folders_is_served() {
    let site = site();
    let outside = Scratch::new().with("secret", b"secret");
    let name = outside.path().file_name().and_then(|name| name.to_str()).expect("a name");
    for path in [
        format!("/../{name}/secret"),
        format!("/sub/../../{name}/secret"),
        format!("/%2e%2e/{name}/secret"),
        format!("/..%2f{name}%2fsecret"),
        format!("/..%5c{name}%5csecret"),
        format!("/pkg/../../{name}/secret"),
        format!("/{}", outside.path().join("secret").display()),
        "/%00".to_owned(),
        "/%zz".to_owned(),
        "/%".to_owned(),
        "/%ff".to_owned(),
    ] {
        assert_eq!(site.get(&path).status, 404, "{path}");
    }
}

/// The fixtures refer to one another by links.
#[test]
#[cfg(unix)]
fn links_are_followed() {
    let (site, other) = (site(), Scratch::new().with("linked", b"elsewhere"));
    let link = site.www.path().join("link");
    std::os::unix::fs::symlink(other.path(), link).expect("linked");
    assert_eq!(site.get("/link/linked").body, b"elsewhere");
}

#[test]
fn a_connection_takes_many_requests() {
    let site = site();
    let mut stream = site.connect();
    for _ in 0..3 {
        stream.get_mut().write_all(b"GET /sub/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let answer = Answer::read(&mut stream, true);
        assert_eq!(answer.body, b"<p>sub</p>");
        assert_eq!(answer.header("Connection"), "keep-alive");
    }
    // Several at once too, and errors do not end it.
    let both = "GET /absent HTTP/1.1\r\n\r\nGET /sub/ HTTP/1.1\r\n\r\n";
    stream.get_mut().write_all(both.as_bytes()).expect("sent");
    assert_eq!(Answer::read(&mut stream, true).status, 404);
    assert_eq!(Answer::read(&mut stream, true).status, 200);
}

#[test]
fn connections_are_closed_when_asked_or_old() {
    let site = site();
    for head in ["GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut stream = site.connect();
        stream.get_mut().write_all(head.as_bytes()).expect("sent");
        assert_eq!(Answer::read(&mut stream, true).header("Connection"), "close");
        assert_eq!(stream.read_line(&mut String::new()).expect("the end"), 0);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let site = site();
    let status = |head: String| {
        let mut stream = site.connect();
        stream.get_mut().write_all(head.as_bytes()).expect("sent");
        Answer::read(&mut stream, true).status
    };
    assert_eq!(status("nonsense\r\n\r\n".into()), 400);
    assert_eq!(status("GET relative HTTP/1.1\r\n\r\n".into()), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nno colon\r\n\r\n".into()), 400);
    assert_eq!(status("GET / HTTP/1.1\r\na: b\rc: d\r\n\r\n".into()), 400);
    assert_eq!(status("GET / HTTP/2.0\r\n\r\n".into()), 505);
    assert_eq!(status(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000))), 431);
    assert_eq!(status("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".into()), 405);
}

#[test]
fn many_clients_are_served_at_once() {
    let site = site();
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    std::fs::write(site.www.path().join("big.safetensors"), &big).expect("written");
    // These say nothing, and hold up no one.
    let _silent: Vec<_> = (0..8).map(|_| site.connect()).collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(site.get("/big.safetensors").body == big));
        }
    });
}

#[test]
fn the_policy_comes_with_every_answer() {
    const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
    let www = Scratch::new().with("index.html", b"<p>home</p>");
    let mounts = vec![Mount::new("/", www.path().to_owned()).expect("a folder")];
    let server = Server::bind(mounts, 0).expect("bound").with_policy(POLICY);
    let address = server.address();
    thread::spawn(move || server.run());
    for head in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\nIf-None-Match: *\r\n\r\n",
        "GET /absent HTTP/1.1\r\nConnection: close\r\n\r\n",
        "PUT / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "no request\r\n\r\n",
    ] {
        let mut stream = BufReader::new(TcpStream::connect(address).expect("connected"));
        stream.get_mut().write_all(head.as_bytes()).expect("sent");
        let answer = Answer::read_head(&mut stream);
        assert_eq!(answer.header("Content-Security-Policy"), POLICY, "{head}");
    }
    assert_eq!(site().get("/").header("Content-Security-Policy"), "", "no other server has it");
}

#[test]
fn a_taken_port_gives_way_to_the_next() {
    let folder = Scratch::new();
    let mounts = || vec![Mount::new("/", folder.path().to_owned()).expect("a folder")];
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("an address").port();
    let server = Server::bind(mounts(), port).expect("another port");
    assert!(server.address().port() > port);
    assert!(server.address().ip().is_loopback());
}

#[test]
fn mounts_must_be_paths_of_folders() {
    let scratch = Scratch::new().with("file", b"");
    assert!(Mount::new("pkg", scratch.path().to_owned()).is_err());
    assert!(Mount::new("/pkg", scratch.path().join("absent")).is_err());
    assert!(Mount::new("/pkg", scratch.path().join("file")).is_err());
}

#[test]
fn ranges_that_are_malformed_are_ignored() {
    for header in ["bytes=4-2", "bytes=-", "bytes=+1-2", "bytes=a-b", "bytes", "lines=0-1", ""] {
        assert_eq!(range(Some(header), 10), Range::Whole, "{header}");
    }
    assert_eq!(range(None, 10), Range::Whole);
    assert_eq!(range(Some("bytes=0-"), 0), Range::Unsatisfiable);
    assert_eq!(range(Some("bytes=-0"), 10), Range::Unsatisfiable);
    assert_eq!(range(Some("bytes=-5"), 0), Range::Unsatisfiable);
    assert_eq!(range(Some("bytes=0-99999999999999999999"), 10), Range::Part(0, 9));
}

#[test]
fn paths_are_taken_apart_and_decoded() {
    assert_eq!(segments("//a/./b%20c/").expect("good"), ["a", "b c"]);
    assert_eq!(segments("/%C3%BC").expect("good"), ["ü"]);
    assert!(segments("/a/../b").is_none());
    assert!(segments("/a%2Fb").is_none());
}

#[test]
fn validators_are_compared_weakly() {
    assert!(names_etag("W/\"a\"", "\"a\"") && names_etag("*", "\"a\""));
    assert!(!names_etag("\"b\"", "\"a\""));
}

#[test]
fn types_of_what_is_served() {
    for (name, wanted) in [
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.JSON", "application/json"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.svg", "image/svg+xml"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.safetensors", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ] {
        assert_eq!(content_type(name), wanted, "{name}");
    }
}
