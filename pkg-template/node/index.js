/** The package for Node: the same pipelines on Dawn's WebGPU, with files in place of what pages have. */

import { DirectInstructPix2Pix, DirectInstructPix2PixXL, env } from '../index.js';
import { DiskStore } from './disk.js';
import { prepare } from './gpu.js';
import { directoryAt, fileAt, filesIn, isFolder, pathOf } from './local.js';
import { encodePng } from './png.js';

export { Component, env, InstructPix2PixError } from '../index.js';
export { DiskStore, encodePng };

env.cache ??= new DiskStore();

export const cache = Object.freeze(
  Object.fromEntries(
    Object.entries(DirectInstructPix2Pix.cache).map(([name, call]) => [
      name,
      async (...args) => {
        await prepare();
        return call(...args);
      },
    ]),
  ),
);

/** A store by its folder, and the default one where the browser's would be meant. */
function withStore({ cache: store, ...options }) {
  if (typeof store === 'string') return { ...options, cache: new DiskStore(store) };
  return store === true || store === undefined ? options : { ...options, cache: store };
}

async function modelOf(model) {
  const path = pathOf(model);
  return path === undefined ? model : filesIn(path);
}

/** One picture, or each of a list. */
async function pictureOf(source) {
  if (Array.isArray(source)) return Promise.all(source.map(pictureOf));
  if (source instanceof Uint8Array) return new Blob([source]);
  const path = pathOf(source);
  return path === undefined ? source : fileAt(path);
}

async function adapterOf(source) {
  const path = pathOf(source);
  return path === undefined || isFolder(path) ? source : fileAt(path);
}

function folderOf(directory) {
  const path = pathOf(directory);
  return path === undefined ? directory : directoryAt(path);
}

export class InstructPix2Pix extends DirectInstructPix2Pix {
  static place = { create: DirectInstructPix2Pix.place.create, classes: [] };

  static async isSupported(options) {
    try {
      await prepare();
    } catch {
      return false;
    }
    return super.isSupported(options);
  }

  static async requirements(model, options = {}) {
    await prepare().catch(() => {}); // is told as a problem
    return super.requirements(model, withStore(options));
  }

  static async fromPretrained(model, options = {}) {
    options.signal?.throwIfAborted();
    await prepare();
    return super.fromPretrained(await modelOf(model), withStore(options));
  }

  static async fromSingleFile(source, options = {}) {
    options.signal?.throwIfAborted();
    await prepare();
    const path = pathOf(source);
    return super.fromSingleFile(path === undefined ? source : await fileAt(path), withStore(options));
  }

  static async download(model, options = {}) {
    options.signal?.throwIfAborted();
    await prepare();
    return super.download(model, withStore(options));
  }

  async edit({ image, outputType, ...options }) {
    const isFile = outputType === 'blob';
    const type = isFile ? 'image' : outputType;
    const result = await super.edit({ image: await pictureOf(image), outputType: type, ...options });
    if (!isFile) return result;
    const files = (pictures) =>
      pictures.map((picture) => new Blob([encodePng(picture)], { type: 'image/png' }));
    if (!Array.isArray(result)) return { ...result, images: files(result.images) };
    const [pictures, ...rest] = result;
    return [files(pictures), ...rest];
  }

  async encodeImage({ image, ...options }) {
    return super.encodeImage({ image: await pictureOf(image), ...options });
  }

  async loadLoraWeights(source, options) {
    return super.loadLoraWeights(await adapterOf(source), options);
  }

  async loadTextualInversion(source, options) {
    const sources = Array.isArray(source) ? source : [source];
    return super.loadTextualInversion(await Promise.all(sources.map(adapterOf)), options);
  }

  async saveLoraWeights({ saveDirectory, ...options } = {}) {
    return super.saveLoraWeights({ saveDirectory: folderOf(saveDirectory), ...options });
  }

  async savePretrained(directory, options) {
    return super.savePretrained(folderOf(directory), options);
  }
}

/** That of Stable Diffusion XL. */
export class InstructPix2PixXL extends InstructPix2Pix {
  static family = DirectInstructPix2PixXL.family;
}

InstructPix2Pix.place.classes.push(InstructPix2Pix, InstructPix2PixXL);
