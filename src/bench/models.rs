//! Whole models with random weights.

use std::future::ready;
use std::ops::ControlFlow;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use futures_util::future::LocalBoxFuture;
use web_time::Instant;

use super::{Bench, Launches};
use crate::error::Result;
use crate::image::RgbImage;
use crate::kernels::{StandIn, device_memory, held_memory, largest_buffer, release_memory};
use crate::models::{
    AddedConditions, AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, Module,
    Placement, UNet2DConditionConfig, UNet2DConditionModel,
};
use crate::pipeline::{
    CONTINUE, EditRequest, Images, LoadOptions, NoiseSource, Observer, Output, Prompts,
    StableDiffusionInstructPix2PixPipeline, StableDiffusionXLInstructPix2PixPipeline, Step,
    StepTensors, Tap, TorchGenerator, WarmUp, XlConfig, XlEditRequest,
};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;

/// Operations of one sample's pass through the UNet at 64 x 64 latents and 77 tokens of text.
const UNET_OPERATIONS: f64 = 803e9;
/// Operations of the VAE at 512 x 512 pixels: decoder and encoder.
const VAE_OPERATIONS: [f64; 2] = [2.48e12, 1.08e12];
/// Steps of the edit.
const STEPS: usize = 20;

pub async fn all(bench: &mut Bench<'_>) -> Result<()> {
    if let Some(bytes) = largest_buffer(&bench.device) {
        bench.count("bytes of the largest buffer that the adapter allows", bytes);
    }
    if bench.wants("SDXL") || bench.wants("SDXL edit") {
        sdxl(bench).await?;
    }
    if !bench.wants("UNet") && !bench.wants("VAE") && !bench.wants("text") && !bench.wants("edit") {
        return Ok(());
    }
    if bench.wants("UNet") || bench.wants("edit") {
        warm(bench, "warm-up", vec![sd_text()], sd_unet()).await?;
    }
    let placement = placement(bench);
    let start = Instant::now();
    let mut unet = sd_unet().init();
    unet.stand_in(StandIn::Random, &placement);
    let mut vae = sd_vae().init();
    vae.stand_in(StandIn::Random, &placement);
    let mut text = sd_text().init();
    text.stand_in(StandIn::Random, &placement);
    bench.wait().await?;
    release_memory(&bench.device);
    bench.line(&format!("random weights: {:.1} s", start.elapsed().as_secs_f64()));
    let [weights, _] = device_memory(&bench.device);
    bench.count("bytes of weights", weights);
    if bench.wants("UNet") {
        sd_steps(bench, &unet).await?;
    }
    if bench.wants("VAE") {
        autoencoder(bench, &vae).await?;
    }
    if bench.wants("text") {
        encoder(bench, &text).await?;
    }
    if bench.wants("edit") {
        edit(bench, unet, vae, text).await?;
    }
    Ok(())
}

fn placement(bench: &Bench<'_>) -> Placement {
    Placement { device: bench.device.clone(), weights: bench.weights }
}

fn load_options(bench: &Bench<'_>) -> LoadOptions {
    LoadOptions {
        placement: placement(bench),
        dtype: bench.dtype,
        safety_checker: false,
        warm_up: true,
        prompts: None,
    }
}

/// What weights take to arrive after that, over the fastest of networks. A browser writes down meanwhile what its driver compiled.
const ARRIVAL: Duration = Duration::from_secs(2);

/// What loading does while weights are on their way: the first step comes after it.
async fn warm(
    bench: &mut Bench<'_>,
    name: &str,
    texts: Vec<ClipTextConfig>,
    unet: UNet2DConditionConfig,
) -> Result<()> {
    let start = Instant::now();
    let warm_up =
        WarmUp { texts, unet, vae: sd_vae(), vae_dtype: bench.dtype, options: load_options(bench) };
    warm_up.run();
    let host = start.elapsed().as_secs_f64() * 1e3;
    bench.wait().await?;
    bench.row(format!("{name}, host"), host, 0.0, 0);
    bench.row(name, start.elapsed().as_secs_f64() * 1e3, 0.0, 0);
    pause().await;
    Ok(())
}

