//! Names of models and addresses of files.

use crate::error::{Error, Result};

/// The Hugging Face Hub.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

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
    pub token: Option<String>,
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
            token: token.map(str::to_owned),
        }))
    }

    /// The address of a file of the model.
    pub fn url(&self, path: &str) -> String {
        match self {
            Self::Hub(Hub { repo, revision, endpoint, .. }) => {
                format!("{endpoint}/{repo}/resolve/{}/{path}", revision.replace('/', "%2F"))
            }
            Self::Base(base) => format!("{base}/{path}"),
        }
    }

    /// The token to send along.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Hub(hub) => hub.token.as_deref(),
            Self::Base(_) => None,
        }
    }
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
    fn other_names_are_refused() {
        for model in ["", "name", "a/b/c", "../x", "a/..", "a b/c"] {
            let error = ModelSource::parse(model, None, None, None).expect_err(model);
            assert_eq!(error.code(), "invalid-argument");
        }
    }
}
