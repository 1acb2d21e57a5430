import { logLevel } from './env.js';
import { InstructPix2PixError, invalid } from './errors.js';
import { buffersIn, deserializeError, serializeError } from './protocol.js';
import { TRANSFER, withoutFunctions } from './proxy.js';
import { startWorker } from './site.js';

/** `Engine`'s twin: the same methods, carried out by an engine in a module worker. */
export class RemoteEngine {
  #worker;
  #calls = new Map();
  #nextId = 0;
  #dead;
  /** Whether the worker's GPU device is gone: nothing but a new worker helps. */
  lost = false;
  /** Whether another one can take its place. */
  renewable = true;

  /** @param {import('./site.js').Site} site */
  constructor({ workerUrl, wasmUrl } = {}) {
    this.#worker = startWorker(workerUrl);
    this.#worker.postMessage({ kind: 'start', wasmUrl, logLevel: logLevel() });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onmessageerror = () => this.#die('a message could not be read');
    // A script that cannot be loaded gives a bare event without a message.
    this.#worker.onerror = ({ message }) => this.#die(message || 'its script could not be loaded');
  }

  load(options, notify, signal) {
    return this.#read('load', options, notify, signal);
  }

  download(options, notify, signal) {
    return this.#read('download', options, notify, signal);
  }

  requirements(options, notify, signal) {
    return this.#read('requirements', options, notify, signal);
  }

  save(request, notify, signal) {
    return this.#read('save', request, notify, signal);
  }

  /**
   * A call that may read with the user's own `fetch` and store, where they gave one: among its
   * options, or among those of its `source`.
   */
  #read(method, options, notify, signal, transfer) {
    const { source } = options;
    const { sent, isQuestion, answer, end } = withoutFunctions(source ?? options);
    const hear = (event) => (isQuestion(event) ? answer(event) : notify?.(event));
    const payload = source ? { ...options, source: sent } : sent;
    return this.#call(method, payload, { notify: hear, signal, transfer, end });
  }

  edit(request, notify, signal) {
    const transfer = buffersIn(request.images);
    // Only models that take turns are read during an edit.
    if (request.source) return this.#read('edit', request, notify, signal, transfer);
    return this.#call('edit', request, { notify, signal, transfer });
  }

  invoke(call, notify, signal) {
    return this.#read('invoke', call, notify, signal);
  }

  assemble(request) {
    return this.#call('assemble', request);
  }

  /** Calls a method of the cache: `{ method, args, cache? }`. */
  cache(options) {
    const { sent, answer, end } = withoutFunctions(options);
    return this.#call('cache', sent, { notify: answer, end });
  }

  release(pipeline) {
    return this.#call('release', pipeline);
  }

  decode(bytes) {
    return this.#call('decode', bytes, { transfer: [bytes.buffer] });
  }

  memory() {
    return this.#call('memory');
  }

  /** Ends the worker; the browser frees its memory and its GPU device. */
  async dispose() {
    this.#end(new InstructPix2PixError('disposed', 'the pipeline was disposed'));
  }

  /**
   * @param {{ end?: () => void }} [options] `end` is called when the call is over, one way or another
   * @returns {Promise<any>} settles when the worker answers, also after an abort
   */
  #call(method, payload, { notify, signal, transfer = [], end } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#dead) throw this.#dead;
      const id = this.#nextId++;
      try {
        this.#worker.postMessage({ kind: 'call', id, method, payload }, transfer);
      } catch (cause) {
        throw invalid(`an option cannot be sent to the worker: ${cause.message}`, cause);
      }
      const onAbort = () => this.#worker.postMessage({ kind: 'abort', id });
      signal?.addEventListener('abort', onAbort);
      const settle = (action) => (value) => {
        this.#calls.delete(id);
        signal?.removeEventListener('abort', onAbort);
        end?.();
        action(value);
      };
      this.#calls.set(id, { notify, resolve: settle(resolve), reject: settle(reject) });
    });
  }

  async #receive({ kind, id, event, ask, value, error }) {
    const call = this.#calls.get(id);
    if (kind === 'event') call?.notify(event);
    else if (kind === 'ask') {
      const answer = (await call?.notify(event)) ?? undefined;
      try {
        this.#worker.postMessage({ kind: 'answer', ask, answer }, answer?.[TRANSFER] ?? []);
      } catch (cause) {
        const message = `an answer cannot be sent to the worker: ${cause.message}`;
        const error = invalid(message, cause);
        // The worker waits for one.
        this.#worker.postMessage({ kind: 'answer', ask, answer: { error: serializeError(error) } });
      }
    } else if (kind === 'lost') this.lost = true;
    else if (kind === 'result') call?.resolve(value);
    else {
      // The call that ends with the device may be heard of first.
      if (error.code === 'device-lost') this.lost = true;
      call?.reject(deserializeError(error));
    }
  }

  #die(why) {
    this.#end(new InstructPix2PixError('engine', `the worker died: ${why}. Load the model again`));
  }

  #end(error) {
    this.#dead ??= error;
    this.#worker.terminate();
    for (const call of [...this.#calls.values()]) call.reject(this.#dead);
  }
}
