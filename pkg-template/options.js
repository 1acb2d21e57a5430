import { invalid } from './errors.js';

/**
 * The options that go to the engine, and their types. The engine checks the values; it would not
 * notice a misspelt name.
 *
 * @typedef {Record<string, string[]>} Options
 */

const STRING = ['string'];
const BOOLEAN = ['boolean'];
const OBJECT = ['object'];
const NUMBER = ['number'];
const TENSOR = ['tensor'];
const LIST = ['array'];
const PLACE = ['string', 'object'];
const TEXTS = ['string', 'array'];
const SEEDS = ['number', 'bigint', 'array'];
const KEPT = ['boolean', 'object'];

/** How something is read, and kept. */
const READING = {
  revision: STRING,
  endpoint: STRING,
  token: STRING,
  localFilesOnly: BOOLEAN,
  forceDownload: BOOLEAN,
  resumeDownload: BOOLEAN,
  cacheLimit: NUMBER,
  stallTimeout: NUMBER,
  rangeBytes: NUMBER,
  parallel: NUMBER,
  cache: KEPT,
  fetch: ['function'],
};

/** Where a component is read from. */
export const SOURCE = { ...READING, model: PLACE, subfolder: STRING };

/** Where an application keeps the package's files. */
const SITE = { workerUrl: PLACE, wasmUrl: PLACE };

/** What becomes of an edit that is asked for while another one runs. */
export const BUSY_POLICIES = ['queue', 'reject', 'replace'];

const COMPUTING = { dtype: STRING, weightDtype: STRING, memoryBudget: NUMBER };

export const DOWNLOAD = {
  ...READING,
  ...SITE,
  cache: OBJECT,
  weightDtype: STRING,
  safetyChecker: BOOLEAN,
};

export const REQUIREMENTS = { ...DOWNLOAD, ...COMPUTING, cache: KEPT };

/** Those that `env` may hold. */
export const ENV = { ...READING, ...SITE, ...COMPUTING, busyPolicy: STRING, logLevel: STRING };

/** What a call about the cache takes. */
export const CACHE = { ...SITE, cache: OBJECT };

export const SAFETY_CHECKER = { safetyChecker: ['boolean', 'function'] };

/** What both constructors take. */
const PARTS = {
  vae: OBJECT,
  textEncoder: OBJECT,
  tokenizer: OBJECT,
  unet: OBJECT,
  featureExtractor: OBJECT,
  scheduler: PLACE,
  safetyChecker: ['object', 'function'],
  busyPolicy: STRING,
};

export const COMPONENTS = { ...PARTS, requiresSafetyChecker: BOOLEAN };

/** What only SDXL has. */
const XL_SETTINGS = {
  textEncoder2: OBJECT,
  tokenizer2: OBJECT,
  forceZerosForEmptyPrompt: BOOLEAN,
  isCosxlEdit: BOOLEAN,
  addWatermarker: BOOLEAN,
};

export const XL_COMPONENTS = { ...PARTS, ...XL_SETTINGS };

export const LOAD = {
  ...REQUIREMENTS,
  ...COMPONENTS,
  ...XL_SETTINGS,
  shareWith: OBJECT,
  prompt: TEXTS,
  negativePrompt: TEXTS,
  singleFile: STRING,
  config: STRING,
  safetyChecker: ['boolean', 'function', 'object'],
};

const PROMPTS = {
  prompt: TEXTS,
  negativePrompt: TEXTS,
  promptEmbeds: TENSOR,
  negativePromptEmbeds: TENSOR,
  numImagesPerPrompt: NUMBER,
};

const XL_PROMPTS = {
  ...PROMPTS,
  prompt2: TEXTS,
  negativePrompt2: TEXTS,
  pooledPromptEmbeds: TENSOR,
  negativePooledPromptEmbeds: TENSOR,
};

export const ENCODE_PROMPT = { ...PROMPTS, doClassifierFreeGuidance: BOOLEAN };

export const XL_ENCODE_PROMPT = {
  ...XL_PROMPTS,
  doClassifierFreeGuidance: BOOLEAN,
  loraScale: NUMBER,
};

export const SIZE = { height: NUMBER, width: NUMBER };

