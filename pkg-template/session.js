import { InstructPix2Pix } from './index.js';

/**
 * A model that is loaded when it is needed, and what a page wants to show of it.
 *
 * @typedef {import('./react.js').EditState} State
 */

/** @type {State} */
export const IDLE = {
  status: 'idle',
  progress: undefined,
  step: undefined,
  result: undefined,
  error: undefined,
};

export class Session {
  #model;
  #options;
  #tell;
  #closed = new AbortController();
  /** @type {Promise<InstructPix2Pix> | undefined} */
  #loading;
  #pipe;
  /** @type {Set<AbortController>} */
  #running = new Set();

  /**
   * @param {import('./index.js').ModelLocation} model
   * @param {() => import('./index.js').LoadOptions} options asked for when the model is loaded
   * @param {(change: Partial<State>) => void} tell
   */
  constructor(model, options, tell) {
    this.#model = model;
    this.#options = options;
    this.#tell = (change) => {
      if (!this.#closed.signal.aborted) tell(change);
    };
  }

  /** The pipeline, once it is loaded. */
  get pipe() {
    return this.#pipe;
  }

  /**
   * Loads the model, unless it is loaded.
   *
   * @param {{ prompt?: any, negativePrompt?: any }} [first] what the first edit asks for
   */
  load(first) {
    return (this.#loading ??= this.#load(first));
  }

  async #load(first) {
    this.#tell({ status: 'loading', error: undefined });
    try {
      const options = this.#options();
      const signals = [this.#closed.signal, options.signal].filter(Boolean);
      this.#pipe = await InstructPix2Pix.fromPretrained(this.#model, {
        ...first,
        ...options,
        signal: AbortSignal.any(signals),
        onProgress: (progress) => {
          this.#tell({ progress });
          options.onProgress?.(progress);
        },
      });
      this.#tell({ status: 'ready' });
      return this.#pipe;
    } catch (error) {
      this.#loading = undefined; // it may be tried again
      this.#tell({ status: 'error', error });
      throw error;
    }
  }

  /** Edits, and rejects where that fails or is given up. */
  async edit({ signal, onStep, onStepTensorInputs = onStep ? undefined : [], ...options }) {
    const own = new AbortController();
    this.#running.add(own);
    let outcome;
    try {
      const { prompt, negativePrompt } = options;
      const pipe = await this.load({ prompt, negativePrompt });
      own.signal.throwIfAborted();
      this.#tell({ status: 'editing', step: undefined, error: undefined });
      const result = await pipe.edit({
        ...options,
        onStepTensorInputs,
        signal: AbortSignal.any([own.signal, ...(signal ? [signal] : [])]),
        onStep: (step) => {
          this.#tell({ step });
          return onStep?.(step);
        },
      });
      outcome = { result };
      return result;
    } catch (error) {
      const isGivenUp = own.signal.aborted || signal?.aborted;
      outcome = isGivenUp ? {} : { status: 'error', error };
      throw error;
    } finally {
      this.#running.delete(own);
      const status = this.#running.size > 0 ? 'editing' : this.#pipe ? 'ready' : 'idle';
      this.#tell({ status, step: undefined, ...outcome });
    }
  }

  /** Gives up the edits that run or wait. */
  cancel() {
    for (const each of this.#running) each.abort();
  }

  /** Frees the model. */
  close() {
    this.#closed.abort();
    this.cancel();
    this.#loading?.then(
      (pipe) => pipe.dispose(),
      () => {},
    );
  }
}
