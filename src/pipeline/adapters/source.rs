//! Where adapters come from.
//!
//! Source: diffusers `loaders/lora_base.py` (`_fetch_state_dict`) and `loaders/textual_inversion.py`
//! (`load_textual_inversion_state_dicts`).

use crate::error::{Error, Result};
use crate::hub::ModelFiles;

/// The names of a LoRA's file where none is given, in the order in which they are looked for.
pub const LORA_FILES: &[&str] = &["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"];

/// The names of a textual inversion's file where none is given.
pub const TEXTUAL_INVERSION_FILES: &[&str] = &["learned_embeds.safetensors", "learned_embeds.bin"];

/// Reads the file `weight_name` of a repository or folder, or the first of `names` that it has, from
/// its folder `subfolder`. Returns its path and its contents.
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
    let given = weight_name.map(|name| vec![name]);
    for name in given.as_deref().unwrap_or(names) {
        let path = match subfolder {
            Some(folder) => format!("{}/{name}", folder.trim_matches('/')),
            None => (*name).to_owned(),
        };
        match read_whole(files, &path).await {
            Ok(bytes) => return Ok((path, bytes)),
            Err(error @ Error::NotFound { .. }) => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(missing.unwrap_or_else(|| Error::argument("weightName", "a file's name is needed")))
}

/// Adapters may be larger than what is read in one piece.
async fn read_whole(files: &dyn ModelFiles, path: &str) -> Result<Vec<u8>> {
    let mut reader = files.open(path).await?;
    let bytes = reader.read(reader.size(), &mut || ()).await?;
    reader.finish(&mut || ()).await?;
    Ok(bytes)
}
