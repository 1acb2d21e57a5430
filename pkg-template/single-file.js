/**
 * Checkpoints in one file.
 *
 * A file of its own, which is loaded when it is asked for: so it imports nothing, and what it stands on
 * comes with the call.
 *
 * @typedef {Record<string, any>} Tools
 */

/** What a checkpoint in one file takes its configurations from. */
const DEFAULT_CONFIG = 'timbrooks/instruct-pix2pix';

/**
 * A checkpoint in one file as a model and load options.
 *
 * @param {Tools} tools
 * @param {string | URL | Blob} source
 * @param {import('./index.js').SingleFileOptions} options
 */
export function singleFile({ absoluteUrl, check, env, resolveModel }, source, { config, ...options }) {
  check({ config }, { config: ['string', 'object'] });
  const request = { ...options, config: resolveModel(config ?? DEFAULT_CONFIG) };
  if (source instanceof Blob) {
    const file = source.name === undefined ? new File([source], 'model.safetensors') : source;
    return { model: [file], options: { ...request, singleFile: file.name } };
  }
  const url = absoluteUrl(source);
  const endpoint = options.endpoint ?? env.endpoint;
  const hubs = ['https://huggingface.co', 'https://hf.co'];
  if (endpoint !== undefined) hubs.push(new URL(absoluteUrl(endpoint)).origin);
  const file = hubs.includes(new URL(url).origin) && hubFile(url);
  if (file) return { model: file.model, options: { ...request, ...file.options } };
  const slash = url.split(/[?#]/, 1)[0].lastIndexOf('/');
  const singleFile = decodeURIComponent(url.slice(slash + 1).split(/[?#]/, 1)[0]);
  return { model: url.slice(0, slash), options: { ...request, singleFile } };
}

/** The repository and the file that a link to a file's page on the Hub shows, or to the file itself. */
function hubFile(url) {
  const link = /^\/([\w.-]+\/[\w.-]+)\/(?:blob|resolve|raw)\/([^/]+)\/(.+)$/;
  const [, model, revision, path] = link.exec(new URL(url).pathname) ?? [];
  const options = { revision: revision && decodeURIComponent(revision), singleFile: path && decodeURIComponent(path) };
  return model && { model, options };
}
