//! DPM-Solver-2 with fresh noise at every step, as k-diffusion has it.
//!
//! Follows `scheduling_k_dpm_2_ancestral_discrete.py`; the common part is in `k_dpm_2_discrete.rs`.
//! The papers are "Elucidating the Design Space of Diffusion-Based Generative Models" (2206.00364)
//! and "DPM-Solver" (2206.00927).

use super::config::Settings;
use super::k_diffusion::ancestral;
use super::k_dpm_2_discrete::{Stage, TwoCalls, middle};
use crate::error::Result;

/// `KDPM2AncestralDiscreteScheduler`.
pub(super) struct Kdpm2AncestralDiscrete;

impl Kdpm2AncestralDiscrete {
    /// Goes below the next level, and adds noise up to it.
    #[expect(clippy::new_ret_no_self, reason = "the class is only a choice of stages")]
    pub(super) fn new(settings: Settings) -> Result<TwoCalls> {
        TwoCalls::new(settings, |sigma, next| {
            let (down, up) = ancestral(sigma, next);
            Stage { sigma, middle: middle(sigma, down), target: down, up: Some(up) }
        })
    }
}
