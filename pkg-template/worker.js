import { Engine } from './engine.js';
// Imported here and not on demand: bundlers that make classic workers cannot split them.
import * as glue from './instruct_pix2pix.js';
import { buffersIn, serializeError } from './protocol.js';
import { withFunctions } from './proxy.js';

const engine = new Engine(() => glue, () => postMessage({ kind: 'lost' }));
/** @type {Map<number, AbortController>} */
const calls = new Map();

/** What the page was asked and has not answered yet. @type {Map<number, (answer: any) => void>} */
const questions = new Map();
let nextQuestion = 0;

/** The calls whose callbacks' answers count. */
const ASKS = ['edit'];

/** The calls that may read with the page's own functions. */
const READS = ['load', 'download', 'requirements', 'cache', 'invoke', 'save'];

/** Where a call says what it reads from, apart from what else it says, only that part has functions. */
function restore(payload, question) {
  if (!payload.source) return withFunctions(payload, question);
  return { ...payload, source: withFunctions(payload.source, question) };
}

addEventListener('message', async ({ data: { kind, id, method, payload, ask, answer, ...rest } }) => {
  if (kind === 'start') {
    engine.site = rest;
    return;
  }
  if (kind === 'abort') {
    calls.get(id)?.abort();
    return;
  }
  if (kind === 'answer') {
    questions.get(ask)?.(answer);
    questions.delete(ask);
    return;
  }
  const controller = new AbortController();
  calls.set(id, controller);
  const tell = (event) => postMessage({ kind: 'event', id, event });
  const question = (event) =>
    new Promise((resolve) => {
      const ask = nextQuestion++;
      questions.set(ask, resolve);
      postMessage({ kind: 'ask', id, ask, event }, buffersIn(event));
    });
  const notify = ASKS.includes(method) ? question : tell;
  try {
    const reads = READS.includes(method) || payload?.source !== undefined;
    const request = reads ? restore(payload, question) : payload;
    const value = await engine[method](request, notify, controller.signal);
    postMessage({ kind: 'result', id, value }, buffersIn(value));
  } catch (error) {
    postMessage({ kind: 'error', id, error: serializeError(error) });
  } finally {
    calls.delete(id);
  }
});
