import { givenComponents, hostOf, LOADED, numbersOf, warnUnchecked } from './components.js';
import { isFiles, readFiles } from './files.js';
import { Host } from './host.js';
import * as known from './options.js';
import { checkStore } from './proxy.js';
import { task } from './task.js';
import { absoluteUrl, locate, resolveModel } from './urls.js';

/**
 * Where pipelines run, and their classes there.
 *
 * @typedef {{ create: () => any, classes: any[] }} Place
 */

/**
 * @template {Client} T
 * @param {new (mark: symbol, loaded: any) => T} Class
 * @param {Place} place
 * @param {string | URL} model
 * @param {import('./index.js').LoadOptions} options
 * @returns {Promise<T>}
 */
export async function load(Class, { create, classes }, model, { onProgress, signal, ...options }) {
  signal?.throwIfAborted();
  known.check(options, known.LOAD);
  checkStore(options.cache);
  const { shareWith, rest, given, host: home } = givenComponents(options, classes);
  const { safetyChecker, requiresSafetyChecker = true, ...others } = rest;
  known.check({ safetyChecker }, known.SAFETY_CHECKER);
  if ((safetyChecker === false || safetyChecker === null) && requiresSafetyChecker) warnUnchecked();
  const judge = typeof safetyChecker === 'function' ? safetyChecker : undefined;
  const files = isFiles(model) ? await filesOf(model, options.singleFile) : undefined;
  const place = files ? { ...others, files } : locate({ ...others, model });
  const className = Class.family.wanted;
  const request = { ...place, className, safetyChecker: judge ? false : safetyChecker };
  if (options.cache !== false && !files) askToPersist();
  const shared = home ?? (shareWith && hostOf(shareWith, classes));
  shared?.retain();
  const host = shared ?? new Host(create);
  try {
    const components = await numbersOf(given);
    const { result } = task(
      [signal],
      (event) => {
        onProgress?.(event);
      },
      (notify, stop) => host.engine.load({ ...request, components }, notify, stop),
    );
    const { pipeline, info } = await result;
    const hasChecker = request.safetyChecker === true || given.safety_checker !== undefined;
    // What was given cannot be loaded again.
    const again = Object.keys(given).length > 0 ? undefined : laterRequest(request, info);
    const Found = classes.find(({ family }) => family.className === info.className);
    return new Found(LOADED, { host, pipeline, info, judge, hasChecker, request: again });
  } catch (error) {
    host.release(undefined);
    throw error;
  }
}

/** What the same model is read with later: nothing newer, and nothing that is there already anew. */
function laterRequest({ forceDownload: _, ...request }, { revision = request.revision }) {
  return { ...request, revision };
}

/** The files of a model that the user gave, or the one of a checkpoint. */
function filesOf(files, singleFile) {
  return singleFile ? new Map([[singleFile, files[0]]]) : readFiles(files);
}

/**
 * Loads a checkpoint in one file.
 *
 * @template {Client} T
 * @returns {Promise<T>}
 */
export async function loadSingleFile(Class, where, source, { config, ...options }) {
  known.check({ config }, { config: ['string', 'object'] });
  const request = { ...options, config: resolveModel(config ?? DEFAULT_CONFIG) };
  if (source instanceof Blob) {
    const file = source.name === undefined ? new File([source], 'model.safetensors') : source;
    return load(Class, where, [file], { ...request, singleFile: file.name });
  }
  const file = hubFile(source, options.endpoint);
  if (file) {
    const { revision, singleFile } = file;
    return load(Class, where, file.model, { ...request, revision, singleFile });
  }
  const url = absoluteUrl(source);
  const slash = url.split(/[?#]/, 1)[0].lastIndexOf('/');
  const singleFile = decodeURIComponent(url.slice(slash + 1).split(/[?#]/, 1)[0]);
  return load(Class, where, url.slice(0, slash), { ...request, singleFile });
}

/** The repository and the file that a link to a file's page on the Hub shows, or to the file itself. */
function hubFile(source, endpoint) {
  const { origin, pathname } = new URL(absoluteUrl(source));
  const hubs = ['https://huggingface.co', 'https://hf.co'];
  if (endpoint !== undefined) hubs.push(new URL(absoluteUrl(endpoint)).origin);
  if (!hubs.includes(origin)) return undefined;
  const link = /^\/([\w.-]+\/[\w.-]+)\/(?:blob|resolve|raw)\/([^/]+)\/(.+)$/;
  const [, model, revision, path] = link.exec(pathname) ?? [];
  return model && { model, revision: decodeURIComponent(revision), singleFile: decodeURIComponent(path) };
}

/** What a checkpoint in one file takes its configurations from. */
const DEFAULT_CONFIG = 'timbrooks/instruct-pix2pix';

/**
 * Fills the cache.
 *
 * @param {Place} where
 */
export async function download({ create }, model, { onProgress, signal, ...options }) {
  signal?.throwIfAborted();
  known.check(options, known.DOWNLOAD);
  checkStore(options.cache);
  askToPersist();
  const engine = create();
  try {
    const { result } = task(
      [signal],
      (event) => {
        onProgress?.(event);
      },
      (notify, stop) => engine.download(locate({ ...options, model }), notify, stop),
    );
    await result;
  } finally {
    await engine.dispose();
  }
}

/** Asks the browser not to throw the cache away; in some it asks the user. Only pages may. */
function askToPersist() {
  globalThis.navigator?.storage?.persist?.().catch(() => {});
}
