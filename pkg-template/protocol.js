/**
 * The messages between the page and the worker.
 *
 * Page to worker:
 *   { kind: 'start', wasmUrl, logLevel }    the first one: how to start the engine
 *   { kind: 'call', id, method, payload }   method: one of `Engine`'s
 *   { kind: 'answer', ask, answer }         what the callback of that call said
 *   { kind: 'abort', id }                   stop that call before its next step
 * Worker to page:
 *   { kind: 'event', id, event }            progress of that call
 *   { kind: 'ask', id, ask, event }         a step of that call, which waits for the answer
 *   { kind: 'result', id, value }
 *   { kind: 'error', id, error }            made by `serializeError`
 *   { kind: 'lost' }                        the GPU device is gone, and with it all pipelines
 *
 * A load also asks for what only the page has, see `proxy.js`.
 */

import { InstructPix2PixError } from './errors.js';

/** Causes deeper than this are cut: a cause may name itself. */
const MAX_CAUSES = 8;

/**
 * A structured clone of an `Error` loses its fields, and its `name` unless that is a standard one.
 *
 * @param {any} error
 */
export function serializeError(error, depth = 0) {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { name, message, code, retryable, stack, cause } = error;
  const plain = { name, message, code, retryable, stack };
  if (cause !== undefined && depth < MAX_CAUSES) plain.cause = serializeError(cause, depth + 1);
  return plain;
}

/**
 * @param {any} plain what `serializeError` made
 * @returns {Error}
 */
export function deserializeError({ name, message, code, retryable, stack, cause: plainCause }) {
  const cause = plainCause && deserializeError(plainCause);
  const error =
    name === 'InstructPix2PixError'
      ? new InstructPix2PixError(code, message, { cause, retryable })
      : Object.assign(new Error(message, { cause }), { name, code });
  error.stack = stack;
  return error;
}

/**
 * The buffers of all typed arrays in `value`, to be moved instead of copied.
 *
 * @param {unknown} value
 * @returns {ArrayBufferLike[]}
 */
export function buffersIn(value) {
  if (ArrayBuffer.isView(value)) return [value.buffer];
  return value && typeof value === 'object' ? Object.values(value).flatMap(buffersIn) : [];
}
