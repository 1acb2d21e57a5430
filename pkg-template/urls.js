import { invalid } from './errors.js';

/** `owner/name`, as the Hugging Face Hub spells repository ids. */
const HUB_ID = /^[\w.-]+\/[\w.-]+$/;

/**
 * Resolves against the page (or the calling worker), not against the package's own files.
 *
 * @param {string | URL} url
 */
export function absoluteUrl(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(url, base).href;
  } catch (cause) {
    throw invalid(`${url} is not a URL`, cause);
  }
}

/**
 * @param {unknown} model
 * @returns {string} a Hub id as it is, a URL as an absolute one
 */
export function resolveModel(model) {
  const text = String(model);
  if (/^[./]/.test(text) || text.includes('://')) return absoluteUrl(text);
  if (HUB_ID.test(text)) return text;
  throw invalid(`model: ${JSON.stringify(text)} is neither a Hub id ("owner/name") nor a URL ` +
      '("https://…", "/…", "./…")');
}

/** Options that say where something is, with absolute addresses. */
export function locate({ model, endpoint, ...options }) {
  const located = { ...options };
  if (model !== undefined) located.model = resolveModel(model);
  if (endpoint !== undefined) located.endpoint = absoluteUrl(endpoint);
  return located;
}

/** The Hub, where no endpoint is named. */
const HUB = 'https://huggingface.co';

/** Whether two endpoints, as `locate` gives them, are one. */
export function isSameEndpoint(a, b) {
  const [first, second] = [a, b].map((endpoint) => (endpoint ?? HUB).replace(/\/+$/, ''));
  return first === second;
}