export const EDIT = {
  ...PROMPTS,
  numInferenceSteps: NUMBER,
  guidanceScale: NUMBER,
  imageGuidanceScale: NUMBER,
  eta: NUMBER,
  seed: SEEDS,
  generator: SEEDS,
  timesteps: LIST,
  sigmas: LIST,
  onStepTensorInputs: LIST,
  latents: TENSOR,
  noises: TENSOR,
  outputType: STRING,
  busyPolicy: STRING,
  image: ['string', 'object', 'tensor', 'array'],
  scheduler: PLACE,
  returnDict: BOOLEAN,
  crossAttentionKwargs: OBJECT,
  callback: ['function'],
  callbackSteps: NUMBER,
};

export const XL_EDIT = {
  ...EDIT,
  ...XL_PROMPTS,
  ...SIZE,
  denoisingEnd: NUMBER,
  guidanceRescale: NUMBER,
  originalSize: LIST,
  cropsCoordsTopLeft: LIST,
  targetSize: LIST,
  aestheticScore: NUMBER,
  negativeAestheticScore: NUMBER,
};

export const CROSS_ATTENTION = { scale: NUMBER };

export const FREE_U = { s1: NUMBER, s2: NUMBER, b1: NUMBER, b2: NUMBER };

const ADAPTER_SOURCE = { ...READING, weightName: STRING, subfolder: STRING };

export const LORA = { ...ADAPTER_SOURCE, adapterName: STRING };

/** `token` is the word here, as in diffusers. */
export const TEXTUAL_INVERSION = {
  ...ADAPTER_SOURCE,
  hfToken: STRING,
  textEncoder: PLACE,
  tokenizer: PLACE,
  token: TEXTS,
};

export const ADAPTERS = { adapterNames: TEXTS, adapterWeights: ['number', 'object', 'array'] };

export const FUSE = { loraScale: NUMBER, adapterNames: LIST };

export const SAVE_LORA = {
  adapterName: STRING,
  weightName: STRING,
  unetLoraLayers: OBJECT,
  textEncoderLoraLayers: OBJECT,
  saveDirectory: OBJECT,
  safeSerialization: BOOLEAN,
  saveFunction: ['function'],
};

export const XL_SAVE_LORA = { ...SAVE_LORA, textEncoder2LoraLayers: OBJECT };

/**
 * @param {Record<string, unknown>} options
 * @param {Options} known
 */
export function check(options, known) {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) {
      throw invalid(`${name}: there is no such option`);
    }
    if (value != null && !known[name].includes(typeOf(value))) {
      throw invalid(`${name}: expected a ${known[name].join(' or ')}, found a ${typeOf(value)}`);
    }
  }
}

/**
 * @param {string} name
 * @param {unknown} value one of `values`, or nothing
 * @param {string[]} values
 */
export function oneOf(name, value, values) {
  if (value == null || values.includes(value)) return;
  throw invalid(`${name}: ${JSON.stringify(value)} is none of ${values.join(', ')}`);
}

/** The type of a value; arrays and `{ data: Float32Array, shape: number[] }` are types of their own. */
function typeOf(value) {
  if (Array.isArray(value)) return 'array';
  return isTensor(value) ? 'tensor' : typeof value;
}

/** @param {any} value */
export function isTensor(value) {
  return value?.data instanceof Float32Array && Array.isArray(value.shape);
}

/** The tensors that `onStep` may give back. */
const STEP_TENSORS = ['latents', 'promptEmbeds', 'imageLatents'];

/**
 * What an `onStep` callback returned, without what is of no concern to the engine.
 *
 * @param {any} returned
 */
export function stepTensors(returned) {
  if (returned === null || typeof returned !== 'object') return returned === false ? false : undefined;
  const tensors = {};
  for (const [name, value] of Object.entries(returned)) {
    if (!STEP_TENSORS.includes(name)) {
      throw invalid(`onStep: it returned \`${name}\`, which is none of ${STEP_TENSORS.join(', ')}`);
    }
    if (value == null) continue;
    check({ [name]: value }, { [name]: TENSOR });
    tensors[name] = value;
  }
  return tensors;
}
