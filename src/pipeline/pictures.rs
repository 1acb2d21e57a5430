//! Pictures on their way to what the UNet sees beside the noisy latents, and the first of those.

use burn::tensor::{DType, Tensor, TensorData};

use super::base::PipelineBase;
use super::text::repeat_each;
use super::{EditRequest, Guidance, Images, NoiseSource, Prompts, from_nchw};
use crate::error::{Error, Result};
use crate::image::VaeImageProcessor;

/// Pictures in -1 to 1, or latents, on the device, channels last.
pub(super) enum ImageInput {
    Pictures(Tensor<4>),
    Latents(Tensor<4>),
}

impl ImageInput {
    /// Height and width of the pictures, where a latent stands for `factor` pixels of each.
    pub fn size(&self, factor: usize) -> [usize; 2] {
        let (Self::Pictures(x) | Self::Latents(x)) = self;
        let [_, height, width, _] = x.dims();
        match self {
            Self::Pictures(_) => [height, width],
            Self::Latents(_) => [height * factor, width * factor],
        }
    }
}

impl PipelineBase {
    /// Pictures on the device, of `size` (height and width) or their own, or latents.
    pub(super) fn image_input(
        &self,
        images: &Images,
        size: Option<[usize; 2]>,
    ) -> Result<ImageInput> {
        let processor = VaeImageProcessor { vae_scale_factor: self.vae.config().scale_factor() };
        let mut samples = Vec::new();
        let mut found = [0; 2];
        match images {
            Images::Pictures(pictures) => {
                for picture in pictures {
                    let (processed, values) = processor.preprocess(picture, size)?;
                    found = processed;
                    samples.extend(values);
                }
            }
            Images::Tensor(tensor) if tensor.shape[1] == self.vae.config().latent_channels => {
                let latents = from_nchw(tensor.data.clone(), tensor.shape, self.device());
                return Ok(ImageInput::Latents(latents.cast(self.options.dtype)));
            }
            Images::Tensor(tensor) => {
                let (processed, values) =
                    processor.preprocess_samples(tensor.shape, &tensor.data, size)?;
                found = processed;
                samples = values;
            }
        }
        let data = TensorData::new(samples, [images.count(), found[0], found[1], 3]);
        Ok(ImageInput::Pictures(Tensor::from_data(data, (self.device(), DType::F32))))
    }

    /// The latents of pictures, not scaled.
    pub(super) fn encode(&self, input: ImageInput) -> Tensor<4> {
        match input {
            ImageInput::Pictures(pictures) => {
                self.vae_encode(pictures.cast(self.vae_dtype())).cast(self.options.dtype)
            }
            ImageInput::Latents(latents) => latents,
        }
    }

    /// The pictures' latents for every result: `[z, z, 0]` with guidance. Prompt `i` edits picture `i` modulo their
    /// number, also where there are several results for each (diffusers mixes them up then).
    pub(super) fn image_latents(
        &self,
        input: ImageInput,
        text: &Prompts,
        guidance: Guidance,
    ) -> Tensor<4> {
        let latents = self.encode(input);
        let rounds = text.count() / latents.dims()[0];
        let latents = Tensor::cat(vec![latents; rounds], 0);
        let latents = repeat_each(latents, text.num_images_per_prompt);
        if !guidance.is_on() {
            return latents;
        }
        let zeros = latents.zeros_like();
        Tensor::cat(vec![latents.clone(), latents, zeros], 0)
    }

    /// Refuses initial latents and generators that do not fit, before anything is computed, and latents that are not
    /// those of pictures of `size`.
    pub(super) fn check_latents(
        &self,
        request: &EditRequest,
        input: &ImageInput,
        size: Option<[usize; 2]>,
        noise: &dyn NoiseSource,
    ) -> Result<()> {
        let factor = self.vae.config().scale_factor();
        let [height, width, image_channels] = match input {
            ImageInput::Pictures(x) => {
                let [_, height, width, _] = x.dims();
                [height / factor, width / factor, self.vae.config().latent_channels]
            }
            ImageInput::Latents(x) => {
                let [_, height, width, channels] = x.dims();
                [height, width, channels]
            }
        };
        let channels = self.vae.config().latent_channels;
        let expected = self.unet.config().in_channels;
        if channels + image_channels != expected {
            return Err(Error::unsupported(format!(
                "a UNet of {expected} input channels with {channels} noisy and {image_channels} \
                 image latent channels; InstructPix2Pix's has 8"
            )));
        }
        if let Some(size) = size
            && size.map(|side| side / factor) != [height, width]
        {
            let message = format!(
                "latents of {height} x {width} are of pictures of {} x {}, and `height` and `width` say {} x {}",
                height * factor,
                width * factor,
                size[0],
                size[1]
            );
            return Err(Error::argument("image", message));
        }
        let results = request.text.results();
        let shape = [results, channels, height, width];
        if let Some(latents) = &request.latents
            && latents.shape != shape
        {
            let message = format!("shape {:?}; {shape:?} is needed", latents.shape);
            return Err(Error::argument("latents", message));
        }
        match noise.rows() {
            Some(rows) if rows != results => {
                let message = format!("{rows} for {results} results; one, or one for each");
                Err(Error::argument("seed", message))
            }
            _ => Ok(()),
        }
    }

    /// The noise to begin with, not scaled.
    pub(super) fn initial_latents(
        &self,
        request: &EditRequest,
        image_latents: &Tensor<4>,
        noise: &mut dyn NoiseSource,
    ) -> Result<Tensor<4>> {
        let [_, height, width, _] = image_latents.dims();
        let channels = self.vae.config().latent_channels;
        let shape = [request.text.results(), channels, height, width];
        let values = match &request.latents {
            Some(latents) => latents.data.clone(),
            None => noise.randn(shape.iter().product())?,
        };
        Ok(from_nchw(values, shape, self.device()))
    }
}
