/**
 * For Rollup, which does not follow `new URL(..., import.meta.url)`: the worker becomes a chunk, and
 * the wasm an asset.
 */

import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/[\\/]$/, '');

const WORKER = /new URL\(\s*(["'`])\.\/worker\.js\1\s*,\s*import\.meta\.url\s*\)/;
const WASM = /new URL\(\s*(["'`])instruct_pix2pix_bg\.wasm\1\s*,\s*import\.meta\.url\s*\)/;

export default function instructPix2Pix() {
  return {
    name: 'instruct-pix2pix-web',
    async transform(code, id) {
      if (dirname(id) !== root) return null;
      const address = (reference) => `import.meta.ROLLUP_FILE_URL_${reference}`;
      if (WORKER.test(code)) {
        const worker = { type: 'chunk', id: join(root, 'worker.js'), name: 'instruct-pix2pix-worker' };
        return { code: code.replace(WORKER, () => address(this.emitFile(worker))), map: null };
      }
      if (WASM.test(code)) {
        const name = 'instruct_pix2pix_bg.wasm';
        const source = await readFile(join(root, name));
        const wasm = this.emitFile({ type: 'asset', name, source });
        return { code: code.replace(WASM, () => address(wasm)), map: null };
      }
      return null;
    },
  };
}
