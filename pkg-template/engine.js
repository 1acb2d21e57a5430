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

/** The pipeline on the calling thread. Its methods have the signature of a protocol call. */
export class Engine {
  #importGlue;
  #glue;
  #pipeline;
  #calls = new Set();

  /** @param {() => any} importGlue gives the module that wasm-bindgen generated, or its promise */
  constructor(importGlue) {
    this.#importGlue = importGlue;
  }

  /** @returns {Promise<import('./index.js').PipelineInfo>} */
  async load(options, notify, signal) {
    this.#glue = await start(this.#importGlue);
    signal.throwIfAborted();
    return this.#call(async () => {
      this.#pipeline = await this.#glue.Pipeline.load(options, notify, signal);
      return this.#pipeline.info();
    });
  }

  /** `ask` gives the answer to a step (`type: 'step'`) and the verdict on pictures (`'judge'`). */
  edit({ callsBack, ...request }, ask, signal) {
    const callback = (type) => (callsBack[type] ? (event) => ask({ type, ...event }) : undefined);
    return this.#call(() =>
      this.#pipeline.edit(request, callback('step'), callback('judge'), signal),
    );
  }

  /** Calls a method of the pipeline, with the signal as its last argument where it takes one. */
  invoke({ method, args, takesSignal }, _, signal) {
    return this.#call(() => this.#pipeline[method](...args, ...(takesSignal ? [signal] : [])));
  }

  decode(bytes) {
    return this.#call(() => this.#glue.decodeImage(bytes));
  }

  memory() {
    return this.#call(() => ({ wasmHeap: this.#glue.heapBytes() }));
  }

  /** Frees the model once the calls in progress have ended. */
  async dispose() {
    await Promise.allSettled(this.#calls);
    if (!panicked.signal.aborted) this.#pipeline?.free();
    this.#pipeline = undefined;
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
