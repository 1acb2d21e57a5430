import { InstructPix2Pix } from 'instruct-pix2pix-web';

/** The tiny edit; the page then says how it went. */
export async function run() {
  try {
    const model = new URL(location.href).searchParams.get('model');
    const pipe = await InstructPix2Pix.fromPretrained(model, { cache: false });
    const image = new ImageData(new Uint8ClampedArray(4 * 16 * 16).fill(200), 16, 16);
    const { images } = await pipe.edit({ image, prompt: 'make it snowy', numInferenceSteps: 1, seed: 1 });
    await pipe.dispose();
    document.body.dataset.outcome = `${images[0].width} x ${images[0].height}`;
  } catch (error) {
    document.body.dataset.outcome = `${error.code}: ${error.message}`;
  }
}
