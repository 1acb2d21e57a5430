import { readFile } from 'node:fs/promises';
import { env, InstructPix2PixError } from '../index.js';

let ready;

/** Gives the engine what it looks for in a browser: WebGPU, a scope, and the wasm by a URL. */
export function prepare() {
  ready ??= start().catch((error) => {
    ready = undefined;
    throw error;
  });
  return ready;
}

async function start() {
  if (!globalThis.navigator?.gpu) await provideGpu();
  // wgpu takes a window or a worker for the place where WebGPU is.
  if (!globalThis.Window && !globalThis.WorkerGlobalScope) {
    define(globalThis, 'WorkerGlobalScope', class WorkerGlobalScope {});
  }
  if (env.wasmUrl === undefined) {
    // `fetch` reads no files here, but blobs.
    const bytes = await readFile(new URL('../instruct_pix2pix_bg.wasm', import.meta.url));
    env.wasmUrl = URL.createObjectURL(new Blob([bytes], { type: 'application/wasm' }));
  }
}

async function provideGpu() {
  let dawn;
  try {
    dawn = await import('webgpu');
  } catch (cause) {
    throw new InstructPix2PixError(
      'no-webgpu',
      'there is no WebGPU here; in Node, install the npm package `webgpu` beside this one: npm install webgpu',
      { cause },
    );
  }
  for (const [name, value] of Object.entries(dawn.globals)) {
    if (!(name in globalThis)) define(globalThis, name, value);
  }
  // E.g. `backend=vulkan adapter=NVIDIA`; see that package.
  const settings = process.env.INSTRUCT_PIX2PIX_DAWN?.split(' ').filter(Boolean) ?? [];
  if (!globalThis.navigator) define(globalThis, 'navigator', {});
  define(globalThis.navigator, 'gpu', dawn.create(settings));
}

function define(object, name, value) {
  Object.defineProperty(object, name, { value, configurable: true, writable: true });
}
