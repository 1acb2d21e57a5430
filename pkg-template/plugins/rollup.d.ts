/** What is used of Rollup's `Plugin`, so that Rollup's types need not be installed. */
export interface RollupPlugin {
  /** For Rollup's messages. */
  name: string;
  /** Called by Rollup. */
  transform(this: any, code: string, id: string): Promise<any>;
}

/**
 * Has Rollup emit the worker and the wasm. The output has to be ES modules (`format: 'es'`).
 *
 * @example
 * import { nodeResolve } from '@rollup/plugin-node-resolve';
 * import instructPix2Pix from 'instruct-pix2pix-web/rollup';
 * export default {
 *   input: 'app.js',
 *   output: { dir: 'dist', format: 'es' },
 *   plugins: [nodeResolve({ browser: true }), instructPix2Pix()],
 * };
 */
export default function instructPix2Pix(): RollupPlugin;
