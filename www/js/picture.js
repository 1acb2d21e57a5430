/** The picture to edit: where it comes from, and what of it the model gets. */

import { InstructPix2PixError } from '../pkg/index.js';
import { attempt, say } from './activity.js';
import { crop, setPicture, target } from './crop.js';
import { $, element, showImage, takeFiles } from './dom.js';
import { isCropped } from './fit.js';
import { fromJson, KEYWORD } from './parameters.js';
import { isPng, readText } from './png.js';
import { keepPicture } from './store.js';

const SAMPLES = [
  ['chelsea.jpg', 'a cat'],
  ['cow.jpg', 'a cow on a meadow'],
  ['macaw.jpg', 'a macaw'],
  ['machu-picchu.jpg', 'Machu Picchu'],
];

/**
 * The chosen picture.
 *
 * @type {{ blob: Blob, key: string, width: number, height: number } | undefined}
 */
let picture;
/** Resolves when the picture chosen last has been read. */
let choosing;
/** How many were chosen, or called for by the history. */
let choices = 0;
/** Tells of a picture that was chosen, and of the parameters in it. */
let tell;

let worker;
let lastCall = 0;
const calls = new Map();

/** @param {'open' | 'fit'} action */
function ask(action, argument) {
  worker ??= startWorker();
  return new Promise((resolve, reject) => {
    calls.set(++lastCall, { resolve, reject });
    worker.postMessage({ id: lastCall, action, argument });
  });
}

function startWorker() {
  const started = new Worker(new URL('./picture-worker.js', import.meta.url), { type: 'module' });
  started.addEventListener('message', ({ data: { id, value, error } }) => {
    const { resolve, reject } = calls.get(id);
    calls.delete(id);
    if (error === undefined) resolve(value);
    else reject(new Error(error));
  });
  started.addEventListener('error', loseWorker);
  started.addEventListener('messageerror', loseWorker);
  return started;
}

/** Its script did not arrive, or it broke; the next call starts another. */
function loseWorker() {
  worker?.terminate();
  worker = undefined;
  const message = 'the part of this page that reads pictures did not start';
  const error = new InstructPix2PixError('network', message, { retryable: true });
  for (const { reject } of calls.values()) reject(error);
  calls.clear();
}

/** @param {(chosen: { key: string, parameters?: object }) => void} onChosen */
export function initPicture(onChosen) {
  tell = onChosen;
  $('choose').addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => choose(takeFiles('file')[0]));
  for (const [name, alt] of SAMPLES) {
    const image = element('img', {
      src: `samples/${name}`,
      alt: `Sample photo: ${alt}`,
      width: 64,
      height: 64,
    });
    const button = element('button', { type: 'button' }, image);
    button.addEventListener('click', () => chooseFrom(() => fetchPicture(`samples/${name}`)));
    $('samples').append(button);
  }
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  document.addEventListener('dragleave', (event) => {
    // Leaving an element for another one inside the page is no leaving.
    if (!event.relatedTarget) document.body.classList.remove('dropping');
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('dropping');
    choose(event.dataTransfer.files[0]);
  });
  document.addEventListener('paste', (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    choose(file);
  });
}

/** @param {string} url @returns {Promise<Blob>} */
export async function fetchPicture(url) {
  let response;
  try {
    response = await fetch(url, { credentials: 'omit', referrerPolicy: 'no-referrer' });
  } catch (cause) {
    const message = `${url} could not be read: there is no connection, or its server does not allow other pages to`;
    throw new InstructPix2PixError('network', message, { cause, retryable: true });
  }
  if (response.ok) return response.blob();
  const code = response.status === 404 ? 'not-found' : 'http-status';
  throw new InstructPix2PixError(code, `${url} answered with HTTP status ${response.status}`);
}

/** @param {Blob | undefined} blob */
export function choose(blob) {
  if (blob) chooseFrom(async () => blob);
}

/** Goes on from a result, whose settings are there already. @param {Blob} blob */
export function chooseResult(blob) {
  chooseFrom(
    async () => blob,
    async () => undefined,
  );
}

/**
 * To be called by whatever will show another picture: the later one wins, however long each takes.
 *
 * @returns {() => boolean} whether nothing has been called for since
 */
export function announce() {
  const mine = ++choices;
  return () => mine === choices;
}

/** Whether the user has chosen a picture since the page was opened. */
export const isTouched = () => choosing !== undefined;

/** @param {() => Promise<Blob>} get */
export function chooseFrom(get, readParameters = parametersIn) {
  const isLatest = announce();
  choosing = attempt(async () => {
    const blob = await get();
    if (!isLatest()) return;
    const parameters = await readParameters(blob);
    if (!isLatest()) return;
    const { key } = await open(blob);
    if (!isLatest()) return;
    tell({ key, parameters });
    say($('prompt').value ? 'Ready.' : 'Now say what to change.');
  });
  return choosing;
}

/** What a PNG of this page says of itself. */
async function parametersIn(blob) {
  const head = new Uint8Array(await blob.slice(0, 16).arrayBuffer());
  if (!isPng(head)) return undefined;
  const text = readText(new Uint8Array(await blob.arrayBuffer()), KEYWORD);
  return text === undefined ? undefined : fromJson(text);
}

/**
 * Decodes a picture and shows it.
 *
 * @param {Blob} blob
 * @param {string} [key] where it is kept already
 * @returns {Promise<{ blob: Blob, key: string, width: number, height: number }>} the picture
 */
export async function open(blob, key) {
  let opened;
  try {
    opened = await ask('open', blob);
  } catch (cause) {
    if (cause instanceof InstructPix2PixError) throw cause;
    const message = 'this file could not be read as a picture';
    throw new InstructPix2PixError('image-decode', message, { cause });
  }
  const { original, width, height } = opened;
  const mine = { blob: opened.blob, key: key ?? keepPicture(opened.blob), width, height };
  picture = mine;
  const isSmaller = original.width !== width;
  $('picture-note').hidden = !isSmaller;
  if (isSmaller) {
    $('picture-note').textContent =
      `A large photo, ${original.width} × ${original.height}: it was scaled down to ${width} × ${height} first.`;
  }
  await showImage($('before-image'), mine.blob, 'The picture before the edit');
  // Another one came while this one was decoded.
  if (picture !== mine) return mine;
  $('before-empty').hidden = true;
  setPicture({ width, height });
  return mine;
}

/** Shows none. */
export function close() {
  picture = undefined;
  $('before-image').removeAttribute('src');
  $('before-empty').hidden = false;
  $('picture-note').hidden = true;
  setPicture(undefined);
}

/**
 * What the model gets: cropped, resized, as PNG, or the very file where nothing is to be done with it.
 *
 * @returns {Promise<{ blob: Blob, key?: string, source: string, crop: object }>} `key` where it is kept already
 */
export async function prepare() {
  await choosing;
  if (!picture) throw new InstructPix2PixError('invalid-argument', 'choose a picture first');
  const { blob, key: source, width, height } = picture;
  const { size, box } = target(picture);
  const isWhole = size.width === width && size.height === height && !isCropped(picture, box);
  if (isWhole) return { blob, key: source, source, crop: crop() };
  return { blob: await ask('fit', { blob, box, ...size }), source, crop: crop() };
}
