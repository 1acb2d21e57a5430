/** The result: compared with the picture, kept, passed on. */

import { attempt, isRunning, onActivity, say } from './activity.js';
import { $, element, fitInto, showImage } from './dom.js';
import { changed } from './history.js';
import { describe, KEYWORD, toFragment, toJson } from './parameters.js';
import { sizeOfPng, writeText } from './png.js';
import { pictureOf } from './store.js';
import { labelOf } from './variants.js';

/**
 * The result shown.
 *
 * @type {{ blob: Blob, parameters: import('./parameters.js').Parameters } | undefined}
 */
let shown;
/** Counts calls, so that of two that overlap the later one wins. */
let showing = 0;

/** @param {(blob: Blob) => void} onContinue called with the result to go on with */
export function initResult(onContinue) {
  $('compare-range').addEventListener('input', showShare);
  $('continue').addEventListener('click', () => onContinue(shown.blob));
  $('copy').addEventListener('click', () => attempt(copy));
  $('share').addEventListener('click', () => attempt(share));
  onActivity(() => ($('continue').disabled = isRunning()));
}

/**
 * A result as it is kept and downloaded: with its parameters inside.
 *
 * @param {Blob} png
 * @param {import('./parameters.js').Parameters} parameters
 */
export async function withParameters(png, parameters) {
  const bytes = new Uint8Array(await png.arrayBuffer());
  return new Blob([writeText(bytes, KEYWORD, toJson(parameters))], { type: 'image/png' });
}

/** Shows a picture of latents while an edit runs. @param {{ data: any, width: number, height: number }} picture */
export function showPreview({ data, width, height }) {
  const canvas = $('preview');
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext('2d').putImageData(new ImageData(data, width, height), 0, 0);
  if (!canvas.hidden) return;
  canvas.hidden = false;
  $('compare').hidden = true;
  $('after-empty').hidden = true;
  fitInto(canvas, width / height);
}

export function hidePreview() {
  $('preview').hidden = true;
  $('compare').hidden = !shown;
  $('after-empty').hidden = Boolean(shown);
}

/** Shows none. */
export function clearResult() {
  showing++;
  shown = undefined;
  for (const id of ['compare', 'after-image', 'result-buttons', 'variants-grid'])
    $(id).hidden = true;
  $('after-size').textContent = '';
  $('after-detail').textContent = '';
  hidePreview();
}

/**
 * Shows the results of a view.
 *
 * @param {import('./timeline.js').View & { kind?: string }} view
 */
export async function showResults(view) {
  const { results, chosen = 0, kind = '1' } = view;
  const mine = ++showing;
  const blobs = await Promise.all(results.map(({ picture }) => pictureOf(picture)));
  if (mine !== showing) return;
  const grid = $('variants-grid');
  grid.hidden = results.length < 2;
  for (const { firstChild } of grid.children) URL.revokeObjectURL(firstChild.src);
  grid.replaceChildren();
  if (!grid.hidden) {
    const buttons = results.map(({ parameters }, i) => {
      const label = labelOf(parameters, kind);
      const image = element('img', { alt: label, decoding: 'async' });
      if (blobs[i]) image.src = URL.createObjectURL(blobs[i]);
      const button = element('button', { type: 'button', title: label }, image);
      button.setAttribute('aria-pressed', i === chosen);
      button.addEventListener('click', async () => {
        view.chosen = i;
        changed();
        for (const each of grid.children) each.setAttribute('aria-pressed', each === button);
        await showOne(view, blobs[i]);
      });
      return button;
    });
    grid.append(...buttons);
  }
  await showOne(view, blobs[chosen]);
}

async function showOne({ before, results, chosen = 0 }, blob) {
  if (!blob) {
    clearResult();
    return;
  }
  const mine = ++showing;
  const { parameters } = results[chosen];
  const { width, height } = sizeOfPng(new Uint8Array(await blob.slice(0, 24).arrayBuffer()));
  const seen = before && (await pictureOf(before));
  if (mine !== showing) return;
  shown = { blob, parameters };
  await Promise.all([
    showImage($('after-image'), blob, `After “${parameters.prompt}”`),
    seen && showImage($('compare-image'), seen, 'Before, for comparison'),
  ]);
  if (mine !== showing) return;
  for (const id of ['compare-range', 'compare-line', 'compare-image']) $(id).hidden = !seen;
  $('compare-range').value = 0;
  hidePreview();
  fitInto($('compare'), width / height);
  showShare();
  $('after-size').textContent = `${width} × ${height}`;
  $('after-detail').textContent = describe(parameters);
  $('result-buttons').hidden = false;
  $('download').href = $('after-image').src;
  $('download').download = `instruct-pix2pix-${parameters.seed}.png`;
}

/** How much of the left shows the picture before. */
function showShare() {
  const { value } = $('compare-range');
  $('compare-image').style.clipPath = `inset(0 ${100 - value}% 0 0)`;
  Object.assign($('compare-line').style, { left: `${value}%`, top: '0', bottom: '0' });
  $('compare-line').hidden = value === '0' || $('compare-range').hidden;
}

async function copy() {
  await navigator.clipboard.write([new ClipboardItem({ 'image/png': shown.blob })]);
  say('The picture is on the clipboard.');
}

/** A link with the settings of the result, and never the picture. */
async function share() {
  const url = new URL(location.pathname, location.href);
  url.hash = toFragment(shown.parameters);
  await navigator.clipboard.writeText(url.href);
  say('A link with these settings is on the clipboard. It holds no picture.');
}
