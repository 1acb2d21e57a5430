//! `scheduler_config.json`: what it may say, and what each class makes of its silence.
//!
//! Follows the `__init__` signatures of the classes in `diffusers/schedulers` 0.36. A file that was
//! written for one class configures any other: keys that the other class lacks are ignored, and
//! keys that are absent take the default of the class that reads them, as with diffusers'
//! `X.from_config(pipe.scheduler.config)`.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SchedulerClass;
use crate::error::{Error, Result};
use crate::json;
use crate::names::nearest;

/// What some classes say of flow matching at sizes of its own, which no pipeline here asks for.
const SHIFT_KEYS: &[&str] = &["use_dynamic_shifting", "time_shift_type"];

/// Training timesteps at most: tables have as many entries.
const MAX_STEPS: usize = 1 << 16;

/// How the training betas grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly from `beta_start` to `beta_end`.
    Linear,
    /// Evenly in the square root.
    ScaledLinear,
    /// The cosine schedule of Nichol and Dhariwal.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
    /// An exponential decay of the cumulative alpha (Heun only).
    Exp,
    /// A logistic curve (DDPM only).
    Sigmoid,
}

/// What the model's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The denoised sample.
    #[serde(alias = "original_sample")]
    Sample,
    /// The velocity of Salimans and Ho.
    VPrediction,
    /// The velocity of a straight path (flow matching).
    FlowPrediction,
}

/// Which of the training timesteps inference visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// Evenly, both ends included.
    Linspace,
    /// Multiples of a whole ratio, from the clean end.
    Leading,
    /// Multiples of a ratio, from the noisy end.
    Trailing,
}

/// The noise level after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmasType {
    /// None.
    Zero,
    /// The lowest level of training.
    SigmaMin,
}

/// Which equation the DPM solvers integrate, and in which quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlgorithmType {
    /// The probability flow ODE in the noise.
    #[serde(rename = "dpmsolver")]
    DpmSolver,
    /// The probability flow ODE in the denoised sample.
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
    /// The reverse SDE in the noise.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpmSolver,
    /// The reverse SDE in the denoised sample.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmSolverPlusPlus,
    /// Exponential integrator with polynomials in log-rho (DEIS).
    #[serde(rename = "deis")]
    Deis,
}

/// The variant of a solver's update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// Midpoint rule (DPM solvers).
    Midpoint,
    /// Heun's rule (DPM solvers).
    Heun,
    /// Polynomials in log-rho (DEIS).
    Logrho,
    /// `B(h) = h` (UniPC).
    Bh1,
    /// `B(h) = exp(h) - 1` (UniPC).
    Bh2,
}

/// The variance of the noise that DDPM adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// The posterior's variance.
    FixedSmall,
    /// The same, by way of its logarithm.
    FixedSmallLog,
    /// Beta.
    FixedLarge,
    /// The logarithm of beta.
    FixedLargeLog,
    /// From the model.
    Learned,
    /// From the model, between the two bounds.
    LearnedRange,
}

/// How Euler looks noise levels up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterpolationType {
    /// At the timesteps, linearly between neighbours.
    Linear,
    /// Evenly in the logarithm, whatever the timesteps.
    LogLinear,
}

/// What Euler tells the model about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepType {
    /// Training timesteps.
    Discrete,
    /// A quarter of the noise level's logarithm (with `v_prediction` only).
    Continuous,
}

/// How EDM spreads its noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SigmaSchedule {
    /// As Karras et al.
    Karras,
    /// Evenly in the logarithm.
    Exponential,
}

/// Timesteps that a model was trained on, where its configuration does not say.
const TRAIN_TIMESTEPS: usize = 1000;

impl SchedulerConfig {
    /// Timesteps that the model was trained on.
    pub fn train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(TRAIN_TIMESTEPS)
    }
}

