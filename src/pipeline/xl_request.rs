//! What an edit with SDXL is asked for beside what every edit is.

use super::{EditRequest, Floats, Prompts};
use crate::error::{Error, Result};

/// Texts for SDXL's second text encoder, and pooled embeddings in place of what it makes of them.
#[derive(Debug, Clone, Default)]
pub struct SecondTexts {
    /// The instructions for the second text encoder (`prompt_2`): one for all prompts, or one for
    /// each; those of the first when absent.
    pub prompts: Option<Vec<String>>,
    /// The same of what to keep away from (`negative_prompt_2`).
    pub negative_prompts: Option<Vec<String>>,
    /// `[N, P]`; needed beside [`Prompts::prompt_embeds`].
    pub pooled_prompt_embeds: Option<Floats<2>>,
    /// `[N, P]`; needed beside [`Prompts::negative_prompt_embeds`] while guidance is on.
    pub negative_pooled_prompt_embeds: Option<Floats<2>>,
}

impl SecondTexts {
    pub(super) fn check(&self, first: &Prompts) -> Result<()> {
        let count = first.count();
        let lists = [("prompt2", &self.prompts), ("negativePrompt2", &self.negative_prompts)];
        for (name, list) in lists {
            let Some(list) = list else { continue };
            if list.len() != 1 && list.len() != count {
                let message = format!("{} for {count} prompts; one, or one for each", list.len());
                return Err(Error::argument(name, message));
            }
        }
        Ok(())
    }
}

/// What to do with which pictures, with SDXL. Sizes and places are `[height, width]`, pixels.
#[derive(Debug, Clone)]
pub struct XlEditRequest {
    /// What every edit is asked for. Its pictures may differ in size.
    pub edit: EditRequest,
    /// What the second text encoder is given.
    pub second: SecondTexts,
    /// Height of the results; what the UNet was trained on when absent.
    pub height: Option<usize>,
    /// Width of the results; what the UNet was trained on when absent.
    pub width: Option<usize>,
    /// The share of the sampler's way to go, between 0 and 1, for another model to go on from
    /// there; at 0 and 1 all of it, as when absent.
    pub denoising_end: Option<f64>,
    /// How far guidance is to keep the deviation of the text prediction, 0 to 1; against overexposure.
    pub guidance_rescale: f64,
    /// The size of which the result is to look; height and width when absent.
    pub original_size: Option<[f64; 2]>,
    /// Where the result is to look cut out of that.
    pub crops_coords_top_left: [f64; 2],
    /// The size that the result is to have; height and width when absent.
    pub target_size: Option<[f64; 2]>,
    /// The aesthetic score to aim for, 6.0 when absent; only for UNets that were trained on it.
    pub aesthetic_score: Option<f64>,
    /// The aesthetic score to keep away from, 2.5 when absent; only for UNets that were trained on it.
    pub negative_aesthetic_score: Option<f64>,
}

impl Default for XlEditRequest {
    /// diffusers' defaults, without pictures and prompts.
    fn default() -> Self {
        Self {
            edit: EditRequest { guidance_scale: 5.0, ..EditRequest::default() },
            second: SecondTexts::default(),
            height: None,
            width: None,
            denoising_end: None,
            guidance_rescale: 0.0,
            original_size: None,
            crops_coords_top_left: [0.0, 0.0],
            target_size: None,
            aesthetic_score: None,
            negative_aesthetic_score: None,
        }
    }
}

impl XlEditRequest {
    /// Checks what can be checked before any work is done.
    pub(super) fn check(&self) -> Result<()> {
        self.edit.check()?;
        self.second.check(&self.edit.text)?;
        let shares = [
            ("denoisingEnd", self.denoising_end),
            ("guidanceRescale", Some(self.guidance_rescale)),
        ];
        for (name, share) in shares {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                let message = format!("{} is outside 0 to 1", share.unwrap_or_default());
                return Err(Error::argument(name, message));
            }
        }
        let numbers = [
            ("originalSize", self.original_size.unwrap_or_default()),
            ("cropsCoordsTopLeft", self.crops_coords_top_left),
            ("targetSize", self.target_size.unwrap_or_default()),
            ("aestheticScore", [self.aesthetic_score.unwrap_or_default(); 2]),
            ("negativeAestheticScore", [self.negative_aesthetic_score.unwrap_or_default(); 2]),
        ];
        match numbers.iter().find(|(_, numbers)| !numbers.iter().all(|x| x.is_finite())) {
            Some((name, numbers)) => {
                Err(Error::argument(*name, format!("{numbers:?}: finite numbers are needed")))
            }
            None => Ok(()),
        }
    }
}
