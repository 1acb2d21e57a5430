/** Files and folders on this machine, in place of what a browser is given. */

import { openAsBlob, statSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The path that a source is, where it is one: a `file:` URL, or a string that something on this
 * machine has for a name.
 *
 * @param {unknown} source
 */
export function pathOf(source) {
  if (source instanceof URL) return source.protocol === 'file:' ? fileURLToPath(source) : undefined;
  if (typeof source !== 'string') return undefined;
  if (source.startsWith('file://')) return fileURLToPath(source);
  // What begins like a path is one, also where there is nothing: the error then tells so.
  if (/^\.{0,2}[/\\]/.test(source)) return source;
  return statSync(source, { throwIfNoEntry: false }) && source;
}

/** Whether a path is a folder. */
export function isFolder(path) {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** A file as a browser has it; nothing is read yet. */
export async function fileAt(path, name = basename(path)) {
  const blob = await openAsBlob(path);
  return Object.defineProperty(blob, 'name', { value: name });
}

/** The files of a folder and of those below it, as `<input webkitdirectory>` gives them. */
export async function filesIn(folder) {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = found.filter((entry) => entry.isFile());
  return Promise.all(
    files.map(async (entry) => {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      const name = relative(folder, path).split(sep).join('/');
      return fileAt(path, name);
    }),
  );
}

/** What is used of a `FileSystemDirectoryHandle`. */
export function directoryAt(path) {
  return {
    async getDirectoryHandle(name) {
      await mkdir(join(path, name), { recursive: true });
      return directoryAt(join(path, name));
    },
    async getFileHandle(name) {
      await mkdir(path, { recursive: true });
      return { createWritable: () => writableAt(join(path, name)) };
    },
  };
}

/** What was there stays until all of the new file is written, as a browser has it. */
async function writableAt(path) {
  const partial = `${path}.partial`;
  const file = await open(partial, 'w');
  return {
    async write(part) {
      const bytes = part instanceof Blob ? await part.arrayBuffer() : part;
      await file.writeFile(ArrayBuffer.isView(bytes) ? bytes : new Uint8Array(bytes));
    },
    async close() {
      await file.close();
      await rename(partial, path);
    },
    async abort() {
      await file.close();
      await rm(partial);
    },
  };
}
