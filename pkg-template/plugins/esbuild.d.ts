/** What is used of esbuild's `Plugin`, so that esbuild's types need not be installed. */
export interface EsbuildPlugin {
  /** For esbuild's messages. */
  name: string;
  /** Called by esbuild. */
  setup(build: any): void;
}

/**
 * Lays the worker and the wasm beside esbuild's output. The bundle has to be an ES module
 * (`format: 'esm'`).
 *
 * @example
 * import { build } from 'esbuild';
 * import instructPix2Pix from 'instruct-pix2pix-web/esbuild';
 * await build({ entryPoints: ['app.js'], bundle: true, format: 'esm', outdir: 'dist', plugins: [instructPix2Pix()] });
 */
export default function instructPix2Pix(options?: {
  /**
   * The folder beside each output that uses the package.
   * @default 'instruct-pix2pix-web'
   */
  folder?: string;
}): EsbuildPlugin;
