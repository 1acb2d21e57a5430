//! The classes by name.

use super::Scheduler;
use super::config::{SchedulerConfig, Settings};
use super::ddim::Ddim;
use super::ddpm::Ddpm;
use super::deis_multistep::DeisMultistep;
use super::dpmsolver_multistep::DpmSolverMultistep;
use super::dpmsolver_singlestep::DpmSolverSinglestep;
use super::edm_euler::EdmEuler;
use super::euler_ancestral_discrete::EulerAncestralDiscrete;
use super::euler_discrete::EulerDiscrete;
use super::heun_discrete::HeunDiscrete;
use super::k_dpm_2_ancestral_discrete::Kdpm2AncestralDiscrete;
use super::k_dpm_2_discrete::Kdpm2Discrete;
use super::lcm::Lcm;
use super::lms_discrete::LmsDiscrete;
use super::pndm::Pndm;
use super::tcd::Tcd;
use super::unipc_multistep::UniPcMultistep;
use crate::error::{Error, Result};

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident($name:literal, $implementation:ty),)*) => {
        /// The scheduler classes of diffusers that are here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SchedulerClass {
            $($(#[$doc])* $variant,)*
        }

        impl SchedulerClass {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in diffusers, e.g. `DDIMScheduler`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            fn build(self, settings: Settings) -> Result<Box<dyn Scheduler>> {
                Ok(match self {
                    $(Self::$variant => Box::new(<$implementation>::new(settings)?),)*
                })
            }
        }
    };
}

classes! {
    /// Denoising diffusion implicit models.
    Ddim("DDIMScheduler", Ddim),
    /// Denoising diffusion probabilistic models.
    Ddpm("DDPMScheduler", Ddpm),
    /// Pseudo numerical methods.
    Pndm("PNDMScheduler", Pndm),
    /// Linear multistep.
    LmsDiscrete("LMSDiscreteScheduler", LmsDiscrete),
    /// Euler.
    EulerDiscrete("EulerDiscreteScheduler", EulerDiscrete),
    /// Euler with fresh noise at every step.
    EulerAncestralDiscrete("EulerAncestralDiscreteScheduler", EulerAncestralDiscrete),
    /// Heun.
    HeunDiscrete("HeunDiscreteScheduler", HeunDiscrete),
    /// DPM-Solver-2 as in k-diffusion.
    Kdpm2Discrete("KDPM2DiscreteScheduler", Kdpm2Discrete),
    /// The same with fresh noise at every step.
    Kdpm2AncestralDiscrete("KDPM2AncestralDiscreteScheduler", Kdpm2AncestralDiscrete),
    /// DPM-Solver and DPM-Solver++, multistep.
    DpmSolverMultistep("DPMSolverMultistepScheduler", DpmSolverMultistep),
    /// DPM-Solver and DPM-Solver++, singlestep.
    DpmSolverSinglestep("DPMSolverSinglestepScheduler", DpmSolverSinglestep),
    /// Diffusion exponential integrator.
    DeisMultistep("DEISMultistepScheduler", DeisMultistep),
    /// Unified predictor-corrector.
    UniPcMultistep("UniPCMultistepScheduler", UniPcMultistep),
    /// Latent consistency models.
    Lcm("LCMScheduler", Lcm),
    /// Trajectory consistency distillation.
    Tcd("TCDScheduler", Tcd),
    /// Euler in the formulation of EDM (CosXL).
    EdmEuler("EDMEulerScheduler", EdmEuler),
}

impl SchedulerClass {
    /// Finds a class by its name in diffusers, with or without the ending `Scheduler`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], which lists the names, when there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let stem = |name: &str| name.strip_suffix("Scheduler").unwrap_or(name).to_owned();
        let wanted = stem(name);
        Self::ALL.iter().copied().find(|class| stem(class.name()) == wanted).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|class| class.name()).collect();
            Error::unsupported(format!("scheduler class {name}; known are {}", known.join(", ")))
        })
    }

    /// Classes whose betas default to those that Stable Diffusion was trained with.
    pub(super) fn has_stable_diffusion_betas(self) -> bool {
        matches!(
            self,
            Self::HeunDiscrete
                | Self::Kdpm2Discrete
                | Self::Kdpm2AncestralDiscrete
                | Self::Lcm
                | Self::Tcd
        )
    }

    /// Classes that step between training timesteps rather than between noise levels.
    pub(super) fn is_discrete(self) -> bool {
        matches!(self, Self::Ddim | Self::Ddpm | Self::Pndm | Self::Lcm | Self::Tcd)
    }

    /// Classes that know `rescale_betas_zero_snr`.
    pub(super) fn rescales_betas(self) -> bool {
        self.is_discrete() && self != Self::Pndm || self.needs_finite_sigmas()
    }

    /// Those of them that divide by the last alpha, and so keep it from being zero.
    pub(super) fn needs_finite_sigmas(self) -> bool {
        matches!(
            self,
            Self::EulerDiscrete
                | Self::EulerAncestralDiscrete
                | Self::DpmSolverMultistep
                | Self::UniPcMultistep
        )
    }
}

/// Makes the scheduler `class_name` with the settings of `config`, whichever class that was written
/// for.
///
/// # Errors
/// [`Error::Unsupported`] when there is no such class, or it refuses the configuration.
pub fn from_config(class_name: &str, config: &SchedulerConfig) -> Result<Box<dyn Scheduler>> {
    let class = SchedulerClass::from_name(class_name)?;
    class.build(Settings::new(class, config))
}
