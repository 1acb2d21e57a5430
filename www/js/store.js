/**
 * Pictures and the history, in a database of the page's own. Where there is none, they are kept as long as the
 * page is open.
 */

const NAME = 'instruct-pix2pix-page';

/** @type {Map<string, Blob>} */
const pictures = new Map();

let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore('pictures');
      request.result.createObjectStore('state');
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('the database is in use'));
  });
  return opening;
}

/**
 * One transaction.
 *
 * @param {'pictures' | 'state'} name
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest | void} act
 */
async function within(name, mode, act) {
  const transaction = (await database()).transaction(name, mode);
  const request = act(transaction.objectStore(name));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

/** What fails here was only for later. */
async function quietly(promise) {
  try {
    return await promise;
  } catch (error) {
    console.warn('The history could not be stored or read:', error);
    return undefined;
  }
}

const newKey = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

/** @param {Blob} blob @returns {string} its key */
export function keepPicture(blob) {
  const key = newKey();
  pictures.set(key, blob);
  // Bytes, because WebKit has lost Blobs.
  const write = async () => {
    const entry = { bytes: await blob.arrayBuffer(), type: blob.type };
    await within('pictures', 'readwrite', (store) => store.put(entry, key));
  };
  quietly(write());
  return key;
}

/** @param {string} key @returns {Promise<Blob | undefined>} */
export async function pictureOf(key) {
  const known = pictures.get(key);
  if (known) return known;
  const entry = await quietly(within('pictures', 'readonly', (store) => store.get(key)));
  if (!entry) return undefined;
  const blob = new Blob([entry.bytes], { type: entry.type });
  pictures.set(key, blob);
  return blob;
}

/** Pictures that this page's history has shown. */
let seen = new Set();

/** Pictures that nobody has asked for in this time belonged to a history that another tab wrote over. */
const FORGOTTEN = 24 * 3600e3;

/** @returns {Promise<{ views: import('./timeline.js').View[], at: number } | undefined>} */
export async function readState() {
  const state = await quietly(within('state', 'readonly', (store) => store.get('timeline')));
  const keys = (await quietly(within('pictures', 'readonly', (store) => store.getAllKeys()))) ?? [];
  const used = JSON.stringify(state?.views ?? []);
  const isOld = (key) => Date.now() - parseInt(key, 36) > FORGOTTEN;
  for (const key of keys) if (used.includes(key)) seen.add(key);
  await remove(keys.filter((key) => isOld(key) && !seen.has(key)));
  return state;
}

/**
 * Writes the history, and forgets the pictures that are no longer in it.
 *
 * @param {{ views: object[], at: number }} state
 * @param {Set<string>} used
 */
export async function writeState(state, used) {
  const unused = [...seen].filter((key) => !used.has(key));
  seen = new Set(used);
  unused.forEach((key) => pictures.delete(key));
  await quietly(within('state', 'readwrite', (store) => store.put(state, 'timeline')));
  await remove(unused);
}

async function remove(keys) {
  if (keys.length === 0) return;
  await quietly(
    within('pictures', 'readwrite', (store) => keys.forEach((key) => store.delete(key))),
  );
}
