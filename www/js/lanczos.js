/**
 * Pillow's `Image.resize(size, LANCZOS, box)` for pictures of 8 bits a channel, to the bit: the weights in
 * fixed point, and bytes between the two passes.
 */

const SUPPORT = 3;
/** Of the weights' fixed point; what 32 bits leave beside 8 of the sample and 2 of the sum. */
const BITS = 22;

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function lanczos(x) {
  return x >= -SUPPORT && x < SUPPORT ? sinc(x) * sinc(x / SUPPORT) : 0;
}

/**
 * For each of `outSize` samples, the first sample it is made of, how many, and their weights.
 *
 * @param {number} inSize samples that there are
 * @param {number} start of the part that is taken
 * @param {number} end
 * @param {number} outSize
 */
function weightsOf(inSize, start, end, outSize) {
  const scale = (end - start) / outSize;
  const filterScale = Math.max(1, scale);
  const support = SUPPORT * filterScale;
  const most = Math.ceil(support) * 2 + 1;
  const firsts = new Int32Array(outSize);
  const counts = new Int32Array(outSize);
  const weights = new Int32Array(outSize * most);
  const row = new Float64Array(most);
  for (let out = 0; out < outSize; out++) {
    const centre = start + (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(inSize, Math.trunc(centre + support + 0.5)) - first;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      row[i] = lanczos((i + first - centre + 0.5) / filterScale);
      sum += row[i];
    }
    for (let i = 0; i < count; i++) {
      const weight = (sum === 0 ? row[i] : row[i] / sum) * 2 ** BITS;
      weights[out * most + i] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    }
    firsts[out] = first;
    counts[out] = count;
  }
  return { firsts, counts, weights, most };
}

/**
 * One direction. The lines lie `outer` apart and their samples `inner`, both in pixels of RGBA.
 *
 * @param {Uint8ClampedArray} from
 * @param {Uint8ClampedArray} to
 * @param {{ lines: number, size: number, outer: [number, number], inner: [number, number] }} layout
 *   strides in `from` and in `to`
 */
function resample(from, to, { lines, size, outer, inner }, { firsts, counts, weights, most }) {
  const half = 1 << (BITS - 1);
  for (let line = 0; line < lines; line++) {
    for (let out = 0; out < size; out++) {
      let red = half;
      let green = half;
      let blue = half;
      const count = counts[out];
      let place = 4 * (line * outer[0] + firsts[out] * inner[0]);
      for (let i = 0; i < count; i++) {
        const weight = weights[out * most + i];
        red += from[place] * weight;
        green += from[place + 1] * weight;
        blue += from[place + 2] * weight;
        place += 4 * inner[0];
      }
      const target = 4 * (line * outer[1] + out * inner[1]);
      // The array clamps.
      to[target] = red >> BITS;
      to[target + 1] = green >> BITS;
      to[target + 2] = blue >> BITS;
      to[target + 3] = 255;
    }
  }
}

/** @param {{ data: Uint8ClampedArray, width: number, height: number }} picture */
function resizeRows(picture, width, left, right) {
  const { data: from, height } = picture;
  if (width === picture.width && left === 0 && right === width) return picture;
  const data = new Uint8ClampedArray(4 * width * height);
  const layout = { lines: height, size: width, outer: [picture.width, width], inner: [1, 1] };
  resample(from, data, layout, weightsOf(picture.width, left, right, width));
  return { data, width, height };
}

function resizeColumns(picture, height, top, bottom) {
  const { data: from, width } = picture;
  if (height === picture.height && top === 0 && bottom === height) return picture;
  const data = new Uint8ClampedArray(4 * width * height);
  const layout = { lines: width, size: height, outer: [1, 1], inner: [width, width] };
  resample(from, data, layout, weightsOf(picture.height, top, bottom, height));
  return { data, width, height };
}

/**
 * @param {{ data: Uint8ClampedArray, width: number, height: number }} picture RGBA; alpha is ignored
 * @param {{ width: number, height: number }} size
 * @param {[number, number, number, number]} [box] left, top, right, bottom; all of it by default
 * @param {{ width: number, height: number }} [whole] the size of the picture that this is a part of
 * @returns {{ data: Uint8ClampedArray, width: number, height: number }} opaque, unless it is `picture`
 */
export function resize(
  picture,
  { width, height },
  [left, top, right, bottom] = [0, 0, picture.width, picture.height],
  whole = picture,
) {
  // Pillow 13 begins with the pass that takes more away: see `resize` in src/image/resize.rs.
  const fewerRows = whole.height - height;
  if (fewerRows > 0 && fewerRows > 2 * (whole.width - width)) {
    return resizeRows(resizeColumns(picture, height, top, bottom), width, left, right);
  }
  return resizeColumns(resizeRows(picture, width, left, right), height, top, bottom);
}

/**
 * The part of a picture that `box` needs, in whole pixels, for pictures too large to be read whole.
 *
 * @returns {{ x: number, y: number, width: number, height: number }}
 */
export function neededPart(picture, size, [left, top, right, bottom]) {
  const margin = (length, wanted) => SUPPORT * Math.max(1, length / wanted) + 1;
  const [across, down] = [margin(right - left, size.width), margin(bottom - top, size.height)];
  const x = Math.max(0, Math.floor(left - across));
  const y = Math.max(0, Math.floor(top - down));
  return {
    x,
    y,
    width: Math.min(picture.width, Math.ceil(right + across)) - x,
    height: Math.min(picture.height, Math.ceil(bottom + down)) - y,
  };
}
