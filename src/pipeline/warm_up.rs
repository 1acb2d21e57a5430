//! Kernels before they are needed.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use burn::tensor::{DType, Tensor};

use super::LoadOptions;
use crate::error::Result;
use crate::hub::ModelFiles;
use crate::kernels::{StandIn, combine, warm_up};
use crate::models::{
    AddedConditions, AutoencoderKLConfig, ClipTextConfig, Module, UNet2DConditionConfig,
};

/// Tokens of a text.
const TOKENS: usize = crate::tokenizer::MAX_LENGTH;

/// SDXL's micro-conditions: original size, crop and target size.
const CONDITIONS: usize = 6;

/// Bytes of a model that have arrived when more of it is surely on its way.
const UNDER_WAY: u64 = 32 << 20;

/// The models of which an edit's kernels are compiled.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// The text encoders.
    pub texts: Vec<ClipTextConfig>,
    /// The UNet.
    pub unet: UNet2DConditionConfig,
    /// The VAE.
    pub vae: AutoencoderKLConfig,
    /// What the VAE computes in.
    pub vae_dtype: DType,
    /// Where and in what the others compute.
    pub options: LoadOptions,
}

impl WarmUp {
    /// Compiles the kernels of an edit with guidance, on a picture of the size that the model was made
    /// for, without computing anything: most of what the first edit would otherwise wait for. Other
    /// sizes share most of these kernels.
    pub fn run(&self) {
        for text in &self.texts {
            let ids = vec![vec![0; TOKENS]];
            warm_up(&self.options.placement.device, || {
                let mut model = text.init();
                model.stand_in(StandIn::Nothing, &self.options.placement);
                model.forward(&ids, self.options.dtype)
            });
        }
        images(&self.unet, &self.vae, self.vae_dtype, &self.options);
    }

    /// The outcome of `load`, which reads from `files`. What it waits for arrives while the kernels
    /// compile.
    pub(super) async fn alongside<T>(
        self,
        files: &dyn ModelFiles,
        load: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut load = pin!(load);
        let mut waiting = Some(self);
        let start = files.traffic().total();
        poll_fn(|context| {
            let polled = load.as_mut().poll(context);
            let is_time = match &polled {
                Poll::Pending => files.traffic().total() - start >= UNDER_WAY,
                // Who gave up does not wait for it.
                Poll::Ready(result) => result.is_ok(),
            };
            if is_time && let Some(warm_up) = waiting.take() {
                warm_up.run();
            }
            polled
        })
        .await
    }
}

/// Compiles UNet and VAE.
fn images(
    unet: &UNet2DConditionConfig,
    vae: &AutoencoderKLConfig,
    vae_dtype: DType,
    options: &LoadOptions,
) {
    let device = &options.placement.device;
    let empty = |shape: [usize; 4], dtype: DType| {
        Tensor::<4>::empty(shape, (device, DType::F32)).cast(dtype)
    };
    let side = unet.sample_side().unwrap_or(64);
    let channels = vae.latent_channels;
    warm_up(device, || {
        let mut model = unet.init();
        model.stand_in(StandIn::Nothing, &options.placement);
        let text = Tensor::<3>::empty([3, TOKENS, unet.text_channels()], (device, DType::F32));
        let text = model.text_keys(&text.cast(options.dtype));
        let input = empty([3, side, side, unet.in_channels], options.dtype);
        let added = added_conditions(unet, options);
        let output = model.forward_to(input, &[1.0], &text, added.as_ref()).cast(DType::F32);
        let rows: Vec<_> = output.chunk(3, 0);
        combine(&[(1.0, &rows[0]), (1.0, &rows[1]), (1.0, &rows[2])])
    });
    warm_up(device, || {
        let mut model = vae.init();
        model.stand_in(StandIn::Nothing, &options.placement);
        let scale = vae.scale_factor();
        let latents = model.encode(empty([1, side * scale, side * scale, 3], vae_dtype)).mode();
        (latents, model.decode(empty([1, side, side, channels], vae_dtype)))
    });
}

/// What SDXL's UNet is told beside the text, of three rows.
fn added_conditions(
    unet: &UNet2DConditionConfig,
    options: &LoadOptions,
) -> Option<AddedConditions> {
    let (each, all) = (unet.addition_time_embed_dim?, unet.projection_class_embeddings_input_dim?);
    let pooled = all.checked_sub(each * CONDITIONS).filter(|channels| *channels > 0)?;
    let pooled = Tensor::<2>::empty([3, pooled], (&options.placement.device, DType::F32));
    Some(AddedConditions {
        text_embeds: pooled.cast(options.dtype),
        time_ids: vec![vec![0.0; CONDITIONS]; 3],
    })
}
