/// <reference lib="esnext.disposable" />

/**
 * InstructPix2Pix in the browser: edits a picture as an instruction says. Everything is computed
 * on this machine, by WebGPU.
 *
 * @example
 * import { InstructPix2Pix } from 'instruct-pix2pix-web';
 * const pipe = await InstructPix2Pix.fromPretrained('timbrooks/instruct-pix2pix');
 * const { images } = await pipe.edit({ image: file, prompt: 'make it snowy' });
 */

/** What both classes do. */
declare abstract class Pipeline implements AsyncDisposable {
  /** What was loaded, and on which adapter. */
  readonly info: PipelineInfo;
  /** The GPU, as the browser names it. */
  readonly device: string;
  /** The type in use for computing. */
  readonly dtype: 'float16' | 'float32';
  /** The parts, which other pipelines may share: see the constructor. */
  readonly components: Components;

  /**
   * Edits pictures. Calls made while another runs wait for their turn, in order; so do all other
   * methods. Canvases, bitmaps and `ImageData` are read during the call, so they may be changed
   * right after it.
   *
   * @throws {InstructPix2PixError} See {@link InstructPix2PixErrorCode}.
   */
  edit<T extends OutputType = 'image'>(
    options: EditOptions<T> & { returnDict: false },
  ): Promise<[images: OutputImages[T], nsfwContentDetected?: boolean[] | undefined]>;
  edit<T extends OutputType = 'image'>(options: EditOptions<T>): Promise<EditResult<T>>;

  /**
   * Edits as {@link edit} does, and tells every step and the result as they come, the result last.
   * The edit begins with the first step that is asked for. Each step waits until it is asked for,
   * and the next one is computed meanwhile. Leaving the loop stops the edit.
   *
   * @example
   * for await (const event of pipe.editStream({ image, prompt })) {
   *   if (event.type === 'step') console.log(event.step + 1, event.steps);
   *   else console.log(event.images);
   * }
   */
  editStream<T extends OutputType = 'image'>(
    options: EditStreamOptions<T>,
  ): AsyncGenerator<EditEvent<T>, void, undefined>;

  /**
   * Computes one step with an empty picture, so that the first edit of that size need not wait for
   * the GPU's shaders to be compiled. Loading compiles those of the model's own size already.
   */
  warmup(options?: WarmupOptions): Promise<void>;

  /**
   * Encodes instructions, so that they serve many edits: pass both tensors on to {@link edit}.
   * They are repeated `numImagesPerPrompt` times already.
   */
  encodePrompt(options: EncodePromptOptions): Promise<PromptEmbeds>;

  /**
   * Encodes pictures, so that they serve many edits: pass the tensor on as `image`.
   *
   * @returns `[N, 4, height / 8, width / 8]`: the mode of the VAE's distribution, not scaled.
   */
  encodeImage(options: {
    image: ImageSource | readonly ImageSource[] | Tensor | readonly Tensor[];
    signal?: AbortSignal;
  }): Promise<Tensor>;

  /**
   * Changes the scheduler of the edits from now on that name no other. A class name keeps the
   * present configuration, as `Scheduler.from_config(pipe.scheduler.config)` in diffusers.
   *
   * @param changes Keys of the configuration to change, as `from_config(config, key=value)` does. A
   *   key that no scheduler has rejects with `invalid-argument`.
   */
  setScheduler(
    scheduler: SchedulerName | SchedulerConfig,
    changes?: Partial<Omit<SchedulerConfig, '_class_name'>>,
    options?: CallOptions,
  ): Promise<void>;

  /**
   * Has pictures checked from now on: by the model's own checker (`true` downloads it), by nobody
   * (`false`), or by a function of yours. What is found unsafe becomes black. Edits that were asked
   * for before are checked as they would have been, those after it by this, whether it is awaited
   * or not. A checker that belongs to another pipeline goes into the constructor, or into
   * `fromPretrained`.
   *
   * @param options Where the checker is, if not in the model's folder `safety_checker`.
   */
  setSafetyChecker(
    checker: boolean | SafetyChecker | null,
    options?: ReadOptions & { model?: string | URL; subfolder?: string; signal?: AbortSignal },
  ): Promise<void>;

  /** Turns FreeU on. For Stable Diffusion 1.5, its authors suggest 0.9, 0.2, 1.5 and 1.6. */
  enableFreeU(factors: FreeUFactors, options?: CallOptions): Promise<void>;
  /** Turns FreeU off. */
  disableFreeU(options?: CallOptions): Promise<void>;

  /**
   * Encodes and decodes in overlapping tiles: less memory, a little difference in the result. Done
   * without being asked, and with a `warning`, where the adapter's buffers are too small for a whole picture.
   */
  enableVaeTiling(options?: CallOptions): Promise<void>;
  /** Encodes and decodes pictures whole. */
  disableVaeTiling(options?: CallOptions): Promise<void>;
  /** Encodes and decodes one picture at a time: less memory, the same result. */
  enableVaeSlicing(options?: CallOptions): Promise<void>;
  /** Encodes and decodes all pictures at once. */
  disableVaeSlicing(options?: CallOptions): Promise<void>;

  /**
   * Loads a LoRA and makes it the only active one. PEFT's names, those of diffusers before PEFT,
   * and kohya's are understood.
   */
  loadLoraWeights(source: AdapterSource, options?: LoraOptions): Promise<LoadedLora>;
  /**
   * Makes some of the loaded adapters the active ones.
   *
   * @param adapterWeights One for each, or one for all.
   * @default adapterWeights 1
   */
  setAdapters(
    adapterNames: string | readonly string[],
    adapterWeights?: AdapterWeight | readonly (AdapterWeight | undefined)[],
    options?: CallOptions,
  ): Promise<void>;
  /** The loaded adapters of each component, e.g. `{ unet: ['toy'], text_encoder: ['toy'] }`. */
  getListAdapters(options?: CallOptions): Promise<Record<string, string[]>>;
  /** The active adapters. */
  getActiveAdapters(options?: CallOptions): Promise<string[]>;
  /** Takes adapters away. */
  deleteAdapters(adapterNames: string | readonly string[], options?: CallOptions): Promise<void>;
  /** Turns the active adapters on again. */
  enableLora(options?: CallOptions): Promise<void>;
  /** Turns all adapters off. */
  disableLora(options?: CallOptions): Promise<void>;
  /** Adds adapters to the weights: edits are as fast as without. */
  fuseLora(options?: {
    /**
     * How much of them, times their own weights.
     * @default 1
     */
    loraScale?: number;
    /** Which; the active ones by default. */
    adapterNames?: readonly string[];
    /** Stops waiting for the edits before it. */
    signal?: AbortSignal;
  }): Promise<void>;
  /** Undoes every {@link fuseLora}: the weights are those from before, bit for bit. */
  unfuseLora(options?: CallOptions): Promise<void>;
  /** Takes all adapters away; what is fused stays fused. */
  unloadLoraWeights(options?: CallOptions): Promise<void>;
  /** Writes an adapter, or layers of your own, as a file that diffusers loads. */
  saveLoraWeights(options?: SaveLoraOptions): Promise<Blob>;

  /**
   * Teaches words by textual inversion: diffusers' `.safetensors` and `.bin`, A1111's `.pt`.
   *
   * @returns The tokens that were added, one for each vector.
   */
  loadTextualInversion(
    source: AdapterSource | readonly AdapterSource[],
    options?: TextualInversionOptions,
  ): Promise<string[]>;
  /** Forgets words, or every word. */
  unloadTextualInversion(
    tokens?: string | readonly string[],
    options?: CallOptions,
  ): Promise<void>;

  /**
   * Writes the model in diffusers' layout (`save_pretrained`), with what is fused and the scheduler that is set, and
   * without adapters and learnt words. Only for pipelines that were loaded from a name or an address, or
   * from a checkpoint in one file, whose configurations are those of `config`.
   *
   * @param directory From `showDirectoryPicker()`, or the origin's private file system.
   */
  savePretrained(
    directory: FileSystemDirectoryHandle,
    options?: CallOptions,
  ): Promise<void>;

  /** How much memory the pipeline takes. */
  memory(options?: CallOptions): Promise<MemoryInfo>;

