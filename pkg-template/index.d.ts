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

/** The pipeline, running in a Web Worker of its own: the page stays responsive. */
export class InstructPix2Pix implements AsyncDisposable {
  private constructor();

  /**
   * Downloads a model and puts it on the GPU.
   *
   * @param model A repository on the Hugging Face Hub (`'timbrooks/instruct-pix2pix'`), or the URL
   *   of a folder with the diffusers layout. A string that begins with `.` or `/`, or that holds
   *   `://`, is a URL; relative ones are resolved against the page.
   * @throws {InstructPix2PixError} See {@link InstructPix2PixErrorCode}.
   */
  static fromPretrained(model: string | URL, options?: LoadOptions): Promise<InstructPix2Pix>;

  /** What was loaded, and on which adapter. */
  readonly info: PipelineInfo;

  /**
   * Edits a picture. Calls made while another runs wait for their turn, in order. Canvases,
   * bitmaps and `ImageData` are read during the call, so they may be changed right after it.
   *
   * @throws {InstructPix2PixError} See {@link InstructPix2PixErrorCode}.
   */
  edit(options: EditOptions): Promise<EditResult>;

  /** How much memory the pipeline takes. */
  memory(): Promise<MemoryInfo>;

  /**
   * Ends the worker and frees the model. Edits that still run or wait, and all later calls, reject
   * with the code `disposed`.
   */
  dispose(): Promise<void>;

