import { nodeResolve } from '@rollup/plugin-node-resolve';
import instructPix2Pix from 'instruct-pix2pix-web/rollup';

export default {
  input: 'main.js',
  output: { dir: 'dist', format: 'es' },
  plugins: [nodeResolve({ browser: true }), instructPix2Pix()],
};
