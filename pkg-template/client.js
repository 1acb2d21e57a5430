import { readAdapter } from './adapters.js';
import { InstructPix2PixError } from './errors.js';
import { FolderWriter, isFiles, readFiles } from './files.js';
import { readImages } from './image.js';
import * as known from './options.js';
import { checkStore } from './proxy.js';
import { task } from './task.js';
import { absoluteUrl, resolveModel } from './urls.js';

/** `Symbol.asyncDispose` where the browser has it: polyfills agree on the other name. */
const asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

/** Lets the package's own code make pipelines of what was loaded. */
const LOADED = Symbol('loaded');

/** What both classes have in common; they differ only in where their engine runs. */
export class Client {
  #host;
  #info;
  /** The number under which the engine has the pipeline, or its promise. */
  #pipeline;
  /** The caller's own verdict on pictures, in place of the model's checker. */
  #judge;
  #hasChecker;
  /** What the pipeline was loaded with, to load it again; nothing where it was put together. */
  #request;
  /** The engine that has the pipeline. */
  #home;
  /** Calls that changed the pipeline since it was loaded, to make them again. */
  #changes = new Changes();
  /** Resolves when the last call that was made has left the engine. */
  #tail = Promise.resolve();
  #disposed = new AbortController();

  /** With components, or inside the package with `LOADED` and what was loaded. */
  constructor(components, loaded) {
    if (components === LOADED) {
      const { host, pipeline, info, judge, hasChecker, request } = loaded;
      this.#host = host;
      this.#home = host.engine;
      this.#request = request;
      this.#pipeline = pipeline;
      this.#info = info;
      this.#judge = judge;
      this.#hasChecker = hasChecker;
      return;
    }
    const { host, parts, scheduler, info, judge, hasChecker } = assembly(components);
    this.#host = host;
    this.#home = host.engine;
    host.retain();
    this.#info = info;
    this.#judge = judge;
    this.#hasChecker = hasChecker;
    this.#pipeline = assemble(host.engine, parts);
    // Reported by the first call that needs it.
    this.#pipeline.catch(() => {});
    if (scheduler) this.setScheduler(scheduler).catch(() => {});
  }

  get info() {
    return this.#info;
  }

  get device() {
    return this.#info.adapter;
  }

  get dtype() {
    return this.#info.dtype;
  }

