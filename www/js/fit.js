/** Sizes and crops. Nothing in here knows a browser. */

/** The original's models were trained on such sides. */
const MULTIPLE = 64;

/** Ratios of width to height, by the name of the shape. */
const RATIOS = { square: 1, landscape: 3 / 2, portrait: 2 / 3 };

/**
 * The size that the original project's `edit_app.py` gives a picture: about `resolution` at its longer
 * side, and multiples of 64.
 *
 * @param {number} width
 * @param {number} height
 * @param {number} resolution pixels
 */
export function originalSize(width, height, resolution) {
  const shorter = Math.min(width, height);
  const rough = resolution / Math.max(width, height);
  const factor = (Math.ceil((shorter * rough) / MULTIPLE) * MULTIPLE) / shorter;
  const side = (length) => Math.max(1, Math.floor((length * factor) / MULTIPLE)) * MULTIPLE;
  return { width: side(width), height: side(height) };
}

function nearestMultiple(length) {
  return Math.max(1, Math.round(length / MULTIPLE)) * MULTIPLE;
}

/**
 * The size that the model will see.
 *
 * @param {{ width: number, height: number }} picture
 * @param {{ shape: string, size: number }} fit `'original'`, `'whole'` or a name in `RATIOS`
 */
export function targetSize({ width, height }, { shape, size }) {
  if (shape === 'whole') {
    const scale = Math.min(1, size / Math.max(width, height));
    const side = (length) => Math.max(1, Math.round(length * scale));
    return { width: side(width), height: side(height) };
  }
  if (shape === 'original') return originalSize(width, height, size);
  const ratio = RATIOS[shape];
  if (!ratio) throw new RangeError(`there is no shape ${shape}`);
  return {
    width: nearestMultiple(Math.min(size, size * ratio)),
    height: nearestMultiple(Math.min(size, size / ratio)),
  };
}

/**
 * What of a picture fills a target without distortion, as Pillow's `ImageOps.fit` takes it: with zoom 1
 * as much as there is, and centred with x and y at one half.
 *
 * @param {{ width: number, height: number }} picture
 * @param {{ width: number, height: number }} target
 * @param {{ zoom?: number, x?: number, y?: number }} [crop] zoom of at least 1; places from 0 to 1
 * @returns {[left: number, top: number, right: number, bottom: number]} pixels, not rounded
 */
export function cropBox(picture, target, { zoom = 1, x = 0.5, y = 0.5 } = {}) {
  const [has, wanted] = [picture.width / picture.height, target.width / target.height];
  let { width, height } = picture;
  if (has > wanted) width = wanted * height;
  else if (has < wanted) height = width / wanted;
  width /= zoom;
  height /= zoom;
  const left = (picture.width - width) * x;
  const top = (picture.height - height) * y;
  return [left, top, left + width, top + height];
}

/** Whether a fit leaves parts of the picture out, by more than rounding. */
export function isCropped(picture, [left, top, right, bottom]) {
  return picture.width - (right - left) >= 1 || picture.height - (bottom - top) >= 1;
}

/**
 * How much to shrink a photo before anything else, so that it fits into memory.
 *
 * @returns {{ width: number, height: number } | undefined} nothing where it is small enough
 */
export function shrunk({ width, height }, most = 16e6) {
  const scale = Math.sqrt(most / (width * height));
  if (scale >= 1) return undefined;
  return {
    width: Math.max(1, Math.floor(width * scale)),
    height: Math.max(1, Math.floor(height * scale)),
  };
}
