import { Engine } from './engine.js';
// Imported here and not on demand: bundlers that make classic workers cannot split them.
import * as glue from './instruct_pix2pix.js';
import { buffersIn, serializeError } from './protocol.js';

const engine = new Engine(() => glue);
/** @type {Map<number, AbortController>} */
const calls = new Map();

addEventListener('message', async ({ data: { kind, id, method, payload } }) => {
  if (kind === 'abort') {
    calls.get(id)?.abort();
    return;
  }
  const controller = new AbortController();
  calls.set(id, controller);
  const notify = (event) => postMessage({ kind: 'event', id, event });
  try {
    const value = await engine[method](payload, notify, controller.signal);
    postMessage({ kind: 'result', id, value }, buffersIn(value));
  } catch (error) {
    postMessage({ kind: 'error', id, error: serializeError(error) });
  } finally {
    calls.delete(id);
  }
});
