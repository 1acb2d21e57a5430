import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The folder of this package among the user's caches. */
export function defaultFolder({ env, platform } = process) {
  const caches = {
    win32: () => env.LOCALAPPDATA ?? join(homedir(), 'AppData', 'Local'),
    darwin: () => join(homedir(), 'Library', 'Caches'),
  };
  const other = () => env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  return join((caches[platform] ?? other)(), 'instruct-pix2pix-web');
}

/** What `cache` may be: entries as files of one folder. */
export class DiskStore {
  #folder;
  #made;
  #next = 0;

  /** @param {string} [folder] made where it is not there */
  constructor(folder = defaultFolder()) {
    this.#folder = folder;
  }

  get folder() {
    return this.#folder;
  }

  async get(key) {
    try {
      return new Uint8Array(await readFile(this.#path(key)));
    } catch (error) {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async put(key, value) {
    await (this.#made ??= mkdir(this.#folder, { recursive: true }));
    // Moved into place when it is whole. The name is nobody else's.
    const partial = join(this.#folder, `${process.pid}-${this.#next++}${PARTIAL}`);
    try {
      await writeFile(partial, new Uint8Array(value));
      await rename(partial, this.#path(key));
    } catch (error) {
      await rm(partial, { force: true });
      const isFull = error.code === 'ENOSPC' || error.code === 'EDQUOT';
      throw isFull ? new DOMException('the disk is full', 'QuotaExceededError') : error;
    }
  }

  async delete(key) {
    await rm(this.#path(key), { force: true });
  }

  async keys() {
    try {
      const names = await readdir(this.#folder);
      const entries = names.filter((name) => name.endsWith(ENTRY));
      return entries.map((name) => decodeURIComponent(name.slice(0, -ENTRY.length)));
    } catch (error) {
      if (error.code === 'ENOENT') return [];
      throw error;
    }
  }

  #path(key) {
    // Not all file systems can have `*` in a name, which is left alone otherwise.
    const name = encodeURIComponent(key).replaceAll('*', '%2A');
    return join(this.#folder, `${name}${ENTRY}`);
  }
}

const ENTRY = '.entry';
const PARTIAL = '.partial';
