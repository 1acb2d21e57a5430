/** Models of files that the user picks or drops, in place of a download. */

import { invalid } from './errors.js';

/** The file that every model has at its root. */
const ROOT = 'model_index.json';

/** @param {unknown} source whether it is files, and not a name or an address */
export function isFiles(source) {
  if (typeof source === 'string' || source instanceof URL) return false;
  return Array.isArray(source) || tag(source) === 'FileList' || isDirectory(source);
}

/**
 * The model's files by their paths.
 *
 * @param {any} source a `FileList`, an array of `File`s or of handles, or a directory's handle
 * @returns {Promise<Map<string, File>>}
 */
export async function readFiles(source) {
  const found = new Map();
  if (isDirectory(source)) await walk(source, '', found);
  else {
    for (const item of source) {
      if (isDirectory(item)) await walk(item, `${item.name}/`, found);
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