/// Lets the device idle for [`ARRIVAL`].
async fn pause() {
    #[cfg(target_family = "wasm")]
    crate::hub::sleep(ARRIVAL).await;
    #[cfg(not(target_family = "wasm"))]
    std::thread::sleep(ARRIVAL);
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).expect("a constant")
}

fn sd_unet() -> UNet2DConditionConfig {
    parse(r#"{"in_channels": 8, "cross_attention_dim": 768}"#)
}

fn sd_vae() -> AutoencoderKLConfig {
    parse(
        r#"{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D",
                "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D",
                "UpDecoderBlock2D"]}"#,
    )
}

fn sd_text() -> ClipTextConfig {
    parse(
        r#"{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "projection_dim": 768}"#,
    )
}

/// The UNet of `diffusers/sdxl-instructpix2pix-768`.
fn sdxl_unet() -> UNet2DConditionConfig {
    parse(
        r#"{"in_channels": 8, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
            "use_linear_projection": true, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}"#,
    )
}

/// The second text encoder of SDXL.
fn sdxl_text() -> ClipTextConfig {
    // The bench's vocabulary ends elsewhere than CLIP's: 2 stands for the largest id.
    parse(
        r#"{"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280,
            "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
            "projection_dim": 1280, "hidden_act": "gelu", "eos_token_id": 2}"#,
    )
}

fn random<const D: usize>(bench: &Bench<'_>, shape: [usize; D]) -> Tensor<D> {
    let device = (&bench.device, burn::tensor::DType::F32);
    Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), device).cast(bench.dtype)
}

/// First and warm time, host time and dispatches of `step`.
async fn step<T>(
    bench: &mut Bench<'_>,
    name: &str,
    operations: f64,
    run: impl Fn() -> T,
) -> Result<()> {
    bench.wait().await?;
    let start = Instant::now();
    run();
    let host = start.elapsed().as_secs_f64() * 1e3;
    bench.wait().await?;
    let first = start.elapsed().as_secs_f64() * 1e3;
    let launches = Launches::watch();
    run();
    let launches = launches.count();
    let warm = bench.time(&run).await?;
    bench.row(name, warm, operations, 0);
    bench.row(format!("{name}, first"), first, 0.0, 0);
    bench.row(format!("{name}, first, host"), host, 0.0, 0);
    // Without a wait before: what a step costs the host when the queue has room.
    bench.wait().await?;
    let start = Instant::now();
    run();
    let host = start.elapsed().as_secs_f64() * 1e3;
    bench.wait().await?;
    bench.row(format!("{name}, host"), host, 0.0, 0);
    bench.count(format!("{name}, dispatches"), launches);
    Ok(())
}

/// What a run left held beside what is used: its activations.
fn activations(bench: &mut Bench<'_>, name: &str) {
    let [used, held] = device_memory(&bench.device);
    bench.count(format!("{name}, bytes of activations"), held - used);
}

async fn sd_steps(bench: &mut Bench<'_>, unet: &UNet2DConditionModel) -> Result<()> {
    for batch in [3, 2, 1] {
        release_memory(&bench.device);
        let x = random(bench, [batch, 64, 64, 8]);
        let text = unet.text_keys(&random(bench, [batch, 77, 768]));
        let operations = UNET_OPERATIONS * batch as f64;
        let run = || unet.forward_to(x.clone(), &[500.0], &text, None);
        let name = format!("UNet step, batch {batch}");
        step(bench, &name, operations, run).await?;
        activations(bench, &name);
        if batch == 3 {
            // What the first is to be compared with: a chip that idles has to wake up first.
            pause().await;
            let start = Instant::now();
            run();
            bench.wait().await?;
            let woken = start.elapsed().as_secs_f64() * 1e3;
            bench.row(format!("{name}, after a pause"), woken, 0.0, 0);
        }
    }
    Ok(())
}

async fn sdxl(bench: &mut Bench<'_>) -> Result<()> {
    warm(bench, "SDXL warm-up", vec![sd_text(), sdxl_text()], sdxl_unet()).await?;
    let mut unet = sdxl_unet().init();
    unet.stand_in(StandIn::Random, &placement(bench));
    bench.wait().await?;
    let [weights, _] = device_memory(&bench.device);
    bench.count("SDXL UNet: bytes of weights", weights);
    if bench.wants("SDXL") {
        sdxl_steps(bench, &unet).await?;
    }
    if bench.wants("SDXL edit") {
        sdxl_edits(bench, unet).await?;
    }
    Ok(())
}

