/** What the tests of downloads need inside the page. */

import { attempt } from '/helpers.js';
import { cache, DirectInstructPix2Pix, InstructPix2Pix } from '/pkg/index.js';

/**
 * A function that loads a model, has its option `use` do something with it, lets go of it, and tells what
 * happened.
 *
 * @param {object} defaults options of every load
 */
export function loader(defaults) {
  return async (options = {}, model = 'tests/tiny') => {
    const events = [];
    let value;
    const outcome = await attempt(
      (async () => {
        // A worker takes seconds to start on the machines that run these tests.
        const { inWorker, use, ...passed } = options;
        const Class = inWorker ? InstructPix2Pix : DirectInstructPix2Pix;
        const pipe = await Class.fromPretrained(model, {
          ...defaults,
          ...passed,
          onProgress(event) {
            events.push(event);
            options.onProgress?.(event);
          },
        });
        value = await use?.(pipe);
        await pipe.dispose();
      })(),
    );
    const downloads = events.filter(({ type }) => type === 'download');
    return {
      ...outcome,
      value,
      events,
      warnings: events.filter(({ type }) => type === 'warning'),
      last: downloads.at(-1),
    };
  };
}

/** The outcome of downloading a model for later pages. */
export function download(options, model = 'tests/tiny') {
  return attempt(DirectInstructPix2Pix.download(model, options));
}

/** The sha256 of each file that the cache has of a model, from the archive that it exports. */
export async function keptHashes(name) {
  const archive = new Uint8Array(await (await cache.export(name)).arrayBuffer());
  const text = (from, length) =>
    new TextDecoder().decode(archive.subarray(from, from + length)).replace(/\0.*$/s, '');
  const members = [];
  for (let at = 0; archive[at]; ) {
    const path = [text(at + 345, 155), text(at, 100)].filter(Boolean).join('/');
    const size = parseInt(text(at + 124, 12), 8);
    const digest = await crypto.subtle.digest('SHA-256', archive.slice(at + 512, at + 512 + size));
    const hex = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0'));
    members.push([path, hex.join('')]);
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return Object.fromEntries(members);
}

const open = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open('instruct-pix2pix-web', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('entries');
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const settle = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Deletes the database. */
export const forget = () => settle(indexedDB.deleteDatabase('instruct-pix2pix-web'));

/** The database's entries by their keys, as sizes. */
export async function entries() {
  const database = await open();
  const store = database.transaction('entries').objectStore('entries');
  const [keys, values] = await Promise.all([settle(store.getAllKeys()), settle(store.getAll())]);
  database.close();
  return Object.fromEntries(keys.map((key, i) => [key, values[i].byteLength]));
}

/** Turns a bit of the first entry whose key fits. */
export async function damage(pattern) {
  const database = await open();
  const store = database.transaction('entries', 'readwrite').objectStore('entries');
  const key = (await settle(store.getAllKeys())).find((key) => new RegExp(pattern).test(key));
  const bytes = new Uint8Array(await settle(store.get(key)));
  bytes[11] ^= 1;
  await settle(store.put(bytes.buffer, key));
  database.close();
  return key;
}
