//! Tables of noise levels, and the way back from a noise level to a timestep.
//!
//! Follows `_convert_to_karras`, `_convert_to_exponential`, `_convert_to_beta`, `_convert_to_lu`
//! and `_sigma_to_t`, which the classes in `diffusers/schedulers` share.
//!
//! Papers: "Elucidating the Design Space of Diffusion-Based Generative Models" (2206.00364), "Beta
//! Sampling is All You Need" (2407.12173), "DPM-Solver" (2206.00927).

use super::SchedulerClass;
use super::config::Settings;
use super::spacing::linspace;
use crate::error::Result;

/// How noise levels are spread between the highest and the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// As the timesteps are.
    Timesteps,
    Karras,
    Exponential,
    Beta,
    Lu,
    Flow,
}

/// Timesteps and noise levels, one each per inference step.
#[derive(Debug)]
pub(super) struct Levels {
    pub(super) timesteps: Vec<f64>,
    pub(super) sigmas: Vec<f64>,
}

impl Levels {
    /// The levels at timesteps.
    pub(super) fn at(timesteps: Vec<f64>, trained: &[f32]) -> Self {
        let sigmas = timesteps.iter().map(|&t| interpolate(t, trained)).collect();
        Self { timesteps, sigmas }
    }

    /// The timesteps, and the noise levels followed by the final one as f32 holds them.
    pub(super) fn ending_at(mut self, last: f64) -> (Vec<f64>, Vec<f64>) {
        self.sigmas.push(last);
        (self.timesteps, as_f32(self.sigmas))
    }
}

impl Spread {
    /// The one that the configuration asks for among those every class with such tables knows.
    pub(super) fn of(settings: &Settings) -> Result<Self> {
        let asked = [
            (settings.use_karras_sigmas, Self::Karras),
            (settings.use_exponential_sigmas, Self::Exponential),
            (settings.use_beta_sigmas, Self::Beta),
        ];
        let mut asked = asked.into_iter().filter(|(asked, _)| *asked).map(|(_, spread)| spread);
        match (asked.next(), asked.next()) {
            (Some(_), Some(_)) => Err(settings.refuse(
                "only one of use_beta_sigmas, use_exponential_sigmas and use_karras_sigmas",
            )),
            (spread, _) => Ok(spread.unwrap_or(Self::Timesteps)),
        }
    }

    /// `count` levels between the two noise levels, or the configured bounds, with the timesteps
    /// that belong to them; none for [`Spread::Timesteps`].
    pub(super) fn levels(
        self,
        settings: &Settings,
        (max, min): (f64, f64),
        count: usize,
        trained: &[f32],
    ) -> Option<Levels> {
        let sigmas = self.sigmas(settings, (max, min), count)?;
        let timesteps = if self == Self::Flow {
            sigmas.iter().map(|sigma| sigma * settings.num_train_timesteps as f64).collect()
        } else {
            timesteps_of(&sigmas, trained)
        };
        Some(Levels { timesteps, sigmas })
    }

    fn sigmas(self, settings: &Settings, (max, min): (f64, f64), count: usize) -> Option<Vec<f64>> {
        let ignores_bounds = match self {
            Self::Karras => settings.class == SchedulerClass::LmsDiscrete,
            other => other == Self::Lu,
        };
        let (max, min) = match ignores_bounds {
            true => (max, min),
            false => (settings.sigma_max.unwrap_or(max), settings.sigma_min.unwrap_or(min)),
        };
        let ramp = linspace(0.0, 1.0, count).into_iter();
        Some(match self {
            Self::Timesteps => return None,
            Self::Karras => ramp.map(|r| karras(r, max, min, 7.0)).collect(),
            Self::Exponential => {
                linspace(max.ln(), min.ln(), count).into_iter().map(f64::exp).collect()
            }
            Self::Lu => {
                let ln = |sigma: f64| f64::from(ln_f32(sigma as f32));
                linspace(ln(max), ln(min), count).into_iter().map(f64::exp).collect()
            }
            Self::Beta => ramp.map(|r| min + beta_ppf(1.0 - r) * (max - min)).collect(),
            Self::Flow => {
                let shift = settings.flow_shift;
                let total = settings.num_train_timesteps as f64;
                let alphas = linspace(1.0, 1.0 / total, count + 1).into_iter().skip(1).rev();
                let shifted = |s: f64| shift * s / (1.0 + (shift - 1.0) * s);
                alphas.map(|alpha| shifted(1.0 - alpha)).collect()
            }
        })
    }
}

/// Values as a table of f32 holds them.
pub(super) fn as_f32(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|value| f64::from(value as f32)).collect()
}