  /** Frees the model. Calls that run or wait, and all later ones, reject with the code `disposed`. */
  dispose(): Promise<void>;
  /** The same as {@link dispose}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What every call takes. */
export interface CallOptions {
  /**
   * Rejects with the signal's reason as soon as it aborts, and keeps a call that waits for its turn
   * from being made. Short calls that have begun are not undone.
   */
  signal?: AbortSignal;
}

/** The pipeline, running in a Web Worker of its own: the page stays responsive. */
export class InstructPix2Pix extends Pipeline {
  /**
   * A pipeline of other pipelines' components, which it shares with them: there is no second copy
   * on the GPU. They must live in one worker (`shareWith`). Adapters and learnt words stay with the
   * pipelines that they were loaded into, unless they are fused.
   *
   * @example
   * const other = new InstructPix2Pix({ ...pipe.components, scheduler: 'DDIMScheduler' });
   */
  constructor(components: ComponentOptions);

  /**
   * Downloads a model and puts it on the GPU. The class of the pipeline is the one that the model's
   * `model_index.json` names: a model of SDXL gives an {@link InstructPix2PixXL}.
   *
   * @param model A repository on the Hugging Face Hub (`'timbrooks/instruct-pix2pix'`), or the URL
   *   of a folder with the diffusers layout. A string that begins with `.` or `/`, or that holds
   *   `://`, is a URL; relative ones are resolved against the page. Or the files themselves, as a
   *   user picks or drops them: a `FileList`, files or handles in an array, a directory's handle.
   * @throws {InstructPix2PixError} See {@link InstructPix2PixErrorCode}.
   */
  static fromPretrained(model: ModelLocation, options?: LoadOptions): Promise<InstructPix2Pix>;

  /**
   * Loads a checkpoint in one file with the keys of the original implementation, as trainers write
   * it: safetensors, a URL or a file. A link to a file's page on the Hub
   * (`https://huggingface.co/OWNER/NAME/blob/main/x.safetensors`) means the file.
   *
   * Where there is no `config`, the file's keys decide between SD and SDXL. A checkpoint of CosXL-Edit (with
   * `edm_vpred` keys) has its `EDMEulerScheduler` and `isCosxlEdit`, unless told otherwise, and edits of 1024 x 1024
   * pixels where they name no size; so has any other of SDXL without a `config`, and else the size is that of `config`.
   *
   * @param options.config A model with the configurations and the tokenizers for it.
   * @throws {InstructPix2PixError} `unsupported` for a UNet that takes no picture.
   */
  static fromSingleFile(
    source: string | URL | Blob,
    options?: SingleFileOptions,
  ): Promise<InstructPix2Pix>;

  /**
   * Fills the cache with a model, without a GPU: `fromPretrained` finds it there.
   * @throws {InstructPix2PixError} `storage` as soon as it is known that not all of it can be kept.
   */
  static download(model: string | URL, options?: DownloadOptions): Promise<void>;

  /**
   * Whether this browser has WebGPU, here and now: a secure context, the API and an adapter. Says
   * nothing of memory; see {@link InstructPix2Pix.requirements}. Takes up to five seconds where there is no adapter,
   * and is `false` on servers.
   */
  static isSupported(options?: CallOptions): Promise<boolean>;

  /**
   * What a model takes, and what would keep it from loading. Its configurations are downloaded, and
   * the engine, but no weights.
   *
   * @throws {InstructPix2PixError} `invalid-argument` for options that are none. What is wrong with
   *   the model, the network or this machine is among {@link Requirements.problems} instead.
   */
  static requirements(model: string | URL, options?: RequirementsOptions): Promise<Requirements>;
}

/**
 * The pipeline of Stable Diffusion XL and CosXL-Edit, in a Web Worker of its own.
 *
 * It is large: `diffusers/sdxl-instructpix2pix-768` is a download of 12.3 GB, and its weights take 6.9 GB
 * of GPU memory in float16, or 5.1 GB with a {@link LoadOptions.memoryBudget}.
 *
 * @example
 * const pipe = await InstructPix2PixXL.fromPretrained('diffusers/sdxl-instructpix2pix-768');
 * const { images } = await pipe.edit({ image: file, prompt: 'make it snowy', numInferenceSteps: 30 });
 */
export class InstructPix2PixXL extends InstructPix2Pix {
  /** See the constructor of {@link InstructPix2Pix}. */
  constructor(components: XLComponentOptions);

  readonly components: XLComponents;

  /** As in {@link InstructPix2Pix}. The pictures are resized to `height` and `width`. */
  edit<T extends OutputType = 'image'>(
    options: XLEditOptions<T> & { returnDict: false },
  ): Promise<[images: OutputImages[T]]>;
  edit<T extends OutputType = 'image'>(options: XLEditOptions<T>): Promise<EditResult<T>>;

  /** See {@link Pipeline.editStream}. */
  editStream<T extends OutputType = 'image'>(
    options: XLEditStreamOptions<T>,
  ): AsyncGenerator<EditEvent<T>, void, undefined>;

  /** Encodes instructions, so that they serve many edits: pass all four tensors on to {@link edit}. */
  encodePrompt(options: XLEncodePromptOptions): Promise<XLPromptEmbeds>;

  /** Encodes pictures in the size of the edits that they are for. */
  encodeImage(options: XLEncodeImageOptions): Promise<Tensor>;

  saveLoraWeights(options?: XLSaveLoraOptions): Promise<Blob>;

  /**
   * Downloads a model and puts it on the GPU: see {@link InstructPix2Pix.fromPretrained}. A model
   * of another class rejects with `unsupported`, before its weights are downloaded.
   */
  static fromPretrained(model: ModelLocation, options?: LoadOptions): Promise<InstructPix2PixXL>;

  /** Loads a checkpoint of SDXL in one file: see {@link InstructPix2Pix.fromSingleFile}. */
  static fromSingleFile(
    source: string | URL | Blob,
    options?: SingleFileOptions,
  ): Promise<InstructPix2PixXL>;
}

/**
 * The same pipeline on the calling thread, for code that runs in a worker already. On a page, an
 * edit would hold up everything else now and then: use {@link InstructPix2Pix} there.
 */
export class DirectInstructPix2Pix extends Pipeline {
  /** See the constructor of {@link InstructPix2Pix}. */
  constructor(components: ComponentOptions);
  /** See {@link InstructPix2Pix.fromPretrained}. */
  static fromPretrained(
    model: ModelLocation,
    options?: LoadOptions,
  ): Promise<DirectInstructPix2Pix>;

  /**
   * Loads a checkpoint in one file with the keys of the original implementation, as trainers write
   * it: safetensors, a URL or a file.
   *
   * Where there is no `config`, the file's keys decide between SD and SDXL. A checkpoint of CosXL-Edit (with
   * `edm_vpred` keys) has its `EDMEulerScheduler` and `isCosxlEdit`, unless told otherwise, and edits of 1024 x 1024
   * pixels where they name no size; so has any other of SDXL without a `config`, and else the size is that of `config`.
   *
   * @param options.config A model with the configurations and the tokenizers for it.
   * @throws {InstructPix2PixError} `unsupported` for a UNet that takes no picture.
   */
  static fromSingleFile(
    source: string | URL | Blob,
    options?: SingleFileOptions,
  ): Promise<DirectInstructPix2Pix>;

  /**
   * Fills the cache with a model, without a GPU: `fromPretrained` finds it there.
   * @throws {InstructPix2PixError} `storage` as soon as it is known that not all of it can be kept.
   */
  static download(model: string | URL, options?: DownloadOptions): Promise<void>;

  /**
   * Whether this browser has WebGPU, here and now: a secure context, the API and an adapter. Says
   * nothing of memory; see {@link InstructPix2Pix.requirements}. Takes up to five seconds where there is no adapter,
   * and is `false` on servers.
   */
  static isSupported(options?: CallOptions): Promise<boolean>;

  /**
   * What a model takes, and what would keep it from loading. Its configurations are downloaded, and
   * the engine, but no weights.
   *
   * @throws {InstructPix2PixError} `invalid-argument` for options that are none. What is wrong with
   *   the model, the network or this machine is among {@link Requirements.problems} instead.
   */
  static requirements(model: string | URL, options?: RequirementsOptions): Promise<Requirements>;
}

/** {@link InstructPix2PixXL} on the calling thread: see {@link DirectInstructPix2Pix}. */
export class DirectInstructPix2PixXL extends DirectInstructPix2Pix {
  /** See the constructor of {@link InstructPix2Pix}. */
  constructor(components: XLComponentOptions);

  readonly components: XLComponents;

