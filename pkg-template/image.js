import { InstructPix2PixError, invalid } from './errors.js';
import { isTensor } from './options.js';
import { absoluteUrl } from './urls.js';

/**
 * @typedef {{ data: Uint8Array, width: number, height: number }} Pixels RGBA, row-major; `data`
 *   has a buffer of its own, so that it can be transferred.
 */

/** The file's own numbers, upright: what PIL's `Image.open` and `exif_transpose` give diffusers. */
const DECODE = /** @type {const} */ ({
  colorSpaceConversion: 'none',
  premultiplyAlpha: 'none',
  imageOrientation: 'from-image',
});

/**
 * Reads one picture or several, or tensors of samples or latents, which are laid one behind the
 * other.
 *
 * @param {unknown} source
 * @param {(bytes: Uint8Array) => Promise<Pixels>} decode the engine's decoder
 * @param {AbortSignal} signal
 * @returns {Promise<{ images: Pixels[] } | { tensor: import('./index.js').Tensor }>}
 */
export async function readImages(source, decode, signal) {
  const sources = Array.isArray(source) ? source : [source];
  if (sources.length > 0 && sources.every(isTensor)) return { tensor: concatenate(sources) };
  return { images: await Promise.all(sources.map((each) => readImage(each, decode, signal))) };
}

/** `[C, H, W]` counts as one row of `[N, C, H, W]`. */
function concatenate(tensors) {
  const shapes = tensors.map(({ shape }) => (shape.length === 3 ? [1, ...shape] : shape));
  const [[, ...sides]] = shapes;
  if (shapes.some((shape) => shape.slice(1).join() !== sides.join())) {
    throw invalid('image: the tensors differ in shape');
  }
  const data = new Float32Array(tensors.reduce((length, tensor) => length + tensor.data.length, 0));
  let offset = 0;
  for (const tensor of tensors) {
    data.set(tensor.data, offset);
    offset += tensor.data.length;
  }
  return { data, shape: [shapes.reduce((rows, [row]) => rows + row, 0), ...sides] };
}

/**
 * Reads the pixels of anything that the package accepts as a picture. Canvases, bitmaps and
 * `ImageData` are read before the first await, so a caller may draw on right after the call.
 *
 * @param {unknown} source
 * @param {(bytes: Uint8Array) => Promise<Pixels>} decode the engine's decoder
 * @param {AbortSignal} signal
 * @returns {Promise<Pixels>}
 */
export async function readImage(source, decode, signal) {
  // The tag, and not `instanceof`, because a picture may come from another frame.
  switch (Object.prototype.toString.call(source).slice(8, -1)) {
    case 'ImageData':
      return copyImageData(source);
    case 'ImageBitmap':
    case 'HTMLCanvasElement':
    case 'OffscreenCanvas':
      return draw(source);
    case 'HTMLImageElement':
      return draw(await bitmapOf(source, source.decode()));
    case 'Blob':
    case 'File':
      return readBlob(source, decode);
    case 'String':
    case 'URL':
      return readBlob(await download(absoluteUrl(source), signal), decode);
    default:
      if (isPixels(source)) return copyImageData(source);
      throw invalid('image: expected a Blob, File, ImageBitmap, ImageData, canvas, image element, URL or tensor');
  }
}

async function readBlob(blob, decode) {
  const decodeBytes = async () => decode(new Uint8Array(await blob.arrayBuffer()));
  if (!globalThis.createImageBitmap || !contextOf(1, 1)) return decodeBytes();
  const pixels = draw(await bitmapOf(blob));
  if (isOpaque(pixels.data)) return pixels;
  // A canvas multiplies colours by alpha, so those of transparent pixels are lost in it; diffusers
  // sees the colours in the file. Formats that only the browser knows keep the canvas's.
  try {
    return await decodeBytes();
  } catch (error) {
    if (error.code === 'image-decode') return pixels;
    throw error;
  }
}

/**
 * @param {ImageBitmapSource} source
 * @param {Promise<void>} [ready]
 */
async function bitmapOf(source, ready) {
  try {
    await ready;
    return await createImageBitmap(source, DECODE);
  } catch (cause) {
    throw undecodable(cause);
  }
}

function draw(source) {
  const { width, height } = source;
  const context = contextOf(width, height);
  if (!context) {
    throw new InstructPix2PixError('unsupported', 'image: without OffscreenCanvas, pass a Blob');
  }
  try {
    context.drawImage(source, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    return { data: new Uint8Array(data.buffer), width, height };
  } catch (cause) {
    if (cause.name === 'SecurityError') {
      throw invalid('image: the picture comes from another origin and may not be read (it needs CORS)', cause);
    }
    throw undecodable(cause);
  }
}

/** What draws pictures. Node has no canvas, and Deno one that cannot. */
function contextOf(width, height) {
  // Read once and on the CPU: a canvas on the GPU would first be copied there and back.
  const settings = { willReadFrequently: true };
  return globalThis.OffscreenCanvas && new OffscreenCanvas(width, height).getContext('2d', settings);
}

/** A copy, because the buffer is transferred and the caller keeps theirs. */
function copyImageData({ data, width, height }) {
  // New browsers also have ImageData of half floats in 0..1.
  const isBytes = data.BYTES_PER_ELEMENT === 1;
  const bytes = isBytes ? data.slice() : Uint8ClampedArray.from(data, (value) => value * 255);
  return { data: new Uint8Array(bytes.buffer), width, height };
}

/** What stands for `ImageData` in hosts without it. */
function isPixels(source) {
  const { data, width, height } = source ?? {};
  return data instanceof Uint8ClampedArray && data.length === 4 * width * height;
}

function isOpaque(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

/**
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<Blob>}
 */
async function download(url, signal) {
  try {
    const response = await fetch(url, { signal });
    const { ok, status } = response;
    if (ok) return await response.blob();
    throw new InstructPix2PixError(
      status === 404 ? 'not-found' : 'http-status',
      `${url} answered with HTTP status ${status}`,
      { retryable: status === 408 || status === 429 || status >= 500 },
    );
  } catch (cause) {
    if (signal.aborted) throw signal.reason;
    if (cause instanceof InstructPix2PixError) throw cause;
    throw new InstructPix2PixError('network', `${url} could not be read: ${cause.message}`, {
      cause,
      retryable: true,
    });
  }
}

function undecodable(cause) {
  return new InstructPix2PixError(
    'image-decode',
    `the picture could not be decoded: ${cause.message}`,
    { cause },
  );
}
