/** What machines and errors mean, and what to do, in plain words. Nothing in here knows a browser. */

import { bytes } from './units.js';

const BROWSERS = 'Chrome or Edge 113, Safari 26 or Firefox 141, or a later one';

/** What to do about an error, by its code. */
const ADVICE = {
  'insecure-context': 'Open this page by https://, or from localhost.',
  'no-webgpu': `This browser cannot use the graphics chip for this. Take ${BROWSERS}.`,
  'no-adapter':
    'Turn on hardware acceleration in the browser’s settings and start it again; chrome://gpu tells ' +
    `more. Otherwise take ${BROWSERS}.`,
  'out-of-memory':
    'Choose a smaller size or a smaller model, and close other tabs and programs that use the graphics chip.',
  'device-lost': 'The graphics chip was reset. Press Edit again; the model is loaded anew.',
  gpu: 'Press Edit again. If it stays so, choose a smaller size, or update the graphics driver.',
  engine: 'Reload the page. If it stays so, the browser may lack memory for WebAssembly.',
  network: 'Check the connection, then try again: what has arrived is kept.',
  'http-status': 'Try again later, or check the address.',
  'not-found': 'Check the name: owner/name on the Hub, or the address of a folder.',
  'not-cached': 'This model is not on this machine yet: connect once to load it.',
  'hash-mismatch': 'What arrived was damaged, and nothing of it was kept. Try again.',
  'invalid-response':
    'Something between here and the server answered in its place: is there a login page?',
  storage: 'Delete a model below, or make room on the disk.',
  'image-decode': 'Save the picture as JPEG, PNG or WebP and try that.',
};

/** @param {string | undefined} code */
export function adviceFor(code) {
  return ADVICE[code] ?? '';
}

/** `'nvidia'`, `'ampere'` -> `'NVIDIA Ampere'`. */
function nameOf({ vendor, architecture, description }) {
  const VENDORS = { nvidia: 'NVIDIA', amd: 'AMD', arm: 'ARM' };
  const word = (text) => VENDORS[text] ?? text.charAt(0).toUpperCase() + text.slice(1);
  return (
    description || [vendor, architecture].filter(Boolean).map(word).join(' ') || 'no name given'
  );
}

/**
 * What a machine can do with a model, in sentences.
 *
 * @param {import('../pkg/index.js').Requirements} found
 * @returns {{ sentences: string[], problems: string[] }}
 */
export function describeMachine({ adapter, model, storage, problems }) {
  const sentences = [];
  if (adapter?.software) {
    sentences.push(
      'No graphics chip is in use: the processor plays one, which is slow. The built-in model takes ' +
        'seconds to a minute for an edit; the others would take hours.',
    );
  } else if (adapter) {
    sentences.push(
      `Graphics: ${nameOf(adapter)}. ` +
        (adapter.f16
          ? 'It computes in half precision here, which is fast and saves memory.'
          : 'Half precision is not to be had here, so it computes in single precision: the same results, a little slower.'),
    );
  }
  if (model) {
    const { missingBytes, memoryBytes } = model;
    sentences.push(
      missingBytes > 0
        ? `This model: ${bytes(missingBytes)} to download, once.`
        : 'This model is on this machine: nothing to download.',
      `It takes ${bytes(memoryBytes)} of graphics memory, and edits take more; browsers do not tell how much there is.`,
    );
  }
  if (storage.free !== undefined) {
    sentences.push(`This page may store ${bytes(storage.free)} more.`);
  }
  return {
    sentences,
    problems: problems.map(({ code, message }) => `${sentence(message)} ${adviceFor(code)}`.trim()),
  };
}

/** With a capital letter, unless it begins with an address, and a full stop. */
export function sentence(text) {
  const whole = /^\w+:\/\//.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
