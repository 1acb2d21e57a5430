/** What is kept on this machine. */

import { withDefaults } from './env.js';
import { CACHE, check } from './options.js';
import { checkStore } from './proxy.js';
import { siteOf } from './site.js';
import { abortable } from './task.js';
import { resolveModel } from './urls.js';

/** The engine's names have no slash at their ends. */
function nameOf(model) {
  return resolveModel(model).replace(/\/+$/, '');
}

const IMPORT = { ...CACHE, cacheLimit: ['number'] };

/**
 * @param {(site: import('./site.js').Site) => any} create makes an engine, which ends with each call
 * @returns {typeof import('./index.js').cache}
 */
export function cacheIn(create) {
  async function call(method, args, { signal, ...given } = {}, known = CACHE) {
    signal?.throwIfAborted();
    const { site, options } = siteOf(withDefaults(given, known));
    check(options, known);
    checkStore(options.cache);
    const engine = create(site);
    try {
      const answer = engine.cache({ ...options, method, args });
      return await (signal ? abortable(answer, signal) : answer);
    } finally {
      await engine.dispose();
    }
  }
  return Object.freeze({
    list: async (options) => call('list', [], options),
    delete: async (model, options) => call('delete', [nameOf(model)], options),
    clear: async (options) => call('clear', [], options),
    export: async (model, options) => call('export', [nameOf(model)], options),
    import: async (file, options) => call('import', [file], options, IMPORT),
  });
}
