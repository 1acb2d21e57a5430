/** Models of files that the user picks or drops, in place of a download. */

import { InstructPix2PixError } from './errors.js';

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
      else throw new InstructPix2PixError('invalid-argument', 'model: expected files or folders');
    }
  }
  // A picked folder's own name stands before all paths.
  const roots = [...found.keys()].filter((path) => path === ROOT || path.endsWith(`/${ROOT}`));
  if (roots.length === 0) {
    throw new InstructPix2PixError(
      'invalid-argument',
      `model: none of the ${found.size} files is a ${ROOT}; choose the folder that holds it`,
    );
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
