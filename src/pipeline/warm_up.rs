//! Kernels before they are needed.

use burn::tensor::{DType, Tensor};

use super::LoadOptions;
use crate::kernels::{StandIn, combine, compile_only};
use crate::models::{AutoencoderKLConfig, Module, UNet2DConditionConfig};

/// Tokens of a text.
const TOKENS: usize = crate::tokenizer::MAX_LENGTH;

/// Compiles the kernels of an edit with guidance, on a picture of the size that the model was made
/// for, without computing anything: most of what the first edit would otherwise wait for. Other
/// sizes share most of these kernels.
pub fn warm_up(unet: &UNet2DConditionConfig, vae: &AutoencoderKLConfig, options: &LoadOptions) {
    let device = &options.placement.device;
    let empty =
        |shape: [usize; 4]| Tensor::<4>::empty(shape, (device, DType::F32)).cast(options.dtype);
    let side = unet.sample_side().unwrap_or(64);
    let channels = vae.latent_channels;
    compile_only(device, || {
        let mut model = unet.init();
        model.stand_in(StandIn::Nothing, &options.placement);
        let text = Tensor::<3>::empty([3, TOKENS, unet.text_channels()], (device, DType::F32));
        let text = model.text_keys(&text.cast(options.dtype));
        let input = empty([3, side, side, unet.in_channels]);
        let output = model.forward_to(input, &[1.0], &text, None).cast(DType::F32);
        let rows: Vec<_> = output.chunk(3, 0);
        combine(&[(1.0, &rows[0]), (1.0, &rows[1]), (1.0, &rows[2])])
    });
    compile_only(device, || {
        let mut model = vae.init();
        model.stand_in(StandIn::Nothing, &options.placement);
        let scale = vae.scale_factor();
        let latents = model.encode(empty([1, side * scale, side * scale, 3])).mode();
        (latents, model.decode(empty([1, side, side, channels])))
    });
}
