import { InstructPix2PixError, fromEngine } from './errors.js';
import { FolderWriter } from './files.js';
import { abortable } from './task.js';

/** Starts the wasm instance of this thread once; all engines of the thread share it. */
let started;
/** Aborts when that instance has panicked: its memory may be inconsistent, nothing may enter it. */
const panicked = new AbortController();

async function start(importGlue, { wasmUrl, logLevel }) {
  started ??= Promise.resolve(importGlue()).then(async (glue) => {
    await glue.default(wasmUrl && { module_or_path: wasmUrl });
    glue.setLogLevel(logLevel);
    return glue;
  });
  try {
    return await started;
  } catch (cause) {
    started = undefined; // the network may be back at the next try
    throw new InstructPix2PixError('engine', `the engine could not be started: ${cause.message}`, {
      cause,
      retryable: true,
    });
  }
}

/**
 * Pipelines on the calling thread, each under a number. Its methods have the signature of a
 * protocol call.
 */
export class Engine {
  #importGlue;
  #glue;
  /** @type {Map<number, any>} */
  #pipelines = new Map();
  #nextPipeline = 0;
  #calls = new Set();
  /** Why nothing can be done any more, once the GPU device is gone. */
  #loss;
  /** Ends the calls that are running when the GPU device goes. */
  #lost = new AbortController();
  #onLost;
  /** Where the wasm is, if not beside the glue, and how talkative it is to be: see `env.js`. */
  site = { wasmUrl: undefined, logLevel: 0 };

  /**
   * @param {() => any} importGlue gives the module that wasm-bindgen generated, or its promise
   * @param {() => void} [onLost] called when the GPU device is gone
   */
  constructor(importGlue, onLost) {
    this.#importGlue = importGlue;
    this.#onLost = onLost;
  }

  /** Whether the GPU device is gone. */
  get lost() {
    return this.#loss !== undefined;
  }

