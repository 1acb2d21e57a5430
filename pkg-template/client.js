import { readAdapter } from './adapters.js';
import { Changes } from './changes.js';
import { assemble, assembly, Component, LOADED } from './components.js';
import { log } from './env.js';
import { InstructPix2PixError, invalid } from './errors.js';
import { CHECKER } from './family.js';
import { FolderWriter } from './files.js';
import { readImages } from './image.js';
import * as known from './options.js';
import { follower, listOf, promptsOf, seedsOf } from './request.js';
import { judgeAll, receive } from './result.js';
import { stream } from './stream.js';
import { abortable, task } from './task.js';
import { isSameEndpoint, locate } from './urls.js';

/** `Symbol.asyncDispose` where the browser has it: polyfills agree on the other name. */
const asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

/** What all classes have in common: they differ in where their engine runs, and in their family. */
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
  /** What becomes of an edit that is asked for while another one runs. */
  #busyPolicy;
  /** The edits that run or wait, each with what makes it give way. @type {Set<AbortController>} */
  #edits = new Set();

  /** With components, or inside the package with `LOADED` and what was loaded. */
  constructor(components, loaded) {
    if (components === LOADED) {
      const { host, pipeline, info, judge, hasChecker, busyPolicy, request } = loaded;
      this.#host = host;
      this.#home = host.engine;
      this.#request = request;
      this.#pipeline = pipeline;
      this.#info = info;
      this.#judge = judge;
      this.#hasChecker = hasChecker;
      this.#busyPolicy = busyPolicy;
      return;
    }
    const family = this.#family;
    const { host, parts, options, scheduler, info, judge, hasChecker, busyPolicy } = assembly(
      components,
      family,
    );
    this.#host = host;
    this.#home = host.engine;
    host.retain();
    this.#info = info;
    this.#judge = judge;
    this.#hasChecker = hasChecker;
    this.#busyPolicy = busyPolicy;
    this.#pipeline = assemble(host.engine, parts, options, scheduler);
    // Reported by every call.
    this.#pipeline.catch(() => {});
  }

  /** @returns {import('./family.js').Family} */
  get #family() {
    return this.constructor.family;
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
    const all = Object.keys(this.#family.files);
    const names = all.filter((name) => this.#hasChecker || !CHECKER.includes(name));
    return Object.fromEntries(names.map((name) => [name, this.#component(name)]));
  }

  #component(name) {
    return new Component(name, this.#host, this.#pipeline, this.#info);
  }

  async edit({ busyPolicy = this.#busyPolicy, ...options }) {
    known.check({ busyPolicy }, known.EDIT);
    known.oneOf('busyPolicy', busyPolicy, known.BUSY_POLICIES);
    if (busyPolicy === 'reject' && this.#edits.size > 0) {
      throw new InstructPix2PixError('busy', "another edit runs; busyPolicy 'queue' would wait for it");
    }
    if (busyPolicy === 'replace') {
      const reason = new InstructPix2PixError('aborted', 'stopped: a later edit took its place');
      for (const edit of this.#edits) edit.abort(reason);
    }
    const own = new AbortController();
    this.#edits.add(own);
    try {
      return await this.#edit(options, own.signal);
    } finally {
      this.#edits.delete(own);
    }
  }

  editStream(options) {
    return stream((all) => this.edit(all), options);
  }

  async warmup({ width = 512, height = 512, signal, ...options } = {}) {
    known.check({ width, height, ...options }, known.SIZE);
    if (![width, height].every((side) => Number.isInteger(side) && side >= 8 && side <= 8192)) {
      throw invalid(`width, height: ${width} and ${height} are not whole numbers from 8 to 8192`);
    }
    const image = { data: new Float32Array(3 * height * width), shape: [1, 3, height, width] };
    const size = this.#family.wanted ? { width, height } : {};
    await this.#edit({ image, ...size, prompt: '', numInferenceSteps: 1, seed: 0, signal });
  }

  async #edit({ signal, onStep, outputType, returnDict = true, ...options }, replaced) {
    known.check({ outputType, returnDict, ...options }, this.#family.edit);
    const { image, onStepTensorInputs, crossAttentionKwargs, callback, callbackSteps, ...rest } = options;
    known.check(crossAttentionKwargs ?? {}, known.CROSS_ATTENTION);
    const follow = follower(onStep, callback, callbackSteps);
    const shown = onStepTensorInputs ?? (onStep && ['latents']);
    const request = {
      ...promptsOf(rest),
      outputType,
      seeds: seedsOf(rest),
      loraScale: crossAttentionKwargs?.scale,
      tensorInputs: callback ? [...(shown ?? []), 'latents'] : shown,
    };
    // The one that is set when the edit's turn comes.
    let judge;
    const result = await this.#enqueue(
      [signal, replaced],
      async ({ type, ...event }) => {
        if (type === 'judge') return judgeAll(judge, event.images);
        return follow(event);
      },
      async (stop) => ({ ...request, ...(await this.#images(image, stop)) }),
      async (ready, notify, stop) => {
        await this.#revive(stop);
        const source = this.#info.residency === 'inTurn' ? this.#request : undefined;
        judge = this.#judge;
        const callsBack = { step: follow !== undefined, judge: judge !== undefined };
        const call = { ...ready, callsBack, source, pipeline: await this.#pipeline };
        return this.#engine.edit(call, notify, stop);
      },
    );
    const received = await receive(result, outputType);
    log('info', `an edit took ${Math.round(received.timings.total)} ms`);
    if (returnDict) return received;
    // diffusers' class for SDXL checks no pictures.
    return this.#family.wanted ? [received.images] : [received.images, received.nsfwContentDetected];
  }

  async encodePrompt({ signal, ...options }) {
    known.check(options, this.#family.encodePrompt);
    return this.#invoke('encodePrompt', [promptsOf(options)], { signal });
  }

  async encodeImage({ image, signal, ...options }) {
    known.check(options, this.#family.encodeImage);
    return this.#enqueue(
      [signal],
      undefined,
      async (stop) => ({ method: 'encodeImage', args: [{ ...options, ...(await this.#images(image, stop)) }] }),
      (call, notify, stop) => this.#run(call, notify, stop),
    );
  }

  async setScheduler(scheduler, changes, options) {
    known.check({ scheduler, changes }, { ...known.EDIT, changes: ['object'] });
    await this.#invoke('setScheduler', [scheduler, changes], options);
    this.#info = await this.#invoke('info', []);
  }

  async setSafetyChecker(checker, { signal, ...options } = {}) {
    known.check({ safetyChecker: checker }, known.SAFETY_CHECKER);
    known.check(options, known.SOURCE);
    // In its turn: the calls before are judged as they were when they were made, those after by this.
    const done = () => {
      this.#judge = typeof checker === 'function' ? checker : undefined;
      this.#hasChecker = checker === true;
    };
    if (checker !== true) return this.#invoke('removeSafetyChecker', [], { signal }, { done });
    const own = options.model === undefined ? this.#configurations() : {};
    const source = this.#place({ ...own, ...options });
    return this.#invoke('loadSafetyChecker', [], { signal }, { source, takesSignal: true, done });
  }

  /** Where the model's configurations are, and its checker: a checkpoint in one file has none of its own. */
  #configurations() {
    const { model, config, revision, files, singleFile } = this.#request ?? {};
    return singleFile === undefined || model === config ? { model, revision, files } : { model: config };
  }

  async enableFreeU(factors, options) {
    known.check(factors, known.FREE_U);
    const missing = Object.keys(known.FREE_U).find((name) => factors[name] === undefined);
    if (missing) throw invalid(`${missing}: a factor is needed`);
    await this.#invoke('setFreeU', [factors], options);
  }

  async disableFreeU(options) {
    await this.#invoke('setFreeU', [undefined], options);
  }

  async enableVaeTiling(options) {
    await this.#invoke('setVaeTiling', [true], options);
  }

  async disableVaeTiling(options) {
    await this.#invoke('setVaeTiling', [false], options);
  }

  async enableVaeSlicing(options) {
    await this.#invoke('setVaeSlicing', [true], options);
  }

  async disableVaeSlicing(options) {
    await this.#invoke('setVaeSlicing', [false], options);
  }

  async loadLoraWeights(source, { adapterName, signal, ...options } = {}) {
    known.check({ adapterName, ...options }, known.LORA);
    const file = await readAdapter(source, this.#place(options));
    const how = { source: file, takesSignal: true };
    return this.#invoke('loadLoraWeights', [{ adapterName }], { signal }, how);
  }

  async setAdapters(adapterNames, adapterWeights = 1, options) {
    known.check({ adapterNames, adapterWeights }, known.ADAPTERS);
    const names = listOf(adapterNames);
    const weights = Array.isArray(adapterWeights)
      ? adapterWeights.map((weight) => weight ?? 1)
      : names.map(() => adapterWeights);
    await this.#invoke('setAdapters', [{ names, weights }], options);
  }

  async getListAdapters(options) {
    return (await this.#invoke('listAdapters', [], options)).loaded;
  }

  async getActiveAdapters(options) {
    return (await this.#invoke('listAdapters', [], options)).active;
  }

  async deleteAdapters(adapterNames, options) {
    known.check({ adapterNames }, known.ADAPTERS);
    await this.#invoke('deleteAdapters', [listOf(adapterNames)], options);
  }

  async enableLora(options) {
    await this.#invoke('enableLora', [true], options);
  }

  async disableLora(options) {
    await this.#invoke('enableLora', [false], options);
  }

  async fuseLora({ signal, ...options } = {}) {
    known.check(options, known.FUSE);
    await this.#invoke('fuseLora', [options], { signal });
  }

  async unfuseLora(options) {
    await this.#invoke('unfuseLora', [], options);
  }

  async unloadLoraWeights(options) {
    await this.#invoke('unloadLoraWeights', [], options);
  }

  async saveLoraWeights({ signal, ...options } = {}) {
    known.check(options, this.#family.saveLora);
    const { unetLoraLayers, textEncoderLoraLayers, textEncoder2LoraLayers, safeSerialization = true } =
      options;
    const given = unetLoraLayers || textEncoderLoraLayers || textEncoder2LoraLayers;
    const layers = given && {
      unet: unetLoraLayers,
      text_encoder: textEncoderLoraLayers,
      text_encoder_2: textEncoder2LoraLayers,
    };
    const request = { adapterName: options.adapterName, layers, safeSerialization };
    const bytes = await this.#invoke('saveLoraWeights', [request], { signal });
    const defaultName = `pytorch_lora_weights.${safeSerialization ? 'safetensors' : 'bin'}`;
    const { weightName = defaultName, saveDirectory, saveFunction } = options;
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

  async loadTextualInversion(source, { token, hfToken, textEncoder, tokenizer, signal, ...options } = {}) {
    known.check({ token, hfToken, textEncoder, tokenizer, ...options }, known.TEXTUAL_INVERSION);
    const encoder = encoderOf(textEncoder, tokenizer, this.#family);
    const sources = listOf(source);
    const tokens = token === undefined ? sources.map(() => undefined) : listOf(token);
    if (tokens.length !== sources.length) {
      throw invalid(`token: ${tokens.length} for ${sources.length} sources; one for each`);
    }
    const place = this.#place(hfToken === undefined ? options : { ...options, token: hfToken });
    const files = await Promise.all(sources.map((each) => readAdapter(each, place)));
    const added = [];
    try {
      for (const [i, source] of files.entries()) {
        const word = { token: tokens[i], textEncoder: encoder };
        const words = this.#invoke('loadTextualInversion', [word], { signal }, { source, takesSignal: true });
        added.push(...(await words));
      }
    } catch (error) {
      // All of them, or none.
      if (added.length > 0) await this.#invoke('unloadTextualInversion', [added]).catch(() => {});
      throw error;
    }
    return added;
  }

  async unloadTextualInversion(tokens, options) {
    known.check({ token: tokens }, known.TEXTUAL_INVERSION);
    const words = tokens === undefined ? undefined : listOf(tokens);
    await this.#invoke('unloadTextualInversion', [words], options);
  }

  async savePretrained(directory, { signal } = {}) {
    known.check({ directory }, { directory: ['object'] });
    const source = this.#configurations();
    if (source.model === undefined) {
      throw new InstructPix2PixError(
        'unsupported',
        'savePretrained: only pipelines from `fromPretrained` with a name or an address, and from ' +
          '`fromSingleFile`, can be saved',
      );
    }
    return this.#enqueue(
      [signal],
      undefined,
      async () => ({ source: this.#place(source), directory }),
      async (ready, notify, stop) => {
        await this.#revive(stop);
        return this.#engine.save({ ...ready, pipeline: await this.#pipeline }, notify, stop);
      },
    );
  }

  async memory({ signal, ...options } = {}) {
    known.check(options, {});
    this.#disposed.signal.throwIfAborted();
    signal?.throwIfAborted();
    const answer = this.#engine.memory();
    return signal ? abortable(answer, signal) : answer;
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
    const place = locate({ endpoint, localFilesOnly, cache, cacheLimit, fetch, ...options });
    // The model's token is its own server's business.
    return isSameEndpoint(place.endpoint, endpoint) ? { token, ...place } : place;
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
   * @param {{ signal?: AbortSignal }} [options] the caller's
   * @param {{ source?: object, takesSignal?: boolean, done?: () => void }} [how] what it reads from;
   *   whether it can be stopped once it runs; what is called when the engine has done it, before the
   *   next call's turn
   */
  async #invoke(method, args, { signal, ...options } = {}, { source, takesSignal = false, done } = {}) {
    known.check(options, {});
    return this.#enqueue(
      [signal],
      undefined,
      async () => ({ method, args, source, takesSignal }),
      async (call, notify, stop) => {
        const result = await this.#run(call, notify, stop);
        done?.();
        return result;
      },
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
    const { pipeline } = await engine.load(this.#request, warn, stop);
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

/** The text encoder that is meant, by its name in files: of these options one, or both of one pair. */
function encoderOf(textEncoder, tokenizer, { files }) {
  const names = [textEncoder, tokenizer].map((given) => (typeof given === 'object' ? given?.name : given));
  const [encoder, other = encoder] = [names[0], names[1]?.replace(/^tokenizer/, 'textEncoder')];
  if ((encoder ?? other) !== other) {
    throw new InstructPix2PixError(
      'invalid-argument',
      `tokenizer: ${names[1]} is not that of ${names[0]}; pass either`,
    );
  }
  return files[other] ?? other;
}

/** Says on the console what there is no `onProgress` for. */
function warn({ type, message }) {
  if (type === 'warning') log('warn', message);
}
