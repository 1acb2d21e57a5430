//! Compares the schedulers with recorded ones: `schedulers/tables.*` and `schedulers/traces.*` of a
//! folder in the oracle's format.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use instruct_pix2pix::schedulers::{
    Scheduler, SchedulerConfig, StepInput, StepOptions, Timesteps, from_config,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

/// The bound for sigmas, fractional timesteps and `init_noise_sigma`, relative to each value.
const TABLE_TOLERANCE: f64 = 1e-6;
/// The bound for the tensors of a step, relative to the greatest value of the recorded one.
const TRACE_TOLERANCE: f64 = 1e-5;

/// The outcome of one comparison: figures, or what is wrong.
#[derive(Debug)]
pub struct Row {
    /// What was compared.
    pub name: String,
    /// The worst differences, or why this is no match.
    pub result: Result<String, String>,
}

#[derive(Deserialize)]
struct Tables {
    schedulers: BTreeMap<String, TableEntry>,
}

#[derive(Deserialize)]
struct TableEntry {
    class: String,
    config: SchedulerConfig,
    counts: BTreeMap<usize, TableCount>,
}

#[derive(Deserialize)]
struct TableCount {
    init_noise_sigma: Option<f64>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Traces {
    traces: BTreeMap<String, TraceEntry>,
}

#[derive(Deserialize)]
struct TraceEntry {
    class: String,
    config: SchedulerConfig,
    step_kwargs: BTreeMap<String, Value>,
    num_inference_steps: usize,
    error: Option<String>,
    order: Option<usize>,
    init_noise_sigma: Option<f64>,
}

/// Every table: one row for each configuration and number of steps.
pub fn tables(dir: &Path) -> Vec<Row> {
    let file = dir.join("schedulers/tables.safetensors");
    compare(dir, "schedulers/tables.json", &file, |tables: Tables, golden| {
        let mut rows = Vec::new();
        for (name, entry) in tables.schedulers {
            for (count, expected) in &entry.counts {
                let name = format!("{name}.{count}");
                let result = table(&name, &entry, *count, expected, golden);
                rows.push(Row { name, result });
            }
        }
        rows
    })
}

/// Every trace: one row for each configuration, all of its steps.
pub fn traces(dir: &Path) -> Vec<Row> {
    let file = dir.join("schedulers/traces.safetensors");
    compare(dir, "schedulers/traces.json", &file, |traces: Traces, golden| {
        let rows = traces.traces.into_iter().map(|(name, entry)| {
            let result = trace(&name, &entry, golden);
            Row { name, result }
        });
        rows.collect()
    })
}

fn compare<T: for<'a> Deserialize<'a>>(
    dir: &Path,
    index: &str,
    tensors: &Path,
    rows: impl Fn(T, &SafeTensors<'_>) -> Vec<Row>,
) -> Vec<Row> {
    let read = || -> Result<Vec<Row>, String> {
        let text = std::fs::read_to_string(dir.join(index)).map_err(|e| e.to_string())?;
        let text = text.replace("-Infinity", "null");
        let bytes = std::fs::read(tensors).map_err(|e| e.to_string())?;
        let golden = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
        Ok(rows(serde_json::from_str(&text).map_err(|e| e.to_string())?, &golden))
    };
    read().unwrap_or_else(|why| vec![Row { name: index.to_owned(), result: Err(why) }])
}

fn table(
    name: &str,
    entry: &TableEntry,
    count: usize,
    expected: &TableCount,
    golden: &SafeTensors<'_>,
) -> Result<String, String> {
    let made = from_config(&entry.class, &entry.config).and_then(|mut scheduler| {
        scheduler.set_timesteps(&Timesteps::Count(count), StepOptions::default())?;
        Ok(scheduler)
    });
    let scheduler = match (made, &expected.error) {
        (Ok(_), Some(error)) => return Err(format!("diffusers refuses this: {error}")),
        (Err(error), Some(_)) => return Ok(format!("refused: {error}")),
        (made, None) => made.map_err(|error| error.to_string())?,
    };
    let (timesteps, whole) = values(golden, &format!("{name}.timesteps"))?;
    let bound = if whole { 0.0 } else { TABLE_TOLERANCE };
    let t =
        within(timestep_difference(&entry.class, &*scheduler, &timesteps)?, bound, "timesteps")?;
    let sigmas = format!("{name}.sigmas");
    let s = if golden.tensor(&sigmas).is_ok() {
        let worst = relative(scheduler.sigmas(), &values(golden, &sigmas)?.0)?;
        within(worst, TABLE_TOLERANCE, "sigmas")?
    } else {
        0.0
    };
    let i = init_noise_sigma(&*scheduler, expected.init_noise_sigma)?;
    Ok(format!("timesteps {t:.1e}, sigmas {s:.1e}, init_noise_sigma {i:.1e}"))
}

fn trace(name: &str, entry: &TraceEntry, golden: &SafeTensors<'_>) -> Result<String, String> {
    let made = from_config(&entry.class, &entry.config).and_then(|mut scheduler| {
        scheduler.set_timesteps(&timesteps(entry), options(entry))?;
        Ok(scheduler)
    });
    let mut scheduler = match (made, &entry.error) {
        (Ok(_), Some(error)) => return Err(format!("diffusers refuses this: {error}")),
        (Err(error), Some(_)) => return Ok(format!("refused: {error}")),
        (made, None) => made.map_err(|error| error.to_string())?,
    };
    if entry.order.is_some_and(|order| order != scheduler.order()) {
        return Err(format!("order {} for {:?}", scheduler.order(), entry.order));
    }
    init_noise_sigma(&*scheduler, entry.init_noise_sigma)?;
    let timesteps = values(golden, &format!("{name}.timesteps"))?.0;
    let worst = timestep_difference(&entry.class, &*scheduler, &timesteps)?;
    within(worst, TABLE_TOLERANCE, "timesteps")?;
    if let Ok((sigmas, _)) = values(golden, &format!("{name}.sigmas")) {
        within(relative(scheduler.sigmas(), &sigmas)?, TABLE_TOLERANCE, "sigmas")?;
    }

    let tensors = |key: &str| stack(golden, &format!("{name}.{key}"));
    let mut noises = tensors("noises").unwrap_or_default().into_iter();
    let (scaled, outputs) = (tensors("scaled")?, tensors("model_output")?);
    let prev_samples = tensors("prev_sample")?;
    let originals = tensors("pred_original_sample").ok();
    let mut sample = tensors("initial_sample")?.remove(0);
    let mut worst = BTreeMap::from([("scaled", 0.0), ("prev_sample", 0.0)]);
    let mut rounding = 0.0_f64;
    for index in 0..timesteps.len() {
        let mut check = |what: &'static str, found: &Tensor<4>, golden: &Tensor<4>| {
            let difference = difference(found, golden);
            let entry = worst.entry(what).or_insert(0.0_f64);
            *entry = entry.max(difference);
            // A step from a high level of noise to a low one is a difference of what it comes from, and keeps the
            // rounding of that, in diffusers as here; so does what comes of it.
            rounding = rounding.max(f64::from(f32::EPSILON) * greatest(&sample) / greatest(golden));
            let bound = TRACE_TOLERANCE.max(rounding);
            within(difference, bound, &format!("{what} of step {index}")).map(|_| ())
        };
        check("scaled", &scheduler.scale_model_input(sample.clone()), &scaled[index])?;
        let noise = match scheduler.needs_noise() {
            true => Some(noises.next().ok_or(format!("step {index} wants more noise"))?),
            false => None,
        };
        let input =
            StepInput { model_output: &outputs[index], sample: &sample, noise: noise.as_ref() };
        let output = scheduler.step(input).map_err(|error| error.to_string())?;
        check("prev_sample", &output.prev_sample, &prev_samples[index])?;
        if let Some(originals) = &originals {
            let found = output.pred_original_sample.as_ref();
            let found = found.ok_or("there is no pred_original_sample")?;
            check("pred_original_sample", found, &originals[index])?;
        }
        // Ours, so that errors add up as they do in an edit.
        sample = output.prev_sample;
    }
    match noises.count() {
        0 => Ok(worst
            .iter()
            .map(|(what, w)| format!("{what} {w:.1e}"))
            .collect::<Vec<_>>()
            .join(", ")),
        left => Err(format!("{left} recorded noises were not used")),
    }
}

/// The timesteps of an edit: a number of them, or the caller's own.
fn timesteps(entry: &TraceEntry) -> Timesteps {
    let list = |key: &str| {
        let values = entry.step_kwargs.get(key)?.as_array()?;
        values.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()
    };
    list("timesteps")
        .map(Timesteps::Custom)
        .or_else(|| list("sigmas").map(Timesteps::Sigmas))
        .unwrap_or(Timesteps::Count(entry.num_inference_steps))
}

fn options(entry: &TraceEntry) -> StepOptions {
    let number = |key: &str, default: f64| {
        entry.step_kwargs.get(key).and_then(Value::as_f64).unwrap_or(default)
    };
    let defaults = StepOptions::default();
    // What `step` itself defaults to; pipelines pass 0.
    let eta = if entry.class == "TCDScheduler" { 0.3 } else { defaults.eta };
    StepOptions {
        eta: number("eta", eta),
        use_clipped_model_output: entry
            .step_kwargs
            .get("use_clipped_model_output")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
        s_churn: number("s_churn", defaults.s_churn),
        s_tmin: number("s_tmin", defaults.s_tmin),
        s_tmax: number("s_tmax", defaults.s_tmax),
        s_noise: number("s_noise", defaults.s_noise),
    }
}

fn init_noise_sigma(scheduler: &dyn Scheduler, expected: Option<f64>) -> Result<f64, String> {
    let Some(expected) = expected else { return Ok(0.0) };
    let worst = relative(&[scheduler.init_noise_sigma()], &[expected])?;
    within(worst, TABLE_TOLERANCE, "init_noise_sigma")
}

fn within(worst: f64, bound: f64, what: &str) -> Result<f64, String> {
    if worst <= bound { Ok(worst) } else { Err(format!("{what}: {worst:.2e}, bound {bound:.0e}")) }
}

/// The worst difference, each relative to its own golden value.
fn relative(found: &[f64], golden: &[f64]) -> Result<f64, String> {
    beyond(found, golden, |_| 0.0)
}

/// The worst relative difference among those that exceed what rounding explains.
fn beyond(found: &[f64], golden: &[f64], rounding: impl Fn(usize) -> f64) -> Result<f64, String> {
    if found.len() != golden.len() {
        return Err(format!("{} values for {}: {found:?}", found.len(), golden.len()));
    }
    let pairs = found.iter().zip(golden).enumerate();
    let differences = pairs.map(|(index, (found, golden))| {
        let difference = (found - golden).abs();
        if difference <= rounding(index) { 0.0 } else { difference / golden.abs() }
    });
    // `max` would drop a NaN.
    Ok(differences.fold(0.0, |worst, d| if d <= worst { worst } else { d }))
}

/// The worst relative difference of the timesteps.
///
/// The second timestep of an ancestral DPM-Solver-2 step is an exception. It belongs to the root of
/// `sigma * down`, where `down^2 = next^2 - up^2` and `up^2 = next^2 * (1 - next^2 / sigma^2)`: the
/// next timestep, exactly. In float32 the first difference cancels all but `next^2 / sigma^2`, so
/// what diffusers gets is the next timestep and rounding that depends on how torch's build takes
/// roots, and that is all it differs by.
fn timestep_difference(
    class: &str,
    scheduler: &dyn Scheduler,
    golden: &[f64],
) -> Result<f64, String> {
    let sigmas = scheduler.sigmas();
    beyond(scheduler.timesteps(), golden, |index| {
        if class != "KDPM2AncestralDiscreteScheduler" || index % 2 == 0 {
            return 0.0;
        }
        // A noise level changes by a factor of e within some t + 3 timesteps, at most.
        let timesteps = golden[index + 1] + 3.0;
        f64::from(f32::EPSILON) * (sigmas[index - 1] / sigmas[index]).powi(2) * timesteps
    })
}

/// The greatest difference relative to the greatest golden value.
fn difference(found: &Tensor<4>, golden: &Tensor<4>) -> f64 {
    greatest(&(found.clone() - golden.clone())) / greatest(golden)
}

/// The greatest absolute value, or NaN where there is one.
fn greatest(tensor: &Tensor<4>) -> f64 {
    let values = tensor.to_data().try_to_vec::<f32>().expect("traces are float32");
    let greatest =
        values.iter().fold(0.0_f32, |worst, x| if x.abs() <= worst { worst } else { x.abs() });
    f64::from(greatest)
}

/// A tensor's values, and whether they are whole numbers by type.
fn values(golden: &SafeTensors<'_>, name: &str) -> Result<(Vec<f64>, bool), String> {
    let view = golden.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    let data = view.data();
    let (four, eight) = (data.as_chunks::<4>().0, data.as_chunks::<8>().0);
    let (values, whole) = match view.dtype() {
        Dtype::F32 => (four.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(), false),
        Dtype::F64 => (eight.iter().map(|b| f64::from_le_bytes(*b)).collect(), false),
        Dtype::I64 => (eight.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(), true),
        other => return Err(format!("{name} is {other:?}")),
    };
    Ok((values, whole))
}

/// A tensor, or several that are stacked along an axis in front.
fn stack(golden: &SafeTensors<'_>, name: &str) -> Result<Vec<Tensor<4>>, String> {
    let shape = golden.tensor(name).map_err(|e| format!("{name}: {e}"))?.shape().to_vec();
    let values: Vec<f32> = values(golden, name)?.0.iter().map(|&x| x as f32).collect();
    let shape: [usize; 4] = shape[shape.len() - 4..].try_into().expect("four are left");
    let one = |values: &[f32]| {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    };
    Ok(values.chunks(shape.iter().product()).map(one).collect())
}
