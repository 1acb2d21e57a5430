/** A picture from the camera. */

import { $ } from './dom.js';
import { choose } from './picture.js';

let stream;

export function initCamera() {
  $('camera').hidden = !navigator.mediaDevices?.getUserMedia;
  $('camera').addEventListener('click', openCamera);
  $('camera-close').addEventListener('click', () => $('camera-dialog').close());
  $('camera-dialog').addEventListener('close', stop);
  $('shoot').addEventListener('click', shoot);
}

async function openCamera() {
  const note = $('camera-note');
  note.textContent = 'The picture stays on this machine.';
  $('shoot').disabled = true;
  $('camera-dialog').showModal();
  try {
    const video = { facingMode: 'environment', width: { ideal: 1920 } };
    const opened = await navigator.mediaDevices.getUserMedia({ video });
    // The dialog may have been closed while the browser asked.
    if (!$('camera-dialog').open) {
      opened.getTracks().forEach((track) => track.stop());
      return;
    }
    stream = opened;
    $('camera-video').srcObject = stream;
    await $('camera-video').play();
    $('shoot').disabled = false;
    $('shoot').focus();
  } catch (error) {
    const isRefused = error.name === 'NotAllowedError';
    note.textContent = isRefused
      ? 'The browser was told not to give the camera to this page.'
      : `There is no camera to be had: ${error.message}`;
  }
}

function shoot() {
  const video = $('camera-video');
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext('2d').drawImage(video, 0, 0);
  $('camera-dialog').close();
  canvas.convertToBlob({ type: 'image/jpeg', quality: 0.95 }).then(choose);
}

/** The camera's light goes out. */
function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  $('camera-video').srcObject = null;
}
