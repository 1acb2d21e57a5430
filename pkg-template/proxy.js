/**
 * The user's own `fetch` and store, which live on the page while the engine that calls them lives in
 * a worker.
 */

import { invalid } from './errors.js';
import { deserializeError, serializeError } from './protocol.js';

/** What a store must have. */
const STORE_METHODS = ['get', 'put', 'delete', 'keys'];

/** Statuses whose answers may have no body. */
const NO_BODY = [101, 103, 204, 205, 304];

/** Under this, an answer names what is to be moved instead of copied. */
export const TRANSFER = Symbol('transfer');

/** @param {unknown} store the `cache` option */
export function checkStore(store) {
  const missing = STORE_METHODS.find((method) => typeof store?.[method] !== 'function');
  if (store != null && typeof store === 'object' && missing) {
    throw invalid(`cache: it has no method \`${missing}\``);
  }
}

/**
 * Options as they can be sent to the worker, and what answers the worker's questions about the rest.
 *
 * @param {Record<string, any>} options
 */
export function withoutFunctions(options) {
  const { fetch, cache, ...rest } = options;
  const sent = { ...rest };
  if (fetch) sent.fetch = 'page';
  if (cache && typeof cache === 'object') sent.cache = 'page';
  else if (cache !== undefined) sent.cache = cache;
  /** @type {Map<number, AbortController>} */
  const requests = new Map();
  const serve = {
    async fetch({ key, url, init }) {
      const controller = new AbortController();
      requests.set(key, controller);
      const response = await fetch(url, { ...init, signal: controller.signal });
      const { status, body } = response;
      const answer = { status, url: response.url, headers: [...response.headers] };
      if (NO_BODY.includes(status) || !body) return answer;
      try {
        // Thrown away: it only shows whether the browser can move streams.
        structuredClone(new ReadableStream(), { transfer: [new ReadableStream()] });
        return { ...answer, body, [TRANSFER]: [body] };
      } catch {
        return { ...answer, body: await response.arrayBuffer() };
      }
    },
    'fetch-end': async ({ key }) => {
      requests.get(key)?.abort();
      requests.delete(key);
    },
    store: async ({ method, args }) => {
      const value = await cache[method](...args);
      // An iterator cannot be sent.
      return { value: method === 'keys' ? [...value] : value };
    },
  };
  /** Answers an event that is a question; `undefined` for all others. */
  async function answer({ type, ...question }) {
    try {
      return await serve[type](question);
    } catch (error) {
      return { error: serializeError(error) };
    }
  }
  /** Ends what the worker has asked for and cannot end any more. */
  function end() {
    for (const controller of requests.values()) controller.abort();
    requests.clear();
  }
  return { sent, isQuestion: ({ type }) => Object.hasOwn(serve, type), answer, end };
}

/**
 * The other side: options with functions that ask the page.
 *
 * @param {Record<string, any>} options what `withoutFunctions` made
 * @param {(event: object) => Promise<any>} ask
 */
export function withFunctions(options, ask) {
  const restored = { ...options };
  const question = async (event) => {
    const answer = await ask(event);
    if (answer?.error) throw deserializeError(answer.error);
    return answer;
  };
  if (options.fetch === 'page') {
    let nextKey = 0;
    restored.fetch = async (url, { signal, ...init }) => {
      signal.throwIfAborted();
      const key = nextKey++;
      const onAbort = () => ask({ type: 'fetch-end', key });
      signal.addEventListener('abort', onAbort, { once: true });
      const { status, url: final, headers, body } = await question({ type: 'fetch', key, url, init });
      const response = new Response(body ?? null, { status, headers });
      Object.defineProperty(response, 'url', { value: final });
      return response;
    };
  }
  if (options.cache === 'page') {
    restored.cache = {};
    for (const method of STORE_METHODS) {
      restored.cache[method] = async (...args) =>
        (await question({ type: 'store', method, args })).value;
    }
  }
  return restored;
}
