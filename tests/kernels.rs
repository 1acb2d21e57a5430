//! Every WGSL kernel against its reference: the same numbers through the GPU (Mesa's lavapipe will do)
//! and through plain Burn operations on the CPU, read back and compared. And what the browser's test
//! compares with, `fixtures/kernels.json`: `WRITE_KERNELS=1 cargo test --features tuning --test kernels`
//! writes it anew.
#![cfg(all(feature = "tuning", feature = "flex"))]

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device, Tensor};
use half::f16;
use instruct_pix2pix::bench;
use instruct_pix2pix::bench::cases::{self, Case, Side};
use instruct_pix2pix::cache::Repository;
use instruct_pix2pix::device::Gpu;
use instruct_pix2pix::hub::{Directory, ModelSource};
use instruct_pix2pix::image::RgbImage;
use instruct_pix2pix::kernels::{
    MatrixWriter, Packing, Pretended, StandIn, as_wide, device_memory, memory_of, pretend,
    release_memory, warm_up,
};
use instruct_pix2pix::models::{
    AddedConditions, AutoencoderKLConfig, ClipTextConfig, Module, Placement, UNet2DConditionConfig,
    WeightDtype,
};
use instruct_pix2pix::pipeline::{
    Components, EditRequest, Images, InstructPix2Pix, LoadEvent, LoadOptions, Observer,
    OutputImages, OutputType, Prompts, StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLInstructPix2PixPipeline, Tap, TorchGenerator, Unobserved, WarmUp,
    XlEditRequest,
};
use serde::{Deserialize, Serialize};

/// The largest error, against the largest value, with `f32` activations.
const F32_TOLERANCE: f32 = 2e-5;
/// The same with `f16` activations.
const F16_TOLERANCE: f32 = 1e-2;
/// Values of a case that the browser's test looks at.
const KEPT: usize = 48;

/// The GPU, for one test at a time: compiling without running concerns the whole process.
fn gpu() -> MutexGuard<'static, Gpu> {
    static GPU: LazyLock<Mutex<Gpu>> = LazyLock::new(|| {
        let gpu = pollster::block_on(Gpu::request());
        Mutex::new(gpu.expect("a GPU; on Debian, the package mesa-vulkan-drivers plays one"))
    });
    GPU.lock().unwrap_or_else(PoisonError::into_inner)
}

fn numbers(case: &Case, device: &Device, dtype: DType, halves: bool) -> Vec<f32> {
    let result = case.run(Side::new(device.clone(), dtype, halves));
    assert_eq!(result.dtype(), dtype, "{}", case.name);
    result.cast(DType::F32).into_data().iter::<f32>().collect()
}

/// The largest difference, against the largest value expected.
fn error(expected: &[f32], actual: &[f32]) -> f32 {
    assert_eq!(expected.len(), actual.len());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |max, x| max.max(x.abs()));
    let differences = expected
        .iter()
        .zip(actual)
        .map(|(a, b)| if b.is_finite() { (a - b).abs() } else { f32::INFINITY });
    differences.fold(0f32, f32::max) / largest
}

