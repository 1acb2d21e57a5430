/** Decodes, crops and resizes pictures, away from the page. */

import { shrunk } from './fit.js';
import { neededPart, resize } from './lanczos.js';

/** The picture opened last. */
let bitmap;

/** The file's own numbers, upright by its EXIF orientation: as the package reads pictures. */
const DECODE = { colorSpaceConversion: 'none', imageOrientation: 'from-image' };

/** What is transparent would come out black. */
function onWhite(canvas, settings) {
  const context = canvas.getContext('2d', settings);
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  return context;
}

const actions = {
  /** Its size, and where it was too large, the same picture smaller, as a file. */
  async open(blob) {
    let opened = await createImageBitmap(blob, DECODE);
    const { width, height } = opened;
    const smaller = shrunk(opened);
    if (smaller) {
      const canvas = new OffscreenCanvas(smaller.width, smaller.height);
      const context = onWhite(canvas);
      context.imageSmoothingQuality = 'high';
      context.drawImage(opened, 0, 0, smaller.width, smaller.height);
      opened.close();
      blob = await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.95 });
      opened = canvas.transferToImageBitmap();
    }
    bitmap?.close();
    bitmap = opened;
    return { blob, width: opened.width, height: opened.height, original: { width, height } };
  },

  /** A part of it in a size, as PNG; `blob` is the picture, should it have been opened by another worker. */
  async fit({ blob, box, width, height }) {
    bitmap ??= await createImageBitmap(blob, DECODE);
    const part = neededPart(bitmap, { width, height }, box);
    const canvas = new OffscreenCanvas(part.width, part.height);
    const context = onWhite(canvas, { willReadFrequently: true });
    context.drawImage(bitmap, -part.x, -part.y);
    const pixels = context.getImageData(0, 0, part.width, part.height);
    const shifted = box.map((side, i) => side - (i % 2 ? part.y : part.x));
    const { data } = resize(pixels, { width, height }, shifted, bitmap);
    const result = new OffscreenCanvas(width, height);
    result.getContext('2d').putImageData(new ImageData(data, width, height), 0, 0);
    return result.convertToBlob({ type: 'image/png' });
  },
};

/** Of two pictures, the one that was asked for later must be the one that stays. */
let last = Promise.resolve();

addEventListener('message', ({ data: { id, action, argument } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, value: await actions[action](argument) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
});
