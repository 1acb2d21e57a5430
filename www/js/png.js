/** Texts in PNG files. Nothing in here knows a browser. */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Longer texts are nothing that this page wrote. */
const LONGEST_TEXT = 65536;

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** @param {Uint8Array} bytes */
export function isPng(bytes) {
  return bytes.length > 8 && SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/**
 * The chunks of a file, as far as it is whole: types, and where they begin, with their lengths.
 *
 * @param {Uint8Array} bytes
 * @returns {Generator<{ type: string, start: number, data: Uint8Array, end: number }>}
 */
function* chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = 8; start + 12 <= bytes.length;) {
    const length = view.getUint32(start);
    const end = start + 12 + length;
    if (end > bytes.length) return;
    const type = String.fromCharCode(...bytes.subarray(start + 4, start + 8));
    yield { type, start, data: bytes.subarray(start + 8, end - 4), end };
    start = end;
  }
}

function latin1(bytes) {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** A text chunk's keyword and text; nothing where it is none, compressed, damaged or very long. */
function textOf(bytes, { type, start, data, end }) {
  if ((type !== 'iTXt' && type !== 'tEXt') || data.length > LONGEST_TEXT) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(end - 4) !== crc32(bytes.subarray(start + 4, end - 4))) return undefined;
  const zero = data.indexOf(0);
  if (zero < 1 || zero > 79) return undefined;
  const keyword = latin1(data.subarray(0, zero));
  if (type === 'tEXt') return { keyword, text: latin1(data.subarray(zero + 1)) };
  if (data[zero + 1] !== 0) return undefined;
  const afterLanguage = data.indexOf(0, zero + 3) + 1;
  const afterTranslation = afterLanguage && data.indexOf(0, afterLanguage) + 1;
  if (!afterTranslation) return undefined;
  return { keyword, text: new TextDecoder().decode(data.subarray(afterTranslation)) };
}

/**
 * @param {Uint8Array} bytes
 * @param {string} keyword
 * @returns {string | undefined} the first such text before the picture's data ends
 */
export function readText(bytes, keyword) {
  if (!isPng(bytes)) return undefined;
  for (const chunk of chunksOf(bytes)) {
    const found = textOf(bytes, chunk);
    if (found?.keyword === keyword) return found.text;
  }
  return undefined;
}

/**
 * A copy of a file with a text in it, in place of those of the same keyword.
 *
 * @param {Uint8Array} bytes
 * @param {string} keyword 1 to 79 letters
 * @param {string} text
 */
export function writeText(bytes, keyword, text) {
  if (!isPng(bytes)) throw new TypeError('this is no PNG file');
  const encoder = new TextEncoder();
  // Not compressed, no language, no translation of the keyword.
  const body = [...encoder.encode(`iTXt${keyword}`), 0, 0, 0, 0, 0, ...encoder.encode(text)];
  const chunk = new Uint8Array(body.length + 8);
  chunk.set(body, 4);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  view.setUint32(body.length + 4, crc32(chunk.subarray(4, body.length + 4)));
  const parts = [bytes.subarray(0, 8)];
  for (const each of chunksOf(bytes)) {
    if (textOf(bytes, each)?.keyword === keyword) continue;
    parts.push(bytes.subarray(each.start, each.end));
    if (each.type === 'IHDR') parts.push(chunk);
  }
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** A PNG's width and height, pixels. */
export function sizeOfPng(bytes) {
  if (!isPng(bytes) || bytes.length < 24) throw new TypeError('this is no PNG file');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { width: view.getUint32(16), height: view.getUint32(20) };
}
