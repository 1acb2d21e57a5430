import { InstructPix2PixError } from './errors.js';

/**
 * The options that go to the engine, and their types. The engine checks the values; it would not
 * notice a misspelt name.
 *
 * @typedef {Record<string, string[]>} Options
 */

/** @type {Options} */
export const LOAD_OPTIONS = {
  revision: ['string'],
  endpoint: ['string'],
  token: ['string'],
  dtype: ['string'],
  weightDtype: ['string'],
  safetyChecker: ['boolean'],
};

/** @type {Options} */
export const EDIT_OPTIONS = {
  prompt: ['string'],
  negativePrompt: ['string'],
  numInferenceSteps: ['number'],
  guidanceScale: ['number'],
  imageGuidanceScale: ['number'],
  seed: ['number', 'bigint'],
  scheduler: ['string', 'object'],
  eta: ['number'],
  latents: ['object'],
  noises: ['object'],
};

/**
 * @param {Record<string, unknown>} options
 * @param {Options} known
 */
export function checkOptions(options, known) {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) {
      throw new InstructPix2PixError('invalid-argument', `${name}: there is no such option`);
    }
    if (value != null && !known[name].includes(typeof value)) {
      throw new InstructPix2PixError(
        'invalid-argument',
        `${name}: expected a ${known[name].join(' or ')}, found a ${typeof value}`,
      );
    }
  }
}
