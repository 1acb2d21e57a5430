import { InstructPix2PixError } from './errors.js';

/**
 * The options that go to the engine, and their types. The engine checks the values; it would not
 * notice a misspelt name.
 *
 * @typedef {Record<string, string[]>} Options
 */

const STRING = ['string'];
const NUMBER = ['number'];
const TENSOR = ['tensor'];
const LIST = ['array'];
const TEXTS = ['string', 'array'];
const SEEDS = ['number', 'bigint', 'array'];

/** How something is read, and kept. @type {Options} */
const READING = {
  revision: STRING,
  endpoint: STRING,
  token: STRING,
  localFilesOnly: ['boolean'],
  forceDownload: ['boolean'],
  resumeDownload: ['boolean'],
  cache: ['boolean', 'object'],
  cacheLimit: NUMBER,
  fetch: ['function'],
  stallTimeout: NUMBER,
  rangeBytes: NUMBER,
};

/** Where a component is read from. @type {Options} */
export const SOURCE = { ...READING, model: ['string', 'object'], subfolder: STRING };

/** @type {Options} */
export const DOWNLOAD = {
  ...READING,
  cache: ['object'],
  weightDtype: STRING,
  safetyChecker: ['boolean'],
};

/** @type {Options} */
export const SAFETY_CHECKER = { safetyChecker: ['boolean', 'function'] };

/** @type {Options} */
export const LOAD = {
  ...DOWNLOAD,
  dtype: STRING,
  memoryBudget: NUMBER,
  cache: ['boolean', 'object'],
  safetyChecker: ['boolean', 'function', 'object'],
  requiresSafetyChecker: ['boolean'],
  shareWith: ['object'],
  vae: ['object'],
  textEncoder: ['object'],
  textEncoder2: ['object'],
  tokenizer: ['object'],
  tokenizer2: ['object'],
  unet: ['object'],
  scheduler: ['object', 'string'],
  featureExtractor: ['object'],
  forceZerosForEmptyPrompt: ['boolean'],
  isCosxlEdit: ['boolean'],
  addWatermarker: ['boolean'],
  singleFile: STRING,
  config: STRING,
};

/** @type {Options} */
export const COMPONENTS = {
  vae: ['object'],
  textEncoder: ['object'],
  tokenizer: ['object'],
  unet: ['object'],
  scheduler: ['object', 'string'],
  safetyChecker: ['object', 'function'],
  featureExtractor: ['object'],
  requiresSafetyChecker: ['boolean'],
};

/** @type {Options} */
export const XL_COMPONENTS = {
  vae: ['object'],
  textEncoder: ['object'],
  textEncoder2: ['object'],
  tokenizer: ['object'],
  tokenizer2: ['object'],
  unet: ['object'],
  scheduler: ['object', 'string'],
  forceZerosForEmptyPrompt: ['boolean'],
  isCosxlEdit: ['boolean'],
  addWatermarker: ['boolean'],
  safetyChecker: ['object', 'function'],
  featureExtractor: ['object'],
};

/** @type {Options} */
const PROMPTS = {
  prompt: TEXTS,
  negativePrompt: TEXTS,
  promptEmbeds: TENSOR,
  negativePromptEmbeds: TENSOR,
  numImagesPerPrompt: NUMBER,
};

/** @type {Options} */
const XL_PROMPTS = {
  ...PROMPTS,
  prompt2: TEXTS,
  negativePrompt2: TEXTS,
  pooledPromptEmbeds: TENSOR,
  negativePooledPromptEmbeds: TENSOR,
};

/** @type {Options} */
export const ENCODE_PROMPT = { ...PROMPTS, doClassifierFreeGuidance: ['boolean'] };

/** @type {Options} */
export const XL_ENCODE_PROMPT = {
  ...XL_PROMPTS,
  doClassifierFreeGuidance: ['boolean'],
  loraScale: NUMBER,
};

/** @type {Options} */
export const XL_SIZE = { height: NUMBER, width: NUMBER };

/** @type {Options} */
export const EDIT = {
  ...PROMPTS,
  image: ['string', 'object', 'tensor', 'array'],
  numInferenceSteps: NUMBER,
  timesteps: LIST,
  sigmas: LIST,
  guidanceScale: NUMBER,
  imageGuidanceScale: NUMBER,
  eta: NUMBER,
  seed: SEEDS,
  generator: SEEDS,
  scheduler: ['string', 'object'],
  latents: TENSOR,
  noises: TENSOR,
  outputType: STRING,
  returnDict: ['boolean'],
  onStepTensorInputs: LIST,
  crossAttentionKwargs: ['object'],
  callback: ['function'],
  callbackSteps: NUMBER,
};

/** @type {Options} */
export const XL_EDIT = {
  ...EDIT,
  ...XL_PROMPTS,
  ...XL_SIZE,
  denoisingEnd: NUMBER,
  guidanceRescale: NUMBER,
  originalSize: LIST,
  cropsCoordsTopLeft: LIST,
  targetSize: LIST,
  aestheticScore: NUMBER,
  negativeAestheticScore: NUMBER,
};

/** @type {Options} */
export const CROSS_ATTENTION = { scale: NUMBER };

/** @type {Options} */
export const FREE_U = { s1: NUMBER, s2: NUMBER, b1: NUMBER, b2: NUMBER };

/** @type {Options} */
const ADAPTER_SOURCE = { ...READING, weightName: STRING, subfolder: STRING };

/** @type {Options} */
export const LORA = { ...ADAPTER_SOURCE, adapterName: STRING };

/** `token` is the word here, as in diffusers. @type {Options} */
export const TEXTUAL_INVERSION = {
  ...ADAPTER_SOURCE,
  token: TEXTS,
  hfToken: STRING,
  textEncoder: ['string', 'object'],
  tokenizer: ['string', 'object'],
};

/** @type {Options} */
export const ADAPTERS = { adapterNames: TEXTS, adapterWeights: ['number', 'array'] };

/** @type {Options} */
export const FUSE = { loraScale: NUMBER, adapterNames: LIST };

/** @type {Options} */
export const SAVE_LORA = {
  adapterName: STRING,
  unetLoraLayers: ['object'],
  textEncoderLoraLayers: ['object'],
  weightName: STRING,
  safeSerialization: ['boolean'],
  saveFunction: ['function'],
  saveDirectory: ['object'],
};

/** @type {Options} */
export const XL_SAVE_LORA = { ...SAVE_LORA, textEncoder2LoraLayers: ['object'] };

/**
 * @param {Record<string, unknown>} options
 * @param {Options} known
 */
export function check(options, known) {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) {
      throw new InstructPix2PixError('invalid-argument', `${name}: there is no such option`);
    }
    if (value != null && !known[name].includes(typeOf(value))) {
      throw new InstructPix2PixError(
        'invalid-argument',
        `${name}: expected a ${known[name].join(' or ')}, found a ${typeOf(value)}`,
      );
    }
  }
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
      throw new InstructPix2PixError(
        'invalid-argument',
        `onStep: it returned \`${name}\`, which is none of ${STEP_TENSORS.join(', ')}`,
      );
    }
    if (value == null) continue;
    check({ [name]: value }, { [name]: TENSOR });
    tensors[name] = value;
  }
  return tensors;
}
