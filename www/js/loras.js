/** LoRAs that the user wants, brought into the pipeline before an edit. */

import { attempt, say } from './activity.js';
import { $, element, takeFiles } from './dom.js';

/** @type {{ name: string, title: string, source: string | Blob, weight: number }[]} */
let wanted = [];
let count = 0;

/** What each pipeline has: weights by the names of adapters. */
const present = new WeakMap();

export function initLoras() {
  $('add-lora').addEventListener('click', () => attempt(addTyped));
  $('lora-source').addEventListener('keydown', (event) => {
    if (event.key === 'Enter') attempt(addTyped);
  });
  $('choose-lora').addEventListener('click', () => $('lora-file').click());
  $('lora-file').addEventListener('change', () => {
    const [file] = takeFiles('lora-file');
    if (file) add(file.name, file);
  });
}

/**
 * Those that others can load too, with their weights, as parameters name them.
 *
 * @returns {[source: string, weight: number][]}
 */
export function shareableLoras() {
  const others = wanted.filter(({ source }) => typeof source === 'string');
  return others.map(({ source, weight }) => [source, weight]);
}

/** Puts these in the place of those that have names; files stay. @param {[source: string, weight: number][]} given */
export function setLoras(given) {
  const files = wanted.filter(({ source }) => typeof source !== 'string');
  const named = given.map(([source, weight]) => {
    const known = wanted.find((lora) => lora.source === source) ?? made(source, source);
    return { ...known, weight };
  });
  wanted = [...files, ...named];
  render();
}

async function addTyped() {
  const source = $('lora-source').value.trim();
  if (!source) {
    $('lora-source').focus();
    throw Object.assign(new Error('say which LoRA: a Hub id or a URL'), {
      code: 'invalid-argument',
    });
  }
  add(source, source);
  $('lora-source').value = '';
}

const made = (title, source) => ({ name: `lora_${count++}`, title, source, weight: 1 });

function add(title, source) {
  wanted.push(made(title, source));
  render();
  say(`${title} will be loaded with the next edit.`);
}

function render() {
  $('loras').replaceChildren(
    ...wanted.map((lora) => {
      const weight = element('input', {
        type: 'number',
        step: 'any',
        value: lora.weight,
        ariaLabel: `Weight of ${lora.title}`,
      });
      weight.addEventListener('change', () => (lora.weight = weight.valueAsNumber || 0));
      const remove = element(
        'button',
        { type: 'button', ariaLabel: `Remove ${lora.title}` },
        'Remove',
      );
      remove.addEventListener('click', () => {
        wanted = wanted.filter((each) => each !== lora);
        render();
        $('lora-source').focus();
      });
      return element('li', {}, element('span', { className: 'grow' }, lora.title), weight, remove);
    }),
  );
}

/**
 * Loads and removes what has changed since the last edit.
 *
 * @param {import('../pkg/index.js').InstructPix2Pix} pipe
 * @param {AbortSignal} signal
 */
export async function applyLoras(pipe, signal) {
  if (!present.has(pipe)) present.set(pipe, new Map());
  const there = present.get(pipe);
  const now = [...wanted];
  const gone = [...there.keys()].filter((name) => !now.some((lora) => lora.name === name));
  if (gone.length > 0) {
    await pipe.deleteAdapters(gone, { signal });
    gone.forEach((name) => there.delete(name));
  }
  let isNew = gone.length > 0;
  for (const { name, title, source } of now) {
    if (there.has(name)) continue;
    say(`Loading the LoRA ${title}…`);
    const { unusedKeys } = await pipe.loadLoraWeights(source, { adapterName: name, signal });
    there.set(name, undefined);
    isNew = true;
    if (unusedKeys.length > 0) console.warn(`${title}: ${unusedKeys.length} keys fit no layer`);
  }
  if (now.length === 0) return;
  isNew ||= now.some(({ name, weight }) => there.get(name) !== weight);
  if (!isNew) return;
  await pipe.setAdapters(
    now.map(({ name }) => name),
    now.map(({ weight }) => weight),
    { signal },
  );
  now.forEach(({ name, weight }) => there.set(name, weight));
}