  /** @returns {Promise<{ pipeline: number, info: import('./index.js').PipelineInfo }>} */
  async load({ components = {}, ...options }, notify, signal) {
    this.#glue = await start(this.#importGlue, this.site);
    signal.throwIfAborted();
    return this.#call(async () => {
      const parts = this.#parts(components);
      // All pipelines of an engine share one device.
      const [other] = this.#pipelines.values();
      if (other) parts.share(other);
      const onLost = (error) => this.#lose(error);
      return this.#keep(await this.#glue.Pipeline.load(options, notify, signal, onLost, parts));
    });
  }

  /** Fills the cache. */
  async download(options, notify, signal) {
    this.#glue = await start(this.#importGlue, this.site);
    signal.throwIfAborted();
    return this.#call(() => this.#glue.Pipeline.download(options, notify, signal));
  }

  /** What a model needs, by its small files and the headers of its weights. */
  async requirements(options, notify, signal) {
    this.#glue = await start(this.#importGlue, this.site);
    signal.throwIfAborted();
    return this.#call(() => this.#glue.Pipeline.requirements(options, notify, signal));
  }

  /** Writes a pipeline below a folder. */
  save({ pipeline, source, directory }, _, signal) {
    const writer = new FolderWriter(directory);
    return this.#call(async () => {
      try {
        await this.#get(pipeline).savePretrained(source, writer, signal);
      } finally {
        await writer.abort();
      }
    });
  }

  /**
   * A pipeline of other pipelines' components.
   *
   * `components` are their names in `model_index.json`, and the numbers of the pipelines to take
   * them from; the rest goes to the engine.
   */
  assemble({ components, ...options }) {
    return this.#call(() => this.#keep(this.#parts(components).build(options)));
  }

  #parts(components) {
    const parts = new this.#glue.Parts();
    for (const [name, pipeline] of Object.entries(components)) {
      parts.take(name, this.#get(pipeline));
    }
    return parts;
  }

  /** `ask` gives the answer to a step (`type: 'step'`) and the verdict on pictures (`'judge'`). */
  edit({ pipeline, callsBack, source, ...request }, ask, signal) {
    const callback = (type) => (callsBack[type] ? (event) => ask({ type, ...event }) : undefined);
    return this.#call(() =>
      this.#get(pipeline).edit(request, callback('step'), callback('judge'), signal, source),
    );
  }

  /**
   * Calls a method of a pipeline. What it reads from, where it reads, is its first argument, and the
   * signal its last where it takes one.
   */
  invoke({ pipeline, method, args, source, takesSignal }, _, signal) {
    const all = [...(source ? [source] : []), ...args, ...(takesSignal ? [signal] : [])];
    return this.#call(() => this.#get(pipeline)[method](...all));
  }

  /** Frees a pipeline, except what others share with it, once the calls in progress have ended. */
  async release(pipeline) {
    await Promise.allSettled(this.#calls);
    // A call that ended with the device may still hold it.
    if (!panicked.signal.aborted && !this.lost) this.#pipelines.get(pipeline)?.free();
    this.#pipelines.delete(pipeline);
  }

  /** Calls a method of the cache. */
  async cache({ method, args, cache: store, cacheLimit }) {
    this.#glue = await start(this.#importGlue, this.site);
    return this.#call(async () => {
      const cache = await this.#glue.ModelCache.open(store, cacheLimit);
      try {
        if (method !== 'export') return await cache[method](...args);
        const parts = [];
        // Blobs, because browsers keep them out of memory when they are many.
        await cache.export(...args, (bytes) => parts.push(new Blob([bytes])));
        return new Blob(parts, { type: 'application/x-tar' });
      } finally {
        if (!panicked.signal.aborted) cache.free();
      }
    });
  }

  decode(bytes) {
    return this.#call(() => this.#glue.decodeImage(bytes));
  }

  memory() {
    return this.#call(() => ({ wasmHeap: this.#glue.heapBytes() }));
  }

  /** Frees all pipelines once the calls in progress have ended. */
  async dispose() {
    for (const pipeline of [...this.#pipelines.keys()]) await this.release(pipeline);
  }

  #keep(pipeline) {
    const id = this.#nextPipeline++;
    this.#pipelines.set(id, pipeline);
    return { pipeline: id, info: pipeline.info() };
  }

  #get(pipeline) {
    const found = this.#pipelines.get(pipeline);
    if (found) return found;
    throw new InstructPix2PixError('disposed', 'the pipeline of a component was disposed');
  }

  #lose(error) {
    if (this.lost) return;
    this.#loss = fromEngine(error);
    this.#onLost?.();
    // A running call knows better what it asked for, and ends by itself if it can.
    setTimeout(() => this.#lost.abort(this.#loss));
  }

  async #call(enter) {
    if (this.lost) throw this.#loss;
    panicked.signal.throwIfAborted();
    // A panic between two awaits inside wasm is thrown to the event loop, and the promise that the
    // call returned never settles. While a call runs, a trap of the thread is taken to be its own.
    const onUncaught = (event) => {
      // The call's promise reports it; in a worker the page would otherwise hear of it twice.
      if (!isTrap(event.error ?? event.reason)) return;
      event.preventDefault();
      panic(event.error ?? event.reason);
    };
    globalThis.addEventListener?.('error', onUncaught);
    globalThis.addEventListener?.('unhandledrejection', onUncaught);
    const end = AbortSignal.any([this.#lost.signal, panicked.signal]);
    const call = abortable((async () => enter())(), end);
    this.#calls.add(call);
    try {
      return await call;
    } catch (thrown) {
      if (isTrap(thrown)) throw await panic(thrown, this.#lost.signal);
      throw fromEngine(thrown);
    } finally {
      this.#calls.delete(call);
      globalThis.removeEventListener?.('error', onUncaught);
      globalThis.removeEventListener?.('unhandledrejection', onUncaught);
    }
  }
}

function isTrap(thrown) {
  return thrown instanceof WebAssembly.RuntimeError;
}

/** How long to wait for the browser to say that the GPU device is gone, milliseconds. */
const LOST_DELAY = 200;

/**
 * Gives up the instance of this thread after a trap, and gives the error to report. A trap that
 * comes of a lost device comes before the news of it.
 *
 * @param {WebAssembly.RuntimeError} thrown
 * @param {AbortSignal} [lost]
 */
async function panic(thrown, lost) {
  await new Promise((resolve) => setTimeout(resolve, LOST_DELAY));
  panicked.abort(
    new InstructPix2PixError(
      'engine',
      `the engine stopped after an internal error (${thrown.message}); the console has the ` +
        'details. Load the model again, in the direct class after reloading the page',
      { cause: thrown },
    ),
  );
  return lost?.aborted ? lost.reason : panicked.signal.reason;
}
