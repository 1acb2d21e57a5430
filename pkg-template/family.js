import * as known from './options.js';

const FILES = {
  vae: 'vae',
  textEncoder: 'text_encoder',
  tokenizer: 'tokenizer',
  unet: 'unet',
  scheduler: 'scheduler',
  safetyChecker: 'safety_checker',
  featureExtractor: 'feature_extractor',
};

/**
 * What differs between the classes of pipelines.
 *
 * @typedef {object} Family
 * @property {string} className what diffusers calls the class
 * @property {string} [wanted] the class that a model must be of; any where there is none
 * @property {Record<string, string>} files the components, as the constructor takes them, and their
 *   names in files
 * @property {string[]} optional the components that may be left out
 * @property {known.Options} constructs what the constructor takes
 * @property {known.Options} edit
 * @property {known.Options} encodePrompt
 * @property {known.Options} encodeImage
 * @property {known.Options} saveLora
 */

/** The safety checker, which the feature extractor comes with. */
export const CHECKER = ['safetyChecker', 'featureExtractor'];

/** Stable Diffusion 1.5. @type {Family} */
export const SD = {
  className: 'StableDiffusionInstructPix2PixPipeline',
  files: FILES,
  optional: CHECKER,
  constructs: known.COMPONENTS,
  edit: known.EDIT,
  encodePrompt: known.ENCODE_PROMPT,
  encodeImage: {},
  saveLora: known.SAVE_LORA,
};

const XL_CLASS = 'StableDiffusionXLInstructPix2PixPipeline';

/** Stable Diffusion XL. @type {Family} */
export const XL = {
  className: XL_CLASS,
  wanted: XL_CLASS,
  files: { ...FILES, textEncoder2: 'text_encoder_2', tokenizer2: 'tokenizer_2' },
  optional: [...CHECKER, 'textEncoder', 'tokenizer'],
  constructs: known.XL_COMPONENTS,
  edit: known.XL_EDIT,
  encodePrompt: known.XL_ENCODE_PROMPT,
  encodeImage: known.SIZE,
  saveLora: known.XL_SAVE_LORA,
};