async fn sdxl_steps(bench: &mut Bench<'_>, unet: &UNet2DConditionModel) -> Result<()> {
    for (side, batch) in [(768, 3), (768, 1), (1024, 3), (1024, 1)] {
        release_memory(&bench.device);
        let x = random(bench, [batch, side / 8, side / 8, 8]);
        let text = unet.text_keys(&random(bench, [batch, 77, 2048]));
        let size = side as f64;
        let added = AddedConditions {
            text_embeds: random(bench, [batch, 1280]),
            time_ids: vec![vec![size, size, 0.0, 0.0, size, size]; batch],
        };
        let run = || unet.forward_to(x.clone(), &[500.0], &text, Some(&added));
        let name = format!("SDXL UNet step at {side}, batch {batch}");
        step(bench, &name, 0.0, run).await?;
        activations(bench, &name);
    }
    Ok(())
}

async fn autoencoder(bench: &mut Bench<'_>, vae: &AutoencoderKL) -> Result<()> {
    for side in [512, 768, 1024] {
        let area = (side * side) as f64 / (512.0 * 512.0);
        let latents = random(bench, [1, side / 8, side / 8, 4]);
        let name = format!("VAE decode {side}");
        release_memory(&bench.device);
        step(bench, &name, VAE_OPERATIONS[0] * area, || vae.decode(latents.clone())).await?;
        activations(bench, &name);
        release_memory(&bench.device);
        let picture = random(bench, [1, side, side, 3]);
        let name = format!("VAE encode {side}");
        step(bench, &name, VAE_OPERATIONS[1] * area, || vae.encode(picture.clone()).mode()).await?;
        activations(bench, &name);
    }
    Ok(())
}

async fn encoder(bench: &mut Bench<'_>, text: &ClipTextModel) -> Result<()> {
    let ids = vec![vec![5; 77]; 2];
    let dtype = bench.dtype;
    let run = || text.forward(&ids, dtype).expect("ids of the table");
    step(bench, "text encoder, 2 texts", 0.0, run).await
}

/// A vocabulary of the letters.
fn tokenizer() -> Result<ClipTokenizer> {
    let mut vocab: Vec<String> = ('a'..='z').map(String::from).collect();
    vocab.extend(('a'..='z').map(|letter| format!("{letter}</w>")));
    vocab.extend(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let vocab: serde_json::Map<_, _> =
        vocab.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    ClipTokenizer::new(&serde_json::Value::from(vocab).to_string(), "", None)
}

fn scheduler(class: &str) -> Result<SchedulerConfig> {
    let config = serde_json::json!({
        "_class_name": class, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "timestep_spacing": "leading", "steps_offset": 1,
    });
    SchedulerConfig::from_json("scheduler_config.json", &config.to_string())
}

/// What every edit is asked for, with a picture of this side.
fn request(side: usize) -> Result<EditRequest> {
    let pixels = (0..side * side * 3).map(|i| (i * 7 % 251) as u8).collect();
    Ok(EditRequest {
        images: Images::Pictures(vec![RgbImage::new(side, side, pixels)?]),
        text: Prompts::new("make it snowy"),
        num_inference_steps: STEPS,
        ..EditRequest::default()
    })
}

/// The most memory that was held whenever something passed by, or memory was given back.
#[derive(Debug)]
pub struct Held<'a> {
    device: &'a Device,
    most: u64,
}

impl<'a> Held<'a> {
    /// Watches from now on.
    pub fn watch(device: &'a Device) -> Self {
        held_memory(device);
        Self { device, most: 0 }
    }

    /// Bytes.
    pub fn most(&mut self) -> u64 {
        let [_, held] = held_memory(self.device);
        self.most = self.most.max(held);
        self.most
    }
}

impl Observer for Held<'_> {
    fn tap(&mut self, _name: &'static str, _tap: Tap<'_>) {
        self.most();
    }
}

