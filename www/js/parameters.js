/**
 * What an edit was made with, as text: in PNG files and in links. Whatever is read was written by others.
 * Nothing in here knows a browser.
 *
 * @typedef {object} Parameters
 * @property {string} [prompt]
 * @property {string} [negativePrompt]
 * @property {number} [steps]
 * @property {number} [text] guidance
 * @property {number} [image] guidance
 * @property {string} [seed] a whole number of at most 64 bits, in digits
 * @property {string} [scheduler] a class of diffusers; empty for the model's own
 * @property {string} [model]
 * @property {string} [shape]
 * @property {number} [size]
 * @property {[source: string, weight: number][]} [loras] those that others can load too
 */

import { SCHEDULERS, SIZES } from './catalogue.js';

/** The keyword in PNG files. */
export const KEYWORD = 'instruct-pix2pix';

const text = (most) => (value) => typeof value === 'string' && value.length <= most;
const number = (least, most) => (value) =>
  Number.isFinite(value) && value >= least && value <= most;
const oneOf = (values) => (value) => values.includes(value);

const MAX_SEED = 2n ** 64n - 1n;

/** Addresses without a way to run something, and without passwords in them. */
function isModel(value) {
  return text(500)(value) && /^(https?:\/\/[^\s@]+|[\w./-]+)$/.test(value);
}

function isLora(value) {
  return (
    Array.isArray(value) && value.length === 2 && isModel(value[0]) && number(-10, 10)(value[1])
  );
}

function isSeed(value) {
  return typeof value === 'string' && /^[0-9]{1,20}$/.test(value) && BigInt(value) <= MAX_SEED;
}

/** @type {Record<string, (value: any) => boolean>} */
const FIELDS = {
  prompt: text(1000),
  negativePrompt: text(1000),
  steps: (value) => Number.isInteger(value) && value >= 1 && value <= 1000,
  text: number(0, 50),
  image: number(0, 50),
  seed: isSeed,
  scheduler: oneOf(['', ...Object.keys(SCHEDULERS)]),
  model: isModel,
  shape: oneOf(['original', 'square', 'landscape', 'portrait', 'whole']),
  size: oneOf(SIZES),
  loras: (value) => Array.isArray(value) && value.length <= 8 && value.every(isLora),
};

const NUMBERS = new Set(['steps', 'text', 'image', 'size']);

/** Only what is known, and valid. */
function checked(found) {
  const known = Object.entries(FIELDS).filter(([name, isValid]) => isValid(found[name]));
  return Object.fromEntries(known.map(([name]) => [name, found[name]]));
}

/** @param {Parameters} parameters */
export function toJson(parameters) {
  return JSON.stringify({ software: 'instruct-pix2pix-web', ...checked(parameters) });
}

/** @returns {Parameters | undefined} nothing where the text holds none */
export function fromJson(json) {
  try {
    const found = JSON.parse(json);
    if (found === null || typeof found !== 'object' || Array.isArray(found)) return undefined;
    const parameters = checked(found);
    return Object.keys(parameters).length > 0 ? parameters : undefined;
  } catch {
    return undefined;
  }
}

/** @param {Parameters} parameters @returns {string} what stands behind the `#` of a link */
export function toFragment(parameters) {
  const { loras = [], ...rest } = checked(parameters);
  const known = Object.entries(rest).filter(([, value]) => value !== '');
  known.push(...loras.map(([source, weight]) => ['lora', `${weight} ${source}`]));
  return new URLSearchParams(known).toString();
}

/** @param {string} fragment with the `#` or without @returns {Parameters | undefined} */
export function fromFragment(fragment) {
  const found = {};
  for (const [name, value] of new URLSearchParams(fragment.replace(/^#/, ''))) {
    if (name === 'lora') {
      const [weight, source] = value.split(' ');
      (found.loras ??= []).push([source, Number(weight)]);
      continue;
    }
    found[name] = NUMBERS.has(name) && value.trim() !== '' ? Number(value) : value;
  }
  const parameters = checked(found);
  return Object.keys(parameters).length > 0 ? parameters : undefined;
}

/** In a line for people. */
export function describe({ prompt, steps, text: guidance, image, seed, scheduler, loras = [] }) {
  const sampler = scheduler ? `, ${SCHEDULERS[scheduler]}` : '';
  const added = loras.map(([source, weight]) => `, LoRA ${source} at ${weight}`).join('');
  return `“${prompt}”, ${steps} ${steps === 1 ? 'step' : 'steps'}, text ${guidance}, image ${image}, seed ${seed}${sampler}${added}`;
}
