/** What the tests need inside the page. */

import { DirectInstructPix2Pix, InstructPix2Pix } from '/pkg/index.js';

export const tiny = '/models/tiny-random';

/** The shortest edit: software WebGPU takes seconds for a step. */
export const quick = { prompt: 'make it snowy', numInferenceSteps: 1, seed: 1 };

const pipelines = {};

/** The worker's pipeline with the tiny model, loaded once a page. */
export function worker() {
  return (pipelines.worker ??= InstructPix2Pix.fromPretrained(tiny));
}

/** The direct class with the tiny model, loaded once a page. */
export function direct() {
  return (pipelines.direct ??= DirectInstructPix2Pix.fromPretrained(tiny));
}

/** The outcome of a promise, in a form that leaves the page. */
export async function attempt(promise) {
  const start = performance.now();
  try {
    await promise;
    return { resolved: true };
  } catch (error) {
    const { name, code, retryable, message, cause } = error ?? {};
    return {
      name,
      code,
      retryable,
      message,
      cause: cause && { name: cause.name, message: cause.message },
      isPackageError: error instanceof (await import('/pkg/index.js')).InstructPix2PixError,
      thrown: error instanceof Error ? undefined : error,
      ms: performance.now() - start,
    };
  }
}

/** An opaque picture of which every pixel is different. */
export function picture(width = 24, height = 16) {
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      image.data.set([x * 9, y * 14, (x * 31 + y * 57) % 256, 255], (y * width + x) * 4);
    }
  }
  return image;
}

/** @param {ImageData} image */
export function canvasOf(image, canvas = new OffscreenCanvas(image.width, image.height)) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

/** @param {Blob} jpeg @param {number} orientation 1 to 8, as EXIF counts */
export async function withOrientation(jpeg, orientation) {
  const bytes = new Uint8Array(await jpeg.arrayBuffer());
  // APP1: "Exif\0\0", a little-endian TIFF header, one directory with one entry, 0x0112.
  const tiff = [
    0x49,
    0x49,
    42,
    0,
    8,
    0,
    0,
    0,
    1,
    0,
    0x12,
    1,
    3,
    0,
    1,
    0,
    0,
    0,
    orientation,
    0,
    0,
    0,
  ];
  const exif = [0x45, 0x78, 0x69, 0x66, 0, 0, ...tiff, 0, 0, 0, 0];
  const segment = Uint8Array.of(0xff, 0xe1, 0, exif.length + 2, ...exif);
  return new Blob([bytes.subarray(0, 2), segment, bytes.subarray(2)], { type: 'image/jpeg' });
}

/** The first difference between two lists of numbers, if any: short enough for a message. */
export function difference(a, b) {
  if (a.length !== b.length) return `${a.length} numbers and ${b.length}`;
  const at = a.findIndex((value, index) => value !== b[index]);
  return at < 0 ? 'none' : `at ${at}: ${a[at]} and ${b[at]}`;
}
