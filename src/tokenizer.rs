//! CLIP's byte-pair encoding, as `CLIPTokenizerFast` of transformers does it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{self, Lowercase, NFC, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, Decoder, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::error::{Error, Result};

/// Tokens of a text, start, end and padding included.
pub const MAX_LENGTH: usize = 77;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// What is split off as a word; everything else is dropped.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A CLIP tokenizer.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    /// As the files have it; its vocabulary is large, so clones share it.
    base: Arc<Tokenizer>,
    /// With [`added`](Self::added) tokens.
    extended: Option<Arc<Tokenizer>>,
    added: Vec<String>,
    start: u32,
    end: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// From the contents of `vocab.json`, `merges.txt` and `special_tokens_map.json` or
    /// `tokenizer_config.json`, whichever there is, for the padding token.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] naming the file that cannot be read.
    pub fn new(vocab: &str, merges: &str, settings: Option<&str>) -> Result<Self> {
        let vocab: std::collections::HashMap<String, u32> =
            serde_json::from_str(vocab).map_err(|e| Error::config("vocab.json", e))?;
        let merges = merges
            .lines()
            .filter(|line| !line.starts_with("#version") && !line.is_empty())
            .map(|line| match line.split_once(' ') {
                Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
                None => Err(Error::config("merges.txt", format!("`{line}` is no pair"))),
            })
            .collect::<Result<Vec<_>>>()?;
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<ahash::AHashMap<_, _>>(), merges)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".into())
            .unk_token(END.into())
            .build()
            .map_err(|e| Error::config("merges.txt", e))?;
        let mut tokenizer = Tokenizer::new(bpe);
        let fail = |e| Error::config("vocab.json", e);
        let spaces = normalizers::replace::ReplacePattern::Regex(r"\s+".into());
        tokenizer
            .with_normalizer(Some(normalizers::Sequence::new(vec![
                NormalizerWrapper::from(NFC),
                Replace::new(spaces, " ").map_err(fail)?.into(),
                Lowercase.into(),
            ])))
            .map_err(fail)?;
        let words = SplitPattern::Regex(WORDS.into());
        let split = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(fail)?;
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
        let settings = match settings {
            Some(json) => {
                serde_json::from_str(json).map_err(|e| Error::config("tokenizer_config.json", e))?
            }
            None => Settings::default(),
        };
        tokenizer.add_special_tokens(settings.special_tokens()).map_err(fail)?;
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| Error::config("vocab.json", format!("no token `{token}`")))
        };
        let (start, end) = (id(START)?, id(END)?);
        let pad = id(settings.pad_token())?;
        Ok(Self { base: Arc::new(tokenizer), extended: None, added: Vec::new(), start, end, pad })
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.extended.as_deref().unwrap_or(&self.base)
    }

    /// The id of a token, if the vocabulary has it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer().token_to_id(token)
    }

    /// The tokens that have been added, in the order of their ids, which follow one another.
    pub fn added_tokens(&self) -> &[String] {
        &self.added
    }

    /// Makes `tokens` the added ones, in place of any that were added before: they are found in a
    /// text before it is split into words, whatever its case, as `add_tokens` of transformers does
    /// it. Returns the first one's id.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty token, and for one that the vocabulary has.
    pub fn set_added_tokens(&mut self, tokens: Vec<String>) -> Result<u32> {
        let mut extended = Tokenizer::clone(&self.base);
        let mut first = None;
        for token in &tokens {
            if token.trim().is_empty() {
                return Err(Error::argument("token", "an empty token"));
            }
            if extended.token_to_id(token).is_some() {
                return Err(Error::argument(
                    "token",
                    format!("`{token}` is in the tokenizer's vocabulary already"),
                ));
            }
            let fail = |e: tokenizers::Error| Error::argument("token", format!("`{token}`: {e}"));
            extended.add_tokens([AddedToken::from(token.as_str(), false)]).map_err(fail)?;
            first = first.or(extended.token_to_id(token));
        }
        self.extended = (!tokens.is_empty()).then(|| Arc::new(extended));
        self.added = tokens;
        Ok(first.unwrap_or_default())
    }

    /// `text` with every added token that has several vectors (`<x>`, `<x>_1`, ...) followed by
    /// its others.
    ///
    /// Source: diffusers `loaders/textual_inversion.py`, `_maybe_convert_prompt`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn expand<'a>(&self, text: &'a str) -> Result<Cow<'a, str>> {
        let mut text = Cow::Borrowed(text);
        if self.added.is_empty() {
            return Ok(text);
        }
        let encoding = self.raw(&text)?;
        let mut present: Vec<&String> = Vec::new();
        for token in encoding.get_tokens() {
            if let Some(token) = self.added.iter().find(|added| *added == token)
                && !present.contains(&token)
            {
                present.push(token);
            }
        }
        for token in present {
            let others = (1..)
                .map(|i| format!("{token}_{i}"))
                .take_while(|other| self.added.contains(other));
            let all: Vec<String> = std::iter::once(token.clone()).chain(others).collect();
            if all.len() > 1 {
                text = Cow::Owned(text.replace(token.as_str(), &all.join(" ")));
            }
        }
        Ok(text)
    }

    fn raw(&self, text: &str) -> Result<tokenizers::Encoding> {
        let fail = |e: tokenizers::Error| Error::argument("prompt", e.to_string());
        self.tokenizer().encode(text, false).map_err(fail)
    }

    /// The ids of `text` with start and end, neither cut nor padded.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.raw(&self.expand(text)?)?;
        let mut ids = vec![self.start];
        ids.extend(encoding.get_ids());
        ids.push(self.end);
        Ok(ids)
    }

    /// The ids of `text`, cut and padded to [`MAX_LENGTH`]; the end token survives the cut.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_padded(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_to_length(text, MAX_LENGTH)?.0)
    }

    /// The text that tokens stand for, for messages.
    fn decode(&self, ids: &[u32]) -> String {
        let tokens = ids.iter().filter_map(|id| self.tokenizer().id_to_token(*id)).collect();
        let text = ByteLevel::default().decode_chain(tokens).unwrap_or_default().concat();
        text.replace("</w>", " ").trim_end().to_owned()
    }

    /// The ids of `text`, cut and padded to `length`, and the text that was cut off.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_to_length(
        &self,
        text: &str,
        length: usize,
    ) -> Result<(Vec<u32>, Option<String>)> {
        let mut ids = self.encode(text)?;
        let mut cut = None;
        if ids.len() > length {
            cut = Some(self.decode(&ids[length.saturating_sub(1)..ids.len() - 1]));
            ids.truncate(length.saturating_sub(1));
            ids.push(self.end);
        }
        ids.resize(length, self.pad);
        Ok((ids, cut))
    }
}