/// When each step had ended; a step waits for the device.
#[derive(Default)]
struct StepEnds(Vec<Instant>);

impl Observer for StepEnds {
    fn step<'a>(
        &'a mut self,
        _: Step,
        _: StepTensors,
    ) -> LocalBoxFuture<'a, ControlFlow<(), StepTensors>> {
        self.0.push(Instant::now());
        Box::pin(ready(CONTINUE))
    }
}

/// Times a first edit and the next; another, which is not timed, tells its memory.
async fn measure_edit(
    bench: &mut Bench<'_>,
    what: &str,
    side: usize,
    run: impl AsyncFn(&mut dyn NoiseSource, &mut dyn Observer) -> Result<Output>,
) -> Result<()> {
    for first in [", first", ""] {
        let launches = Launches::watch();
        let mut ends = StepEnds::default();
        let timings = run(&mut TorchGenerator::new(42), &mut ends).await?.timings;
        let launches = launches.count();
        let name = format!("{what}{first}, {STEPS} steps at {side}");
        bench.row(format!("{name}: encode"), timings.encode, 0.0, 0);
        bench.row(format!("{name}: a step"), timings.denoise / STEPS as f64, 0.0, 0);
        let later = ends.0[STEPS - 1].duration_since(ends.0[0]).as_secs_f64() * 1e3;
        bench.row(format!("{name}: its first step"), timings.denoise - later, 0.0, 0);
        bench.row(format!("{name}: a later step"), later / (STEPS - 1) as f64, 0.0, 0);
        bench.row(format!("{name}: decode"), timings.decode, 0.0, 0);
        bench.row(name.clone(), timings.total, 0.0, 0);
        bench.count(format!("{name}: dispatches"), launches);
    }
    let [used, held] = device_memory(&bench.device);
    bench.count(format!("bytes used after an {what} at {side}"), used);
    bench.count(format!("bytes held after an {what} at {side}"), held);
    let device = bench.device.clone();
    let mut held = Held::watch(&device);
    run(&mut TorchGenerator::new(42), &mut held).await?;
    bench.count(format!("most bytes held during an {what} at {side}"), held.most());
    Ok(())
}

async fn edit(
    bench: &mut Bench<'_>,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text: ClipTextModel,
) -> Result<()> {
    let pipeline = StableDiffusionInstructPix2PixPipeline::new(
        tokenizer()?,
        text,
        vae,
        unet,
        scheduler("EulerAncestralDiscreteScheduler")?,
        load_options(bench),
    );
    let request = request(512)?;
    let run = async |noise: &mut dyn NoiseSource, observer: &mut dyn Observer| {
        pipeline.edit(&request, noise, observer).await
    };
    measure_edit(bench, "edit", 512, run).await
}

async fn sdxl_edits(bench: &mut Bench<'_>, unet: UNet2DConditionModel) -> Result<()> {
    let placement = placement(bench);
    let mut texts = [sd_text(), sdxl_text()].map(|config| config.init());
    texts.iter_mut().for_each(|text| text.stand_in(StandIn::Random, &placement));
    let mut vae = sd_vae().init();
    vae.stand_in(StandIn::Random, &placement);
    bench.wait().await?;
    release_memory(&bench.device);
    let [weights, _] = device_memory(&bench.device);
    bench.count("SDXL edit: bytes of weights", weights);
    let [first, second] = texts;
    let pipeline = StableDiffusionXLInstructPix2PixPipeline::new(
        Some((tokenizer()?, first)),
        (tokenizer()?, second),
        vae,
        unet,
        scheduler("EulerDiscreteScheduler")?,
        XlConfig::default(),
        load_options(bench),
    );
    for side in [768, 1024] {
        let request = XlEditRequest {
            edit: EditRequest { guidance_scale: 5.0, ..request(side)? },
            height: Some(side),
            width: Some(side),
            ..XlEditRequest::default()
        };
        let run = async |noise: &mut dyn NoiseSource, observer: &mut dyn Observer| {
            pipeline.edit(&request, noise, observer).await
        };
        measure_edit(bench, "SDXL edit", side, run).await?;
    }
    Ok(())
}
