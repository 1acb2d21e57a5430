//! The schedulers against the recorded ones, and their properties.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "oracle/schedulers.rs"]
mod oracle;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use instruct_pix2pix::Error;
use instruct_pix2pix::schedulers::{
    AlgorithmType, BetaSchedule, FinalSigmasType, PredictionType, Scheduler, SchedulerClass,
    SchedulerConfig, SolverType, StepInput, StepOptions, TimestepSpacing, Timesteps, VarianceType,
    from_config,
};

fn fixtures() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/oracle"))
}

/// Every option with every class: `tests/fixtures/gen_schedulers.py`.
fn more() -> PathBuf {
    fixtures().with_file_name("more")
}

fn report(rows: &[oracle::Row], at_least: usize) {
    for row in rows {
        match &row.result {
            Ok(figures) => println!("ok   {}: {figures}", row.name),
            Err(why) => println!("FAIL {}: {why}", row.name),
        }
    }
    let failed = rows.iter().filter(|row| row.result.is_err()).count();
    println!("{} rows, {failed} failed", rows.len());
    assert!(rows.len() >= at_least && failed == 0, "{failed} of {} rows failed", rows.len());
}

#[test]
fn tables_equal_diffusers() {
    report(&oracle::tables(fixtures()), 500);
    report(&oracle::tables(&more()), 400);
}

#[test]
fn traces_equal_diffusers() {
    report(&oracle::traces(fixtures()), 73);
    report(&oracle::traces(&more()), 60);
}

/// The betas of Stable Diffusion.
fn stable_diffusion() -> SchedulerConfig {
    SchedulerConfig {
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        beta_schedule: Some(BetaSchedule::ScaledLinear),
        steps_offset: Some(1),
        clip_sample: Some(false),
        skip_prk_steps: Some(true),
        ..Default::default()
    }
}

fn tensor(values: &[f32]) -> Tensor<4> {
    Tensor::<1>::from_data(values, &Device::flex()).reshape([1, 1, 1, -1])
}

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Runs an edit whose model answers every scaled sample by `model`, with noise of 0.5.
fn run(
    scheduler: &mut dyn Scheduler,
    timesteps: &Timesteps,
    options: StepOptions,
    model: impl Fn(Tensor<4>) -> Tensor<4>,
) -> Result<Vec<f32>, Error> {
    scheduler.set_timesteps(timesteps, options)?;
    let mut sample = tensor(&[1.0, -0.5, 0.25, 0.0]) * scheduler.init_noise_sigma();
    let noise = tensor(&[0.5, -0.5, 0.5, -0.5]);
    for _ in 0..scheduler.timesteps().len() {
        let model_output = model(scheduler.scale_model_input(sample.clone()));
        let noise = scheduler.needs_noise().then_some(&noise);
        let input = StepInput { model_output: &model_output, sample: &sample, noise };
        sample = scheduler.step(input)?.prev_sample;
    }
    Ok(values(sample))
}

fn count(
    class: &str,
    config: &SchedulerConfig,
    steps: usize,
) -> Result<(Box<dyn Scheduler>, Vec<f32>), Error> {
    let mut scheduler = from_config(class, config)?;
    let timesteps = Timesteps::Count(steps);
    let sample = run(&mut *scheduler, &timesteps, StepOptions::default(), |scaled| scaled * 0.1)?;
    Ok((scheduler, sample))
}

