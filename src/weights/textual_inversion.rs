//! Textual inversion: words that a text encoder learns as vectors of its token table.
//!
//! Source: Gal et al., "An Image is Worth One Word: Personalizing Text-to-Image Generation using
//! Textual Inversion"; diffusers `loaders/textual_inversion.py`.

use super::{Entry, HostTensor, StateDict};
use crate::error::{Error, Result};
use crate::models::{ClipTextModel, Placement};
use crate::tokenizer::ClipTokenizer;

/// The vectors of one word.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The word as the file names it.
    pub token: Option<String>,
    /// `[N, C]`, or `[C]` for one vector.
    pub vectors: HostTensor,
}

/// What the text encoders of SDXL are called in files that have vectors for both.
const ENCODER_KEYS: [&str; 2] = ["clip_l", "clip_g"];

impl Embedding {
    /// Whether a file has vectors for both of SDXL's text encoders.
    pub fn is_pair(dict: &StateDict) -> bool {
        ENCODER_KEYS.iter().all(|key| dict.entries.iter().any(|(name, _)| name == key))
    }

    /// The word in a file: diffusers' (its only key is the token), A1111's (`string_to_param` and
    /// `name`), one with vectors for both of SDXL's encoders, or a tensor by itself. `encoder` is
    /// 0 for the first text encoder of a pipeline.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when it is none of these, [`Error::UnsupportedDtype`] when the
    /// vectors are no floats.
    pub fn new(dict: StateDict, encoder: usize) -> Result<Self> {
        let is_pair = Self::is_pair(&dict);
        let StateDict { file, mut entries, .. } = dict;
        let unnamed = |name: String| (!name.is_empty()).then_some(name);
        let (name, token, entry) = if is_pair {
            let key = ENCODER_KEYS.get(encoder).copied().unwrap_or_default();
            (key.to_owned(), None, take(&mut entries, key))
        } else if entries.len() == 1 {
            let (name, entry) = entries.remove(0);
            (name.clone(), unnamed(name), Some(entry))
        } else {
            let vectors = match take(&mut entries, "string_to_param") {
                Some(Entry::Nested(mut params)) => take(&mut params.entries, "*"),
                _ => None,
            };
            let token = match take(&mut entries, "name") {
                Some(Entry::Text(name)) => Some(name),
                _ => None,
            };
            ("string_to_param.*".to_owned(), token, vectors)
        };
        match entry {
            Some(Entry::Tensor(vectors)) => Ok(Self { token, vectors }),
            Some(Entry::Other(dtype)) => Err(Error::UnsupportedDtype { file, name, dtype }),
            _ => Err(Error::unsupported(format!(
                "{file}: neither a textual inversion of diffusers (a token and its vectors) nor of \
                 A1111 (`string_to_param` and `name`)"
            ))),
        }
    }
}

fn take(entries: &mut Vec<(String, Entry)>, key: &str) -> Option<Entry> {
    let index = entries.iter().position(|(name, _)| name == key)?;
    Some(entries.swap_remove(index).1)
}

/// The words that a tokenizer and a text encoder have learnt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LearntWords {
    /// Token and vector, in the order of the ids.
    rows: Vec<(String, Vec<f32>)>,
}