  get components() {
    const names = COMPONENTS.filter((name) => this.#hasChecker || !CHECKER.includes(name));
    return Object.fromEntries(names.map((name) => [name, this.#component(name)]));
  }

  #component(name) {
    return new Component(name, this.#host, this.#pipeline, this.#info);
  }

  async edit({ signal, onStep, outputType, returnDict = true, ...options }) {
    known.check({ outputType, returnDict, ...options }, known.EDIT);
    const { image, onStepTensorInputs, crossAttentionKwargs, ...rest } = options;
    known.check(crossAttentionKwargs ?? {}, known.CROSS_ATTENTION);
    const judge = this.#judge;
    const request = {
      ...promptsOf(rest),
      outputType,
      seeds: seedsOf(rest),
      loraScale: crossAttentionKwargs?.scale,
      tensorInputs: onStep ? (onStepTensorInputs ?? ['latents']) : onStepTensorInputs,
      callsBack: { step: onStep !== undefined, judge: judge !== undefined },
    };
    const result = await this.#enqueue(
      [signal],
      async ({ type, ...event }) => {
        if (type === 'judge') return judgeAll(judge, event.images);
        return known.stepTensors(await onStep(event));
      },
      async (stop) => ({ ...request, ...(await this.#images(image, stop)) }),
      async (ready, notify, stop) => {
        await this.#revive(stop);
        return this.#engine.edit({ ...ready, pipeline: await this.#pipeline }, notify, stop);
      },
    );
    return receive(result, outputType, returnDict);
  }

  async encodePrompt(options) {
    known.check(options, known.ENCODE_PROMPT);
    return this.#invoke('encodePrompt', [promptsOf(options)]);
  }

  async encodeImage({ image, signal }) {
    return this.#enqueue(
      [signal],
      undefined,
      async (stop) => ({ method: 'encodeImage', args: [await this.#images(image, stop)] }),
      (call, notify, stop) => this.#run(call, notify, stop),
    );
  }

  async setScheduler(scheduler) {
    known.check({ scheduler }, known.EDIT);
    await this.#invoke('setScheduler', [scheduler]);
    this.#info = await this.#invoke('info', []);
  }

  async setSafetyChecker(checker, { signal, ...options } = {}) {
    known.check({ safetyChecker: checker }, known.LOAD);
    known.check(options, known.SOURCE);
    const place = options.model === undefined ? this.#request : this.#place(options);
    const source = { ...place, subfolder: options.subfolder };
    if (checker === true) await this.#invoke('loadSafetyChecker', [], signal ?? null, source);
    else await this.#invoke('removeSafetyChecker', []);
    this.#judge = typeof checker === 'function' ? checker : undefined;
    this.#hasChecker = checker === true;
  }

  async enableFreeU(factors) {
    known.check(factors, known.FREE_U);
    const missing = Object.keys(known.FREE_U).find((name) => factors[name] === undefined);
    if (missing) throw new InstructPix2PixError('invalid-argument', `${missing}: a factor is needed`);
    await this.#invoke('setFreeU', [factors]);
  }

  async disableFreeU() {
    await this.#invoke('setFreeU', [undefined]);
  }

  async enableVaeTiling() {
    await this.#invoke('setVaeTiling', [true]);
  }

  async disableVaeTiling() {
    await this.#invoke('setVaeTiling', [false]);
  }

  async enableVaeSlicing() {
    await this.#invoke('setVaeSlicing', [true]);
  }

  async disableVaeSlicing() {
    await this.#invoke('setVaeSlicing', [false]);
  }

  async loadLoraWeights(source, { adapterName, signal, ...options } = {}) {
    known.check({ adapterName, ...options }, known.LORA);
    const file = await readAdapter(source, this.#place(options));
    return this.#invoke('loadLoraWeights', [{ adapterName }], signal ?? null, file);
  }

  async setAdapters(adapterNames, adapterWeights = 1) {
    known.check({ adapterNames, adapterWeights }, known.ADAPTERS);
    const names = listOf(adapterNames);
    const weights = Array.isArray(adapterWeights)
      ? adapterWeights.map((weight) => weight ?? 1)
      : names.map(() => adapterWeights);
    await this.#invoke('setAdapters', [{ names, weights }]);
  }

  async getListAdapters() {
    return (await this.#invoke('listAdapters', [])).loaded;
  }

  async getActiveAdapters() {
    return (await this.#invoke('listAdapters', [])).active.map(({ name }) => name);
  }

  async deleteAdapters(adapterNames) {
    known.check({ adapterNames }, known.ADAPTERS);
    await this.#invoke('deleteAdapters', [listOf(adapterNames)]);
  }

  async enableLora() {
    await this.#invoke('enableLora', [true]);
  }

  async disableLora() {
    await this.#invoke('enableLora', [false]);
  }

  async fuseLora(options = {}) {
    known.check(options, known.FUSE);
    await this.#invoke('fuseLora', [options]);
  }

  async unfuseLora() {
    await this.#invoke('unfuseLora', []);
  }

  async unloadLoraWeights() {
    await this.#invoke('unloadLoraWeights', []);
  }

  async saveLoraWeights(options = {}) {
    known.check(options, known.SAVE_LORA);
    const { unetLoraLayers, textEncoderLoraLayers, safeSerialization = true } = options;
    if (!safeSerialization) {
      throw new InstructPix2PixError(
        'unsupported',
        'safeSerialization: only safetensors files are written; diffusers loads them everywhere',
      );
    }
    const layers =
      unetLoraLayers || textEncoderLoraLayers
        ? { unet: unetLoraLayers, text_encoder: textEncoderLoraLayers }
        : undefined;
    const bytes = await this.#invoke('saveLoraWeights', [{ adapterName: options.adapterName, layers }]);
    const { weightName = 'pytorch_lora_weights.safetensors', saveDirectory, saveFunction } = options;
    const blob = new Blob([bytes], { type: 'application/octet-stream' });
    if (saveFunction) await saveFunction(bytes, weightName);
    else if (saveDirectory) {
      const writer = new FolderWriter(saveDirectory);
      await writer.create(weightName);
      await writer.write(blob);
      await writer.close();
    }
    return blob;
  }

  async loadTextualInversion(source, { token, hfToken, signal, ...options } = {}) {
    known.check({ token, hfToken, ...options }, known.TEXTUAL_INVERSION);
    const sources = listOf(source);
    const tokens = token === undefined ? sources.map(() => undefined) : listOf(token);
    if (tokens.length !== sources.length) {
      throw new InstructPix2PixError(
        'invalid-argument',
        `token: ${tokens.length} for ${sources.length} sources; one for each`,
      );
    }
    const place = this.#place(hfToken === undefined ? options : { ...options, token: hfToken });
    const files = await Promise.all(sources.map((each) => readAdapter(each, place)));
    const added = [];
    for (const [i, file] of files.entries()) {
      const word = { token: tokens[i] };
      added.push(...(await this.#invoke('loadTextualInversion', [word], signal ?? null, file)));
    }
    return added;
  }

  async unloadTextualInversion(tokens) {
    known.check({ token: tokens }, known.TEXTUAL_INVERSION);
    await this.#invoke('unloadTextualInversion', [tokens === undefined ? undefined : listOf(tokens)]);
  }

  async savePretrained(directory, { signal } = {}) {
    known.check({ directory }, { directory: ['object'] });
    if (!this.#request || this.#request.files) {
      throw new InstructPix2PixError(
        'unsupported',
        'savePretrained: only pipelines from `fromPretrained` with a name or an address can be saved',
      );
    }
    return this.#enqueue(
      [signal],
      undefined,
      async () => ({ source: this.#request, directory }),
      async (ready, notify, stop) => {
        await this.#revive(stop);
        return this.#engine.save({ ...ready, pipeline: await this.#pipeline }, notify, stop);
      },
    );
  }

  async memory() {
    this.#disposed.signal.throwIfAborted();
    return this.#engine.memory();
  }

  async dispose() {
    if (this.#disposed.signal.aborted) return;
    this.#disposed.abort(new InstructPix2PixError('disposed', 'the pipeline was disposed'));
    await this.#host.release(this.#pipeline);
  }

  [asyncDispose]() {
    return this.dispose();
  }

  /** Where something beside the model is, read and kept as the model was unless that is said. */
  #place(options) {
    const { endpoint, token, localFilesOnly, cache, cacheLimit, fetch } = this.#request ?? {};
    return locate({ endpoint, token, localFilesOnly, cache, cacheLimit, fetch, ...options });
  }

  #images(image, stop) {
    // The decoder lives in the worker, too.
    this.#host.renew();
    return readImages(image, (bytes) => this.#engine.decode(bytes), stop);
  }

  /**
   * Calls a method of the engine's pipeline in its turn.
   *
   * @param {string} method
   * @param {unknown[]} args
   * @param {AbortSignal | null} [signal] of the caller; `undefined` where the method takes none
   * @param {object} [source] what it reads from
   */
  #invoke(method, args, signal, source) {
    return this.#enqueue(
      [signal ?? undefined],
      undefined,
      async () => ({ method, args, source, takesSignal: signal !== undefined }),
      (call, notify, stop) => this.#run(call, notify, stop),
    );
  }

  async #run(call, notify, stop) {
    await this.#revive(stop);
    const result = await this.#engine.invoke(
      { ...call, pipeline: await this.#pipeline },
      notify,
      stop,
    );
    this.#changes.add(call);
    return result;
  }

  /** Loads the pipeline again when its GPU device is gone, and with it everything on it. */
  async #revive(stop) {
    this.#host.renew();
    const { engine } = this.#host;
    if (this.#home === engine) return;
    if (!this.#request) {
      throw new InstructPix2PixError(
        'device-lost',
        'the GPU device was lost, and with it the components that this pipeline was put together ' +
          'of; load their pipelines and put it together again',
      );
    }
    // From the cache, and without a request where that is possible.
    const { pipeline } = await engine.load(this.#request, () => {}, stop);
    for (const call of this.#changes.list()) {
      await engine.invoke({ ...call, pipeline }, undefined, stop);
    }
    this.#pipeline = pipeline;
    this.#home = engine;
  }

  get #engine() {
    return this.#host.engine;
  }

  /** Prepares at once, and runs when all calls before have left the engine. */
  #enqueue(signals, callback, prepare, run) {
    const turn = this.#tail;
    const { result, settled } = task(
      [...signals, this.#disposed.signal],
      callback,
      async (notify, stop) => {
        const [ready] = await Promise.all([prepare(stop), turn]);
        stop.throwIfAborted();
        return run(ready, notify, stop);
      },
    );
    // A call whose picture failed ends before its turn; the next one must still wait for it.
    this.#tail = settled.then(() => turn);
    return result;
  }
}

/** Methods that set one thing: of several calls, the last one counts. */
const SETTERS = ['setScheduler', 'setFreeU', 'setVaeTiling', 'setVaeSlicing'];
const CHECKER_METHODS = ['loadSafetyChecker', 'removeSafetyChecker'];
/** Methods that change the adapters, and the one that makes all of that undone. */
const LORA = ['loadLoraWeights', 'setAdapters', 'deleteAdapters', 'enableLora', 'fuseLora', 'unfuseLora'];
const WORDS = ['loadTextualInversion', 'unloadTextualInversion'];

/** What has been changed since a pipeline was loaded. */
class Changes {
  #calls = [];

  add(call) {
    const { method, args } = call;
    const forget = (methods) => {
      this.#calls = this.#calls.filter((earlier) => !methods.includes(earlier.method));
    };
    if (SETTERS.includes(method)) forget([method]);
    if (CHECKER_METHODS.includes(method)) forget(CHECKER_METHODS);
    if (method === 'unloadLoraWeights') forget(LORA);
    else if (method === 'unloadTextualInversion' && args[0] === undefined) forget(WORDS);
    else if ([...SETTERS, ...CHECKER_METHODS, ...LORA, ...WORDS].includes(method)) this.#calls.push(call);
  }

  list() {
    return [...this.#calls];
  }
}

/** An engine, and how many pipelines live in it. */
class Host {
  #users = 1;
  #create;

  /** @param {() => any} create */
  constructor(create) {
    this.#create = create;
    this.engine = create();
  }

  /** A new worker in place of one whose GPU device is gone. The direct engine has to stay. */
  renew() {
    if (!this.engine.lost || !this.engine.renewable) return;
    this.engine.dispose();
    this.engine = this.#create();
  }

  retain() {
    this.#users++;
  }

  /** Frees a pipeline; with the last one, the engine. */
  async release(pipeline) {
    if (--this.#users === 0) await this.engine.dispose();
    else await this.engine.release(await pipeline);
  }
}

/** The components of a pipeline, as the constructor takes them, and their names in files. */
const FILES = {
  vae: 'vae',
  textEncoder: 'text_encoder',
  tokenizer: 'tokenizer',
  unet: 'unet',
  scheduler: 'scheduler',
  safetyChecker: 'safety_checker',
  featureExtractor: 'feature_extractor',
};
const COMPONENTS = Object.keys(FILES);
const CHECKER = ['safetyChecker', 'featureExtractor'];

/** A part of a loaded pipeline, which lives where its pipeline does. */
export class Component {
  /** @internal */
  constructor(name, host, pipeline, info) {
    this.name = name;
    this.model = info.model;
    Object.defineProperty(this, LOADED, { value: { host, pipeline, info } });
  }
}

async function assemble(engine, parts) {
  const { pipeline } = await engine.assemble(await numbersOf(parts));
  return pipeline;
}

/** The numbers of pipelines that may still be on their way. */
async function numbersOf(parts) {
  const entries = Object.entries(parts).map(async ([name, pipeline]) => [name, await pipeline]);
  return Object.fromEntries(await Promise.all(entries));
}

/** The engine that another pipeline lives in. */
function hostOf(pipeline, Class) {
  if (pipeline instanceof Class) return pipeline.components.unet[LOADED].host;
  throw new InstructPix2PixError('invalid-argument', `shareWith: expected another ${Class.name}`);
}

/** Checks the constructor's argument, and says what to build of it. */
function assembly(components) {
  known.check(components ?? {}, known.COMPONENTS);
  const { scheduler, safetyChecker, featureExtractor, requiresSafetyChecker = true } = components ?? {};
  const refuse = (name, message) => {
    throw new InstructPix2PixError('invalid-argument', `${name}: ${message}`);
  };
  const judge = typeof safetyChecker === 'function' ? safetyChecker : undefined;
  const hasChecker = safetyChecker instanceof Component;
  if (safetyChecker && !hasChecker && !judge) refuse('safetyChecker', 'a component or a function');
  if (hasChecker && !featureExtractor) {
    refuse('featureExtractor', 'a safety checker needs one; pass that of the same pipeline');
  }
  if (!safetyChecker && requiresSafetyChecker) {
    console.warn(
      'instruct-pix2pix-web: pictures are not checked for unsafe content, because the safety checker was left ' +
        'out. The licence of Stable Diffusion asks you not to show unfiltered results to the public. Pass ' +
        'requiresSafetyChecker: false if that is meant.',
    );
  }
  const parts = {};
  let host;
  for (const name of COMPONENTS) {
    const component = components?.[name];
    const isOptional = CHECKER.includes(name) || (name === 'scheduler' && component != null);
    if (component instanceof Component) {
      host = sameHost(host, component, name);
      // The feature extractor comes with the checker.
      if (name !== 'featureExtractor') parts[FILES[name]] = component[LOADED].pipeline;
    } else if (!isOptional) {
      refuse(name, 'a component of a loaded pipeline is needed');
    }
  }
  const { info } = components.unet[LOADED];
  const isOwn = scheduler instanceof Component;
  // Until the scheduler is set, any will do.
  if (!isOwn) parts.scheduler = parts.unet;
  const className = isOwn
    ? scheduler[LOADED].info.scheduler
    : (scheduler._class_name ?? scheduler);
  return {
    host,
    parts,
    scheduler: isOwn ? undefined : scheduler,
    info: { ...info, scheduler: className },
    judge,
    hasChecker,
  };
}

/**
 * @template {Client} T
 * @param {new (mark: symbol, loaded: any) => T} Class
 * @param {() => any} createEngine
 * @param {string | URL} model
 * @param {import('./index.js').LoadOptions} options
 * @returns {Promise<T>}
 */
export async function load(Class, createEngine, model, { onProgress, signal, ...options }) {
  signal?.throwIfAborted();
  known.check(options, known.LOAD);
  checkStore(options.cache);
  const { shareWith, rest, given, host: home } = givenComponents(options);
  const { safetyChecker, ...others } = rest;
  const judge = typeof safetyChecker === 'function' ? safetyChecker : undefined;
  const files = isFiles(model) ? await filesOf(model, options.singleFile) : undefined;
  const place = files ? { ...others, files } : locate({ ...others, model });
  const request = { ...place, safetyChecker: judge ? false : safetyChecker };
  if (options.cache !== false && !files) askToPersist();
  const shared = home ?? (shareWith && hostOf(shareWith, Class));
  shared?.retain();
  const host = shared ?? new Host(createEngine);
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
    const again = Object.keys(given).length > 0 ? undefined : request;
    return new Class(LOADED, { host, pipeline, info, judge, hasChecker, request: again });
  } catch (error) {
    host.release(undefined);
    throw error;
  }
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
export async function loadSingleFile(Class, createEngine, source, { config, ...options }) {
  known.check({ config }, { config: ['string', 'object'] });
  const request = { ...options, config: resolveModel(config ?? DEFAULT_CONFIG) };
  if (source instanceof Blob) {
    const file = source.name === undefined ? new File([source], 'model.safetensors') : source;
    return load(Class, createEngine, [file], { ...request, singleFile: file.name });
  }
  const url = absoluteUrl(source);
  const slash = url.split(/[?#]/, 1)[0].lastIndexOf('/');
  const singleFile = decodeURIComponent(url.slice(slash + 1).split(/[?#]/, 1)[0]);
  return load(Class, createEngine, url.slice(0, slash), { ...request, singleFile });
}

/** What a checkpoint in one file takes its configurations from. */
const DEFAULT_CONFIG = 'timbrooks/instruct-pix2pix';

/**
 * Fills the cache.
 *
 * @param {() => any} createEngine
 */
export async function download(createEngine, model, { onProgress, signal, ...options }) {
  signal?.throwIfAborted();
  known.check(options, known.DOWNLOAD);
  checkStore(options.cache);
  askToPersist();
  const engine = createEngine();
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

/** Tells the components among a load's options from the rest. */
function givenComponents({ shareWith, ...options }) {
  const rest = { ...options };
  const given = {};
  let host;
  for (const name of COMPONENTS) {
    const component = options[name];
    if (!(component instanceof Component)) continue;
    delete rest[name];
    host = sameHost(host, component, name);
    // The feature extractor comes with the checker.
    if (name !== 'featureExtractor') given[FILES[name]] = component[LOADED].pipeline;
  }
  return { shareWith, rest, given, host };
}

/** The host of a component, which must be that of the others. */
function sameHost(host, component, name) {
  if (component.name !== name) {
    throw new InstructPix2PixError(
      'invalid-argument',
      `${name}: this is a component \`${component.name}\``,
    );
  }
  const from = component[LOADED].host;
  if (host && from !== host) {
    throw new InstructPix2PixError(
      'invalid-argument',
      `${name}: it lives in another worker; load both models with \`shareWith\``,
    );
  }
  return from;
}

/** Options that say where something is, with absolute addresses. */
function locate({ model, endpoint, ...options }) {
  const located = { ...options };
  if (model !== undefined) located.model = resolveModel(model);
  if (endpoint !== undefined) located.endpoint = absoluteUrl(endpoint);
  return located;
}

function listOf(value) {
  return Array.isArray(value) ? value : [value];
}

/** The engine takes lists of texts. */
function promptsOf({ prompt, negativePrompt, seed: _, generator: __, ...options }) {
  return {
    ...options,
    prompts: prompt == null ? undefined : listOf(prompt),
    negativePrompts: negativePrompt == null ? undefined : listOf(negativePrompt),
  };
}

/** serde has no big integers: they travel as text. */
function seedsOf({ seed, generator = seed }) {
  return generator == null ? undefined : listOf(generator).map(String);
}

async function judgeAll(judge, images) {
  return Promise.all(images.map(async (image) => Boolean(await judge(toImageData(image)))));
}

function toImageData({ data, width, height }) {
  return new ImageData(data, width, height);
}

async function receive({ images, latents, seeds, warnings, ...rest }, outputType, returnDict) {
  for (const warning of warnings) console.warn(`instruct-pix2pix-web: ${warning}`);
  const [seed] = seeds.map((digits) => {
    const number = Number(digits);
    return Number.isSafeInteger(number) ? number : BigInt(digits);
  });
  const received = { images: await convert(images ?? latents, outputType), ...rest };
  if (!returnDict) return [received.images, received.nsfwContentDetected];
  return { ...received, latents, seed, warnings };
}

async function convert(images, outputType) {
  if (!Array.isArray(images)) return images;
  const pictures = images.map(toImageData);
  return outputType === 'blob' ? Promise.all(pictures.map(toPng)) : pictures;
}

function toPng(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext('2d').putImageData(picture, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}
