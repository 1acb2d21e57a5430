import { InstructPix2Pix } from '/pkg/index.js';

await navigator.serviceWorker.register('/sw.js');
await navigator.serviceWorker.ready;

/** The tiny edit, in words. */
window.edit = async () => {
  const codes = [];
  const pipe = await InstructPix2Pix.fromPretrained('/models/tiny-random', {
    onProgress(event) {
      if (event.type === 'warning') codes.push(event.code);
    },
  });
  const image = new ImageData(new Uint8ClampedArray(4 * 16 * 16).fill(200), 16, 16);
  const { images } = await pipe.edit({ image, prompt: 'make it snowy', numInferenceSteps: 1, seed: 1 });
  await pipe.dispose();
  return { codes, data: [...images[0].data] };
};
document.body.dataset.ready = 'yes';
