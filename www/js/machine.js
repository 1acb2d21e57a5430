/** What this browser can do, in plain words. */

import { InstructPix2Pix } from '../pkg/index.js';
import { isRunning } from './activity.js';
import { adviceFor, describeMachine } from './advice.js';
import { $, element } from './dom.js';
import { bytes } from './units.js';

/** Stops looking when something else matters more. */
let looking;

/** @param {() => string | undefined} modelId */
export function initMachine(modelId) {
  $('machine').addEventListener('toggle', () => lookAt(modelId()));
  // After the first paint: where there is no adapter, the answer takes seconds.
  setTimeout(checkSupport, 200);
}

/** Says at once, and not after a download, that this browser cannot do it. */
async function checkSupport() {
  if (await InstructPix2Pix.isSupported()) return;
  const code = !isSecureContext ? 'insecure-context' : !navigator.gpu ? 'no-webgpu' : 'no-adapter';
  $('unsupported').replaceChildren(
    element('p', {}, `Edits do not work in this browser as it is. ${adviceFor(code)}`),
    element('code', {}, code),
  );
  $('unsupported').hidden = false;
}

/** Looks at a model and this machine, if the user wants to see it. Reads no weights. */
export async function lookAt(model) {
  looking?.abort();
  // It would take the processor from an edit.
  if (!$('machine').open || isRunning()) return;
  const text = $('machine-text');
  if (!model) {
    text.replaceChildren(element('p', {}, 'Choose a model from a server to see what it takes.'));
    return;
  }
  looking = new AbortController();
  const { signal } = looking;
  text.replaceChildren(element('p', {}, 'Looking…'));
  try {
    const found = await InstructPix2Pix.requirements(model, { signal });
    const { sentences, problems } = describeMachine(found);
    text.replaceChildren(
      ...sentences.map((sentence) => element('p', {}, sentence)),
      ...problems.map((problem) => element('p', { className: 'problem' }, problem)),
    );
  } catch (error) {
    if (!signal.aborted)
      text.replaceChildren(element('p', { className: 'problem' }, error.message));
  }
}

export async function describeRoom() {
  const room = await navigator.storage?.estimate?.().catch(() => undefined);
  if (!room) return 'This browser does not tell how much room there is.';
  return `${bytes(room.usage)} in use, ${bytes(room.quota - room.usage)} free for this page.`;
}
