import { build } from 'esbuild';
import instructPix2Pix from 'instruct-pix2pix-web/esbuild';

await build({
  entryPoints: ['main.js'],
  bundle: true,
  format: 'esm',
  minify: true,
  outdir: 'dist',
  plugins: [instructPix2Pix()],
});
