/** Which model, and what of models is on this machine. */

import { cache, InstructPix2Pix } from '../pkg/index.js';
import { attempt, run, say, warn } from './activity.js';
import { MODELS, modelOf } from './catalogue.js';
import { $, element, option, save, takeFiles } from './dom.js';
import { describeRoom } from './machine.js';
import { ago, bytes, speed } from './units.js';

/** The loaded model: `{ key, pipe }`. */
let loaded;
/** Models from the disk, by the value of their option: how each is opened. */
const local = new Map();
/** Tells of another choice. */
let tell;

/** @param {(model: import('./catalogue.js').Model) => void} onChoice */
export function initModels(onChoice) {
  tell = onChoice;
  $('model').append(...MODELS.map(({ id, name }) => option(id, name)), option('', 'another…'));
  $('model').addEventListener('change', choose);
  $('other').addEventListener('change', choose);
  $('kept').addEventListener('toggle', () => $('kept').open && attempt(listModels));
  $('fetch-model').addEventListener('click', fetchModel);
  const buttons = {
    import: 'import-file',
    'open-folder': 'folder-files',
    'open-checkpoint': 'checkpoint-file',
  };
  for (const [button, input] of Object.entries(buttons)) {
    $(button).addEventListener('click', () => $(input).click());
  }
  $('import-file').addEventListener('change', importArchive);
  $('folder-files').addEventListener('change', openFolder);
  $('checkpoint-file').addEventListener('change', openCheckpoint);
  showModel();
}

/** What is chosen: a Hub id or a URL; `undefined` for files. */
export function modelId() {
  const { value } = $('model');
  if (local.has(value)) return undefined;
  return value || $('other').value.trim();
}

/** What is known of the chosen model. */
export function chosenModel() {
  return modelOf(modelId() ?? '');
}

/** @param {string} id */
export function selectModel(id) {
  const isListed = [...$('model').options].some(({ value }) => value === id);
  $('model').value = isListed ? id : '';
  if (!isListed) $('other').value = id;
  choose();
}

function choose() {
  showModel();
  tell(chosenModel());
}

function showModel() {
  const isOther = $('model').value === '';
  $('other-field').hidden = !isOther;
  $('model-note').textContent = local.has($('model').value)
    ? 'From this disk, until you leave the page.'
    : chosenModel().note ||
      'A repository on the Hub, or the URL of a folder with the diffusers layout.';
}

/** What is chosen, files from the disk too. */
export function modelKey() {
  return $('model').value || $('other').value.trim();
}

/**
 * The pipeline of a model, which is loaded if it is not.
 *
 * @param {string} key
 * @param {AbortSignal} signal
 */
export async function load(key, signal) {
  if (key === '') {
    $('other').focus();
    throw Object.assign(new Error('say which model: a Hub id or a URL'), {
      code: 'invalid-argument',
    });
  }
  if (loaded?.key === key) return loaded.pipe;
  await unload();
  say('Starting…');
  const start = performance.now();
  const open = local.get(key) ?? ((options) => InstructPix2Pix.fromPretrained(key, options));
  const pipe = await open({ signal, onProgress: showProgress });
  performance.measure('load', { start });
  loaded = { key, pipe };
  if ($('kept').open) listModels().catch(() => {});
  return pipe;
}

/** Frees the model. */
export async function unload() {
  const { pipe } = loaded ?? {};
  loaded = undefined;
  await pipe?.dispose();
}

/** Forgets what did not survive an error; the next edit loads the model again. */
export async function forgetBroken({ code }) {
  if (code === 'engine' || code === 'gpu') await unload();
}

/** @param {import('../pkg/index.js').LoadProgress} event */
function showProgress(event) {
  if (event.type === 'download') {
    const { component, loaded, total } = event;
    const share = `${bytes(loaded)} of ${bytes(total)} (${component})`;
    say(`Loading the model: ${share}${speed(event)}`, loaded / total);
  } else if (event.type === 'component') {
    say(`Loading the model: ${event.component} is on the GPU`, $('progress').value);
  } else if (event.type === 'waiting') {
    say('Another tab is downloading this model; waiting for it…');
  } else if (event.type === 'warning') {
    const offline = 'The model’s server cannot be reached, or has it no more: what is on this machine is used.';
    warn(event.code === 'offline' ? offline : event.message);
  }
}

/** A model of this page's own folder as the list names it; others as they are called. */
function shortName(model) {
  const here = new URL('./', document.baseURI).href;
  return model.startsWith(here) ? `./${model.slice(here.length)}` : model;
}

/** Counts calls, so that of two that overlap the later one wins. */
let listing = 0;

/** The models that are kept, with what can be done to each. */
export async function listModels() {
  const mine = ++listing;
  const [models, room] = await Promise.all([cache.list(), describeRoom()]);
  if (mine !== listing) return;
  $('room').textContent = `${room} ${models.length === 0 ? 'No model is kept yet.' : ''}`;
  $('models').replaceChildren(
    ...models.map(({ model, bytes: size, complete, lastUsed }) => {
      const id = shortName(model);
      const state = complete ? '' : ', not complete: choose it and press Edit to go on';
      const button = (text, act) => {
        const made = element('button', { type: 'button', ariaLabel: `${text} ${id}` }, text);
        made.addEventListener('click', () => attempt(act));
        return made;
      };
      return element(
        'li',
        {},
        element(
          'span',
          { className: 'grow' },
          `${id}: ${bytes(size)}${state}, used ${ago(lastUsed)}`,
        ),
        button('Use', async () => {
          selectModel(id);
          $('model').focus();
        }),
        button('Export', async () => {
          say('Packing the model…');
          save(await cache.export(model), `${id.replace(/[^\w.-]+/g, '-')}.tar`);
          say('The archive is ready.');
        }),
        button('Delete', async () => {
          await cache.delete(model);
          await listModels();
          say(`${id} is deleted from this machine.`);
          $('kept').querySelector('summary').focus();
        }),
      );
    }),
  );
}

function fetchModel() {
  const id = modelId();
  return run(async (signal) => {
    if (!id)
      throw Object.assign(new Error('a model from the disk is there already'), {
        code: 'invalid-argument',
      });
    await InstructPix2Pix.download(id, { signal, onProgress: showProgress });
    await listModels();
    say('The model is on this machine, and works offline.');
  });
}

function importArchive() {
  const [file] = takeFiles('import-file');
  if (!file) return;
  run(async (signal) => {
    say('Importing the model…');
    const id = shortName(await cache.import(file, { signal }));
    await listModels();
    selectModel(id);
    say(`${id} is imported.`);
  });
}

function openFolder() {
  const files = takeFiles('folder-files');
  if (files.length === 0) return;
  const name = files[0].webkitRelativePath.split('/')[0] || 'folder';
  addLocal(name, (options) => InstructPix2Pix.fromPretrained(files, options));
}

function openCheckpoint() {
  const [file] = takeFiles('checkpoint-file');
  if (file) addLocal(file.name, (options) => InstructPix2Pix.fromSingleFile(file, options));
}

function addLocal(name, open) {
  const value = `disk:${local.size}`;
  local.set(value, open);
  $('model').add(option(value, `${name}, from this disk`), $('model').options.length - 1);
  $('model').value = value;
  choose();
  say('Press Edit to load it.');
}
