//! Kernels before they are needed.

use burn::tensor::{DType, Tensor};

use super::LoadOptions;
use crate::kernels::{StandIn, combine, compile_only};
use crate::models::{AddedConditions, AutoencoderKLConfig, Module, UNet2DConditionConfig};

/// Tokens of a text.
const TOKENS: usize = crate::tokenizer::MAX_LENGTH;

/// SDXL's micro-conditions: original size, crop and target size.
const CONDITIONS: usize = 6;

/// Compiles the kernels of an edit with guidance, on a picture of the size that the model was made
/// for, without computing anything: most of what the first edit would otherwise wait for. Other
/// sizes share most of these kernels. The VAE computes in `vae_dtype`.
pub fn warm_up(
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
    compile_only(device, || {
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
    compile_only(device, || {
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
