/** What is kept on this machine. */

import { check } from './options.js';
import { checkStore } from './proxy.js';
import { RemoteEngine } from './remote.js';
import { resolveModel } from './urls.js';

const OPTIONS = { cache: ['object'] };
const IMPORT = { ...OPTIONS, cacheLimit: ['number'] };

/** Calls a method of the cache in a worker that ends with it. */
async function call(options, method, args = [], known = OPTIONS) {
  check(options, known);
  checkStore(options.cache);
  const engine = new RemoteEngine();
  try {
    return await engine.cache({ ...options, method, args });
  } finally {
    await engine.dispose();
  }
}

/** The engine's names have no slash at their ends. */
function nameOf(model) {
  return resolveModel(model).replace(/\/+$/, '');
}

export const cache = Object.freeze({
  list: async (options = {}) => call(options, 'list'),
  delete: async (model, options = {}) => call(options, 'delete', [nameOf(model)]),
  clear: async (options = {}) => call(options, 'clear'),
  export: async (model, options = {}) => call(options, 'export', [nameOf(model)]),
  import: async (file, options = {}) => call(options, 'import', [file], IMPORT),
});
