import { InstructPix2PixError, fromEngine } from './errors.js';
import { abortable } from './task.js';

/** Starts the wasm instance of this thread once; all engines of the thread share it. */
let started;
/** Aborts when that instance has panicked: its memory may be inconsistent, nothing may enter it. */
const panicked = new AbortController();

async function start(importGlue) {
  started ??= Promise.resolve(importGlue()).then(async (glue) => {
    await glue.default();
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

  /** @param {() => any} importGlue gives the module that wasm-bindgen generated, or its promise */
  constructor(importGlue) {
    this.#importGlue = importGlue;
  }

  /** @returns {Promise<{ pipeline: number, info: import('./index.js').PipelineInfo }>} */
  async load(options, notify, signal) {
    this.#glue = await start(this.#importGlue);
    signal.throwIfAborted();
    return this.#call(async () =>
      this.#keep(await this.#glue.Pipeline.load(options, notify, signal)),
    );
  }

  /**
   * A pipeline of other pipelines' components.
   *
   * @param {Record<string, number>} components their names in `model_index.json`, and where to take
   *   them from
   */
  assemble(components) {
    return this.#call(() => {
      const parts = new this.#glue.Parts();
      for (const [name, pipeline] of Object.entries(components)) {
        parts.take(name, this.#get(pipeline));
      }
      return this.#keep(parts.build());
    });
  }

  /** `ask` gives the answer to a step (`type: 'step'`) and the verdict on pictures (`'judge'`). */
  edit({ pipeline, callsBack, ...request }, ask, signal) {
    const callback = (type) => (callsBack[type] ? (event) => ask({ type, ...event }) : undefined);
    return this.#call(() =>
      this.#get(pipeline).edit(request, callback('step'), callback('judge'), signal),
    );
  }

  /** Calls a method of a pipeline, with the signal as its last argument where it takes one. */
  invoke({ pipeline, method, args, takesSignal }, _, signal) {
    return this.#call(() => this.#get(pipeline)[method](...args, ...(takesSignal ? [signal] : [])));
  }

  /** Frees a pipeline, except what others share with it, once the calls in progress have ended. */
  async release(pipeline) {
    await Promise.allSettled(this.#calls);
    if (!panicked.signal.aborted) this.#pipelines.get(pipeline)?.free();
    this.#pipelines.delete(pipeline);
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

  async #call(enter) {
    panicked.signal.throwIfAborted();
    // A panic between two awaits inside wasm is thrown to the event loop, and the promise that the
    // call returned never settles. While a call runs, a trap of the thread is taken to be its own.
    const onUncaught = (event) => {
      // The call's promise reports it; in a worker the page would otherwise hear of it twice.
      if (panic(event.error ?? event.reason)) event.preventDefault();
    };
    globalThis.addEventListener?.('error', onUncaught);
    globalThis.addEventListener?.('unhandledrejection', onUncaught);
    const call = abortable((async () => enter())(), panicked.signal);
    this.#calls.add(call);
    try {
      return await call;
    } catch (thrown) {
      throw panic(thrown) ?? fromEngine(thrown);
    } finally {
      this.#calls.delete(call);
      globalThis.removeEventListener?.('error', onUncaught);
      globalThis.removeEventListener?.('unhandledrejection', onUncaught);
    }
  }
}

/** The error to report if `thrown` is a trap: the instance of this thread is given up then. */
function panic(thrown) {
  if (!(thrown instanceof WebAssembly.RuntimeError)) return undefined;
  panicked.abort(
    new InstructPix2PixError(
      'engine',
      `the engine stopped after an internal error (${thrown.message}); the console has the ` +
        'details. Load the model again, in the direct class after reloading the page',
      { cause: thrown },
    ),
  );
  return panicked.signal.reason;
}
