//! Where adapters come from.
//!
//! Source: diffusers `loaders/lora_base.py` (`_fetch_state_dict`) and `loaders/textual_inversion.py`
//! (`load_textual_inversion_state_dicts`).

use crate::error::{Error, Result};
use crate::hub::{FileReader, ModelFiles};

/// The names of a LoRA's file where none is given, in the order in which they are looked for.
pub const LORA_FILES: &[&str] = &["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];

/// The names of a textual inversion's file where none is given.
pub const TEXTUAL_INVERSION_FILES: &[&str] = &["learned_embeds.safetensors", "learned_embeds.bin"];

/// What a file's name has when it is no adapter.
const OTHER_FILES: [&str; 3] = ["scheduler", "optimizer", "checkpoint"];

/// Reads the file `weight_name` of a repository or folder, or the first of `names` that it has, from
/// its folder `subfolder`. Where it has none of them and says what it has, the first safetensors file
/// that may be an adapter is taken, else the first `.bin`. Returns its path and its contents.
///
/// # Errors
/// [`Error::NotFound`] when there is none of them; other network errors.
pub async fn read_adapter(
    files: &dyn ModelFiles,
    subfolder: Option<&str>,
    weight_name: Option<&str>,
    names: &[&str],
) -> Result<(String, Vec<u8>)> {
    let mut missing = None;
    let folder = subfolder.map_or_else(String::new, |name| format!("{}/", name.trim_matches('/')));
    let paths: Vec<String> = match weight_name {
        Some(name) => vec![format!("{folder}{name}")],
        None => {
            let named = names.iter().map(|name| format!("{folder}{name}"));
            named.chain(guess(files.paths(), &folder)).collect()
        }
    };
    for path in paths {
        match read_whole(files, &path).await {
            Ok(bytes) => return Ok((path, bytes)),
            Err(error @ Error::NotFound { .. }) => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or_else(|| Error::argument("weightName", "a file's name is needed")))
}

/// The most likely adapter in a folder.
fn guess(mut paths: Vec<String>, folder: &str) -> Option<String> {
    paths.retain(|path| {
        path.starts_with(folder) && !OTHER_FILES.iter().any(|other| path.contains(other))
    });
    let ending = |end: &str| paths.iter().find(|path| path.ends_with(end));
    ending(".safetensors").or_else(|| ending(".bin")).cloned()
}

/// Adapters may be larger than what is read in one piece.
async fn read_whole(files: &dyn ModelFiles, path: &str) -> Result<Vec<u8>> {
    let reader = files.open(path).await?;
    files.prepare().await?;
    let bytes = put_together(reader).await;
    if bytes.is_err() {
        files.stop().await;
    }
    bytes
}

async fn put_together(mut reader: Box<dyn FileReader + '_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(reader.size() as usize);
    while let Some(piece) = reader.next(&mut || ()).await? {
        let start = piece.start as usize;
        let end = start + piece.bytes.len();
        bytes.resize(end.max(bytes.len()), 0);
        bytes[start..end].copy_from_slice(&piece.bytes);
    }
    reader.finish(&mut || ()).await?;
    Ok(bytes)
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
