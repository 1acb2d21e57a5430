/** Size and crop: the controls, and the frame over the picture. */

import { $, fitInto, option } from './dom.js';
import { SIZES } from './catalogue.js';
import { cropBox, isCropped, targetSize } from './fit.js';

/** The picture's size, while there is one. */
let picture;

/** @param {() => void} onChange */
export function initCrop(onChange) {
  $('size').append(...SIZES.map((size) => option(size, `${size} pixels`)));
  for (const id of ['shape', 'size']) {
    $(id).addEventListener('change', () => {
      show();
      onChange();
    });
  }
  for (const id of ['zoom', 'crop-x', 'crop-y']) $(id).addEventListener('input', show);
  const box = $('crop-box');
  // Always from where it began: steps of the sliders are too coarse to add up, and `movementX` is 0 for
  // fingers in some browsers.
  let begin;
  box.addEventListener('pointerdown', (event) => {
    event.preventDefault();
    box.setPointerCapture(event.pointerId);
    begin = { ...crop(), clientX: event.clientX, clientY: event.clientY };
  });
  box.addEventListener('pointermove', (event) => {
    if (!box.hasPointerCapture(event.pointerId)) return;
    const stage = $('crop-stage');
    const across = stage.clientWidth - box.offsetWidth;
    const down = stage.clientHeight - box.offsetHeight;
    if (across > 1) $('crop-x').value = begin.x + (event.clientX - begin.clientX) / across;
    if (down > 1) $('crop-y').value = begin.y + (event.clientY - begin.clientY) / down;
    show();
  });
}

/** What is set, for the history. */
export function crop() {
  return {
    shape: $('shape').value,
    size: Number($('size').value),
    zoom: $('zoom').valueAsNumber,
    x: $('crop-x').valueAsNumber,
    y: $('crop-y').valueAsNumber,
  };
}

/** @param {{ shape?: string, size?: number, zoom?: number, x?: number, y?: number }} values */
export function setCrop({ shape, size, zoom, x, y }) {
  if (shape !== undefined) $('shape').value = shape;
  if (size !== undefined) $('size').value = size;
  if (zoom !== undefined) $('zoom').value = zoom;
  if (x !== undefined) $('crop-x').value = x;
  if (y !== undefined) $('crop-y').value = y;
  show();
}

/** What of a picture of some size the model gets, and in which size. */
export function target({ width, height }) {
  const { shape, size: side, ...place } = crop();
  const size = targetSize({ width, height }, { shape, size: side });
  const box = shape === 'whole' ? [0, 0, width, height] : cropBox({ width, height }, size, place);
  return { size, box };
}

/** @param {{ width: number, height: number } | undefined} size */
export function setPicture(size) {
  picture = size;
  if (size) setCrop({ zoom: 1, x: 0.5, y: 0.5 });
  else show();
}

function show() {
  $('crop-stage').hidden = !picture;
  $('before-size').textContent = '';
  for (const field of document.querySelectorAll('.crop'))
    field.hidden = $('shape').value === 'whole';
  if (!picture) return;
  const { width, height } = picture;
  const { size, box } = target(picture);
  const cropped = isCropped(picture, box);
  const done = [cropped && 'cropped', (cropped || size.width !== width) && 'scaled'].filter(
    Boolean,
  );
  const changed =
    done.length > 0 ? `, ${done.join(' and ')} to ${size.width} × ${size.height}` : '';
  $('before-size').textContent = `${width} × ${height}${changed}`;
  const frame = $('crop-box');
  frame.hidden = !cropped;
  fitInto($('crop-stage'), width / height, () => {
    const scale = $('crop-stage').clientWidth / width;
    const [left, top, right, bottom] = box.map((side) => side * scale);
    Object.assign(frame.style, {
      left: `${left}px`,
      top: `${top}px`,
      width: `${right - left}px`,
      height: `${bottom - top}px`,
      // A finger scrolls the page in the direction in which there is nothing to move.
      touchAction: bottom - top > height * scale - 1 ? 'pan-y' : 'none',
    });
  });
}
