//! The timesteps of models that were distilled to few steps: a subset of those of distillation.
//!
//! Follows `set_timesteps` of `scheduling_lcm.py` and `scheduling_tcd.py`; "Latent Consistency
//! Models" (2310.04378) and "Trajectory Consistency Distillation" (2402.19159).

use super::config::Settings;
use super::{Timesteps, spacing};
use crate::error::{Error, Result};

/// The timesteps, descending.
pub(super) fn timesteps(settings: &Settings, timesteps: &Timesteps) -> Result<Vec<f64>> {
    let (original, total) = (settings.original_inference_steps, settings.num_train_timesteps);
    if original == 0 || original > total {
        return Err(settings.refuse(format_args!(
            "original_inference_steps is {original}, of {total} training timesteps"
        )));
    }
    if let Timesteps::Custom(custom) = timesteps {
        return spacing::custom_descending(settings, custom);
    }
    let count = spacing::count_up_to_training(settings, timesteps)?;
    if count > original {
        let message = format!("{count} steps; the model was distilled on {original}");
        return Err(Error::argument("numInferenceSteps", message));
    }
    let (ratio, skip) = (total / original, original as f64 / count as f64);
    let places = (0..count).map(|i| original - (i as f64 * skip) as usize);
    Ok(places.map(|place| (place * ratio) as f64 - 1.0).collect())
}
