import { InstructPix2PixError } from './errors.js';
import { readImage } from './image.js';
import { EDIT_OPTIONS, LOAD_OPTIONS, checkOptions } from './options.js';
import { task } from './task.js';
import { absoluteUrl, resolveModel } from './urls.js';

/** `Symbol.asyncDispose` where the browser has it: polyfills agree on the other name. */
const asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

/** What both classes have in common; they differ only in where their engine runs. */
export class Client {
  #engine;
  #info;
  /** Resolves when the last edit that was asked for has left the engine. */
  #tail = Promise.resolve();
  #disposed = new AbortController();

  constructor(engine, info) {
    this.#engine = engine;
    this.#info = info;
  }

  get info() {
    return this.#info;
  }

  async edit({ image, seed, signal, onStep, ...options }) {
    const turn = this.#tail;
    const { result, settled } = task(
      [signal, this.#disposed.signal],
      onStep,
      async (notify, stop) => {
        checkOptions({ seed, ...options }, EDIT_OPTIONS);
        const decode = (bytes) => this.#engine.decode(bytes);
        const [pixels] = await Promise.all([readImage(image, decode, stop), turn]);
        stop.throwIfAborted();
        const request = { ...options, images: [pixels], seed: sendSeed(seed) };
        return receive(await this.#engine.edit(request, notify, stop));
      },
    );
    // An edit whose picture failed ends before its turn; the next one must still wait for it.
    this.#tail = settled.then(() => turn);
    return result;
  }

  async memory() {
    this.#disposed.signal.throwIfAborted();
    return this.#engine.memory();
  }

  async dispose() {
    this.#disposed.abort(new InstructPix2PixError('disposed', 'the pipeline was disposed'));
    await this.#engine.dispose();
  }

  [asyncDispose]() {
    return this.dispose();
  }
}

/**
 * @template {Client} T
 * @param {new (engine: any, info: any) => T} Class
 * @param {() => any} createEngine
 * @param {string | URL} model
 * @param {import('./index.js').LoadOptions} options
 * @returns {Promise<T>}
 */
export async function load(Class, createEngine, model, { onProgress, signal, ...options }) {
  signal?.throwIfAborted();
  checkOptions(options, LOAD_OPTIONS);
  const request = { ...options, model: resolveModel(model) };
  if (request.endpoint !== undefined) request.endpoint = absoluteUrl(request.endpoint);
  const engine = createEngine();
  try {
    const { result } = task(
      [signal],
      (event) => {
        onProgress?.(event);
      },
      (notify, stop) => engine.load(request, notify, stop),
    );
    return new Class(engine, await result);
  } catch (error) {
    engine.dispose();
    throw error;
  }
}

/** serde has no big integers: they travel as text. */
function sendSeed(seed) {
  return typeof seed === 'bigint' ? seed.toString() : seed;
}

function receive({ images, seed, ...rest }) {
  const safe = Number.isSafeInteger(Number(seed));
  return {
    images: images.map(({ data, width, height }) => new ImageData(data, width, height)),
    seed: safe ? Number(seed) : BigInt(seed),
    ...rest,
  };
}
