/** What the engine gives for an edit, as callers get it. */

import { log } from './env.js';

export async function judgeAll(judge, images) {
  return Promise.all(images.map(async (image) => Boolean(await judge(toImageData(image)))));
}

function toImageData({ data, width, height }) {
  // Only browsers have the class.
  if (typeof ImageData !== 'function') return { data, width, height, colorSpace: 'srgb' };
  return new ImageData(data, width, height);
}

export async function receive({ images, latents, seeds, warnings, ...rest }, outputType) {
  for (const message of warnings) log('warn', message);
  const [seed] = seeds.map((digits) => {
    const number = Number(digits);
    return Number.isSafeInteger(number) ? number : BigInt(digits);
  });
  const converted = await convert(images ?? latents, outputType);
  return { images: converted, ...rest, latents, seed, warnings };
}

async function convert(images, outputType) {
  if (!Array.isArray(images)) return images;
  const pictures = images.map(toImageData);
  return outputType === 'blob' ? Promise.all(pictures.map(toPng)) : pictures;
}

function toPng(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext('2d').putImageData(picture, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}