impl LearntWords {
    /// The tokens, in the order of their ids; a word of several vectors has one for each: `<x>`,
    /// `<x>_1`, ...
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(token, _)| token.as_str())
    }

    /// Teaches words, all of them or none: tokens to the tokenizer, vectors to the encoder.
    /// Returns the tokens that were added.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a token exists already or two words have the same;
    /// [`Error::ShapeMismatch`] when the vectors have another width than the encoder's.
    pub fn learn(
        &mut self,
        file: &str,
        words: &[(String, HostTensor)],
        tokenizer: &mut ClipTokenizer,
        encoder: &mut ClipTextModel,
        placement: &Placement,
    ) -> Result<Vec<String>> {
        let channels = encoder.token_channels();
        let mut learnt = self.clone();
        for (token, vectors) in words {
            // Otherwise `<x>` would stand for vectors of both.
            if tokenizer.token_id(&format!("{token}_1")).is_some() {
                return Err(Error::argument(
                    "token",
                    format!("`{token}_1` is in the tokenizer's vocabulary already"),
                ));
            }
            let count = match vectors.shape() {
                [width] if *width == channels => 1,
                [count, width] if *width == channels && *count > 0 => *count,
                found => {
                    return Err(Error::ShapeMismatch {
                        file: file.into(),
                        name: token.clone(),
                        expected: vec![1, channels],
                        found: found.to_vec(),
                    });
                }
            };
            let values = vectors.to_f32();
            let names = (0..count).map(|i| match i {
                0 => token.clone(),
                i => format!("{token}_{i}"),
            });
            learnt.rows.extend(names.zip(values.chunks_exact(channels).map(<[f32]>::to_vec)));
        }
        learnt.apply(tokenizer, encoder, placement)?;
        let added = learnt.rows[self.rows.len()..].iter().map(|(token, _)| token.clone()).collect();
        *self = learnt;
        Ok(added)
    }

    /// Unteaches words with all of their vectors, or every word. diffusers leaves the further
    /// vectors of a word behind, and could then not load it again.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a word was not learnt.
    pub fn forget(
        &mut self,
        words: Option<&[String]>,
        tokenizer: &mut ClipTokenizer,
        encoder: &mut ClipTextModel,
        placement: &Placement,
    ) -> Result<()> {
        let mut left = self.clone();
        match words {
            None => left.rows.clear(),
            Some(words) => {
                for word in words {
                    if !self.tokens().any(|token| token == word) {
                        let known: Vec<&str> = self.tokens().collect();
                        return Err(Error::argument(
                            "tokens",
                            format!("`{word}` is none of the loaded tokens {known:?}"),
                        ));
                    }
                    left.rows.retain(|(token, _)| !belongs_to(token, word));
                }
            }
        }
        left.apply(tokenizer, encoder, placement)?;
        *self = left;
        Ok(())
    }

    fn apply(
        &self,
        tokenizer: &mut ClipTokenizer,
        encoder: &mut ClipTextModel,
        placement: &Placement,
    ) -> Result<()> {
        let first = tokenizer.set_added_tokens(self.tokens().map(str::to_owned).collect())?;
        let values = self.rows.iter().flat_map(|(_, vector)| vector.iter().copied()).collect();
        encoder.set_added_tokens(first, values, placement);
        Ok(())
    }
}

/// Whether a token is a word, or one of its further vectors.
fn belongs_to(token: &str, word: &str) -> bool {
    token.strip_prefix(word).is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|i| !i.is_empty() && i.bytes().all(|digit| digit.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(bytes: &[u8], encoder: usize) -> Result<Embedding> {
        Embedding::new(StateDict::parse("x", bytes)?, encoder)
    }

    fn saved(entries: &[(&str, &[usize])]) -> Vec<u8> {
        let entries = entries.iter().map(|(name, shape)| {
            let values = vec![1.0; shape.iter().product()];
            ((*name).to_owned(), Entry::Tensor(HostTensor::from_f32(shape.to_vec(), &values)))
        });
        let dict = StateDict { entries: entries.collect(), ..StateDict::default() };
        dict.to_safetensors().expect("written")
    }

    #[test]
    fn every_format_is_known() {
        let a1111 = include_bytes!("../../tests/fixtures/oracle/adapters/ti_a1111.pt");
        let word = embedding(a1111, 0).expect("A1111");
        assert_eq!((word.token.as_deref(), word.vectors.shape()), (Some("easy-neg"), &[2, 16][..]));
        let single = include_bytes!("../../tests/fixtures/oracle/adapters/ti_single.safetensors");
        let word = embedding(single, 0).expect("diffusers");
        assert_eq!((word.token.as_deref(), word.vectors.shape()), (Some("<cat-toy>"), &[16][..]));
        let both = saved(&[("clip_g", &[2, 24]), ("clip_l", &[2, 16])]);
        for (encoder, channels) in [16, 24].into_iter().enumerate() {
            let word = embedding(&both, encoder).expect("both encoders");
            assert_eq!((word.token, word.vectors.shape()), (None, &[2, channels][..]));
        }
    }

    #[test]
    fn other_files_are_refused() {
        let error = embedding(&saved(&[("a", &[2]), ("b", &[2])]), 0).expect_err("two keys");
        assert_eq!(error.code(), "unsupported");
    }

    #[test]
    fn further_vectors_belong_to_their_word() {
        assert!(belongs_to("<x>", "<x>") && belongs_to("<x>_12", "<x>"));
        assert!(!belongs_to("<x>_", "<x>") && !belongs_to("<x>_a", "<x>"));
        assert!(!belongs_to("<x>y", "<x>"));
    }
}
