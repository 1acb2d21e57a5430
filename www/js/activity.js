/** What the page says of its work, and how that ends. */

import { adviceFor, sentence } from './advice.js';
import { $ } from './dom.js';

/** What is under way: `undefined`, or what stops it. */
let running;

/** @type {Set<() => void>} */
const observers = new Set();

/** Calls `then` when something begins or ends. */
export function onActivity(then) {
  observers.add(then);
}

export const isRunning = () => running !== undefined;

/** Stops what is under way. */
export function cancel() {
  if (!running || running.signal.aborted) return;
  performance.mark('cancel');
  running.abort();
}

/** @param {string} text @param {number} [share] of the work, 0 to 1; left out, it is unknown */
export function say(text, share) {
  const status = $('status');
  // Screen readers need not read out every step; the progress bar tells them how far it is.
  status.setAttribute('aria-busy', share !== undefined);
  status.textContent = text;
  const progress = $('progress');
  progress.hidden = !running;
  if (share === undefined) progress.removeAttribute('value');
  else progress.value = share;
}

export function warn(text) {
  $('warning').textContent = text;
  $('warning').hidden = false;
}

function showError(error) {
  $('error-message').textContent = sentence(error.message);
  $('error-advice').textContent = adviceFor(error.code);
  $('error-code').textContent = error.code ?? error.name;
  $('error').hidden = false;
}

/**
 * Runs something whose failure the user should see.
 *
 * @param {() => Promise<void>} action
 * @param {AbortSignal} [signal] when it has aborted, failing is what the user wanted
 * @returns {Promise<any>} the error, if there was one
 */
export async function attempt(action, signal) {
  $('error').hidden = true;
  $('warning').hidden = true;
  try {
    await action();
    return undefined;
  } catch (error) {
    if (signal?.aborted) {
      performance.measure('cancel', 'cancel');
      say('Cancelled.');
    } else {
      say('That did not work.');
      showError(error);
    }
    return error;
  }
}

/**
 * The result of something that cannot be stopped, unless the user cancels first.
 *
 * @template T
 * @param {Promise<T>} result
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export function unlessCancelled(result, signal) {
  return new Promise((resolve, reject) => {
    result.then(resolve, reject);
    signal.throwIfAborted();
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/**
 * Runs something long, that can be cancelled, unless something is under way already.
 *
 * @param {(signal: AbortSignal) => Promise<void>} action
 */
export async function run(action) {
  if (running) return undefined;
  running = new AbortController();
  const { signal } = running;
  observers.forEach((tell) => tell());
  $('cancel').hidden = false;
  // Who pressed it by keyboard would be nowhere.
  if (document.activeElement === $('edit')) $('cancel').focus();
  $('edit').disabled = true;
  say('One moment…');
  const error = await attempt(() => action(signal), signal);
  running = undefined;
  $('progress').hidden = true;
  $('edit').disabled = false;
  const hadFocus = document.activeElement === $('cancel');
  $('cancel').hidden = true;
  if (hadFocus) $('edit').focus();
  observers.forEach((tell) => tell());
  return error;
}

export function initActivity() {
  $('cancel').addEventListener('click', cancel);
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && running && !document.querySelector('dialog[open]')) cancel();
  });
}