#[test]
fn every_kernel_computes_what_its_reference_does() {
    let gpu = gpu();
    let mut wrong = Vec::new();
    for case in cases::all() {
        for halves in [true, false] {
            let expected = numbers(&case, &Device::flex(), DType::F32, halves);
            for (dtype, tolerance) in [(DType::F32, F32_TOLERANCE), (DType::F16, F16_TOLERANCE)] {
                if dtype == DType::F16 && !gpu.f16 {
                    continue;
                }
                let compute = || numbers(&case, &gpu.device, dtype, halves);
                let plain = Pretended { wide: true, matrices: Some(false), ..Pretended::default() };
                let without_subgroups = Pretended { no_subgroups: true, ..plain };
                for (how, actual) in [
                    ("here", compute()),
                    ("as on a large GPU", pretend(plain, compute)),
                    ("as on one without subgroups", pretend(without_subgroups, compute)),
                ] {
                    let error = error(&expected, &actual);
                    let Case { name, .. } = &case;
                    let line =
                        format!("{name}, {dtype:?}, halves {halves}, {how}: error {error:.1e}");
                    println!("{line}");
                    if error > tolerance {
                        wrong.push(line);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What the browser's test compares with.
#[derive(Debug, Serialize, Deserialize)]
struct Golden {
    /// Values of the whole result.
    count: usize,
    /// Every so many is kept.
    every: usize,
    values: Vec<f32>,
}

#[test]
fn the_browser_compares_with_the_references_numbers() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels.json");
    let golden = |case: &Case| {
        let values = numbers(case, &Device::flex(), DType::F32, true);
        let every = values.len().div_ceil(KEPT);
        let kept = values.iter().copied().step_by(every).collect();
        (case.name.clone(), Golden { count: values.len(), every, values: kept })
    };
    let ours: BTreeMap<String, Golden> = cases::all().iter().map(golden).collect();
    if std::env::var_os("WRITE_KERNELS").is_some() {
        let json = serde_json::to_string_pretty(&ours).expect("plain values");
        std::fs::write(&file, json + "\n").expect("the file can be written");
    }
    let json = std::fs::read_to_string(&file).expect("tests/fixtures/kernels.json");
    let theirs: BTreeMap<String, Golden> = serde_json::from_str(&json).expect("its format");
    assert!(theirs.keys().eq(ours.keys()), "the file is of other cases: write it anew");
    for (name, golden) in &ours {
        let other = &theirs[name];
        assert_eq!((golden.count, golden.every), (other.count, other.every), "{name}");
        let error = error(&other.values, &golden.values);
        assert!(error <= 1e-6, "{name}: {error:e}");
    }
}

#[test]
fn a_matrix_is_written_row_by_row_in_any_order() {
    let gpu = gpu();
    for device in [&gpu.device, &Device::flex()] {
        let values: Vec<f16> = (0..7 * 6).map(|i| f16::from_f32(i as f32 - 20.5)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut writer = MatrixWriter::new([7, 6], Packing::Halves, device).expect("whole words");
        for rows in [5..7, 0..1, 1..5] {
            assert!(!writer.is_full());
            writer.write(rows.start, bytes[rows.start * 12..rows.end * 12].to_vec());
            // Kernels may compile in the middle of loading.
            let x = Tensor::<1>::ones([8], (device, DType::F32));
            warm_up(device, || x.exp());
        }
        let read = writer.finish().to_float(DType::F32).into_data();
        let expected: Vec<f32> = values.iter().map(|x| x.to_f32()).collect();
        assert_eq!(read.iter::<f32>().collect::<Vec<_>>(), expected);
    }
    assert!(MatrixWriter::new([7, 5], Packing::Halves, &gpu.device).is_none());
}

/// Small models; a channel count that the tiles of convolutions take.
fn configs() -> (ClipTextConfig, UNet2DConditionConfig, AutoencoderKLConfig) {
    let text = r#"{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 64, "projection_dim": 16}"#;
    let unet = r#"{"in_channels": 8, "cross_attention_dim": 16, "sample_size": 16,
        "block_out_channels": [64, 64], "norm_num_groups": 8, "attention_head_dim": 2,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}"#;
    let vae = r#"{"block_out_channels": [16, 16], "norm_num_groups": 8,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#;
    (
        serde_json::from_str(text).expect("a constant"),
        serde_json::from_str(unet).expect("a constant"),
        serde_json::from_str(vae).expect("a constant"),
    )
}

#[test]
fn warming_up_compiles_what_an_edit_launches() {
    let gpu = gpu();
    warms_up(&gpu);
    as_wide(|| warms_up(&gpu));
}

fn warms_up(gpu: &Gpu) {
    let device = &gpu.device;
    let placement = Placement { device: device.clone(), weights: WeightDtype::F16 };
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: true,
        prompts: None,
    };
    let (text, unet, vae) = configs();
    let warm_up = WarmUp {
        texts: vec![text.clone()],
        unet: unet.clone(),
        vae: vae.clone(),
        vae_dtype: DType::F32,
        options: options.clone(),
    };
    let (compiled, ()) = bench::launched(|| warm_up.run());

    // What an edit is given is there before it.
    let ones = |shape: [usize; 4]| Tensor::<4>::ones(shape, (device, DType::F32));
    let (input, picture) = (ones([3, 16, 16, 8]), ones([1, 32, 32, 3]));
    let embeds = Tensor::<3>::ones([3, 77, 16], (device, DType::F32));
    let mut text = text.init();
    let mut unet = unet.init();
    let mut vae = vae.init();
    let models: [&mut dyn Module; 3] = [&mut text, &mut unet, &mut vae];
    models.into_iter().for_each(|model| model.stand_in(StandIn::Random, &options.placement));
    let (launched, results) = bench::launched(|| {
        text.forward(&[vec![5; 77]], DType::F32).expect("ids of the table");
        let out = unet.forward(input, &[3.0], &embeds, None);
        let latents = vae.encode(picture).mode();
        [out, vae.decode(latents)]
    });
    let finite = results.map(|x| x.into_data().iter::<f32>().all(f32::is_finite));
    // Nothing sleeps on, and numbers come of it.
    assert_eq!(finite, [true, true]);
    let missing: Vec<_> = launched.difference(&compiled).collect();
    assert!(missing.is_empty(), "{} of {}", missing.len(), launched.len());
    assert!(compiled.len() > 30, "{}", compiled.len());
}

/// What an edit with the tiny model gives in latents and pictures, and what it warns of. `device` is `pretended` to be
/// another from when the model is there: a table of words is larger than such a model's activations, and a device
/// without room for them would refuse it.
fn edit_tiny(device: &Device, pretended: Pretended) -> (Vec<f32>, Vec<u8>, Vec<String>) {
    struct Warned(Vec<String>);
    impl Observer for Warned {
        fn warn(&mut self, message: String) {
            self.0.push(message);
        }
    }
    let placement = Placement { device: device.clone(), weights: WeightDtype::F16 };
    let options = LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: true,
        prompts: None,
    };
    let folder = Directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/tiny-random"));
    let files = Repository::uncached(&folder, ModelSource::Base(String::new()));
    let pixels = (0..32 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let request = EditRequest {
        images: Images::Pictures(vec![RgbImage::new(32, 32, pixels).expect("fits")]),
        text: Prompts::new("make it snowy"),
        num_inference_steps: 2,
        ..EditRequest::default()
    };
    let mut ignore = |_: LoadEvent<'_>| ();
    let load = StableDiffusionInstructPix2PixPipeline::load(&files, options, &mut ignore);
    let pipeline = pollster::block_on(load).expect("loads");
    let mut noise = TorchGenerator::new(1);
    let mut observer = Warned(Vec::new());
    let edit = || pollster::block_on(pipeline.edit(&request, &mut noise, &mut observer));
    let output = pretend(pretended, edit).expect("edits");
    let OutputImages::Pictures(pictures) = output.images else {
        panic!("pictures are the default")
    };
    (output.latents.data, pictures.into_iter().flat_map(|image| image.data).collect(), observer.0)
}

/// The kernels compile beside loading: after it here, since a tiny model has arrived before the first
/// wait, and on the same device, whose weights may still wait to be written.
#[test]
fn a_model_that_is_warmed_up_while_it_loads_edits_as_on_the_cpu() {
    let gpu = gpu();
    let (expected, _, _) = edit_tiny(&Device::flex(), Pretended::default());
    let (found, _, _) = edit_tiny(&gpu.device, Pretended::default());
    let error = error(&expected, &found);
    assert!(error <= 1e-4, "{error:e}");
}

#[test]
fn the_vae_works_in_tiles_where_no_buffer_is_large_enough() {
    let gpu = gpu();
    let (_, whole, warned) = edit_tiny(&Device::flex(), Pretended::default());
    assert!(warned.is_empty(), "{warned:?}");
    let small = Pretended { largest_buffer: Some(140_000), ..Pretended::default() };
    let tiled = [&Device::flex(), &gpu.device].map(|device| edit_tiny(device, small));
    for (_, _, warned) in &tiled {
        assert!(warned.len() == 1 && warned[0].contains("tiles of 16 x 16 pixels"), "{warned:?}");
    }
    let far = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far(&tiled[0].1, &tiled[1].1) <= Some(1), "one device as the other");
    assert!(far(&tiled[0].1, &whole) > Some(1), "tiles are another picture");
}

/// The tiny model of SDXL, from the oracle.
fn tiny_xl() -> Directory {
    let folder = "tests/fixtures/oracle/models/tiny-sdxl-ip2p";
    Directory(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

fn xl_options(device: &Device) -> LoadOptions {
    let placement = Placement { device: device.clone(), weights: WeightDtype::F16 };
    LoadOptions {
        placement,
        dtype: DType::F32,
        safety_checker: false,
        warm_up: false,
        prompts: None,
    }
}

/// An edit of two steps with guidance, whose picture is left as latents.
fn xl_request(images: Images) -> XlEditRequest {
    let defaults = XlEditRequest::default();
    let edit = EditRequest {
        images,
        text: Prompts::new("make it snowy"),
        num_inference_steps: 2,
        output: OutputType::Latent,
        ..defaults.edit.clone()
    };
    XlEditRequest { edit, height: Some(32), width: Some(32), ..defaults }
}

fn grey_picture() -> Images {
    let pixels = (0..32 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
    Images::Pictures(vec![RgbImage::new(32, 32, pixels).expect("fits")])
}

fn of_xl(pipeline: InstructPix2Pix) -> StableDiffusionXLInstructPix2PixPipeline {
    match pipeline {
        InstructPix2Pix::Xl(pipeline) => pipeline,
        InstructPix2Pix::Sd(_) => panic!("the fixture is of SDXL"),
    }
}

/// What a step takes, the text's sample, the picture's and neither's, passes through the UNet together where buffers hold
/// that; where they do not, in groups, with the same numbers. No kernel is given a larger buffer.
#[test]
fn samples_pass_in_groups_where_no_buffer_holds_all() {
    let gpu = gpu();
    let folder = tiny_xl();
    let files = Repository::uncached(&folder, ModelSource::Base(String::new()));
    let mut ignore = |_: LoadEvent<'_>| ();
    let (given, options) = (Components::default(), xl_options(&gpu.device));
    let load = InstructPix2Pix::load(&files, options, given, None, &mut ignore);
    let pipeline = of_xl(pollster::block_on(load).expect("loads"));
    let picture = grey_picture();
    let encoded = pipeline.encode_image(&picture, Some(32), Some(32));
    // Without the VAE, which would work in tiles.
    let request = xl_request(Images::Tensor(pollster::block_on(encoded).expect("encodes")));
    let latents = |largest_buffer| {
        let pretended = Pretended { largest_buffer, ..Pretended::default() };
        let mut noise = TorchGenerator::new(7);
        let edit = || pollster::block_on(pipeline.edit(&request, &mut noise, &mut Unobserved));
        pretend(pretended, edit).expect("edits").latents.data
    };
    let expected = latents(None);
    // 8 x 8 latents of 64 channels, eight times as wide between a feed-forward's layers.
    let one = 8 * 8 * 8 * 64 * 4;
    for most in [one, 3 * one - 1, 3 * one] {
        let error = error(&expected, &latents(Some(most)));
        assert!(error <= 1e-5, "{most} bytes: {error:e}");
    }
}

/// A slice holds what one picture needs: that is so where each passes through the VAE by itself.
#[test]
fn sliced_pictures_pass_through_the_vae_one_by_one() {
    let gpu = gpu();
    let folder = tiny_xl();
    let files = Repository::uncached(&folder, ModelSource::Base(String::new()));
    let mut ignore = |_: LoadEvent<'_>| ();
    let (given, options) = (Components::default(), xl_options(&gpu.device));
    let load = InstructPix2Pix::load(&files, options, given, None, &mut ignore);
    let mut pipeline = of_xl(pollster::block_on(load).expect("loads"));
    let picture = |seed| {
        let pixels = (0..32 * 32 * 3).map(|i| (i * 7 % seed) as u8).collect();
        RgbImage::new(32, 32, pixels).expect("fits")
    };
    let mut encode = |slicing, pictures: &[usize]| {
        pipeline.set_vae_slicing(slicing);
        let images = Images::Pictures(pictures.iter().map(|seed| picture(*seed)).collect());
        let encode = pipeline.encode_image(&images, Some(32), Some(32));
        let (launches, latents) = bench::launches(|| pollster::block_on(encode));
        (launches, latents.expect("encodes").data)
    };
    let (one, _) = encode(true, &[251]);
    let (at_once, expected) = encode(false, &[251, 241]);
    let (sliced, found) = encode(true, &[251, 241]);
    assert!(at_once < one + one / 2, "{at_once} kernels for two at once, {one} for one");
    assert!(sliced > one + one / 2, "{sliced} kernels for two one by one, {one} for one");
    let error = error(&expected, &found);
    assert!(error <= 1e-5, "{error:e}");
}

/// The most bytes that are in use whenever something passes by.
struct InUse<'a> {
    device: &'a Device,
    most: u64,
}

impl Observer for InUse<'_> {
    fn tap(&mut self, _name: &'static str, _tap: Tap<'_>) {
        self.most = self.most.max(device_memory(self.device)[0]);
    }
}

#[test]
fn models_that_take_turns_leave_the_gpu_when_their_turn_is_over() {
    let gpu = gpu();
    let device = &gpu.device;
    let folder = tiny_xl();
    let files = Repository::uncached(&folder, ModelSource::Base(String::new()));
    let mut ignore = |_: LoadEvent<'_>| ();
    // What others dropped is in use until the device hears of it.
    let used = || {
        release_memory(device);
        device_memory(device)[0]
    };
    let edit = |pipeline: &StableDiffusionXLInstructPix2PixPipeline| {
        let mut observer = InUse { device, most: 0 };
        let request = xl_request(grey_picture());
        let mut noise = TorchGenerator::new(7);
        let edit = pipeline.edit_with(Some(&files), &request, &mut noise, &mut observer);
        let latents = pollster::block_on(edit).expect("edits").latents.data;
        (latents, observer.most)
    };
    let before = used();
    let open = InstructPix2Pix::open(&files, xl_options(device), None, &mut ignore);
    let turns = of_xl(pollster::block_on(open).expect("opens"));
    let opened = used() - before;
    let (found, in_turn) = edit(&turns);
    let left = used() - before;
    drop(turns);
    let before_all = used();
    let load =
        InstructPix2Pix::load(&files, xl_options(device), Components::default(), None, &mut ignore);
    let whole = of_xl(pollster::block_on(load).expect("loads"));
    let weights = used() - before_all;
    let (expected, at_once) = edit(&whole);
    let (in_turn, at_once) = (in_turn - before, at_once - before_all);
    println!("bytes: weights {weights}, in use at once {at_once}, in turn {in_turn}, left {left}");
    assert_eq!(found, expected);
    assert!(opened < weights / 20 && left < weights / 20, "{opened} and {left} of {weights}");
    // The two text encoders together are the largest turn of this model.
    assert!(at_once >= weights && in_turn < weights * 6 / 10, "{in_turn} of {weights}");
}

/// What every WebGPU device binds at once (`maxStorageBufferBindingSize`).
const PROMISED_BINDING: u64 = 128 << 20;

/// A dry run of a step panics at the first tensor that is larger than it pretends that buffers are.
#[test]
fn a_step_of_full_size_stays_within_the_bindings_that_webgpu_promises() {
    let gpu = gpu();
    let device = &gpu.device;
    let placement = Placement { device: device.clone(), weights: WeightDtype::F16 };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let config = |file| {
        let json = std::fs::read_to_string(fixtures.join(file)).expect("a fixture");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let config = json["unet"]["config"].clone();
        serde_json::from_value::<UNet2DConditionConfig>(config).expect("a configuration")
    };
    let pretended =
        Pretended { wide: true, largest_buffer: Some(PROMISED_BINDING), ..Pretended::default() };
    // The samples of a step at once, and how many of them `UNet2DConditionConfig::largest_activation` allows.
    for (file, side, together) in
        [("sd15.json", 512, 3), ("sdxl.json", 768, 2), ("sdxl.json", 1024, 1)]
    {
        let config = config(file);
        let latents = side / 8;
        let one = 4 * config.largest_activation([latents; 2]) as u64;
        assert_eq!(PROMISED_BINDING / one, together, "{file} at {side}");
        let batch = together as usize;
        let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, (device, DType::F32));
        let added = config.addition_embed_type.is_some().then(|| AddedConditions {
            text_embeds: Tensor::<2>::zeros([batch, 1280], (device, DType::F32)),
            time_ids: vec![vec![0.0; 6]; batch],
        });
        pretend(pretended, || {
            memory_of(device, || {
                let mut unet = config.clone().init();
                unet.stand_in(StandIn::Nothing, &placement);
                let text = [batch, 77, config.text_channels()];
                let text = unet.text_keys(&Tensor::<3>::zeros(text, (device, DType::F32)));
                unet.forward_to(
                    zeros([batch, latents, latents, 8]),
                    &[500.0],
                    &text,
                    added.as_ref(),
                );
                unet
            })
        });
    }
}

/// The bytes that models of full size leave held beside their weights, by their configurations: nothing is computed.
#[test]
fn activations_of_full_size_fit_their_budget() {
    let gpu = gpu();
    let device = &gpu.device;
    let placement = Placement { device: device.clone(), weights: WeightDtype::F16 };
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, (device, DType::F32));
    let unet: UNet2DConditionConfig =
        serde_json::from_str(r#"{"in_channels": 8, "cross_attention_dim": 768}"#)
            .expect("a constant");
    let blocks = |name: &str| [name; 4].map(|name| format!("{name:?}")).join(", ");
    let (down, up) = (blocks("DownEncoderBlock2D"), blocks("UpDecoderBlock2D"));
    let vae: AutoencoderKLConfig = serde_json::from_str(&format!(
        r#"{{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512,
            "down_block_types": [{down}], "up_block_types": [{up}]}}"#
    ))
    .expect("a constant");
    let memory_of = |work: &dyn Fn() -> Box<dyn Any>| as_wide(|| memory_of(device, work));
    let step = memory_of(&|| {
        let mut unet = unet.clone().init();
        unet.stand_in(StandIn::Random, &placement);
        let text = Tensor::<3>::zeros([3, 77, 768], (device, DType::F32));
        let text = unet.text_keys(&text);
        for _ in 0..3 {
            unet.forward_to(zeros([3, 64, 64, 8]), &[500.0], &text, None);
        }
        Box::new((unet, text))
    });
    let decode = memory_of(&|| {
        let mut vae = vae.clone().init();
        vae.stand_in(StandIn::Random, &placement);
        vae.decode(zeros([1, 64, 64, 4]));
        Box::new(vae)
    });
    let encode = memory_of(&|| {
        let mut vae = vae.clone().init();
        vae.stand_in(StandIn::Random, &placement);
        vae.encode(zeros([1, 512, 512, 3])).mode();
        Box::new(vae)
    });
    for (what, [left, most], bounds) in [
        ("a step at batch 3", step, 100..600),
        ("decoding", decode, 500..700),
        ("encoding", encode, 500..700),
    ] {
        let [left, most] = [left >> 20, most >> 20];
        println!("{what}: {left} MiB at its end, {most} at most");
        assert!(bounds.contains(&left) && bounds.contains(&most), "{what}: {left}, {most} MiB");
    }
}