#[test]
fn every_step_count_is_finite_and_descends() {
    let distilled = [SchedulerClass::Lcm, SchedulerClass::Tcd];
    for &class in SchedulerClass::ALL {
        for spacing in
            [TimestepSpacing::Leading, TimestepSpacing::Linspace, TimestepSpacing::Trailing]
        {
            let config = SchedulerConfig { timestep_spacing: Some(spacing), ..stable_diffusion() };
            let levels = [
                SchedulerConfig { use_karras_sigmas: Some(true), ..config.clone() },
                SchedulerConfig { use_exponential_sigmas: Some(true), ..config.clone() },
                SchedulerConfig { use_beta_sigmas: Some(true), ..config.clone() },
            ];
            let most = if distilled.contains(&class) { 50 } else { 100 };
            for steps in 1..=most {
                let name = format!("{} {spacing:?} {steps}", class.name());
                let (scheduler, sample) = count(class.name(), &config, steps)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(sample.iter().all(|x| x.is_finite()), "{name}: {sample:?}");
                // The middle of an ancestral step is the next level, up to rounding.
                let descends = |pair: &[f64]| pair[1] <= pair[0] + 1e-3;
                assert!(scheduler.timesteps().windows(2).all(descends), "{name}");
                assert!(scheduler.sigmas().windows(2).all(|p| p[1] <= p[0]), "{name}");
                for (which, config) in levels.iter().enumerate() {
                    let (scheduler, sample) = count(class.name(), config, steps)
                        .unwrap_or_else(|error| panic!("{name} {which}: {error}"));
                    assert!(sample.iter().all(|x| x.is_finite()), "{name} {which}: {sample:?}");
                    // diffusers rounds the timesteps of such levels, but not those between two.
                    let descends = |pair: &[f64]| pair[1] <= pair[0] + 0.5;
                    assert!(scheduler.timesteps().windows(2).all(descends), "{name} {which}");
                }
            }
            if distilled.contains(&class) {
                assert_argument("numInferenceSteps", count(class.name(), &config, 51));
            }
        }
    }
}

#[test]
fn every_variant_is_finite() {
    let finite = |class: &str, config: &SchedulerConfig| {
        for steps in [1, 2, 3, 4, 7, 20] {
            let (_, sample) = count(class, config, steps)
                .unwrap_or_else(|error| panic!("{class} {steps} {config:?}: {error}"));
            assert!(sample.iter().all(|x| x.is_finite()), "{class} {steps} {config:?}");
        }
    };
    for order in 1..=3 {
        for solver_type in [SolverType::Midpoint, SolverType::Heun, SolverType::Bh1] {
            for algorithm in [
                AlgorithmType::DpmSolver,
                AlgorithmType::DpmSolverPlusPlus,
                AlgorithmType::SdeDpmSolver,
                AlgorithmType::SdeDpmSolverPlusPlus,
            ] {
                let config = SchedulerConfig {
                    solver_order: Some(order),
                    solver_type: Some(solver_type),
                    algorithm_type: Some(algorithm),
                    final_sigmas_type: Some(FinalSigmasType::SigmaMin),
                    thresholding: Some(true),
                    ..stable_diffusion()
                };
                let sde = algorithm == AlgorithmType::SdeDpmSolver;
                if !(sde && order == 3) {
                    finite("DPMSolverMultistep", &config);
                }
                if !sde {
                    finite("DPMSolverSinglestep", &config);
                }
                if !sde && algorithm != AlgorithmType::SdeDpmSolverPlusPlus {
                    finite("DEISMultistep", &config);
                }
                finite("UniPCMultistep", &config);
            }
        }
    }
    for prediction in [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample]
    {
        let config = SchedulerConfig {
            prediction_type: Some(prediction),
            rescale_betas_zero_snr: Some(prediction != PredictionType::Epsilon),
            timestep_spacing: Some(TimestepSpacing::Trailing),
            ..stable_diffusion()
        };
        for class in ["DDIM", "DDPM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"] {
            finite(class, &config);
        }
    }
    let flow = SchedulerConfig {
        use_flow_sigmas: Some(true),
        flow_shift: Some(3.0),
        prediction_type: Some(PredictionType::FlowPrediction),
        ..stable_diffusion()
    };
    for class in ["DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep"] {
        finite(class, &flow);
    }
}

