/** The package's types: strict, and the README's examples compile against them. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder, pkg } from './harness.mjs';

const OPTIONS = [
  '--noEmit',
  '--strict',
  '--target',
  'es2022',
  '--module',
  'nodenext',
  '--lib',
  'es2022,dom',
  '--types',
  '',
];

/** Compiles a project in which the package is installed. */
function compile(files) {
  const project = mkdtempSync(join(tmpdir(), 'types-'));
  try {
    writeFileSync(join(project, 'package.json'), '{"type": "module"}');
    for (const [name, text] of Object.entries(files)) writeFileSync(join(project, name), text);
    mkdirSync(join(project, 'node_modules'));
    symlinkSync(pkg, join(project, 'node_modules', 'instruct-pix2pix-web'), 'junction');
    const tsc = join(folder, 'node_modules', 'typescript', 'bin', 'tsc');
    execFileSync(process.execPath, [tsc, ...OPTIONS, ...Object.keys(files)], {
      cwd: project,
      encoding: 'utf8',
    });
    return '';
  } catch (error) {
    return error.stdout || String(error);
  } finally {
    rmSync(project, { recursive: true });
  }
}

test('every example of the README compiles', () => {
  const readme = readFileSync(join(pkg, 'README.md'), 'utf8');
  const examples = [...readme.matchAll(/^```js\n(.*?)^```/gms)].map(([, code]) => code);
  assert.ok(examples.length >= 2);
  const files = Object.fromEntries(examples.map((code, i) => [`example-${i}.mts`, code]));
  assert.equal(compile(files), '');
});

test('the types say what the options are', () => {
  const use = `
    import { DirectInstructPix2Pix, InstructPix2Pix, InstructPix2PixError } from 'instruct-pix2pix-web';
    import type { EditOptions, LoadProgress } from 'instruct-pix2pix-web';
    export async function use(image: ImageData, bitmap: ImageBitmap, progress: LoadProgress) {
      await using pipe = await InstructPix2Pix.fromPretrained(new URL('https://example.test/'), {
        dtype: 'float32',
        onProgress: (event) => (event.type === 'component' ? event.component : undefined),
      });
      const options: EditOptions = { image, prompt: 'p', seed: 2n ** 63n, onStep: () => false };
      const { images, seed } = await pipe.edit({ ...options, image: bitmap });
      const config = { _class_name: 'DDIMScheduler', steps_offset: 1 } as const;
      await pipe.edit({ ...options, scheduler: config });
      if (progress.type === 'download') progress.loaded satisfies number;
      // @ts-expect-error only downloads have bytes
      progress.loaded;
      // @ts-expect-error components are needed
      new DirectInstructPix2Pix();
      const other = new InstructPix2Pix({ ...pipe.components, scheduler: 'DDIMScheduler' });
      other.components.unet.name satisfies 'unet';
      // @ts-expect-error another component
      new InstructPix2Pix({ ...pipe.components, vae: pipe.components.unet });
      // @ts-expect-error a picture is needed
      await pipe.edit({ prompt: 'p' });
      const [pictures, flags] = await pipe.edit({ ...options, outputType: 'np', returnDict: false });
      pictures.data satisfies Float32Array;
      flags satisfies boolean[] | undefined;
      const { images: files } = await pipe.edit({ ...options, outputType: 'blob' });
      files satisfies Blob[];
      await pipe.edit({ image: [image, bitmap], prompt: ['p', 'q'], seed: [1, 2n] });
      await pipe.edit({ image, prompt: 'p', onStep: ({ latents }) => ({ latents }) });
      const { promptEmbeds } = await pipe.encodePrompt({ prompt: 'p' });
      await pipe.edit({ image: await pipe.encodeImage({ image }), promptEmbeds });
      await pipe.setScheduler('LCMScheduler');
      // @ts-expect-error no such scheduler
      await pipe.setScheduler('NoScheduler');
      const { adapterName } = await pipe.loadLoraWeights('a/b', { weightName: 'c.safetensors' });
      await pipe.setAdapters([adapterName], [0.5]);
      // @ts-expect-error no such type
      await DirectInstructPix2Pix.fromPretrained('a/b', { dtype: 'int8' });
      try {
        await pipe.edit(options);
      } catch (error) {
        if (error instanceof InstructPix2PixError && error.code === 'no-webgpu') return images;
        // @ts-expect-error no such code
        if (error instanceof InstructPix2PixError && error.code === 'no-such-code') return seed;
      }
    }
  `;
  assert.equal(compile({ 'use.mts': use }), '');
});

test('the types know what SDXL takes', () => {
  const use = `
    import { DirectInstructPix2PixXL, InstructPix2Pix, InstructPix2PixXL } from 'instruct-pix2pix-web';
    export async function use(image: ImageData) {
      const any = await InstructPix2Pix.fromPretrained('a/b', { isCosxlEdit: true });
      if (any instanceof InstructPix2PixXL) await any.edit({ image, prompt: 'p', prompt2: 'q' });
      const pipe = await InstructPix2PixXL.fromPretrained('a/b');
      const [pictures] = await pipe.edit({ image, prompt: 'p', outputType: 'pt', returnDict: false });
      pictures.data satisfies Float32Array;
      await pipe.edit({
        image,
        ...(await pipe.encodePrompt({ prompt: 'p', prompt2: 'q', loraScale: 0.5 })),
        height: 768,
        originalSize: [768, 1024],
        guidanceRescale: 0.7,
        denoisingEnd: 0.8,
        callback: (step, timestep, latents) => latents.data.length + step + timestep,
      });
      const { unet, vae, scheduler, textEncoder2, tokenizer2 } = pipe.components;
      new InstructPix2PixXL({ unet, vae, scheduler, textEncoder2, tokenizer2 });
      new DirectInstructPix2PixXL({ ...pipe.components, forceZerosForEmptyPrompt: false });
      // @ts-expect-error the second text encoder is needed
      new InstructPix2PixXL({ unet, vae, scheduler, tokenizer2 });
      // @ts-expect-error only SDXL has two prompts
      await (await InstructPix2Pix.fromPretrained('a/b')).edit({ image, prompt: 'p', prompt2: 'q' });
      await pipe.loadTextualInversion('a/b', { textEncoder: 'textEncoder2' });
    }
  `;
  assert.equal(compile({ 'use.mts': use }), '');
});