  /** See {@link InstructPix2PixXL.edit}. */
  edit<T extends OutputType = 'image'>(
    options: XLEditOptions<T> & { returnDict: false },
  ): Promise<[images: OutputImages[T]]>;
  edit<T extends OutputType = 'image'>(options: XLEditOptions<T>): Promise<EditResult<T>>;

  /** See {@link Pipeline.editStream}. */
  editStream<T extends OutputType = 'image'>(
    options: XLEditStreamOptions<T>,
  ): AsyncGenerator<EditEvent<T>, void, undefined>;

  /** See {@link InstructPix2PixXL.encodePrompt}. */
  encodePrompt(options: XLEncodePromptOptions): Promise<XLPromptEmbeds>;

  /** See {@link InstructPix2PixXL.encodeImage}. */
  encodeImage(options: XLEncodeImageOptions): Promise<Tensor>;

  saveLoraWeights(options?: XLSaveLoraOptions): Promise<Blob>;

  /** See {@link InstructPix2PixXL.fromPretrained}. */
  static fromPretrained(
    model: ModelLocation,
    options?: LoadOptions,
  ): Promise<DirectInstructPix2PixXL>;

  /** See {@link InstructPix2PixXL.fromSingleFile}. */
  static fromSingleFile(
    source: string | URL | Blob,
    options?: SingleFileOptions,
  ): Promise<DirectInstructPix2PixXL>;
}

/** A part of a loaded pipeline, which lives where its pipeline does. */
export class Component<Name extends string = string> {
  private constructor();
  /** What it is, e.g. `'unet'`. */
  readonly name: Name;
  /** What it was loaded from: the Hub id, or the absolute URL. */
  readonly model: string;
}

/** The parts of a pipeline. */
export interface Components {
  /** Between pictures and latents: `AutoencoderKL`. */
  vae: Component<'vae'>;
  /** From tokens to embeddings: `CLIPTextModel`. */
  textEncoder: Component<'textEncoder'>;
  /** From texts to tokens: `CLIPTokenizer`. */
  tokenizer: Component<'tokenizer'>;
  /** What predicts the noise: `UNet2DConditionModel`. */
  unet: Component<'unet'>;
  /** The sampler and its settings. */
  scheduler: Component<'scheduler'>;
  /** Absent unless it was loaded. */
  safetyChecker?: Component<'safetyChecker'>;
  /** Absent unless the safety checker was loaded. */
  featureExtractor?: Component<'featureExtractor'>;
}

/** Parts to build a pipeline of. */
export interface ComponentOptions
  extends Omit<Components, 'scheduler' | 'safetyChecker' | 'featureExtractor'> {
  /** A pipeline's own, a class name, or the contents of a `scheduler_config.json`. */
  scheduler: Components['scheduler'] | SchedulerName | SchedulerConfig;
  /** The checker, with its `featureExtractor`, a function of yours, or nothing. */
  safetyChecker?: Component<'safetyChecker'> | SafetyChecker | null;
  /** Comes with `safetyChecker`. */
  featureExtractor?: Component<'featureExtractor'> | null;
  /**
   * Warn, once, when there is no `safetyChecker`.
   * @default true
   */
  requiresSafetyChecker?: boolean;
  /**
   * See {@link LoadOptions.busyPolicy}.
   * @default 'queue'
   */
  busyPolicy?: BusyPolicy;
}

/** The parts of a pipeline of SDXL. */
export interface XLComponents extends Components {
  /** The larger text encoder: `CLIPTextModelWithProjection`. */
  textEncoder2: Component<'textEncoder2'>;
  /** Its tokenizer. */
  tokenizer2: Component<'tokenizer2'>;
}

/** Parts to build a pipeline of SDXL of. */
export interface XLComponentOptions
  extends Omit<
    XLComponents,
    'scheduler' | 'safetyChecker' | 'featureExtractor' | 'textEncoder' | 'tokenizer'
  > {
  /** Absent, with its tokenizer, for models that have only the second, such as SDXL's refiner. */
  textEncoder?: Component<'textEncoder'>;
  /** Comes with `textEncoder`. */
  tokenizer?: Component<'tokenizer'>;
  /** A pipeline's own, a class name, or the contents of a `scheduler_config.json`. */
  scheduler: Components['scheduler'] | SchedulerName | SchedulerConfig;
  /**
   * Where there is no negative prompt at all, take zeros for its embeddings in place of those of an
   * empty text.
   * @default true
   */
  forceZerosForEmptyPrompt?: boolean;
  /**
   * Scale the pictures' latents, as CosXL-Edit was trained.
   * @default false
   */
  isCosxlEdit?: boolean;
  /**
   * Put SDXL's invisible watermark into results, as diffusers does where the package
   * invisible-watermark is installed. Pictures that are narrower than 256 pixels, or smaller than
   * 256 x 256, get none.
   * @default false
   */
  addWatermarker?: boolean;
  /** A checker of another pipeline, with its `featureExtractor`, or a function of yours. */
  safetyChecker?: Component<'safetyChecker'> | SafetyChecker | null;
  /** Comes with `safetyChecker`. */
  featureExtractor?: Component<'featureExtractor'> | null;
  /**
   * See {@link LoadOptions.busyPolicy}.
   * @default 'queue'
   */
  busyPolicy?: BusyPolicy;
}

/**
 * Where an application keeps the package's files. Vite, webpack 5, Parcel, Next.js and plain pages
 * find them by themselves; see the README for esbuild, Rollup and CDNs.
 */
export interface SiteOptions {
  /**
   * The address of `worker.js`, relative to the page. From another origin, the worker starts through
   * a `blob:` URL.
   * @default beside the package's `index.js`
   */
  workerUrl?: string | URL;
  /**
   * The address of `instruct_pix2pix_bg.wasm`, relative to the page. It counts for the first call of
   * a worker, or of the thread with the direct classes.
   * @default beside the package's `instruct_pix2pix.js`
   */
  wasmUrl?: string | URL;
}

/**
 * What becomes of an edit that is asked for while another one runs or waits: `'queue'` has it wait,
 * `'reject'` rejects it with the code `busy`, `'replace'` stops the others, which reject with the code
 * `aborted`.
 */
export type BusyPolicy = 'queue' | 'reject' | 'replace';

/** How much the console shows; each level shows what those before it do. */
export type LogLevel = 'silent' | 'error' | 'warn' | 'info' | 'debug';

/** Defaults for options that a call leaves out. */
export interface Env extends ReadOptions, SiteOptions {
  /**
   * How much the console shows. It counts for workers that are started later.
   * @default 'warn'
   */
  logLevel?: LogLevel;
  /**
   * See {@link LoadOptions.dtype}.
   * @default 'auto'
   */
  dtype?: LoadOptions['dtype'];
  /**
   * See {@link LoadOptions.weightDtype}.
   * @default 'float16'
   */
  weightDtype?: LoadOptions['weightDtype'];
  /** Bytes; no limit when left out. See {@link LoadOptions.memoryBudget}. */
  memoryBudget?: number;
  /**
   * See {@link LoadOptions.busyPolicy}.
   * @default 'queue'
   */
  busyPolicy?: BusyPolicy;
}

/**
 * Defaults for options that a call leaves out, for all that is called later.
 *
 * @example
 * env.endpoint = 'https://hub.example';
 */
export declare const env: Env;

/** Where on the Hub. */
export interface HubOptions {
  /**
   * Branch, tag or commit of a Hub repository.
   * @default 'main'
   */
  revision?: string;
  /**
   * The Hub, or a mirror of it.
   * @default 'https://huggingface.co'
   */
  endpoint?: string;
  /**
   * Hub access token (`hf_…`), for private and gated repositories. It is sent to the `endpoint` that
   * it is given for, and neither stored nor logged. When that redirects elsewhere it is the browser
   * that takes the token out, in Chrome and Edge from 119 on; Firefox and Safari have done so since
   * before they had WebGPU.
   */
  token?: string;
}

/** Where a model is: see {@link InstructPix2Pix.fromPretrained}. */
export type ModelLocation =
  | string
  | URL
  | FileList
  | FileSystemDirectoryHandle
  | DataTransferItemList
  | readonly (File | FileSystemHandle | DataTransferItem)[];

/**
 * A place to keep models, in place of the browser's database. Every value is an `ArrayBuffer` of at
 * most 64 MiB. A `put` must be there wholly or not at all. Methods may return promises. Keys are
 * `version`, and others that begin with `model/`, `content/` or `chunk/`; entries of other names are
 * left alone, also by `cache.clear`.
 */
export interface CacheStore {
  /** What was put there last; nothing where there is none. */
  get(key: string): CacheBytes | undefined | null | Promise<CacheBytes | undefined | null>;
  /** Throw an error named `QuotaExceededError` where there is no room. */
  put(key: string, value: ArrayBuffer): unknown;
  /** Forgets an entry; no error where there is none. */
  delete(key: string): unknown;
  /** The keys of all entries, in any order. */
  keys(): Iterable<string> | Promise<Iterable<string>>;
}

/** What a {@link CacheStore} gives back. */
export type CacheBytes = ArrayBuffer | Uint8Array;

/** A model that is kept on this machine. */
export interface CachedModel {
  /** The Hub id or the address, with the endpoint before an id where that is not the Hub's. */
  model: string;
  /** The commit, for models from the Hub. */
  revision: string | undefined;
  /** Bytes in the cache. Files that several models share count for each. */
  bytes: number;
  /** Whether it loads with `localFilesOnly`. */
  complete: boolean;
  /** When it was loaded last, milliseconds since 1970. */
  lastUsed: number;
}

/** Which cache. */
export interface CacheOptions extends CallOptions, SiteOptions {
  /** A store of yours in place of the browser's database. */
  cache?: CacheStore;
}

/** The models that are kept on this machine. */
export declare const cache: {
  /** What is there, the model used last first. */
  list(options?: CacheOptions): Promise<CachedModel[]>;
  /**
   * Removes all versions of a model, except what others share with it, when loads of it that are on
   * their way have ended. Tells whether it was there.
   */
  delete(model: string | URL, options?: CacheOptions): Promise<boolean>;
  /** Removes all models, each when loads of it that are on their way have ended. */
  clear(options?: CacheOptions): Promise<void>;
  /**
   * A complete model as a file: a tar archive, which can be unpacked to diffusers' folder layout.
   * @throws {InstructPix2PixError} `not-cached` when it is not there, or not complete; `unsupported` when weights of
   *   float32 are kept in float16, until {@link InstructPix2Pix.download} with `weightDtype: 'float32'` has brought them.
   */
  export(model: string | URL, options?: CacheOptions): Promise<Blob>;
  /**
   * Adds a model from such a file, comparing the hashes of its files before anything is written.
   * Resolves to its name.
   * @param options.cacheLimit As {@link ReadOptions.cacheLimit}.
   * @throws {InstructPix2PixError} `hash-mismatch` or `invalid-argument`, and the cache is as it was;
   *   `storage` where there is no room.
   */
  import(file: Blob, options?: CacheOptions & { cacheLimit?: number }): Promise<string>;
};

/** How something is found and kept. */
export interface ReadOptions extends HubOptions {
  /**
   * Read the cache alone, and send no request. What is missing rejects with `not-cached`.
   * @default false
   */
  localFilesOnly?: boolean;
  /**
   * Fetch everything anew, in place of what the cache has.
   * @default false
   */
  forceDownload?: boolean;
  /**
   * `false` fetches files anew of which the cache has only a part.
   * @default true
   */
  resumeDownload?: boolean;
  /**
   * Whether to keep what is read in the browser's database (IndexedDB), or a store of yours. Where
   * nothing can be stored, it is still read, and `onProgress` gets a warning; what could not be stored is kept
   * in memory then if all of it fits into 48 MiB, until the page ends, or the worker that reads it. Of
   * larger models, a reload after a lost device and each edit of models that take turns download again.
   * @default true
   */
  cache?: boolean | CacheStore;
  /**
   * How much the cache may hold, bytes: models used least recently make room. No limit of its own
   * when left out.
   */
  cacheLimit?: number;
  /** Called in place of the browser's `fetch`, on the page. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /**
   * How long a connection may send nothing before it is made anew, milliseconds.
   * @default 20000
   */
  stallTimeout?: number;
  /**
   * Bytes of one range request and of one entry of the cache: 4096 to 67108864, and a multiple of
   * 64.
   * @default 8388608
   */
  rangeBytes?: number;
  /**
   * How many range requests are under way at once, 1 to 16: fewer after failures, and more again when all
   * goes well. What is held of them is 48 MiB at most, so that more than six take ranges under 8 MiB.
   * @default 6
   */
  parallel?: number;
}

/** How a model is found and kept, and what it computes in. */
export interface LoadOptions extends ReadOptions, SiteOptions {
  /**
   * The type to compute in. `'auto'` takes float16 where the adapter has `shader-f16`.
   * @default 'auto'
   */
  dtype?: 'auto' | 'float16' | 'float32';
  /**
   * The type the weights are kept in on the GPU, on every adapter. `'float16'` takes half the memory of
   * `'float32'`. `'int8'` and `'int4'` keep the UNet and the text encoders in integers, made while they
   * arrive, of which 64 or 32 neighbours share a scale: about a half and a quarter of `'float16'`. The
   * VAE, the safety checker and tables of words stay in float16. What they cost, the README says.
   * Adapters are fused into float16, and `savePretrained` writes the float16 that the integers stand for.
   * @default 'float16'
   */
  weightDtype?: 'float16' | 'float32' | 'int8' | 'int4';
  /**
   * How many bytes of GPU memory the model's weights may take; without, as many as they need. Where
   * they need more all at once, the UNet, the VAE and the text encoders take turns: each edit reads
   * them from the cache (or from the files that were given) when it needs them, and frees them after that; of a
   * checkpoint in one file their parts. That takes longer, and `encodePrompt`, `encodeImage`, `fuseLora`, `savePretrained` and sharing of components reject with
   * `unsupported`. A budget under the largest of them rejects with `invalid-argument`, which says
   * how much is needed, before any weights are downloaded; so does any with components of another pipeline.
   *
   * Browsers do not tell how much memory a GPU has. Without a budget all models are loaded at once;
   * where the GPU says that it has no memory for them, what is stored or was given is loaded again so that models take turns,
   * with a `warning`. Some systems do not say so, and slow down or end the page instead: a budget avoids that.
   */
  memoryBudget?: number;
  /**
   * Load the model's safety checker, which blackens pictures that it takes for unsafe; or a
   * function of yours that judges them instead. See {@link Pipeline.setSafetyChecker}. `true`
   * rejects with `invalid-argument` where the model has none.
   * @default false
   */
  safetyChecker?: boolean | SafetyChecker | Component<'safetyChecker'> | null;
  /**
   * Whether leaving the checker out with `safetyChecker: null` or `false` is warned of, as diffusers
   * does.
   * @default true
   */
  requiresSafetyChecker?: boolean;
  /** Components of a loaded pipeline, to share instead of loading the model's own. */
  vae?: Component<'vae'>;
  /** See `vae`. */
  textEncoder?: Component<'textEncoder'>;
  /** See `vae`. */
  tokenizer?: Component<'tokenizer'>;
  /** See `vae`. */
  unet?: Component<'unet'>;
  /** A scheduler in place of the model's own: see {@link Pipeline.setScheduler}. */
  scheduler?: Component<'scheduler'> | SchedulerName | SchedulerConfig;
  /** See `vae`; of SDXL. */
  textEncoder2?: Component<'textEncoder2'>;
  /** See `vae`; of SDXL. */
  tokenizer2?: Component<'tokenizer2'>;
  /** Comes with `safetyChecker`. */
  featureExtractor?: Component<'featureExtractor'>;
  /**
   * For models of SDXL: see {@link XLComponentOptions.forceZerosForEmptyPrompt}.
   * @default what the model's `model_index.json` says, else true
   */
  forceZerosForEmptyPrompt?: boolean;
  /**
   * For models of SDXL: see {@link XLComponentOptions.isCosxlEdit}.
   * @default what the model's `model_index.json` says, else false
   */
  isCosxlEdit?: boolean;
  /**
   * For models of SDXL: see {@link XLComponentOptions.addWatermarker}.
   * @default what the model's `model_index.json` says, else false
   */
  addWatermarker?: boolean;
  /**
   * Another pipeline, in a worker as this one or not, whose worker and GPU device to use, so that components can
   * be shared. It ends with the last of them.
   */
  shareWith?: InstructPix2Pix | DirectInstructPix2Pix;
  /**
   * What becomes of an edit that is asked for while another one runs.
   * @default 'queue'
   */
  busyPolicy?: BusyPolicy;
  /**
   * What the first edit will be asked for, where the page knows that already. It is encoded as soon as
   * the text encoder is there, while the rest is on its way, and edits with the same texts do not wait
   * for that; their results are the same without. With `memoryBudget`, where models take turns, it has
   * no effect.
   */
  prompt?: string | string[];
  /** The same of {@link EditOptions.negativePrompt}. Counts with `prompt` only. */
  negativePrompt?: string | string[];
  /** Called often while the model is downloaded. */
  onProgress?: (event: LoadProgress) => void;
  /**
   * Stops loading: the promise rejects at once with the signal's reason. What has arrived stays in the
   * cache, also of pieces that are not complete.
   */
  signal?: AbortSignal;
}

/** How a checkpoint in one file is found and kept. */
export interface SingleFileOptions
  extends Omit<LoadOptions, keyof XLComponents | 'safetyChecker' | 'revision'> {
  /**
   * A model of the same shape, with the configurations and the tokenizers for the file: a repository
   * or the URL of a folder. The weights are not read from there, except a safety checker's. For a
   * file of SDXL the default is `'diffusers/sdxl-instructpix2pix-768'`, but for its size: without a `config` edits
   * have 1024 x 1024 pixels unless they say otherwise, as in diffusers, and those of CosXL-Edit have in any case.
   * @default 'timbrooks/instruct-pix2pix'
   */
  config?: string | URL;
  /**
   * Load the safety checker of `config`, or have a function of yours judge pictures: see
   * {@link LoadOptions.safetyChecker}.
   * @default false
   */
  safetyChecker?: boolean | SafetyChecker;
}

/** What to fill the cache with. */
export interface DownloadOptions
  extends Omit<
    LoadOptions,
    | keyof XLComponents
    | 'safetyChecker'
    | 'shareWith'
    | 'dtype'
    | 'memoryBudget'
    | 'busyPolicy'
    | 'prompt'
    | 'negativePrompt'
    | 'cache'
    | 'forceZerosForEmptyPrompt'
    | 'isCosxlEdit'
    | 'addWatermarker'
  > {
  /**
   * Download the safety checker too.
   * @default false
   */
  safetyChecker?: boolean;
  /** A store of yours in place of the browser's database. */
  cache?: CacheStore;
}

/** How to find out what a model takes: as it is going to be loaded. */
export interface RequirementsOptions extends ReadOptions, SiteOptions {
  /**
   * See {@link LoadOptions.dtype}.
   * @default 'auto'
   */
  dtype?: LoadOptions['dtype'];
  /**
   * See {@link LoadOptions.weightDtype}.
   * @default 'float16'
   */
  weightDtype?: LoadOptions['weightDtype'];
  /** Bytes; no limit when left out. See {@link LoadOptions.memoryBudget}. */
  memoryBudget?: number;
  /**
   * Count the safety checker.
   * @default false
   */
  safetyChecker?: boolean;
  /** Stops it. */
  signal?: AbortSignal;
}

/** What a model takes, and whether this machine has it. */
export interface Requirements {
  /** Whether nothing that is known now keeps the model from loading. How much memory a GPU has, browsers do not tell. */
  ok: boolean;
  /** What would fail, or be other than asked for. */
  problems: RequirementsProblem[];
  /** The GPU; absent where there is none to be had. */
  adapter: AdapterDescription | undefined;
  /** The type that would be computed in. */
  dtype: 'float16' | 'float32';
  /** The model; absent where it could not be looked at. */
  model: ModelDescription | undefined;
  /** Room in the browser's storage. */
  storage: {
    /** Bytes to be stored; 0 where the browser's storage is not used. */
    needed: number;
    /** Bytes that can be stored, where the browser tells. */
    free: number | undefined;
  };
}

/** Something that would go wrong. */
export interface RequirementsProblem {
  /** The code that loading would reject with. */
  code: InstructPix2PixErrorCode;
  /** What it is about, for people. */
  message: string;
  /** Whether the same may succeed later: the connection broke off, the server was busy. */
  retryable: boolean;
  /** Whether loading would fail; otherwise it goes on without, e.g. without keeping the model. */
  fatal: boolean;
}

/** A GPU, as far as the browser tells. */
export interface AdapterDescription {
  /** E.g. `'nvidia'`; may be empty. */
  vendor: string;
  /** E.g. `'ampere'`; may be empty. */
  architecture: string;
  /** Often empty. */
  description: string;
  /** Whether the CPU plays the GPU, which is slow. */
  software: boolean;
  /** Whether it computes in float16 (`shader-f16`). */
  f16: boolean;
  /** The largest buffer, bytes. */
  maxBufferSize: number;
  /** The largest part of a buffer that a shader sees, bytes. */
  maxStorageBufferBindingSize: number;
}

/** What a model takes. */
export interface ModelDescription {
  /** The pipeline's class, as diffusers calls it. */
  className: PipelineInfo['className'];
  /** Bytes of all files that are read. */
  bytes: number;
  /** Bytes of its weights that are not in the cache, and would be downloaded. */
  missingBytes: number;
  /**
   * Bytes of storage that these take: of large files in float32, weights are kept in float16 unless `weightDtype` is
   * `'float32'`.
   */
  storageBytes: number;
  /** Bytes of GPU memory for its weights, all at once. Edits need more, see the README. */
  memoryBytes: number;
  /** The least that {@link LoadOptions.memoryBudget} may be: bytes of the largest models that have to be there together. */
  memoryBytesInTurn: number;
  /** The most of these two that its weights will take at a time, by `residency`. */
  memoryBytesHeld: number;
  /**
   * Whether all models will be on the GPU, or each in its turn because of the {@link LoadOptions.memoryBudget}. Loading may still
   * come to `'inTurn'` by itself where the GPU says that it has no memory for all.
   */
  residency: PipelineInfo['residency'];
  /** The sub-models. Text encoders take one turn together. */
  parts: PartDescription[];
}

/** What a sub-model takes. */
export interface PartDescription {
  /** E.g. `'unet'`. */
  component: string;
  /** Bytes of GPU memory for its weights. */
  memoryBytes: number;
  /**
   * Bytes of the largest of its weights, which is one buffer. Where the adapter's are smaller (`maxBufferSize` or
   * `maxStorageBufferBindingSize`), loading rejects with `unsupported` before weights are downloaded.
   */
  largestBytes: number;
  /** Whether it is on the GPU for as long as the pipeline: always with `residency: 'all'`. */
  stays: boolean;
}

/** What `onProgress` is told. */
export type LoadProgress =
  | DownloadProgress
  | ComponentProgress
  | EncodedProgress
  | StorageProgress
  | WaitingProgress
  | WarningProgress
  | ReadyProgress;

/** More bytes have arrived. */
export interface DownloadProgress {
  /** Tells this event from the others. */
  type: 'download';
  /** The sub-model being read, e.g. `'unet'`. */
  component: string;
  /** The file being read, relative to the model. */
  file: string;
  /** Bytes that have arrived, over all files. */
  loaded: number;
  /** Bytes of all files; known from the first event on. */
  total: number;
  /** How many of the bytes loaded came from the cache. */
  cached: number;
  /** Bytes from the network in a second, over the last five; 0 while that cannot be told. */
  bytesPerSecond: number;
  /** Seconds left at that speed, once there is one. */
  secondsLeft: number | undefined;
}

/** Before a download: the room that it takes. */
export interface StorageProgress {
  /** Tells this event from the others. */
  type: 'storage';
  /** Bytes still to be stored; where weights in float32 are kept in float16, more are downloaded. */
  needed: number;
  /** Bytes that can be stored, where the browser tells. */
  free: number | undefined;
}

/** Another tab downloads the same model; this one waits, and then reads what it stored. */
export interface WaitingProgress {
  /** Tells this event from the others. */
  type: 'waiting';
}

/** Something is not as it should be, and loading goes on. */
export interface WarningProgress {
  /** Tells this event from the others. */
  type: 'warning';
  /**
   * `'storage'`: the model is not kept, or in memory alone (the message says which, and why, e.g.
   * `needs 2.1 GB, 1.4 GB free`).
   * `'offline'`: the server was not reached, or refused to give the model or no longer has it, and
   * the version in the cache is used.
   * `'corrupt'`: a damaged piece was found in the cache, and is fetched again.
   * `'memory'`: the GPU had no memory for all models at once, and they take turns: see
   * {@link LoadOptions.memoryBudget}.
   */
  code: 'storage' | 'offline' | 'corrupt' | 'memory';
  /** What is wrong, for people. */
  message: string;
}

/** {@link LoadOptions.prompt} is encoded. */
export interface EncodedProgress {
  /** Tells this event from the others. */
  type: 'encoded';
}

/** A sub-model is complete, and on the GPU. */
export interface ComponentProgress {
  /** Tells this event from the others. */
  type: 'component';
  /** E.g. `'unet'`. */
  component: string;
}

/** The last event: edits can begin. */
export interface ReadyProgress {
  /** Tells this event from the others. */
  type: 'ready';
}

/** What was loaded. */
export interface PipelineInfo {
  /** The Hub id, or the absolute URL. */
  model: string;
  /** The pipeline's class, as diffusers calls it. */
  className: 'StableDiffusionInstructPix2PixPipeline' | 'StableDiffusionXLInstructPix2PixPipeline';
  /** The type in use for computing. */
  dtype: 'float16' | 'float32';
  /** The type the weights are kept in. */
  weightDtype: 'float16' | 'float32' | 'int8' | 'int4';
  /** The commit that was loaded, for models from the Hub. */
  revision?: string;
  /** Whether all models are on the GPU, or each in its turn: see {@link LoadOptions.memoryBudget}. */
  residency: 'all' | 'inTurn';
  /** The GPU, as the browser names it. */
  adapter: string;
  /** The scheduler of edits that name no other: the class name in diffusers. */
  scheduler: string;
  /**
   * Its configuration, as `pipe.scheduler.config` in diffusers: what is absent has the default of the
   * class. Of a pipeline that was put together of components, that of the UNet's pipeline until
   * `setScheduler` is called.
   */
  schedulerConfig: SchedulerConfig;
}

/**
 * A picture. Files are decoded without colour conversion and turned upright by their EXIF
 * orientation; transparency is ignored. Canvases, bitmaps and image elements have lost the colour
 * of fully transparent pixels: pass the file itself where that matters. Relative URLs are resolved
 * against the page.
 */
export type ImageSource =
  | Blob
  | ImageBitmap
  | ImageData
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLImageElement
  | string
  | URL;

/** Tells whether a picture is not safe for work. */
export type SafetyChecker = (picture: ImageData) => boolean | Promise<boolean>;

/** Instructions, as texts or as embeddings. */
export interface PromptOptions {
  /**
   * The instruction, e.g. `'make it snowy'`, or several. Only the first 75 tokens count. Either
   * this or `promptEmbeds` is needed.
   */
  prompt?: string | readonly string[];
  /**
   * What the result should not look like: one for all prompts, or one for each.
   * @default ''
   */
  negativePrompt?: string | readonly string[];
  /** The text encoder's output in place of `prompt`, `[N, 77, 768]` for Stable Diffusion 1.5. */
  promptEmbeds?: Tensor;
  /** The same in place of `negativePrompt`. */
  negativePromptEmbeds?: Tensor;
  /**
   * Results for each prompt: 1 or more.
   * @default 1
   */
  numImagesPerPrompt?: number;
}

/** What to encode. */
export interface EncodePromptOptions extends PromptOptions, CallOptions {
  /**
   * Encode what to keep away from as well.
   * @default true
   */
  doClassifierFreeGuidance?: boolean;
}

/** Encoded instructions, to be passed on to an edit. */
export interface PromptEmbeds {
  /** `[N, 77, 768]` for Stable Diffusion 1.5. */
  promptEmbeds: Tensor;
  /** The same of what to keep away from; absent with `doClassifierFreeGuidance: false`. */
  negativePromptEmbeds?: Tensor;
}

/** Instructions for SDXL's two text encoders, as texts or as embeddings. */
export interface XLPromptOptions extends PromptOptions {
  /**
   * The instruction for the second text encoder: one for all prompts, or one for each. An empty
   * text counts as none.
   * @default prompt
   */
  prompt2?: string | readonly string[];
  /**
   * What the result should not look like. Left out, its embeddings are zeros, unless
   * `forceZerosForEmptyPrompt` is off; `''` is encoded.
   */
  negativePrompt?: string | readonly string[];
  /**
   * The same for the second text encoder; without `negativePrompt` it is ignored.
   * @default negativePrompt
   */
  negativePrompt2?: string | readonly string[];
  /** The second text encoder's pooled output, `[N, 1280]`; needed beside `promptEmbeds`. */
  pooledPromptEmbeds?: Tensor;
  /** The same of what to keep away from; needed beside `negativePromptEmbeds` with guidance. */
  negativePooledPromptEmbeds?: Tensor;
}

/** What to encode with SDXL's text encoders. */
export interface XLEncodePromptOptions extends XLPromptOptions, CallOptions {
  /**
   * Encode what to keep away from as well.
   * @default true
   */
  doClassifierFreeGuidance?: boolean;
  /**
   * How much adapters contribute to the text encoders this time, times their own weights.
   * @default 1
   */
  loraScale?: number;
}

/** Instructions encoded by SDXL's text encoders, to be passed on to an edit. */
export interface XLPromptEmbeds extends PromptEmbeds {
  /** `[N, 1280]` */
  pooledPromptEmbeds: Tensor;
  /** Absent with `doClassifierFreeGuidance: false`. */
  negativePooledPromptEmbeds?: Tensor;
}

/** Pictures to encode for edits with SDXL. */
export interface XLEncodeImageOptions {
  /** See {@link EditOptions.image}. */
  image: ImageSource | readonly ImageSource[] | Tensor | readonly Tensor[];
  /**
   * Pixels, see {@link XLEditOptions.height}.
   * @default what the UNet was trained on, 768 or 1024 as a rule
   */
  height?: number;
  /**
   * Pixels, see {@link XLEditOptions.width}.
   * @default what the UNet was trained on, 768 or 1024 as a rule
   */
  width?: number;
  /** Stops it. */
  signal?: AbortSignal;
}

/** What an edit's `images` are. */
export interface OutputImages {
  /** Pictures for a canvas. */
  image: ImageData[];
  /** PNG files. */
  blob: Blob[];
  /** Samples in 0 to 1, `[N, H, W, 3]`. */
  np: Tensor;
  /** Samples in 0 to 1, `[N, 3, H, W]`. */
  pt: Tensor;
  /** Latents that were not decoded, `[N, 4, H / 8, W / 8]`. */
  latent: Tensor;
}

/** A form of result. */
export type OutputType = keyof OutputImages;

/**
 * A seed of `torch.Generator('cpu')`: a whole number from 0 to 2^64 - 1, above `Number.MAX_SAFE_INTEGER`
 * a `bigint`. Negative ones, down to -2^63, count as 2^64 more, as in PyTorch.
 */
export type Seed = number | bigint;

/** What to edit, and how. */
export interface EditOptions<T extends OutputType = OutputType> extends PromptOptions {
  /**
   * The picture to edit, at least 8 by 8 pixels, or as many as there are prompts, of one size. The
   * size is rounded down to multiples of the factor by which the model's VAE scales, 8 as a rule.
   * Models like about 512 pixels best. Tensors are samples in 0 to 1, `[N, 3, H, W]` or
   * `[N, H, W, 3]` (in -1 to 1 when one is negative), or latents from {@link Pipeline.encodeImage}, which are not encoded
   * again.
   */
  image: ImageSource | readonly ImageSource[] | Tensor | readonly Tensor[];
  /**
   * Denoising steps: at least 1. Twenty often do, and time grows with their number.
   * @default 100
   */
  numInferenceSteps?: number;
  /** Timesteps to take instead of the scheduler's own, descending. Not all schedulers take them. */
  timesteps?: readonly number[];
  /** Noise levels to take instead of the scheduler's own, descending, with the final 0. */
  sigmas?: readonly number[];
  /**
   * How strongly to follow the instruction. 1 or less switches guidance off; 5 to 10 is usual.
   * @default 7.5
   */
  guidanceScale?: number;
  /**
   * How closely to stay with the picture. Below 1, guidance is off; 1 to 2 is usual.
   * @default 1.5
   */
  imageGuidanceScale?: number;
  /**
   * The same seed gives the same picture, and the same noise as `torch.Generator('cpu')` in
   * diffusers. One for all results, or a list with one for each.
   * @default one that is drawn, of 32 bits
   */
  seed?: Seed | readonly Seed[];
  /**
   * Another name for `seed`.
   * @default seed
   */
  generator?: Seed | readonly Seed[];
  /**
   * The scheduler to use instead of the model's: a class name of diffusers, or the contents of a
   * `scheduler_config.json` with its `_class_name`.
   */
  scheduler?: SchedulerName | SchedulerConfig;
  /**
   * Noise that DDIM adds in each step, from 0 (none) to 1 (as DDPM), and TCD's gamma, from 0 to 1.
   * Other schedulers ignore it.
   * @default 0
   */
  eta?: number;
  /** The noise to start from, of unit variance, `[N, 4, H / 8, W / 8]`; drawn by default. */
  latents?: Tensor;
  /** Recorded scheduler noise, used in order instead of drawing: for comparisons with diffusers. */
  noises?: Tensor;
  /**
   * What `images` of the result is.
   * @default 'image'
   */
  outputType?: T;
  /**
   * `false` gives `[images, nsfwContentDetected]` instead of an object.
   * @default true
   */
  returnDict?: boolean;
  /** `scale`: how much adapters contribute to the UNet in this edit, times their own weights. */
  crossAttentionKwargs?: {
    /** @default 1 */
    scale?: number;
  };
  /**
   * diffusers' legacy callback: called when an inference step has ended, which for samplers of the
   * second order is after two calls of the UNet. `onStep` can do more.
   */
  callback?: (step: number, timestep: number, latents: Tensor) => unknown;
  /**
   * Call `callback` only where the number of the UNet's call is a multiple of this: 1 or more.
   * @default 1
   */
  callbackSteps?: number;
  /**
   * Called after every call of the UNet, with the tensors that `onStepTensorInputs` names. The
   * edit goes on with the tensors that it returns. Returning `false`, or throwing, stops the edit.
   */
  onStep?: (event: EditStep) => StepAnswer | Promise<StepAnswer>;
  /**
   * Tensors to show to `onStep`. Each costs a read-back from the GPU in every step; `[]` is the
   * fastest.
   * @default ['latents']
   */
  onStepTensorInputs?: readonly (keyof StepTensors)[];
  /**
   * What becomes of this edit, or of the others, where another one runs.
   * @default the one that the model was loaded with
   */
  busyPolicy?: BusyPolicy;
  /** Stops the edit: the promise rejects at once with the signal's reason. */
  signal?: AbortSignal;
}

/** What to edit as a stream, and how. */
export type EditStreamOptions<T extends OutputType = OutputType> = Omit<
  EditOptions<T>,
  'returnDict'
>;

/** What to edit with SDXL as a stream, and how. */
export type XLEditStreamOptions<T extends OutputType = OutputType> = Omit<
  XLEditOptions<T>,
  'returnDict'
>;

/** An event of {@link Pipeline.editStream}: steps, and at the end the result. */
export type EditEvent<T extends OutputType = 'image'> = EditStepEvent | EditResultEvent<T>;

/** A step of a stream. */
export interface EditStepEvent extends EditStep {
  /** Tells this event from the other. */
  type: 'step';
}

/** The end of a stream. */
export interface EditResultEvent<T extends OutputType = 'image'> extends EditResult<T> {
  /** Tells this event from the other. */
  type: 'result';
}

/** What to warm up for. */
export interface WarmupOptions extends CallOptions {
  /**
   * Width of the pictures to come: 8 to 8192 pixels.
   * @default 512
   */
  width?: number;
  /**
   * Height of the pictures to come: 8 to 8192 pixels.
   * @default 512
   */
  height?: number;
}

/** What to edit with SDXL, and how. Sizes and places are `[height, width]`, pixels. */
export interface XLEditOptions<T extends OutputType = OutputType>
  extends Omit<EditOptions<T>, keyof PromptOptions>,
    XLPromptOptions {
  /**
   * How strongly to follow the instruction. 1 or less switches guidance off.
   * @default 5
   */
  guidanceScale?: number;
  /**
   * Height of the results, pixels: at least 8, rounded down to a multiple of the factor by which the
   * model's VAE scales, 8 as a rule. Needed where the UNet's configuration names no `sample_size`. Of a checkpoint in
   * one file, see {@link SingleFileOptions.config}.
   * @default what the UNet was trained on, 768 or 1024 as a rule
   */
  height?: number;
  /**
   * Width of the results, pixels; as `height`.
   * @default what the UNet was trained on, 768 or 1024 as a rule
   */
  width?: number;
  /**
   * The share of the way to go, 0 to 1: the result keeps noise, for another model to go on with. Take
   * `outputType: 'latent'` then. 0 goes all the way, as 1 does.
   * @default 1
   */
  denoisingEnd?: number;
  /**
   * How far to keep the contrast of the prediction for the text, 0 to 1, against overexposure.
   * @default 0
   */
  guidanceRescale?: number;
  /**
   * The size of which the result is to look: a small one makes it look enlarged.
   * @default [height, width]
   */
  originalSize?: readonly [height: number, width: number];
  /**
   * Where the result is to look cut out of that.
   * @default [0, 0]
   */
  cropsCoordsTopLeft?: readonly [top: number, left: number];
  /**
   * The size that the result is to have.
   * @default [height, width]
   */
  targetSize?: readonly [height: number, width: number];
  /**
   * The aesthetic score to aim for. Rejects unless the model's UNet was trained on it.
   * @default 6
   */
  aestheticScore?: number;
  /**
   * The aesthetic score to keep away from. Rejects unless the model's UNet was trained on it.
   * @default 2.5
   */
  negativeAestheticScore?: number;
  /** `scale`: how much adapters contribute to UNet and text encoders in this edit. */
  crossAttentionKwargs?: {
    /** @default 1 */
    scale?: number;
  };
}

/** Tensors of a running edit. */
export interface StepTensors {
  /** The scheduler's sample, `[N, 4, H / 8, W / 8]`. */
  latents?: Tensor;
  /** What the UNet attends to: `[text, negative, negative]` with guidance, `[3 * N, 77, 768]`. */
  promptEmbeds?: Tensor;
  /** What it sees beside the sample: `[z, z, 0]` with guidance, `[3 * N, 4, H / 8, W / 8]`. */
  imageLatents?: Tensor;
}

/** What `onStep` returns: nothing, tensors to go on with, or `false` to stop. */
export type StepAnswer = void | false | StepTensors;

/** Factors of FreeU, for skip connections (`s`) and backbone (`b`) of the first two stages. */
export interface FreeUFactors {
  /** Of the first stage's skip connections; below 1 weakens them. */
  s1: number;
  /** Of the second stage's skip connections. */
  s2: number;
  /** Of the first stage's backbone; above 1 strengthens it. */
  b1: number;
  /** Of the second stage's backbone. */
  b2: number;
}

/**
 * An adapter: a Hub repository, the URL of a folder or of a file, a file, its bytes, or its tensors by
 * their names.
 */
export type AdapterSource =
  | string
  | URL
  | Blob
  | ArrayBuffer
  | ArrayBufferView
  | Record<string, Tensor>;

/**
 * Which file of a source, and how it is read. `endpoint`, `token`, `localFilesOnly`, `cache`,
 * `cacheLimit` and `fetch` are by default those that the model was loaded with.
 */
export interface AdapterFile extends ReadOptions {
  /**
   * The file's name.
   * @default 'pytorch_lora_weights.safetensors' or 'learned_embeds.safetensors', else the same in
   *   `.bin`, else the first of the repository that may be an adapter
   */
  weightName?: string;
  /** The folder it is in. */
  subfolder?: string;
  /** Stops reading. */
  signal?: AbortSignal;
}

/**
 * How much an adapter counts: one number, or one for each component; 1 for what is left out. In the UNet the
 * transformers of its parts and blocks may have their own, by diffusers' names: `{ unet: { down: 0.5, up: { block_1: [0.1,
 * 1, 0.4] } } }`. A list has a number for each transformer of a block. Blocks without any are refused.
 */
export type AdapterWeight = number | ComponentWeights;

/** A weight for each component; see {@link AdapterWeight}. */
export interface ComponentWeights {
  /**
   * Of the text encoder, the first of SDXL's.
   * @default 1
   */
  textEncoder?: number;
  /**
   * Of SDXL's second.
   * @default 1
   */
  textEncoder2?: number;
  /**
   * Of the UNet.
   * @default 1
   */
  unet?: number | UNetWeight;
}

/** Weights of the UNet's parts, each 1 by default; see {@link AdapterWeight}. */
export interface UNetWeight {
  /**
   * Of the blocks on the way down.
   * @default 1
   */
  down?: number | readonly number[] | Record<`block_${number}`, number | readonly number[]>;
  /**
   * Of the middle.
   * @default 1
   */
  mid?: number | readonly [number];
  /**
   * Of the blocks on the way up.
   * @default 1
   */
  up?: number | readonly number[] | Record<`block_${number}`, number | readonly number[]>;
}

/** How to load a LoRA. */
export interface LoraOptions extends AdapterFile {
  /** What to call it; `default_0`, `default_1`, ... by default. */
  adapterName?: string;
}

/** How to load a textual inversion. `token` is the word here, as in diffusers. */
export interface TextualInversionOptions extends Omit<AdapterFile, 'token'> {
  /** The word to teach, in place of the file's own: one for each source. */
  token?: string | readonly string[];
  /** The Hub's access token. */
  hfToken?: string;
  /**
   * Which of SDXL's text encoders learns it.
   * @default both, from files with vectors for both, else the one that the vectors fit
   */
  textEncoder?: 'textEncoder' | 'textEncoder2' | Component<'textEncoder'> | Component<'textEncoder2'>;
  /**
   * The same by its tokenizer: either of the two is enough.
   * @default that of textEncoder
   */
  tokenizer?: 'tokenizer' | 'tokenizer2' | Component<'tokenizer'> | Component<'tokenizer2'>;
}

/** A LoRA that has been loaded. */
export interface LoadedLora {
  /** Its name. */
  adapterName: string;
  /** Keys of the file that no layer has a use for. */
  unusedKeys: string[];
}

/** What to write, and where to. */
export interface SaveLoraOptions extends CallOptions {
  /** A loaded adapter; the last active one by default. */
  adapterName?: string;
  /** Layers to write in place of a loaded adapter, as `get_peft_model_state_dict` names them. */
  unetLoraLayers?: Record<string, Tensor>;
  /** The same of the text encoder. */
  textEncoderLoraLayers?: Record<string, Tensor>;
  /** @default 'pytorch_lora_weights.safetensors', or `.bin` */
  weightName?: string;
  /**
   * `false` writes what `torch.save` does instead of safetensors.
   * @default true
   */
  safeSerialization?: boolean;
  /** The folder to write to, from `showDirectoryPicker()`. The Blob is returned in any case. */
  saveDirectory?: FileSystemDirectoryHandle;
  /** Called with the file instead of writing it. */
  saveFunction?: (bytes: Uint8Array, weightName: string) => void | Promise<void>;
}

/** What to write of adapters for SDXL, and where to. */
export interface XLSaveLoraOptions extends SaveLoraOptions {
  /** Layers of the second text encoder. */
  textEncoder2LoraLayers?: Record<string, Tensor>;
}

/** The schedulers implemented. */
export type SchedulerName =
  | 'DDIMScheduler'
  | 'DDPMScheduler'
  | 'DEISMultistepScheduler'
  | 'DPMSolverMultistepScheduler'
  | 'DPMSolverSinglestepScheduler'
  | 'EDMEulerScheduler'
  | 'EulerAncestralDiscreteScheduler'
  | 'EulerDiscreteScheduler'
  | 'HeunDiscreteScheduler'
  | 'KDPM2AncestralDiscreteScheduler'
  | 'KDPM2DiscreteScheduler'
  | 'LCMScheduler'
  | 'LMSDiscreteScheduler'
  | 'PNDMScheduler'
  | 'TCDScheduler'
  | 'UniPCMultistepScheduler';

/** A scheduler with its settings, as diffusers' `scheduler_config.json` spells them. */
export interface SchedulerConfig {
  /** The class in diffusers. */
  _class_name: SchedulerName;
  [setting: string]: unknown;
}

/** Numbers with a shape, row-major. */
export interface Tensor {
  /** As many as the product of `shape`. */
  data: Float32Array;
  /** E.g. `[1, 4, height / 8, width / 8]` for latents. */
  shape: number[];
}

/** What `onStep` is told. */
export interface EditStep extends StepTensors {
  /** From 0. */
  step: number;
  /** How many there will be. */
  steps: number;
  /** The timestep in the diffusion, from about 1000 down to 0. */
  timestep: number;
  /**
   * The inference step that this call of the UNet ended, from 0. Absent where the step goes on:
   * samplers of the second order call the UNet twice for most.
   */
  inferenceStep?: number;
  /** Milliseconds since this edit began. */
  elapsed: number;
}

/** Edited pictures. */
export interface EditResult<T extends OutputType = 'image'> {
  /** The pictures, opaque, in the size that the model worked at; those of one prompt together. */
  images: OutputImages[T];
  /** The seed used: the one given, the first of those given, or the one drawn. */
  seed: Seed;
  /** Which pictures were found not safe for work; they are black. Absent where none were checked. */
  nsfwContentDetected?: boolean[];
  /** What took how long. */
  timings: EditTimings;
  /** The latents before decoding, `[N, 4, H / 8, W / 8]`. */
  latents: Tensor;
  /** What may have been a mistake, and what was done. Also written to the console. */
  warnings: string[];
}

/** Milliseconds. */
export interface EditTimings {
  /** The whole edit. */
  total: number;
  /** Text encoder and picture encoder. */
  encode: number;
  /** All steps. */
  denoise: number;
  /** From latents to the picture. */
  decode: number;
}

/** Bytes. */
export interface MemoryInfo {
  /** The engine's heap. It never shrinks, so this is also its peak. */
  wasmHeap: number;
}

/**
 * What went wrong. Codes are stable; messages are for people and may change. Aborted calls reject
 * with their signal's own reason instead, and callbacks that throw with what they threw.
 */
export class InstructPix2PixError extends Error {
  constructor(
    code: InstructPix2PixErrorCode,
    message: string,
    options?: { cause?: unknown; retryable?: boolean },
  );
  /** Always this, also across workers and frames, where `instanceof` says nothing. */
  readonly name: 'InstructPix2PixError';
  /** What kind of error it is. */
  readonly code: InstructPix2PixErrorCode;
  /** Whether the same call may succeed later: the connection broke off, the server was busy. */
  readonly retryable: boolean;
}

/** Kinds of errors. */
export type InstructPix2PixErrorCode =
  /** An argument is outside its range, or two contradict each other. */
  | 'invalid-argument'
  /** The model, or an option, is outside what this package implements. */
  | 'unsupported'
  /** A configuration file of the model is no JSON, or lacks what is needed. */
  | 'invalid-config'
  /** A weight file is truncated, corrupt or hostile. */
  | 'invalid-safetensors'
  /** None of an adapter's keys belongs to a layer of the model. */
  | 'unknown-keys'
  /** A file of torch is corrupt, or its pickle asks for more than data. */
  | 'invalid-pickle'
  /** A weight file lacks a tensor that the configuration implies. */
  | 'missing-tensor'
  /** A tensor has another shape than the configuration implies. */
  | 'shape-mismatch'
  /** A tensor is stored in a type that is not a 16- or 32-bit float. */
  | 'unsupported-dtype'
  /** HTTP 404: check the model's name, the revision, or the picture's URL. */
  | 'not-found'
  /** Another HTTP status than success, e.g. 401 for a gated model without a token. */
  | 'http-status'
  /** The connection failed or broke off, or CORS forbids reading. */
  | 'network'
  /** The picture could not be decoded. */
  | 'image-decode'
  /** `onStep` returned `false`, a stream was left, or a later edit took this one's place. */
  | 'aborted'
  /** Another edit runs, and {@link BusyPolicy} is `'reject'`. */
  | 'busy'
  /** WebGPU needs https, or localhost. */
  | 'insecure-context'
  /** This browser has no WebGPU. */
  | 'no-webgpu'
  /** There is WebGPU, but no adapter for it. */
  | 'no-adapter'
  /** The server sent something else than the file: a captive portal's page, another length. */
  | 'invalid-response'
  /** A file's content is not what the Hub says. Nothing of it was kept. */
  | 'hash-mismatch'
  /** `localFilesOnly`, and a file is not in the cache; or there is no such model to export. */
  | 'not-cached'
  /** The cache itself failed, in a call that is about it. */
  | 'storage'
  /**
   * The GPU device is gone: the driver crashed, or the GPU was taken away. The next call starts a
   * new worker and loads the model again by itself; {@link DirectInstructPix2Pix} has to be loaded
   * again on a fresh page or worker.
   */
  | 'device-lost'
  /** The GPU has no memory left; the message says how many bytes were asked for, and what needs less. */
  | 'out-of-memory'
  /** The GPU failed in another way. */
  | 'gpu'
  /** The engine could not be started, or it stopped after an internal error. */
  | 'engine'
  /** The pipeline has been disposed. */
  | 'disposed';
