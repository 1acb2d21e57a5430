/** What is kept on this machine. */

import { check } from './options.js';
import { checkStore } from './proxy.js';
import { RemoteEngine } from './remote.js';
import { resolveModel } from './urls.js';

/** Calls a method of the cache in a worker that ends with it. */
async function call(options, method, ...args) {
  check(options, { cache: ['object'] });
  checkStore(options.cache);
  const engine = new RemoteEngine();
  try {
    return await engine.cache({ method, args, cache: options.cache });
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
  delete: async (model, options = {}) => call(options, 'delete', nameOf(model)),
  clear: async (options = {}) => call(options, 'clear'),
  export: async (model, options = {}) => call(options, 'export', nameOf(model)),
  import: async (file, options = {}) => call(options, 'import', file),
});