/// What counts of `tokenizer_config.json` or `special_tokens_map.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    added_tokens_decoder: BTreeMap<String, Special>,
    pad_token: Option<Named>,
}

/// A token that is found in a text before anything else is.
#[derive(Debug, Clone, Deserialize)]
struct Special {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
}

/// A token by its text, or by an object that has it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Special(Special),
}

impl Settings {
    fn pad_token(&self) -> &str {
        match &self.pad_token {
            Some(Named::Text(content) | Named::Special(Special { content, .. })) => content,
            None => END,
        }
    }

    /// Start, end and padding, as far as the file does not list them itself, and what it lists.
    fn special_tokens(&self) -> Vec<AddedToken> {
        let default = |content: &str, normalized| Special {
            content: content.to_owned(),
            lstrip: false,
            rstrip: false,
            single_word: false,
            normalized,
        };
        let mut tokens: Vec<Special> = self.added_tokens_decoder.values().cloned().collect();
        for (content, normalized) in [(START, true), (END, true), (self.pad_token(), false)] {
            if tokens.iter().all(|token| token.content != content) {
                tokens.push(default(content, normalized));
            }
        }
        tokens
            .into_iter()
            .map(|token| {
                AddedToken::from(token.content, true)
                    .lstrip(token.lstrip)
                    .rstrip(token.rstrip)
                    .single_word(token.single_word)
                    .normalized(token.normalized)
            })
            .collect()
    }
}
