import { absoluteUrl } from './urls.js';

/**
 * Where an application keeps the package's files.
 *
 * @typedef {{ workerUrl?: string, wasmUrl?: string }} Site
 */

/**
 * Tells the options about that from the rest.
 *
 * @returns {{ site: Site, options: Record<string, any> }}
 */
export function siteOf({ workerUrl, wasmUrl, ...options }) {
  const url = (value) => (value == null ? undefined : absoluteUrl(value));
  return { site: { workerUrl: url(workerUrl), wasmUrl: url(wasmUrl) }, options };
}

/**
 * Starts the worker.
 *
 * @param {string} [workerUrl]
 */
export function startWorker(workerUrl) {
  const own = workerUrl ?? elsewhere(import.meta.url);
  // Bundlers find the worker by this exact form.
  if (!own) return new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  if (new URL(own).origin === globalThis.location?.origin) return new Worker(own, { type: 'module' });
  // Browsers take a worker's script from the page's own origin alone. This one is of it, and imports
  // the other, which the server must allow by CORS.
  const script = new Blob([`import ${JSON.stringify(own)};`], { type: 'text/javascript' });
  const url = URL.createObjectURL(script);
  const worker = new Worker(url, { type: 'module' });
  const forget = () => URL.revokeObjectURL(url);
  worker.addEventListener('message', forget, { once: true });
  worker.addEventListener('error', forget, { once: true });
  return worker;
}

/** The worker's address where this file was loaded from another origin: a CDN. */
function elsewhere(here) {
  // Some bundlers put the address of the file on the developer's disk here.
  if (!/^https?:/.test(here) || new URL(here).origin === globalThis.location?.origin) return undefined;
  return new URL('worker.js', here).href;
}
