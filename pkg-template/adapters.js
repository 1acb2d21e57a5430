import { invalid } from './errors.js';
import { isTensor } from './options.js';
import { absoluteUrl, resolveModel } from './urls.js';

/** Files that hold an adapter. */
const FILE = /\.(safetensors|bin|pt|pth|ckpt)$/;

/**
 * @typedef {{ bytes?: Uint8Array, tensors?: object, model?: string, weightName?: string }}
 *   AdapterSource what the engine is given: the bytes, the tensors, or where to read them
 */

/**
 * Reads what a user names as an adapter: a repository, the address of a folder or of a file, a
 * file, bytes, or a state dict.
 *
 * @param {unknown} source
 * @param {{ weightName?: string }} options passed on
 * @returns {Promise<AdapterSource>}
 */
export async function readAdapter(source, options) {
  if (source instanceof Blob) {
    const bytes = new Uint8Array(await source.arrayBuffer());
    return { ...options, bytes, weightName: options.weightName ?? source.name ?? 'adapter' };
  }
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) {
    // A copy, because the buffer is transferred and the caller keeps theirs.
    const { buffer, byteOffset, byteLength } = ArrayBuffer.isView(source)
      ? source
      : { buffer: source, byteOffset: 0, byteLength: source.byteLength };
    const bytes = new Uint8Array(buffer, byteOffset, byteLength).slice();
    return { ...options, bytes, weightName: options.weightName ?? 'adapter' };
  }
  if (isStateDict(source)) return { ...options, tensors: source };
  if (typeof source !== 'string' && !(source instanceof URL)) {
    throw invalid('source: expected a repository, a URL, a Blob, a File, an ArrayBuffer, bytes or an object of tensors');
  }
  const model = resolveModel(source);
  if (!model.includes('://')) return { ...options, model };
  const url = new URL(absoluteUrl(model));
  if (!FILE.test(url.pathname)) return { ...options, model };
  const end = model.length - (url.search + url.hash).length;
  const slash = model.lastIndexOf('/', end);
  return { ...options, model: model.slice(0, slash), weightName: model.slice(slash + 1) };
}

function isStateDict(source) {
  const values = source && !(source instanceof URL) ? Object.values(source) : [];
  return typeof source === 'object' && values.length > 0 && values.every(isTensor);
}