/// One list of fields makes both the file's struct, where everything may be absent, and the one the
/// algorithms read, where only what diffusers defaults to `None` may be.
macro_rules! fields {
    (
        defaulted { $($(#[$meta:meta])* $name:ident: $type:ty = $default:expr,)* }
        optional { $($(#[$optional_meta:meta])* $optional:ident: $optional_type:ty,)* }
    ) => {
        /// The union of the configurations of all classes. `None` means that the file does not say.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct SchedulerConfig {
            /// The class the file was written for.
            #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
            pub class_name: Option<String>,
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
            $(
                $(#[$optional_meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $optional: Option<$optional_type>,
            )*
        }

        /// The keys of all classes.
        const KEYS: &[&str] = &[$(stringify!($name),)* $(stringify!($optional),)*];

        /// A configuration with the defaults of one class filled in.
        #[derive(Debug, Clone)]
        pub(super) struct Settings {
            pub(super) class: SchedulerClass,
            $(pub(super) $name: $type,)*
            $(pub(super) $optional: Option<$optional_type>,)*
        }

        impl Settings {
            pub(super) fn new(class: SchedulerClass, config: &SchedulerConfig) -> Self {
                Self {
                    class,
                    $($name: config.$name.clone().unwrap_or_else(|| {
                        let default: fn(SchedulerClass) -> $type = $default;
                        default(class)
                    }),)*
                    $($optional: config.$optional.clone(),)*
                }
            }
        }
    };
}

fields! {
    defaulted {
        /// Timesteps that the model was trained on.
        num_train_timesteps: usize = |_| TRAIN_TIMESTEPS,
        /// First training beta.
        beta_start: f64 = |class| if class.has_stable_diffusion_betas() { 0.00085 } else { 0.0001 },
        /// Last training beta.
        beta_end: f64 = |class| if class.has_stable_diffusion_betas() { 0.012 } else { 0.02 },
        /// How the training betas grow.
        beta_schedule: BetaSchedule = |class| match class {
            SchedulerClass::Lcm | SchedulerClass::Tcd => BetaSchedule::ScaledLinear,
            _ => BetaSchedule::Linear,
        },
        /// Rescales the betas so that the last timestep is pure noise.
        rescale_betas_zero_snr: bool = |_| false,
        /// What the model's output means.
        prediction_type: PredictionType = |_| PredictionType::Epsilon,
        /// Which training timesteps inference visits.
        timestep_spacing: TimestepSpacing = |class| if class.is_discrete() {
            TimestepSpacing::Leading
        } else {
            TimestepSpacing::Linspace
        },
        /// Added to the timesteps of [`TimestepSpacing::Leading`].
        steps_offset: i64 = |_| 0,
        /// Clips the predicted sample to `clip_sample_range`.
        clip_sample: bool =
            |class| matches!(class, SchedulerClass::Ddim | SchedulerClass::Ddpm),
        /// The bound of `clip_sample`.
        clip_sample_range: f64 = |_| 1.0,
        /// Applies the dynamic thresholding of Imagen to the predicted sample.
        thresholding: bool = |_| false,
        /// The quantile of `thresholding`.
        dynamic_thresholding_ratio: f64 = |_| 0.995,
        /// The highest threshold of `thresholding`.
        sample_max_value: f64 = |_| 1.0,
        /// Whether the last step ends at a clean sample, or at the first training timestep.
        set_alpha_to_one: bool = |class| class != SchedulerClass::Pndm,
        /// PNDM: leaves out the Runge-Kutta steps at the start.
        skip_prk_steps: bool = |_| false,
        /// Spreads the noise levels as Karras et al.
        use_karras_sigmas: bool = |_| false,
        /// Spreads the noise levels evenly in the logarithm.
        use_exponential_sigmas: bool = |_| false,
        /// Spreads the noise levels by a beta distribution.
        use_beta_sigmas: bool = |_| false,
        /// DPM solver: spreads the noise levels evenly in log-SNR, as Lu et al.
        use_lu_lambdas: bool = |_| false,
        /// Noise levels of flow matching.
        use_flow_sigmas: bool = |_| false,
        /// The shift of `use_flow_sigmas`.
        flow_shift: f64 = |_| 1.0,
        /// The noise level after the last step.
        final_sigmas_type: FinalSigmasType = |_| FinalSigmasType::Zero,
        /// Euler: how noise levels are looked up.
        interpolation_type: InterpolationType = |_| InterpolationType::Linear,
        /// Euler: what the model is told about time.
        timestep_type: TimestepType = |_| TimestepType::Discrete,
        /// Highest order of a solver.
        solver_order: usize = |_| 2,
        /// Which equation a solver integrates.
        algorithm_type: AlgorithmType = |class| match class {
            SchedulerClass::DeisMultistep => AlgorithmType::Deis,
            _ => AlgorithmType::DpmSolverPlusPlus,
        },
        /// The variant of a solver's update.
        solver_type: SolverType = |class| match class {
            SchedulerClass::DeisMultistep => SolverType::Logrho,
            SchedulerClass::UniPcMultistep => SolverType::Bh2,
            _ => SolverType::Midpoint,
        },
        /// Lowers the order of the last steps when there are few.
        lower_order_final: bool = |class| class != SchedulerClass::DpmSolverSinglestep,
        /// DPM solver: makes the last step one of Euler.
        euler_at_final: bool = |_| false,
        /// DPM solvers: timesteps of a lower log-SNR are left out.
        lambda_min_clipped: f64 = |_| f64::NEG_INFINITY,
        /// UniPC: works in the denoised sample rather than in the noise.
        predict_x0: bool = |_| true,
        /// UniPC: steps after which the corrector does not run.
        disable_corrector: Vec<usize> = |_| Vec::new(),
        /// LCM, TCD: steps of the schedule that the model was distilled on.
        original_inference_steps: usize = |_| 50,
        /// LCM: scale of the timestep in the boundary condition.
        timestep_scaling: f64 = |_| 10.0,
        /// EDM: standard deviation of the data.
        sigma_data: f64 = |_| 0.5,
        /// EDM: how the noise levels are spread.
        sigma_schedule: SigmaSchedule = |_| SigmaSchedule::Karras,
        /// EDM: the exponent of [`SigmaSchedule::Karras`].
        rho: f64 = |_| 7.0,
    }
    optional {
        /// The training betas themselves, in place of a schedule.
        trained_betas: Vec<f64>,
        /// Lowest noise level of the spread tables, and of EDM.
        sigma_min: f64,
        /// Highest noise level of the spread tables, and of EDM.
        sigma_max: f64,
        /// The variance of DDPM's noise, or what else the model predicts.
        variance_type: VarianceType,
        /// UniPC: another predictor. A Python object, so never present in a usable file.
        solver_p: Value,
    }
}

impl SchedulerConfig {
    /// Reads a configuration as diffusers writes it.
    ///
    /// Python writes infinities and NaN as bare words, which JSON does not know. The only field
    /// that holds one is `lambda_min_clipped`, by default: such words are read as `null`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] that names `file` when this is no JSON, or a value is unknown.
    pub fn from_json(file: &str, text: &str) -> Result<Self> {
        json::check_length(file, text)?;
        let config: Self = json::parse(file, &without_bare_words(text))?;
        // None of them is what each class refuses in its own words.
        let steps = config.num_train_timesteps.filter(|steps| *steps > 0);
        json::bounded(file, MAX_STEPS, steps.map(|steps| ("num_train_timesteps", steps)))?;
        Ok(config)
    }

    /// Reads a configuration that a caller wrote, in which a key that no class knows is a slip and not of
    /// another version: as [`from_json`](Self::from_json), but such a key is an error. Keys that begin with `_` are
    /// diffusers' own and say nothing of the sampler.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the key, and the known one that is most like it; what
    /// [`from_json`](Self::from_json) says.
    pub fn from_caller(argument: &str, text: &str) -> Result<Self> {
        let config = Self::from_json(argument, text)?;
        let keys: BTreeMap<String, IgnoredAny> = json::parse(argument, &without_bare_words(text))?;
        let known = || KEYS.iter().chain(SHIFT_KEYS).copied();
        match keys.keys().find(|key| !key.starts_with('_') && known().all(|known| known != *key)) {
            None => Ok(config),
            Some(key) => {
                let like = nearest(key, known()).unwrap_or_default();
                let message = format!("no sampler has an option `{key}`; the nearest is `{like}`");
                Err(Error::argument(argument, message))
            }
        }
    }

    /// This with some keys changed, as diffusers' `from_config(config, key=value)`. `changes` is a JSON object.
    ///
    /// # Errors
    /// As of [`from_caller`](Self::from_caller).
    pub fn with(&self, argument: &str, changes: &str) -> Result<Self> {
        let changes: serde_json::Map<String, Value> = json::parse(argument, changes)?;
        // Checks the keys, of which the file's own may have others.
        Self::from_caller(argument, &Value::Object(changes.clone()).to_string())?;
        let mut all = self.to_json();
        all.extend(changes);
        Self::from_json(argument, &Value::Object(all).to_string())
    }

    /// What the file says, and nothing else: absent keys stay absent.
    pub fn to_json(&self) -> serde_json::Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a struct of plain values is an object"),
        }
    }
}

fn without_bare_words(text: &str) -> String {
    // Every other piece lies inside a string, unless a quote is escaped; then nothing is lost but
    // the replacement, because a name or a value of these files holds none of the words.
    let outside = |piece: &str| {
        piece.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
    };
    let pieces = text.split('"').enumerate();
    let pieces =
        pieces.map(|(i, piece)| if i % 2 == 0 { outside(piece) } else { piece.to_owned() });
    pieces.collect::<Vec<_>>().join("\"")
}

impl Settings {
    /// The error for a combination that diffusers refuses, too.
    pub(super) fn refuse(&self, message: impl std::fmt::Display) -> Error {
        Error::unsupported(format!("{}: {message}", self.class.name()))
    }

    /// Refuses the prediction types that the class does not know.
    pub(super) fn expect_prediction(&self, known: &[PredictionType]) -> Result<()> {
        if known.contains(&self.prediction_type) {
            return Ok(());
        }
        Err(self.refuse(format_args!(
            "prediction_type {:?}; known are {known:?}",
            self.prediction_type
        )))
    }
}
