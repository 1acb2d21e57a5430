//! Where adapters come from.
//!
//! Source: diffusers `loaders/lora_base.py` (`_fetch_state_dict`) and `loaders/textual_inversion.py`
//! (`load_textual_inversion_state_dicts`).

use crate::error::{Error, Result};
use crate::hub::{FileReader, ModelFiles, finish_beside};
use crate::weights::lora::read_whole;

/// The names of a LoRA's file where none is given, in the order in which they are looked for.
pub(super) const LORA_FILES: &[&str] =
    &["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];

/// The names of a textual inversion's file where none is given.
const TEXTUAL_INVERSION_FILES: &[&str] = &["learned_embeds.safetensors", "learned_embeds.bin"];

/// What a file's name has when it is no adapter.
const OTHER_FILES: [&str; 3] = ["scheduler", "optimizer", "checkpoint"];

/// A repository or a folder that has an adapter.
#[derive(Clone, Copy)]
pub struct AdapterSource<'a> {
    /// Its files.
    pub files: &'a dyn ModelFiles,
    /// The folder inside it that is meant.
    pub subfolder: Option<&'a str>,
    /// The adapter's file in there.
    pub weight_name: Option<&'a str>,
}

impl<'a> AdapterSource<'a> {
    /// Opens the file that is named, or the first of `names` that there is. Where there is none of them and it is known
    /// what there is, the first safetensors file that may be an adapter is taken, else the first `.bin`. Returns its
    /// path too.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of them; other network errors.
    pub(in crate::pipeline) async fn open(
        &self,
        names: &[&str],
    ) -> Result<(String, Box<dyn FileReader + 'a>)> {
        let mut missing = None;
        let folder = self.subfolder.map(|name| format!("{}/", name.trim_matches('/')));
        let folder = folder.unwrap_or_default();
        let paths: Vec<String> = match self.weight_name {
            Some(name) => vec![format!("{folder}{name}")],
            None => {
                let named = names.iter().map(|name| format!("{folder}{name}"));
                named.chain(guess(self.files.paths(), &folder)).collect()
            }
        };
        for path in paths {
            match self.files.open(&path).await {
                Ok(reader) => {
                    self.files.prepare().await?;
                    return Ok((path, reader));
                }
                Err(error @ Error::NotFound { .. }) => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        Err(missing.unwrap_or_else(|| Error::argument("weightName", "a file's name is needed")))
    }

    /// Says that the file was read, or was not read to its end, when no reader is left.
    pub(in crate::pipeline) async fn close<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Ok(_) => finish_beside(self.files).await?,
            Err(_) => self.files.stop().await,
        }
        result
    }

    /// Reads a textual inversion whole. Returns its path and its contents.
    ///
    /// # Errors
    /// As [`PipelineBase::load_lora_from`](crate::pipeline::PipelineBase::load_lora_from).
    pub async fn read_textual_inversion(&self) -> Result<(String, Vec<u8>)> {
        let (path, mut reader) = self.open(TEXTUAL_INVERSION_FILES).await?;
        let bytes = read_whole(&mut *reader).await;
        drop(reader);
        self.close(bytes.map(|bytes| (path, bytes))).await
    }
}

/// The most likely adapter in a folder.
fn guess(mut paths: Vec<String>, folder: &str) -> Option<String> {
    paths.retain(|path| {
        path.starts_with(folder) && !OTHER_FILES.iter().any(|other| path.contains(other))
    });
    let ending = |end: &str| paths.iter().find(|path| path.ends_with(end));
    ending(".safetensors").or_else(|| ending(".bin")).cloned()
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn a_file_is_guessed_as_diffusers_does() {
        let guess =
            |paths: &[&str], folder| guess(paths.iter().map(|x| (*x).into()).collect(), folder);
        let files = ["README.md", "checkpoint-500/a.safetensors", "optimizer.bin", "style.bin"];
        assert_eq!(guess(&files, "").as_deref(), Some("style.bin"));
        let files = ["style.bin", "sub/other.safetensors", "zz.safetensors"];
        assert_eq!(guess(&files, "").as_deref(), Some("sub/other.safetensors"));
        assert_eq!(guess(&files, "sub/").as_deref(), Some("sub/other.safetensors"));
        assert_eq!(guess(&files, "none/"), None);
    }
}