  /** The same as {@link dispose}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * The same pipeline on the calling thread, for code that runs in a worker already. On a page, an
 * edit would hold up everything else now and then: use {@link InstructPix2Pix} there.
 */
export class DirectInstructPix2Pix implements AsyncDisposable {
  private constructor();
  /** See {@link InstructPix2Pix.fromPretrained}. */
  static fromPretrained(model: string | URL, options?: LoadOptions): Promise<DirectInstructPix2Pix>;
  /** See {@link InstructPix2Pix.info}. */
  readonly info: PipelineInfo;
  /** See {@link InstructPix2Pix.edit}. */
  edit(options: EditOptions): Promise<EditResult>;
  /** See {@link InstructPix2Pix.memory}. */
  memory(): Promise<MemoryInfo>;
  /** Frees the model as soon as the edit in progress, if any, has stopped. */
  dispose(): Promise<void>;
  /** The same as {@link dispose}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** How a model is found and kept. */
export interface LoadOptions {
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
  /** Hub access token (`hf_…`), for private and gated repositories. */
  token?: string;
  /**
   * The type to compute in. `'auto'` takes float16 where the adapter has `shader-f16`.
   * @default 'auto'
   */
  dtype?: 'auto' | 'float16' | 'float32';
  /**
   * The type the weights are kept in on the GPU. `'float16'` takes half the memory and works on
   * every adapter.
   * @default 'float16'
   */
  weightDtype?: 'float16' | 'float32';
  /**
   * Load the model's safety checker, which blackens pictures that it takes for unsafe.
   * @default false
   */
  safetyChecker?: boolean;
  /** Called often while the model is downloaded. */
  onProgress?: (event: LoadProgress) => void;
  /** Stops loading: the promise rejects at once with the signal's reason. */
  signal?: AbortSignal;
}

/** What `onProgress` is told. */
export type LoadProgress = DownloadProgress | ComponentProgress | ReadyProgress;

/** More bytes have arrived. */
export interface DownloadProgress {
  type: 'download';
  /** The sub-model being read, e.g. `'unet'`. */
  component: string;
  /** The file being read, relative to the model. */
  file: string;
  /** Bytes read so far, over all files. */
  loaded: number;
  /** Bytes of all files; known from the first event on. */
  total: number;
}

/** A sub-model is complete, and on the GPU. */
export interface ComponentProgress {
  type: 'component';
  /** E.g. `'unet'`. */
  component: string;
}

/** The last event: edits can begin. */
export interface ReadyProgress {
  type: 'ready';
}

/** What was loaded. */
export interface PipelineInfo {
  /** The Hub id, or the absolute URL. */
  model: string;
  /** The type in use for computing. */
  dtype: 'float16' | 'float32';
  /** The type the weights are kept in. */
  weightDtype: 'float16' | 'float32';
  /** The GPU, as the browser names it. */
  adapter: string;
  /** The model's own scheduler: the class name in diffusers. */
  scheduler: string;
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

/** What to edit, and how. */
export interface EditOptions {
  /**
   * The picture to edit, at least 8 by 8 pixels. Its size is rounded down to multiples of the
   * factor by which the model's VAE scales, 8 as a rule. Models like about 512 pixels best.
   */
  image: ImageSource;
  /** The instruction, e.g. `'make it snowy'`. Only the first 75 tokens count. */
  prompt: string;
  /**
   * What the result should not look like.
   * @default ''
   */
  negativePrompt?: string;
  /**
   * Denoising steps: at least 1. Twenty often do, and time grows with their number.
   * @default 100
   */
  numInferenceSteps?: number;
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
   * diffusers. A whole number; above `Number.MAX_SAFE_INTEGER` a `bigint`. Left out, one is drawn.
   */
  seed?: number | bigint;
  /**
   * The scheduler to use instead of the model's: a class name of diffusers, or the contents of a
   * `scheduler_config.json` with its `_class_name`.
   */
  scheduler?: SchedulerName | SchedulerConfig;
  /**
   * Noise that DDIM adds in each step, from 0 (none) to 1 (as DDPM). Other schedulers ignore it.
   * @default 0
   */
  eta?: number;
  /** The noise to start from, of unit variance, instead of one drawn from `seed`. */
  latents?: Tensor;
  /** Recorded scheduler noise, used in order instead of drawing: for comparisons with diffusers. */
  noises?: Tensor;
  /** Called after every step. Returning `false`, or throwing, stops the edit. */
  onStep?: (event: EditStep) => void | false;
  /** Stops the edit: the promise rejects at once with the signal's reason. */
  signal?: AbortSignal;
}

/** The schedulers implemented. */
export type SchedulerName = 'EulerAncestralDiscreteScheduler' | 'DDIMScheduler';

/** A scheduler with its settings, as diffusers' `scheduler_config.json` spells them. */
export interface SchedulerConfig {
  _class_name: SchedulerName;
  [setting: string]: unknown;
}

/** Numbers with a shape, row-major. */
export interface Tensor {
  data: Float32Array;
  /** E.g. `[1, 4, height / 8, width / 8]` for latents. */
  shape: number[];
}

/** What `onStep` is told. */
export interface EditStep {
  /** From 0. */
  step: number;
  /** How many there will be. */
  steps: number;
  /** The timestep in the diffusion, from about 1000 down to 0. */
  timestep: number;
  /** Milliseconds since this edit began. */
  elapsed: number;
}

/** An edited picture. */
export interface EditResult {
  /** One picture, opaque, in the size that the model worked at. */
  images: ImageData[];
  /** The seed used: the one given, or the one drawn. */
  seed: number | bigint;
  /**
   * Which pictures the safety checker found not safe for work; they are black. Absent unless the
   * model was loaded with `safetyChecker: true`.
   */
  nsfwContentDetected?: boolean[];
  /** What took how long. */
  timings: EditTimings;
  /** The latents before decoding. */
  latents: Tensor;
}

/** Milliseconds. */
export interface EditTimings {
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
  readonly name: 'InstructPix2PixError';
  readonly code: InstructPix2PixErrorCode;
  /** Whether the same call may succeed later: the connection broke off, the server was busy. */
  readonly retryable: boolean;
}

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
  /** `onStep` returned `false`. */
  | 'aborted'
  /** WebGPU needs https, or localhost. */
  | 'insecure-context'
  /** This browser has no WebGPU. */
  | 'no-webgpu'
  /** There is WebGPU, but no adapter for it. */
  | 'no-adapter'
  /** The GPU failed: lost, or out of memory. */
  | 'gpu'
  /** The engine could not be started, or it stopped after an internal error. */
  | 'engine'
  /** The pipeline has been disposed. */
  | 'disposed';
