//! Which of the training timesteps inference visits.
//!
//! Follows the `timestep_spacing` branches of `set_timesteps` in `diffusers/schedulers`; table 2 of
//! "Common Diffusion Noise Schedules and Sample Steps are Flawed" (2305.08891).

use super::Timesteps;
use super::config::{Settings, TimestepSpacing};
use crate::error::{Error, Result};

/// `numpy.linspace`.
pub(super) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let step = (stop - start) / count.saturating_sub(1).max(1) as f64;
    let mut values: Vec<_> = (0..count).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = &mut values[..] {
        *last = stop;
    }
    values
}

/// Timesteps whose last one may be the first of training; descending.
pub(super) fn closed(settings: &Settings, count: usize) -> Result<Vec<f64>> {
    let total = settings.num_train_timesteps;
    match settings.timestep_spacing {
        TimestepSpacing::Linspace => Ok(reversed(linspace(0.0, total as f64 - 1.0, count))),
        TimestepSpacing::Leading => leading(settings, total / count, count, 0),
        TimestepSpacing::Trailing => Ok(trailing(total, total as f64 / count as f64)),
    }
}

/// Timesteps of the solvers, which count the clean end as one more step: whole, descending, below
/// `last`.
pub(super) fn open(settings: &Settings, last: usize, count: usize) -> Result<Vec<f64>> {
    match settings.timestep_spacing {
        TimestepSpacing::Linspace => Ok(open_linspace(last, count)),
        TimestepSpacing::Leading => leading(settings, last / (count + 1), count, 1),
        TimestepSpacing::Trailing => {
            Ok(trailing(last, settings.num_train_timesteps as f64 / count as f64))
        }
    }
}

/// [`open`] with [`TimestepSpacing::Linspace`].
pub(super) fn open_linspace(last: usize, count: usize) -> Vec<f64> {
    let mut timesteps = reversed(rounded(linspace(0.0, last as f64 - 1.0, count + 1)));
    timesteps.pop();
    timesteps
}

fn leading(settings: &Settings, ratio: usize, count: usize, first: usize) -> Result<Vec<f64>> {
    if ratio == 0 {
        // diffusers repeats one timestep, starts at the second of them and runs out of the table.
        let message = format!("{count} steps are too many for timestep_spacing \"leading\"");
        return Err(Error::argument("numInferenceSteps", message));
    }
    let offset = settings.steps_offset as f64;
    Ok((first..first + count).rev().map(|i| (i * ratio) as f64 + offset).collect())
}

/// `numpy.arange(start, 0, -ratio).round() - 1`, with the rounding errors of `arange`: for some
/// ratios it has one more element, close to zero.
fn trailing(start: usize, ratio: f64) -> Vec<f64> {
    let start = start as f64;
    let count = (start / ratio).ceil() as usize;
    let delta = (start - ratio) - start;
    (0..count).map(|i| (start + i as f64 * delta).round_ties_even() - 1.0).collect()
}

/// Rounded as numpy rounds.
pub(super) fn rounded(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(f64::round_ties_even).collect()
}

/// Every value twice in a row, for methods with two model calls per step.
pub(super) fn twice(values: &[f64]) -> Vec<f64> {
    values.iter().flat_map(|&value| [value, value]).collect()
}

fn reversed(mut values: Vec<f64>) -> Vec<f64> {
    values.reverse();
    values
}

/// The number of steps, for classes that take nothing else.
pub(super) fn count_only(settings: &Settings, timesteps: &Timesteps) -> Result<usize> {
    match timesteps {
        Timesteps::Count(0) => {
            Err(Error::argument("numInferenceSteps", "0 steps; at least 1 is needed"))
        }
        Timesteps::Count(count) => Ok(*count),
        Timesteps::Custom(_) => Err(takes_no_custom(settings, "timesteps")),
        Timesteps::Sigmas(_) => Err(takes_no_custom(settings, "sigmas")),
    }
}

/// [`count_only`], for classes that take no more steps than there are training timesteps.
pub(super) fn count_up_to_training(settings: &Settings, timesteps: &Timesteps) -> Result<usize> {
    let (count, total) = (count_only(settings, timesteps)?, settings.num_train_timesteps);
    if count <= total {
        return Ok(count);
    }
    let message = format!("{count} steps; the model was trained on {total} timesteps");
    Err(Error::argument("numInferenceSteps", message))
}

/// Custom timesteps as whole numbers, for classes that look each one up in the training schedule.
pub(super) fn custom_descending(settings: &Settings, custom: &[f64]) -> Result<Vec<f64>> {
    let whole = custom_whole(custom)?;
    if whole.windows(2).any(|pair| pair[1] >= pair[0]) {
        return Err(Error::argument("timesteps", "custom timesteps must be descending"));
    }
    let total = settings.num_train_timesteps;
    if whole[0] >= total as f64 || whole.iter().any(|&t| t < 0.0) {
        let message = format!("custom timesteps must be below the {total} of training");
        return Err(Error::argument("timesteps", message));
    }
    Ok(whole)
}

/// Custom timesteps as whole numbers.
pub(super) fn custom_whole(custom: &[f64]) -> Result<Vec<f64>> {
    Ok(custom_values("timesteps", custom)?.iter().map(|t| t.trunc()).collect())
}

/// Custom values, of which there must be some, all finite.
pub(super) fn custom_values<'a>(argument: &str, custom: &'a [f64]) -> Result<&'a [f64]> {
    if custom.is_empty() || custom.iter().any(|value| !value.is_finite()) {
        return Err(Error::argument(argument, "expected at least one value, all finite"));
    }
    Ok(custom)
}

fn takes_no_custom(settings: &Settings, argument: &str) -> Error {
    Error::argument(argument, format!("{} takes no custom {argument}", settings.class.name()))
}
