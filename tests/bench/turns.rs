//! SDXL of full size whose models take turns on the device: what it holds at most, and how long an edit takes.
//!
//! The weights are files of zeros in float16, which take no room on most disks: neither memory nor time depends on values.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Result, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::{DType, Device};
use instruct_pix2pix::bench::Held;
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::device::Gpu;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::kernels::{device_memory, release_memory};
use instruct_pix2pix::models::{Placement, WeightDtype};
use instruct_pix2pix::pipeline::{
    EditRequest, Images, InstructPix2Pix, LoadEvent, LoadOptions, Prompts, TorchGenerator,
    XlEditRequest,
};
use serde::Deserialize;

/// Steps of an edit; memory is the same with any number.
const STEPS: usize = 4;
/// Sides of pictures, pixels.
const SIDES: [usize; 2] = [768, 1024];

/// A component as `tests/fixtures/sdxl.json` tells of it.
#[derive(Deserialize)]
struct Component {
    config: serde_json::Value,
    shapes: BTreeMap<String, Vec<u64>>,
}

/// Prints a line for each size of picture, with weights kept as `weights`.
pub fn run(gpu: &Gpu, dtype: DType, weights: WeightDtype) {
    let folder = std::env::temp_dir().join(format!("sdxl-in-turn-{}", std::process::id()));
    write_model(&folder).expect("the disk takes a sparse file");
    for side in SIDES {
        measure(&gpu.device, dtype, weights, &folder, side);
    }
    fs::remove_dir_all(&folder).expect("it is ours");
}

fn measure(device: &Device, dtype: DType, weights: WeightDtype, folder: &Path, side: usize) {
    let fetch = Directory(folder.to_owned());
    let files = Repository::uncached(&fetch, ModelSource::Base(String::new()));
    let options = LoadOptions {
        placement: Placement { device: device.clone(), weights },
        dtype,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    };
    let mut ignore = |_: LoadEvent<'_>| ();
    let open = pollster::block_on(InstructPix2Pix::open(&files, options, None, &mut ignore));
    let InstructPix2Pix::Xl(pipeline) = open.expect("the configurations are SDXL's") else {
        unreachable!("`model_index.json` names SDXL's class")
    };
    let pixels = (0..side * side * 3).map(|i| (i * 7 % 251) as u8).collect();
    let picture = RgbImage::new(side, side, pixels).expect("as many as there are");
    let defaults = XlEditRequest::default();
    let request = XlEditRequest {
        edit: EditRequest {
            images: Images::Pictures(vec![picture]),
            text: Prompts::new("make it snowy"),
            num_inference_steps: STEPS,
            ..defaults.edit.clone()
        },
        height: Some(side),
        width: Some(side),
        ..defaults
    };
    release_memory(device);
    let [_, before] = device_memory(device);
    let mut held = Held::watch(device);
    let start = Instant::now();
    let mut noise = TorchGenerator::new(42);
    let edit = pipeline.edit_with(Some(&files), &request, &mut noise, &mut held);
    let timings = pollster::block_on(edit).expect("edits").timings;
    release_memory(device);
    let [_, after] = device_memory(device);
    println!(
        "SDXL edit in turn, {STEPS} steps at {side}, weights in {weights:?}: most bytes held {}, before {before}, after \
         {after}; {:.1} s, of which steps {:.1}",
        held.most(),
        start.elapsed().as_secs_f64(),
        timings.denoise / 1e3,
    );
}

/// The model at `folder`: what is small from the oracle's tiny one, the configurations and the shapes of
/// `diffusers/sdxl-instructpix2pix-768`.
fn write_model(folder: &Path) -> Result<()> {
    let fixtures = PathBuf::from("tests/fixtures");
    let like = fixtures.join("oracle/models/tiny-sdxl-ip2p");
    fs::create_dir_all(folder)?;
    fs::copy(like.join("model_index.json"), folder.join("model_index.json"))?;
    for part in ["scheduler", "tokenizer", "tokenizer_2"] {
        fs::create_dir_all(folder.join(part))?;
        for file in fs::read_dir(like.join(part))? {
            let file = file?;
            fs::copy(file.path(), folder.join(part).join(file.file_name()))?;
        }
    }
    let components = fs::read(fixtures.join("sdxl.json"))?;
    let components: BTreeMap<String, Component> = serde_json::from_slice(&components)?;
    for (name, Component { config, shapes }) in components {
        let folder = folder.join(&name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("config.json"), config.to_string())?;
        let stem = if name.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
        write_zeros(&folder.join(format!("{stem}.safetensors")), &shapes)?;
    }
    Ok(())
}

fn write_zeros(path: &Path, shapes: &BTreeMap<String, Vec<u64>>) -> Result<()> {
    let mut end = 0;
    let header: BTreeMap<_, _> = shapes
        .iter()
        .map(|(key, shape)| {
            let start = end;
            end += shape.iter().product::<u64>() * 2;
            let tensor = serde_json::json!({
                "dtype": "F16", "shape": shape, "data_offsets": [start, end],
            });
            (key, tensor)
        })
        .collect();
    let header = serde_json::to_vec(&header)?;
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    file.set_len(8 + header.len() as u64 + end)
}
