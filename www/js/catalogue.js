/** The models that the page offers, and what suits each. Nothing in here knows a browser. */

/** Sides that pictures are brought to, pixels. */
export const SIZES = [64, 128, 192, 256, 384, 512, 640, 768, 1024];

/** What the original project suggests. */
const ORIGINAL = { text: 7.5, image: 1.5 };

/**
 * Instructions to try, from the built-in model's repertoire.
 */
const BUILT_IN_EXAMPLES = [
  'make it black and white',
  'make it night',
  'add snow',
  'turn it into a pencil sketch',
  'make it look like an old photograph',
  'make it sunset',
  'invert the colours',
  'add fog',
  'turn the green things red',
  'pixel art',
  'make it rain',
  'mirror it',
];

const EXAMPLES = [
  'make it snowy',
  'turn it into an oil painting',
  'make it look like an anime',
  'as if it were a bronze statue',
  'turn the cat into a tiger',
  'add dramatic lighting',
  'put it on a beach',
  'make it a pencil sketch',
  'give him a leather jacket',
  'swap sunflowers with roses',
];

/**
 * @typedef {object} Model
 * @property {string} id as `fromPretrained` takes it
 * @property {string} name in the list
 * @property {string} note one or two sentences on it
 * @property {number} size the side that suits it, pixels
 * @property {string} shape see fit.js
 * @property {{ text: number, image: number }} guidance
 * @property {{ text: [number, number], image: [number, number] }} random ranges to draw guidance from
 * @property {{ text: number, image: number }} most where the sliders end
 * @property {Record<'fast' | 'balanced' | 'original', { steps: number, scheduler?: string }>} presets
 * @property {string[]} examples
 * @property {{ factors: number[][], bias: number[] }} [colours] for previews
 */

const STABLE_DIFFUSION = {
  size: 512,
  shape: 'original',
  guidance: ORIGINAL,
  random: { text: [6, 9], image: [1.2, 1.8] },
  most: { text: 15, image: 3 },
  presets: {
    fast: { steps: 10, scheduler: 'DPMSolverMultistepScheduler' },
    balanced: { steps: 20 },
    original: { steps: 100, scheduler: 'EulerAncestralDiscreteScheduler' },
  },
  examples: EXAMPLES,
};

/** For models that nothing is known of. */
export const UNKNOWN = STABLE_DIFFUSION;

/** @type {Model[]} */
export const MODELS = [
  {
    ...STABLE_DIFFUSION,
    id: './models/built-in',
    name: 'Built-in (27.6 MB, small pictures)',
    note:
      'A small model that comes with this page. It knows 22 edits, of light, colour, weather and style, ' +
      'at 128 × 128 pixels, and runs without a graphics chip too. It adds no new things.',
    size: 128,
    shape: 'square',
    // These five are those of its defaults.json, as a test makes sure.
    guidance: { text: 1.25, image: 1.1 },
    colours: {
      factors: [
        [0.0374, -0.0109, -0.0479],
        [-0.0659, 0, 0.1107],
        [-0.013, 0.0196, 0.102],
        [-0.1927, -0.2052, -0.1884],
      ],
      bias: [0.4598, 0.4514, 0.4225],
    },
    random: { text: [1.1, 2.5], image: [1, 2] },
    most: { text: 4, image: 3 },
    presets: { fast: { steps: 6 }, balanced: { steps: 12 }, original: { steps: 100 } },
    examples: BUILT_IN_EXAMPLES,
  },
  {
    ...STABLE_DIFFUSION,
    id: 'timbrooks/instruct-pix2pix',
    name: 'InstructPix2Pix (2.1 GB, the original)',
    note:
      'The original, from the Hugging Face Hub: a download of 2.1 GB, once. It wants a graphics chip ' +
      'with about 4 GB of memory.',
  },
  {
    ...STABLE_DIFFUSION,
    id: 'diffusers/sdxl-instructpix2pix-768',
    name: 'InstructPix2Pix XL (12.3 GB, 768 pixels)',
    note:
      'A larger one, from the Hugging Face Hub: a download of 12.3 GB. It wants a graphics chip with ' +
      'about 8 GB of memory.',
    size: 768,
    guidance: { text: 5, image: 1.5 },
    random: { text: [4, 6], image: [1.2, 1.8] },
    presets: {
      fast: { steps: 15, scheduler: 'DPMSolverMultistepScheduler' },
      balanced: { steps: 30 },
      original: { steps: 100, scheduler: 'EulerDiscreteScheduler' },
    },
  },
  {
    ...STABLE_DIFFUSION,
    id: './models/tiny-random',
    name: 'tiny (random weights, for a smoke test)',
    note:
      'Random weights, to see whether everything works: the result is noise. Pictures are scaled down ' +
      'to at most 64 pixels.',
    size: 64,
    shape: 'whole',
    presets: { fast: { steps: 3 }, balanced: { steps: 10 }, original: { steps: 100 } },
  },
];

/** What to know of a model by its name. */
export function modelOf(id) {
  const known = MODELS.find((model) => model.id === id);
  return known ?? { ...UNKNOWN, id, name: id, note: '' };
}

/** Class names of diffusers, and what people call them. */
export const SCHEDULERS = {
  EulerAncestralDiscreteScheduler: 'Euler ancestral',
  EulerDiscreteScheduler: 'Euler',
  DDIMScheduler: 'DDIM',
  DDPMScheduler: 'DDPM',
  DPMSolverMultistepScheduler: 'DPM-Solver++, multistep',
  DPMSolverSinglestepScheduler: 'DPM-Solver++, single step',
  UniPCMultistepScheduler: 'UniPC',
  DEISMultistepScheduler: 'DEIS',
  HeunDiscreteScheduler: 'Heun (two passes a step)',
  KDPM2DiscreteScheduler: 'KDPM2 (two passes a step)',
  KDPM2AncestralDiscreteScheduler: 'KDPM2 ancestral (two passes a step)',
  LMSDiscreteScheduler: 'LMS',
  PNDMScheduler: 'PNDM',
  LCMScheduler: 'LCM (for models made for it)',
  TCDScheduler: 'TCD (for models made for it)',
  EDMEulerScheduler: 'EDM Euler (for models made for it)',
};

/**
 * A number between two, in hundredths, as the original's "Randomize CFG" draws it.
 *
 * @param {[number, number]} range
 * @param {() => number} [random]
 */
export function draw([from, to], random = Math.random) {
  return Math.round((from + (to - from) * random()) * 100) / 100;
}