/// With a constant noise `e` the sample of the ODE is `x0 + sigma e` in the variance exploding parametrization at every
/// level, whatever the solver. A solver that draws noise has no such answer.
#[test]
fn a_constant_output_has_the_analytic_answer() {
    let constant = [0.3_f32, -0.2, 0.1, 1.0];
    let start = [1.0_f32, -0.5, 0.25, 0.0];
    let spread = |karras, exponential, beta| SchedulerConfig {
        timestep_spacing: Some(TimestepSpacing::Leading),
        use_karras_sigmas: Some(karras),
        use_exponential_sigmas: Some(exponential),
        use_beta_sigmas: Some(beta),
        ..stable_diffusion()
    };
    let spreads = [
        spread(false, false, false),
        spread(true, false, false),
        spread(false, true, false),
        spread(false, false, true),
    ];
    let exact = [
        "DDIM",
        "EulerDiscrete",
        "LMSDiscrete",
        "HeunDiscrete",
        "KDPM2Discrete",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "DEISMultistep",
        "UniPCMultistep",
        "PNDM",
    ];
    let mut wrong = Vec::new();
    for class in exact {
        for (spread, config) in spreads.iter().enumerate() {
            for steps in [1, 5, 12, 37] {
                let mut scheduler = from_config(class, config).unwrap();
                let timesteps = Timesteps::Count(steps);
                let sample =
                    run(&mut *scheduler, &timesteps, StepOptions::default(), |_| tensor(&constant));
                let sample = sample.unwrap();
                let init = scheduler.init_noise_sigma();
                // Where samples keep their variance, the first lies on the sphere; where it explodes, at sigma.
                let mut plain = from_config("EulerDiscrete", &spreads[0]).unwrap();
                plain.set_timesteps(&timesteps, StepOptions::default()).unwrap();
                // The same level, where the class has no table of them.
                let sigma = *scheduler.sigmas().first().unwrap_or(&plain.sigmas()[0]);
                let scale = if init == 1.0 { sigma.hypot(1.0) } else { init };
                // Where it ends: at none, but for the two that cannot or do not.
                let lowest = (0.00085_f64 / (1.0 - 0.00085)).sqrt();
                let end = match class {
                    "DEISMultistep" => scheduler.sigmas()[steps],
                    "PNDM" => lowest,
                    _ => 0.0,
                };
                for i in 0..start.len() {
                    let noise = f64::from(constant[i]);
                    let clean = f64::from(start[i]) * scale - sigma * noise;
                    let expected = (clean + end * noise) / end.hypot(1.0);
                    let difference = (f64::from(sample[i]) - expected).abs();
                    if difference.is_nan() || difference > 2e-4 * scale {
                        wrong.push(format!(
                            "{class}, {steps} steps, spread {spread}: {} for {expected}",
                            sample[i]
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A constant sample is where every class ends whose last step goes all the way.
#[test]
fn a_constant_sample_is_where_every_class_ends() {
    let constant = [0.3_f32, -0.2, 0.1, 1.0];
    let config = SchedulerConfig {
        prediction_type: Some(PredictionType::Sample),
        timestep_spacing: Some(TimestepSpacing::Leading),
        set_alpha_to_one: Some(true),
        ..stable_diffusion()
    };
    for class in [
        "DDIM",
        "DDPM",
        "EulerDiscrete",
        "HeunDiscrete",
        "LMSDiscrete",
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "UniPCMultistep",
    ] {
        for steps in [2, 5, 20] {
            let mut scheduler = from_config(class, &config).unwrap();
            let timesteps = Timesteps::Count(steps);
            let sample =
                run(&mut *scheduler, &timesteps, StepOptions::default(), |_| tensor(&constant));
            for (found, expected) in sample.unwrap().iter().zip(constant) {
                assert!((found - expected).abs() < 1e-4, "{class} {steps}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn a_scheduler_starts_again() {
    let (mut scheduler, first) = count("UniPCMultistep", &stable_diffusion(), 6).unwrap();
    let timesteps = Timesteps::Count(6);
    let second = run(&mut *scheduler, &timesteps, StepOptions::default(), |x| x * 0.1).unwrap();
    assert_eq!(first, second);
}

#[test]
fn custom_timesteps_and_sigmas_reproduce_the_table() {
    let config = stable_diffusion();
    for class in
        ["DDPM", "EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep"]
    {
        let (mut scheduler, first) = count(class, &config, 9).unwrap();
        let mut custom = scheduler.timesteps().to_vec();
        custom.dedup();
        let timesteps = Timesteps::Custom(custom);
        let second = run(&mut *scheduler, &timesteps, StepOptions::default(), |x| x * 0.1).unwrap();
        assert_eq!(first, second, "{class}");
    }
    let (mut euler, first) = count("EulerDiscrete", &config, 9).unwrap();
    let (sigmas, expected) = (euler.sigmas().to_vec(), euler.timesteps().to_vec());
    let sigmas = Timesteps::Sigmas(sigmas);
    let second = run(&mut *euler, &sigmas, StepOptions::default(), |x| x * 0.1).unwrap();
    assert_eq!(first, second);
    for (found, expected) in euler.timesteps().iter().zip(expected) {
        // Interpolated in the logarithm on the way back, but not on the way there.
        assert!((found - expected).abs() < 0.1, "{found} for {expected}");
    }
}

#[test]
fn thresholding_is_per_sample() {
    let config = SchedulerConfig {
        thresholding: Some(true),
        sample_max_value: Some(10.0),
        dynamic_thresholding_ratio: Some(0.5),
        prediction_type: Some(PredictionType::Sample),
        ..stable_diffusion()
    };
    let mut ddim = from_config("DDIM", &config).unwrap();
    ddim.set_timesteps(&Timesteps::Count(4), StepOptions::default()).unwrap();
    let output = Tensor::<1>::from_data([4.0_f32, -1.0, 2.0, 0.5, 0.1, -0.2], &Device::flex());
    let output = output.reshape([2, 3, 1, 1]);
    let input = StepInput { model_output: &output, sample: &output, noise: None };
    let original = ddim.step(input).unwrap().pred_original_sample.unwrap();
    assert_eq!(values(original), [1.0, -0.5, 1.0, 0.5, 0.1, -0.2]);
}

#[test]
fn a_configuration_serves_every_class() {
    let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.36.0",
        "lambda_min_clipped": -Infinity, "trained_betas": null, "solver_type": "midpoint",
        "beta_schedule": "scaled_linear", "unknown_key": [1, {"a": 2}], "beta_end": 0.012,
        "timestep_spacing": "trailing", "sigma_max": 5.0, "use_karras_sigmas": true}"#;
    let config = SchedulerConfig::from_json("scheduler_config.json", text).unwrap();
    assert_eq!(config.class_name.as_deref(), Some("DPMSolverMultistepScheduler"));
    for class in SchedulerClass::ALL {
        let short = class.name().strip_suffix("Scheduler").unwrap();
        assert_eq!(SchedulerClass::from_name(short).unwrap(), *class);
        let mut scheduler = from_config(class.name(), &config).unwrap();
        scheduler.set_timesteps(&Timesteps::Count(4), StepOptions::default()).unwrap();
        let karras = ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler"];
        if karras.contains(&class.name()) {
            assert_eq!(scheduler.sigmas()[0], 5.0, "{}", class.name());
        }
    }
    let error = SchedulerConfig::from_json("s.json", r#"{"solver_type": "best"}"#).unwrap_err();
    assert_eq!(error.code(), "invalid-config");
}

fn assert_argument<T>(expected: &str, result: Result<T, Error>) {
    match result {
        Err(Error::InvalidArgument { argument, .. }) => assert_eq!(argument, expected),
        Err(error) => panic!("{expected}: {error}"),
        Ok(_) => panic!("{expected} was accepted"),
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let config = stable_diffusion();
    for &class in SchedulerClass::ALL {
        let mut scheduler = from_config(class.name(), &config).unwrap();
        let mut set =
            |timesteps: Timesteps| scheduler.set_timesteps(&timesteps, StepOptions::default());
        assert_argument("numInferenceSteps", set(Timesteps::Count(0)));
        let sigmas = ["EulerDiscreteScheduler", "EDMEulerScheduler"];
        if !sigmas.contains(&class.name()) {
            assert_argument("sigmas", set(Timesteps::Sigmas(vec![3.0, 0.0])));
        }
        assert_argument("timesteps", set(Timesteps::Custom(Vec::new())));
        set(Timesteps::Count(4)).unwrap();
        let sample = tensor(&[1.0]);
        let input = |noise| StepInput { model_output: &sample, sample: &sample, noise };
        if scheduler.needs_noise() {
            assert_argument("noise", scheduler.step(input(None)));
        }
        for _ in 0..scheduler.timesteps().len() {
            scheduler.step(input(Some(&sample))).unwrap();
        }
        assert_argument("step", scheduler.step(input(Some(&sample))));
    }
    for class in ["DDIM", "DDPM", "LCM", "TCD"] {
        assert_argument("numInferenceSteps", count(class, &config, 1001));
    }
    let custom = Timesteps::Custom(vec![10.0, 20.0]);
    for class in ["DDPM", "LCM", "TCD"] {
        let mut scheduler = from_config(class, &config).unwrap();
        assert_argument("timesteps", scheduler.set_timesteps(&custom, StepOptions::default()));
    }
    let karras = SchedulerConfig { use_karras_sigmas: Some(true), ..stable_diffusion() };
    for class in ["EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep"] {
        let mut scheduler = from_config(class, &karras).unwrap();
        assert_argument("timesteps", scheduler.set_timesteps(&custom, StepOptions::default()));
    }
    let mut euler = from_config("EulerDiscrete", &config).unwrap();
    let one = Timesteps::Sigmas(vec![3.0]);
    assert_argument("sigmas", euler.set_timesteps(&one, StepOptions::default()));
    let mut tcd = from_config("TCD", &config).unwrap();
    let options = StepOptions { eta: 1.5, ..Default::default() };
    assert_argument("eta", tcd.set_timesteps(&Timesteps::Count(4), options));
}

#[test]
fn unsupported_configurations_are_errors() {
    let sd = stable_diffusion;
    let refused = [
        ("NoSuchScheduler", sd()),
        (
            "EulerDiscrete",
            SchedulerConfig { use_karras_sigmas: Some(true), use_beta_sigmas: Some(true), ..sd() },
        ),
        ("DDPM", SchedulerConfig { variance_type: Some(VarianceType::Learned), ..sd() }),
        ("DDIM", SchedulerConfig { beta_schedule: Some(BetaSchedule::Exp), ..sd() }),
        ("PNDM", SchedulerConfig { prediction_type: Some(PredictionType::Sample), ..sd() }),
        (
            "DPMSolverMultistep",
            SchedulerConfig { algorithm_type: Some(AlgorithmType::DpmSolver), ..sd() },
        ),
        (
            "DPMSolverSinglestep",
            SchedulerConfig { algorithm_type: Some(AlgorithmType::SdeDpmSolver), ..sd() },
        ),
        ("UniPCMultistep", SchedulerConfig { predict_x0: Some(false), ..sd() }),
        ("DDIM", SchedulerConfig { trained_betas: Some(Vec::new()), ..sd() }),
        ("DDIM", SchedulerConfig { num_train_timesteps: Some(0), ..sd() }),
    ];
    for (class, config) in refused {
        let error = from_config(class, &config).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), "unsupported", "{class}: {error}");
    }
    let error = from_config("NoSuch", &sd()).map(|_| ()).unwrap_err().to_string();
    assert!(SchedulerClass::ALL.iter().all(|class| error.contains(class.name())), "{error}");
    let prk = SchedulerConfig { skip_prk_steps: Some(false), ..sd() };
    assert_argument("numInferenceSteps", count("PNDM", &prk, 3));
}
