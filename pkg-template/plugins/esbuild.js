/**
 * For esbuild, which does not follow `new URL(..., import.meta.url)`: lays the worker and the wasm
 * into a folder beside the bundle, and has the bundle look for them there.
 */

import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, '');

/** The worker, and what it imports or fetches from beside it. */
const FILES = ['worker.js', 'shared.js', 'instruct_pix2pix.js', 'instruct_pix2pix_bg.wasm'];

/** What the bundle fetches, as the code names it. */
const FETCHED = /(["'`])(?:\.\/)?(worker\.js|instruct_pix2pix_bg\.wasm)\1(?=\s*,\s*import\.meta\.url)/g;

/** @param {{ folder?: string }} [options] */
export default function instructPix2Pix({ folder = 'instruct-pix2pix-web' } = {}) {
  return {
    name: 'instruct-pix2pix-web',
    setup(build) {
      const { absWorkingDir = process.cwd(), write = true } = build.initialOptions;
      build.initialOptions.metafile = true;
      build.onLoad({ filter: /\.js$/ }, async ({ path }) => {
        if (dirname(path) !== root) return undefined;
        const code = await readFile(path, 'utf8');
        return { contents: code.replace(FETCHED, `$1./${folder}/$2$1`), loader: 'js' };
      });
      build.onEnd(async ({ metafile, outputFiles }) => {
        const isOurs = (input) => dirname(resolve(absWorkingDir, input)) === root;
        const outputs = Object.entries(metafile?.outputs ?? {});
        const users = outputs.filter(([, { inputs }]) => Object.keys(inputs).some(isOurs));
        const folders = new Set(users.map(([output]) => resolve(absWorkingDir, dirname(output))));
        for (const place of folders) {
          if (write) await mkdir(join(place, folder), { recursive: true });
          for (const name of FILES) {
            const [from, path] = [join(root, name), join(place, folder, name)];
            if (write) await copyFile(from, path);
            else outputFiles.push(outputFile(path, await readFile(from)));
          }
        }
      });
    },
  };
}

/** As esbuild makes them where it writes nothing. */
function outputFile(path, contents) {
  return {
    path,
    contents,
    hash: '',
    get text() {
      return contents.toString('utf8');
    },
  };
}