/// Karras et al., equation 5, at `ramp` from 0 to 1.
pub(super) fn karras(ramp: f64, max: f64, min: f64, rho: f64) -> f64 {
    let (max, min) = (max.powf(1.0 / rho), min.powf(1.0 / rho));
    (max + ramp * (min - max)).powf(rho)
}

/// `numpy.interp` of a table at whole positions.
fn interpolate(position: f64, table: &[f32]) -> f64 {
    let last = table.len() - 1;
    if position <= 0.0 {
        return f64::from(table[0]);
    }
    let low = position as usize;
    if low >= last {
        return f64::from(table[last]);
    }
    let (from, to) = (f64::from(table[low]), f64::from(table[low + 1]));
    (to - from) * (position - low as f64) + from
}

/// The logarithm, rounded to f32 once.
pub(super) fn ln_f32(value: f32) -> f32 {
    f64::from(value).ln() as f32
}

/// The timestep, with a fraction, whose noise level has this logarithm.
fn sigma_to_t(log_sigma: f64, log_sigmas: &[f32]) -> f64 {
    let below = log_sigmas.iter().rposition(|&level| log_sigma >= f64::from(level));
    let low = below.unwrap_or(0).min(log_sigmas.len().saturating_sub(2));
    let high = (low + 1).min(log_sigmas.len() - 1);
    let (from, to) = (f64::from(log_sigmas[low]), f64::from(log_sigmas[high]));
    let weight = ((from - log_sigma) / (from - to)).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * high as f64
}

/// The timesteps, with fractions, that belong to noise levels.
fn timesteps_of(sigmas: &[f64], trained: &[f32]) -> Vec<f64> {
    timesteps_by(f64::ln, sigmas, trained)
}

/// The same for noise levels that diffusers keeps in float32, and so their logarithms.
pub(super) fn timesteps_of_f32(sigmas: &[f64], trained: &[f32]) -> Vec<f64> {
    timesteps_by(|sigma| f64::from(ln_f32(sigma as f32)), sigmas, trained)
}

fn timesteps_by(ln: fn(f64) -> f64, sigmas: &[f64], trained: &[f32]) -> Vec<f64> {
    let log_sigmas: Vec<_> = trained.iter().map(|&sigma| ln_f32(sigma)).collect();
    sigmas.iter().map(|sigma| sigma_to_t(ln(sigma.max(1e-10)), &log_sigmas)).collect()
}

/// Both parameters of the beta distribution.
const BETA_SHAPE: f64 = 0.6;
/// The beta function at (0.6, 0.6).
const BETA_NORM: f64 = 2.415_344_208_002_472_3;

/// `scipy.stats.beta.ppf(p, 0.6, 0.6)`.
fn beta_ppf(p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_ppf(1.0 - p);
    }
    if p <= 0.0 {
        return 0.0;
    }
    // Newton's method on a concave function, from above: after one step it rises to the root.
    let mut x = (p * BETA_SHAPE * BETA_NORM).powf(1.0 / BETA_SHAPE).min(0.5);
    for _ in 0..50 {
        let slope = (x * (1.0 - x)).powf(BETA_SHAPE - 1.0) / BETA_NORM;
        let next = x - (beta_cdf(x) - p) / slope;
        if (next - x).abs() <= 1e-16 * x {
            break;
        }
        x = next;
    }
    x
}

/// The distribution function up to one half, by its power series.
fn beta_cdf(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 0.0;
    for k in 0..80 {
        let k = f64::from(k);
        sum += term / (BETA_SHAPE + k);
        term *= (1.0 - BETA_SHAPE + k) / (k + 1.0) * x;
    }
    x.powf(BETA_SHAPE) * sum / BETA_NORM
}

#[cfg(test)]
mod tests {
    use super::{beta_ppf, linspace};

    #[test]
    fn beta_ppf_equals_scipy() {
        // scipy.stats.beta.ppf
        for (p, x) in SCIPY {
            assert!((beta_ppf(p) - x).abs() < 1e-14, "{p}: {} for {x}", beta_ppf(p));
        }
        assert!(linspace(0.0, 1.0, 99).windows(2).all(|p| beta_ppf(p[0]) < beta_ppf(p[1])));
    }

    const SCIPY: [(f64, f64); 6] = [
        (0.0, 0.0),
        (0.001, 1.855873851745199e-05),
        (0.1, 0.03958440558878085),
        (0.5, 0.5000000000000001),
        (0.77, 0.8461624142323502),
        (1.0, 1.0),
    ];
}
