/** Models of files that the user picks or drops, in place of a download. */

import { invalid } from './errors.js';

/** The file that every model has at its root. */
const ROOT = 'model_index.json';

/** The browser's own lists of files. */
const LISTS = ['FileList', 'DataTransferItemList'];

/** @param {unknown} source whether it is files, and not a name or an address */
export function isFiles(source) {
  if (typeof source === 'string' || source instanceof URL) return false;
  return Array.isArray(source) || LISTS.includes(tag(source)) || isDirectory(source);
}

/**
 * The model's files by their paths.
 *
 * @param {any} source a `FileList`, the items of a drop, an array of `File`s, of handles or of such
 *   items, or a directory's handle
 * @returns {Promise<Map<string, File>>}
 */
export async function readFiles(source) {
  const found = new Map();
  if (isDirectory(source)) await walk(source, '', found);
  else {
    // All at once and at once: a drop is over with the event.
    for (const item of Array.from(source, entryOf)) {
      if (item === null) continue; // a dropped text
      if (isEntry(item)) await walkEntry(item, '', found);
      else if (isDirectory(item)) await walk(item, `${item.name}/`, found);
      else if (tag(item) === 'FileSystemFileHandle') found.set(item.name, await item.getFile());
      else if (item instanceof Blob) found.set(item.webkitRelativePath || item.name, item);
      else throw invalid('model: expected files or folders');
    }
  }
  // A picked folder's own name stands before all paths.
  const roots = [...found.keys()].filter((path) => path === ROOT || path.endsWith(`/${ROOT}`));
  if (roots.length === 0) {
    throw invalid(`model: none of the ${found.size} files is a ${ROOT}; choose the folder that holds it`);
  }
  const [root] = roots.sort((a, b) => a.length - b.length);
  const prefix = root.slice(0, -ROOT.length);
  const inside = [...found].filter(([path]) => path.startsWith(prefix));
  return new Map(inside.map(([path, file]) => [path.slice(prefix.length), file]));
}

async function walk(directory, prefix, found) {
  for await (const [name, handle] of directory.entries()) {
    if (isDirectory(handle)) await walk(handle, `${prefix}${name}/`, found);
    else found.set(`${prefix}${name}`, await handle.getFile());
  }
}

/** What was dropped, where an item of a drop is given. */
function entryOf(item) {
  return tag(item) === 'DataTransferItem' ? item.webkitGetAsEntry() : item;
}

/** @returns {value is FileSystemEntry} what all browsers give for a dropped folder */
function isEntry(value) {
  return value?.isDirectory !== undefined && typeof value.getParent === 'function';
}

async function walkEntry(entry, prefix, found) {
  const path = `${prefix}${entry.name}`;
  if (entry.isFile) {
    found.set(path, await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // Some at a time, until there are none.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const each of some) await walkEntry(each, `${path}/`, found);
  }
}

function isDirectory(value) {
  return tag(value) === 'FileSystemDirectoryHandle';
}

function tag(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

/** Writes files below a folder, one after the other. A file that is not closed is not changed. */
export class FolderWriter {
  #directory;
  #open;

  /** @param {FileSystemDirectoryHandle} directory */
  constructor(directory) {
    this.#directory = directory;
  }

  /** @param {string} path with `/` between folders, which are made */
  async create(path) {
    const folders = path.split('/');
    const name = folders.pop();
    let folder = this.#directory;
    for (const each of folders) folder = await folder.getDirectoryHandle(each, { create: true });
    const file = await folder.getFileHandle(name, { create: true });
    this.#open = await file.createWritable();
  }

  /** @param {BufferSource | Blob} bytes */
  async write(bytes) {
    await this.#open.write(bytes);
  }

  async close() {
    const open = this.#open;
    this.#open = undefined;
    await open.close();
  }

  /** Lets go of the file that is open, if any. */
  async abort() {
    await this.#open?.abort();
  }
}
