import { givenComponents, hostOf, LOADED, numbersOf, warnUnchecked } from './components.js';
import { log, withDefaults } from './env.js';
import { isFiles, readFiles } from './files.js';
import { Host } from './host.js';
import * as known from './options.js';
import { checkStore } from './proxy.js';
import { siteOf } from './site.js';
import { abortable, task } from './task.js';
import { locate } from './urls.js';

/**
 * Where pipelines run, and their classes there.
 *
 * @typedef {{ create: (site: import('./site.js').Site) => any, classes: any[] }} Place
 */

/**
 * @template {Client} T
 * @param {new (mark: symbol, loaded: any) => T} Class
 * @param {Place} place
 * @param {string | URL} model
 * @param {import('./index.js').LoadOptions} options
 * @returns {Promise<T>}
 */
export async function load(Class, { create, classes }, model, { onProgress, signal, ...given }) {
  signal?.throwIfAborted();
  const all = withDefaults(given, known.LOAD);
  known.check(all, known.LOAD);
  known.oneOf('busyPolicy', all.busyPolicy, known.BUSY_POLICIES);
  const { site, options: settings } = siteOf(all);
  const { busyPolicy, ...options } = settings;
  checkStore(options.cache);
  const { shareWith, rest, given: parts, host: home } = givenComponents(options, classes);
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
  const host = shared ?? new Host(() => create(site));
  const start = performance.now();
  const { result, settled } = task(
    [signal],
    (event) => {
      onProgress?.(event);
    },
    async (notify, stop) => {
      const components = await numbersOf(parts);
      return host.engine.load({ ...request, components }, notify, stop);
    },
  );
  try {
    const { pipeline, info } = await result;
    const hasChecker = request.safetyChecker === true || parts.safety_checker !== undefined;
    // What was given cannot be loaded again.
    const again = Object.keys(parts).length > 0 ? undefined : laterRequest(request, info);
    const Found = classes.find(({ family }) => family.className === info.className);
    const seconds = ((performance.now() - start) / 1e3).toFixed(1);
    log('info', `${info.model} is loaded after ${seconds} s: ${info.dtype} on ${info.adapter}`);
    return new Found(LOADED, { host, pipeline, info, judge, hasChecker, busyPolicy, request: again });
  } catch (error) {
    afterwards(settled, () => host.release(undefined));
    throw error;
  }
}

/** How long an engine that was stopped may take to keep what has arrived, milliseconds. */
const LINGER = 5000;

/**
 * Ends an engine when a call has ended there, and at the latest after that time.
 *
 * @param {Promise<void>} settled
 * @param {() => void} end
 */
function afterwards(settled, end) {
  // A timer of a kind for which Node does not wait.
  abortable(settled, AbortSignal.timeout(LINGER)).then(end, end);
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
 * Fills the cache.
 *
 * @param {Place} where
 */
export async function download({ create }, model, { onProgress, signal, ...given }) {
  signal?.throwIfAborted();
  const { site, options } = siteOf(withDefaults(given, known.DOWNLOAD));
  known.check(options, known.DOWNLOAD);
  checkStore(options.cache);
  askToPersist();
  const engine = create(site);
  const { result, settled } = task(
    [signal],
    (event) => {
      onProgress?.(event);
    },
    (notify, stop) => engine.download(locate({ ...options, model }), notify, stop),
  );
  try {
    await result;
  } finally {
    afterwards(settled, () => engine.dispose());
  }
}

/** Asks the browser not to throw the cache away; in some it asks the user. Only pages may. */
function askToPersist() {
  globalThis.navigator?.storage?.persist?.().catch(() => {});
}
