//! What goes wrong, and with which request.

use serde::{Deserialize, Serialize};

use super::super::http::Request;
use super::Origin;

/// How long a silence lasts where a rule does not say, milliseconds.
const SILENCE_MS: u64 = 120_000;

/// One thing that can go wrong.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[serde(deny_unknown_fields)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut { after: u64 },
    /// Another status; `expose` lets pages see the `Retry-After`.
    Status {
        status: u16,
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        expose: bool,
    },
    /// The file is so many bytes longer, or shorter, than the tree says.
    Length { delta: i64 },
    /// The bits of `count` bytes are turned, from byte `at` of the file or from the answer's first.
    Bytes {
        #[serde(default)]
        at: Option<u64>,
        #[serde(default = "one")]
        count: u64,
    },
    /// A page in place of what was asked for.
    Html {},
    /// So many bytes a second.
    Slow { bytes_per_second: u64 },
    /// Silence after so many bytes of the body.
    Stall {
        after: u64,
        #[serde(default = "silence")]
        ms: u64,
    },
    /// Silence in place of an answer.
    Hang {
        #[serde(default = "silence")]
        ms: u64,
    },
    /// Redirects without end.
    RedirectLoop {},
    /// What the CDN says to an address whose time is over.
    Expired {},
    /// The whole file, whatever range was asked for.
    IgnoreRange {},
    /// Compressed, and of a length that is not told.
    Gzip {},
    /// Not to be read by pages.
    NoCors {},
    /// All connections end, and none can be made for so long.
    Restart { ms: u64 },
}

impl Fault {
    /// Its name in the rules.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cut { .. } => "cut",
            Self::Status { .. } => "status",
            Self::Length { .. } => "length",
            Self::Bytes { .. } => "bytes",
            Self::Html {} => "html",
            Self::Slow { .. } => "slow",
            Self::Stall { .. } => "stall",
            Self::Hang { .. } => "hang",
            Self::RedirectLoop {} => "redirect-loop",
            Self::Expired {} => "expired",
            Self::IgnoreRange {} => "ignore-range",
            Self::Gzip {} => "gzip",
            Self::NoCors {} => "no-cors",
            Self::Restart { .. } => "restart",
        }
    }

    /// Whether it changes how an answer's body is sent, and so needs one.
    fn needs_body(&self) -> bool {
        matches!(
            self,
            Self::Cut { .. }
                | Self::Length { .. }
                | Self::Bytes { .. }
                | Self::Slow { .. }
                | Self::Stall { .. }
                | Self::IgnoreRange {}
                | Self::Gzip {}
        )
    }
}

fn silence() -> u64 {
    SILENCE_MS
}

/// A fault, and the requests that meet it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Both where it is absent.
    #[serde(default)]
    origin: Option<Origin>,
    /// All but OPTIONS where it is absent.
    #[serde(default)]
    method: Option<String>,
    /// With `*` for anything: the request's path, or the file's in its repository.
    #[serde(default)]
    path: Option<String>,
    /// Only requests whose range has this byte of the file.
    #[serde(default)]
    covers: Option<u64>,
    /// The first request to meet it, of those that it could be; from 1.
    #[serde(default = "one")]
    nth: u64,
    /// How many requests meet it; 0 for all.
    #[serde(default = "one")]
    times: u64,
    fault: Fault,
    /// Requests so far that it could be.
    #[serde(skip_deserializing)]
    seen: u64,
    /// Requests so far that met it.
    #[serde(skip_deserializing)]
    hits: u64,
}

fn one() -> u64 {
    1
}

/// A request with what the server would answer if nothing went wrong.
pub struct Occasion<'a> {
    pub origin: Origin,
    pub request: &'a Request,
    /// The path of the request, decoded.
    pub path: &'a str,
    /// The path of the file in its repository.
    pub file: Option<&'a str>,
    /// Whether the answer is what was asked for: a file's bytes, or JSON.
    pub has_body: bool,
    /// The first byte of the file in the answer, and the last.
    pub range: Option<(u64, u64)>,
}

impl Rule {
    fn matches(&self, occasion: &Occasion<'_>) -> bool {
        let method = occasion.request.method.as_str();
        let matches = |pattern: &String| {
            glob(pattern, occasion.path) || occasion.file.is_some_and(|file| glob(pattern, file))
        };
        let covers =
            |byte: &u64| occasion.range.is_some_and(|(first, last)| (first..=last).contains(byte));
        self.origin.is_none_or(|origin| origin == occasion.origin)
            && self.method.as_ref().map_or(method != "OPTIONS", |wanted| wanted == method)
            && self.path.as_ref().is_none_or(matches)
            && self.covers.as_ref().is_none_or(covers)
            && (!self.fault.needs_body() || (occasion.has_body && method == "GET"))
    }

    fn is_due(&self) -> bool {
        self.seen >= self.nth && (self.times == 0 || self.seen - self.nth < self.times)
    }
}

/// What goes wrong with a request: the first rule that is due. All that could be count it.
pub fn pick(rules: &mut [Rule], occasion: &Occasion<'_>) -> Option<Fault> {
    let mut picked = None;
    for rule in rules {
        if rule.matches(occasion) {
            rule.seen += 1;
            if picked.is_none() && rule.is_due() {
                rule.hits += 1;
                picked = Some(rule.fault.clone());
            }
        }
    }
    picked
}

/// Whether `pattern`, in which `*` stands for anything, is all of `text`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}
