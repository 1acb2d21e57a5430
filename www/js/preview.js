/** A rough picture of latents, without the decoder: each pixel a linear map of its four numbers. */

/** Of Stable Diffusion 1.x, as it is commonly fitted; to -1..1. */
const SD1 = [
  [0.3512, 0.2297, 0.3227],
  [0.325, 0.4974, 0.235],
  [-0.2829, 0.1762, 0.2721],
  [-0.212, -0.2616, -0.7177],
];
/** The same of SDXL. */
const SDXL = [
  [0.3651, 0.4232, 0.4341],
  [-0.2533, -0.0042, 0.1068],
  [0.1076, 0.1111, -0.0362],
  [-0.3165, -0.2492, -0.2188],
];
const SDXL_BIAS = [0.1084, -0.0175, -0.0011];

/** From maps to -1..1 to maps to 0..1. */
function halved(factors, bias = [0, 0, 0]) {
  return {
    factors: factors.map((row) => row.map((value) => value / 2)),
    bias: bias.map((value) => (value + 1) / 2),
  };
}

/** @typedef {{ factors: number[][], bias: number[] }} ColourMap to 0..1 */

/** @type {Record<string, ColourMap>} by the class of the pipeline */
export const COLOURS = {
  StableDiffusionInstructPix2PixPipeline: halved(SD1),
  StableDiffusionXLInstructPix2PixPipeline: halved(SDXL, SDXL_BIAS),
};

/** Noise of a sampler that counts in standard deviations begins at about 14. */
const LOUD = 2.5;

/**
 * @param {{ data: Float32Array, shape: number[] }} latents `[N, 4, H, W]`; the first is taken
 * @param {ColourMap} colours
 * @returns {{ data: Uint8ClampedArray, width: number, height: number }} RGBA
 */
export function previewOf({ data, shape: [, channels, height, width] }, { factors, bias }) {
  const plane = width * height;
  const count = channels * plane;
  let [sum, squares] = [0, 0];
  for (let i = 0; i < count; i++) {
    sum += data[i];
    squares += data[i] * data[i];
  }
  const deviation = Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
  const scale = deviation > LOUD ? 1 / deviation : 1;
  const pixels = new Uint8ClampedArray(4 * plane);
  for (let i = 0; i < plane; i++) {
    for (let colour = 0; colour < 3; colour++) {
      let value = bias[colour];
      for (let channel = 0; channel < factors.length; channel++) {
        value += data[channel * plane + i] * scale * factors[channel][colour];
      }
      pixels[4 * i + colour] = value * 255;
    }
    pixels[4 * i + 3] = 255;
  }
  return { data: pixels, width, height };
}
