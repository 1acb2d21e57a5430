/** The settings of an edit: sliders, seed, presets. */

import { isRunning, say } from './activity.js';
import { draw, SCHEDULERS } from './catalogue.js';
import { crop, setCrop } from './crop.js';
import { $, memory, option } from './dom.js';
import { showExamples } from './examples.js';
import { setLoras } from './loras.js';
import { chosenModel, modelId, selectModel } from './models.js';
import { VARIANTS } from './variants.js';

/** Numbers with sliders, and the names of their parameters. */
const SLIDERS = { steps: 'steps', guidance: 'text', 'image-guidance': 'image' };

const NAME = 'instruct-pix2pix-settings';

export function initSettings() {
  $('scheduler').append(...Object.entries(SCHEDULERS).map(([id, name]) => option(id, name)));
  $('variants').append(...Object.entries(VARIANTS).map(([id, name]) => option(id, name)));
  // Keys that are whole numbers come first in objects, which is right here.
  $('variants').value = '1';
  for (const id of Object.keys(SLIDERS)) {
    const [number, slider] = [$(id), $(`${id}-range`)];
    slider.addEventListener('input', () => {
      number.value = slider.value;
      changed();
    });
    number.addEventListener('input', () => {
      slider.value = number.value;
      changed();
    });
  }
  $('seed').addEventListener('input', () => {
    $('random-seed').checked = $('seed').value === '';
    changed();
  });
  for (const id of ['random-seed', 'random-guidance', 'scheduler', 'negative', 'prompt']) {
    $(id).addEventListener('change', changed);
  }
  for (const button of $('presets').children) {
    button.addEventListener('click', () => applyPreset(button.dataset.preset));
  }
  $('reset').addEventListener('click', reset);
}

function setNumber(id, value) {
  $(id).value = value;
  $(`${id}-range`).value = value;
}

function changed() {
  showPreset();
  memory.set(NAME, { ...read(), randomGuidance: $('random-guidance').checked });
}

/** Writes down what is set, after something else has changed it. */
export const remember = changed;

/** Sets what suits a model: size, shape, guidance, where the sliders end, and offers its examples. */
export function suit(model) {
  const { guidance, most, random, size, shape, examples } = model;
  $('guidance-range').max = most.text;
  $('image-guidance-range').max = most.image;
  setNumber('guidance', guidance.text);
  setNumber('image-guidance', guidance.image);
  setCrop({ size, shape });
  showExamples(examples);
  $('random-ranges').textContent =
    `(text ${random.text.join(' to ')}, image ${random.image.join(' to ')})`;
  applyPreset('balanced');
}

function applyPreset(name) {
  const { guidance, presets } = chosenModel();
  setNumber('steps', presets[name].steps);
  setNumber('guidance', guidance.text);
  setNumber('image-guidance', guidance.image);
  $('scheduler').value = presets[name].scheduler ?? '';
  changed();
}

/** All as the model has it at first; the instruction stays. */
function reset() {
  $('seed').value = '';
  $('random-seed').checked = true;
  $('random-guidance').checked = false;
  $('negative').value = '';
  $('variants').value = '1';
  setCrop({ zoom: 1, x: 0.5, y: 0.5 });
  suit(chosenModel());
  if (!isRunning()) say('The settings are as they were at first.');
}

/** Marks the preset that is set, if one is. */
function showPreset() {
  const { guidance, presets } = chosenModel();
  for (const button of $('presets').children) {
    const { steps, scheduler = '' } = presets[button.dataset.preset];
    const isSet =
      $('steps').valueAsNumber === steps &&
      $('scheduler').value === scheduler &&
      $('guidance').valueAsNumber === guidance.text &&
      $('image-guidance').valueAsNumber === guidance.image;
    button.setAttribute('aria-pressed', isSet);
  }
}

/** What is set now. @returns {import('./parameters.js').Parameters} */
export function read() {
  const { shape, size } = crop();
  return {
    prompt: $('prompt').value,
    negativePrompt: $('negative').value,
    steps: $('steps').valueAsNumber,
    text: $('guidance').valueAsNumber,
    image: $('image-guidance').valueAsNumber,
    seed: $('random-seed').checked ? undefined : $('seed').value || undefined,
    scheduler: $('scheduler').value,
    model: modelId(),
    shape,
    size,
  };
}

/** What the next edit is made with: what is random is drawn, and shown. */
export function drawn() {
  const { random } = chosenModel();
  if ($('random-seed').checked || $('seed').value === '') {
    $('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0] >>> 1);
  }
  if ($('random-guidance').checked) {
    setNumber('guidance', draw(random.text));
    setNumber('image-guidance', draw(random.image));
  }
  changed();
  return { ...read(), seed: $('seed').value };
}

/** Puts parameters into the form, as far as there are any. @param {import('./parameters.js').Parameters} given */
export function apply(given) {
  const { model, prompt, negativePrompt, steps, text, image, seed, scheduler, shape, size } = given;
  if (model !== undefined && model !== modelId()) selectModel(model);
  if (given.loras !== undefined) setLoras(given.loras);
  if (prompt !== undefined) $('prompt').value = prompt;
  if (negativePrompt !== undefined) $('negative').value = negativePrompt;
  if (steps !== undefined) setNumber('steps', steps);
  if (text !== undefined) setNumber('guidance', text);
  if (image !== undefined) setNumber('image-guidance', image);
  if (scheduler !== undefined) $('scheduler').value = scheduler;
  if (seed !== undefined) {
    $('seed').value = seed;
    $('random-seed').checked = false;
  }
  if (text !== undefined || image !== undefined) $('random-guidance').checked = false;
  setCrop({ shape, size });
  changed();
}

/** The settings of the last visit. */
export function remembered() {
  const found = memory.get(NAME);
  return found && typeof found === 'object' ? found : undefined;
}
