//! Names of models and addresses of files.

use std::fmt;

use crate::error::{Error, Result};

/// The Hugging Face Hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// An access token. It is sent to the Hub's own origin, and never stored or printed.
#[derive(Clone, PartialEq)]
pub struct Token(String);

impl Token {
    /// Wraps a token.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The text for the `Authorization` header.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A repository on the Hub at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Hub {
    /// `owner/name`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// The Hub's address, or a mirror's.
    pub endpoint: String,
    /// For gated models.
    pub token: Option<Token>,
}

/// Where a model's folder is.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelSource {
    /// On the Hub.
    Hub(Hub),
    /// Below any address, which ends without a slash.
    Base(String),
}

impl ModelSource {
    /// From what a user writes: `owner/name`, or an absolute address.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for anything else.
    pub fn parse(
        model: &str,
        revision: Option<&str>,
        endpoint: Option<&str>,
        token: Option<&str>,
    ) -> Result<Self> {
        if model.contains("://") {
            return Ok(Self::Base(model.trim_end_matches('/').to_owned()));
        }
        let part = |s: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !s.is_empty() && s.chars().all(allowed) && s != "." && s != ".."
        };
        let valid = model.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name));
        if !valid {
            return Err(Error::argument(
                "model",
                format!("`{model}` is neither a repository like `owner/name` nor an address"),
            ));
        }
        Ok(Self::Hub(Hub {
            repo: model.to_owned(),
            revision: revision.unwrap_or("main").to_owned(),
            endpoint: endpoint.unwrap_or(DEFAULT_ENDPOINT).trim_end_matches('/').to_owned(),
            token: token.map(Token::new),
        }))
    }

    /// The address of a file of the model.
    pub fn url(&self, path: &str) -> String {
        match self {
            Self::Hub(Hub { repo, revision, endpoint, .. }) => {
                format!("{endpoint}/{repo}/resolve/{}/{}", encode(revision, ""), encode(path, "/"))
            }
            Self::Base(base) => format!("{base}/{}", encode(path, "/")),
        }
    }

    /// The token to send along.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Hub(hub) => hub.token.as_ref(),
            Self::Base(_) => None,
        }
    }

    /// The model's name: its address, or `owner/name` with the endpoint before it where that is not
    /// the Hub's own. Without the revision.
    pub fn name(&self) -> String {
        match self {
            Self::Hub(Hub { repo, endpoint, .. }) if endpoint == DEFAULT_ENDPOINT => repo.clone(),
            Self::Hub(Hub { repo, endpoint, .. }) => format!("{endpoint}/{repo}"),
            Self::Base(base) => base.clone(),
        }
    }
}

impl Hub {
    /// An address of the Hub's interface for this repository, e.g. `revision/main`.
    pub(super) fn api(&self, what: &str) -> String {
        let Self { repo, revision, endpoint, .. } = self;
        format!("{endpoint}/api/models/{repo}/{what}/{}", encode(revision, ""))
    }
}

/// Percent-encodes what may not stand in an address as it is, `keep` aside.
fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_addresses() {
        let parse = |model| ModelSource::parse(model, None, None, None).expect("valid");
        assert_eq!(
            parse("timbrooks/instruct-pix2pix").url("unet/config.json"),
            "https://huggingface.co/timbrooks/instruct-pix2pix/resolve/main/unet/config.json"
        );
        assert_eq!(
            parse("http://localhost:1/m/").url("model_index.json"),
            "http://localhost:1/m/model_index.json"
        );
        let pinned = ModelSource::parse("a/b", Some("refs/pr/1"), Some("https://x.org/"), None);
        assert_eq!(pinned.expect("valid").url("f"), "https://x.org/a/b/resolve/refs%2Fpr%2F1/f");
    }

    #[test]
    fn names_leave_out_the_hub_itself() {
        let name = |model, endpoint| {
            ModelSource::parse(model, Some("v1"), endpoint, None).expect("valid").name()
        };
        assert_eq!(name("a/b", None), "a/b");
        assert_eq!(name("a/b", Some("https://m.org/")), "https://m.org/a/b");
        assert_eq!(name("https://m.org/x/", None), "https://m.org/x");
    }

    #[test]
    fn paths_are_encoded() {
        let source = ModelSource::Base("http://x".into());
        assert_eq!(source.url("a b/ü?#%.json"), "http://x/a%20b/%C3%BC%3F%23%25.json");
    }

    #[test]
    fn tokens_are_not_printed() {
        let source = ModelSource::parse("a/b", None, None, Some("hf_secret")).expect("valid");
        assert!(!format!("{source:?}").contains("secret"));
        assert_eq!(source.token().map(Token::secret), Some("hf_secret"));
    }

    #[test]
    fn other_names_are_refused() {
        for model in ["", "name", "a/b/c", "../x", "a/..", "a b/c"] {
            let error = ModelSource::parse(model, None, None, None).expect_err(model);
            assert_eq!(error.code(), "invalid-argument");
        }
    }
}
