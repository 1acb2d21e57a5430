/** Undo, redo and the strip of views, kept over reloads. */

import { isRunning, onActivity, say } from './activity.js';
import { $, element } from './dom.js';
import { pictureOf, readState, writeState } from './store.js';
import { Timeline } from './timeline.js';

let timeline = new Timeline();
/** Shows a view. */
let show;
/** Addresses of thumbnails, as promises, by the key of their picture. */
const thumbnails = new Map();

/** @param {(view: import('./timeline.js').View | undefined) => Promise<void>} onShow */
export function initHistory(onShow) {
  show = onShow;
  $('undo').addEventListener('click', () => move(-1));
  $('redo').addEventListener('click', () => move(1));
  $('forget').addEventListener('click', forget);
  onActivity(render);
  document.addEventListener('keydown', (event) => {
    const isText = event.target.closest?.(
      'input:not([type=range], [type=checkbox]), select, textarea',
    );
    if (isText || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z') return;
    event.preventDefault();
    move(event.shiftKey ? 1 : -1);
  });
}

/**
 * Takes up the history of the last visit.
 *
 * @param {() => boolean} isTouched whether the user has chosen a picture, and was faster than the disk
 */
export async function restore(isTouched) {
  const saved = await readState();
  if (!saved || timeline.current) return;
  timeline = new Timeline(saved);
  await render();
  if (timeline.current && !isTouched()) await show(timeline.current);
}

export const currentView = () => timeline.current;

/** @param {import('./timeline.js').View} view */
export function push(view) {
  timeline.push(view);
  changed();
}

/** Writes down what was changed in the current view. */
export async function changed() {
  render();
  await writeState({ views: timeline.views, at: timeline.at }, timeline.pictures);
}

async function move(by) {
  if (isRunning() || !timeline.move(by)) return;
  changed();
  await show(timeline.current);
  say(by < 0 ? 'Undone.' : 'Done again.');
}

async function jump(to) {
  if (isRunning() || !timeline.jump(to)) return;
  changed();
  await show(timeline.current);
  say('Ready.');
}

async function forget() {
  timeline.clear();
  await changed();
  await show(undefined);
  say('The history is deleted.');
  $('choose').focus();
}

async function thumbnailOf(key, alt) {
  if (!thumbnails.has(key)) {
    const address = pictureOf(key).then((blob) => (blob ? URL.createObjectURL(blob) : ''));
    thumbnails.set(key, address);
  }
  return element('img', { src: await thumbnails.get(key), alt, decoding: 'async' });
}

/** Moves the strip, and not the page, so that an item of it is seen. */
function showInStrip(item) {
  const strip = $('views');
  if (item) strip.scrollLeft = item.offsetLeft - strip.offsetLeft - (strip.clientWidth - item.offsetWidth) / 2;
}

/** Counts calls, so that of two that overlap the later one wins. */
let rendering = 0;

async function render() {
  const mine = ++rendering;
  const { views, at } = timeline;
  const items = await Promise.all(
    views.map(async ({ source, results, chosen = 0 }, i) => {
      const result = results?.[chosen];
      const what = result ? `“${result.parameters.prompt}”` : 'picture';
      const image = await thumbnailOf(result?.picture ?? source, `${i + 1}: ${what}`);
      const button = element(
        'button',
        { type: 'button', title: what, disabled: isRunning() },
        image,
      );
      button.addEventListener('click', () => jump(i));
      if (i === at) button.setAttribute('aria-current', 'true');
      return element('li', {}, button);
    }),
  );
  if (mine !== rendering) return;
  const index = [...$('views').children].findIndex((item) => item.contains(document.activeElement));
  $('views').replaceChildren(...items);
  if (index >= 0) items[Math.min(index, items.length - 1)]?.firstChild.focus();
  $('history').hidden = views.length === 0;
  showInStrip(items[at]);
  $('undo').disabled = isRunning() || !timeline.canUndo;
  $('redo').disabled = isRunning() || !timeline.canRedo;
  $('forget').disabled = isRunning();
  const used = timeline.pictures;
  for (const [key, address] of thumbnails) {
    if (used.has(key)) continue;
    address.then((url) => URL.revokeObjectURL(url));
    thumbnails.delete(key);
  }
}
