/** The package's types: strict, and the README's examples compile against them. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { folder, pkg } from './harness.mjs';
import { examples } from './readme.mjs';

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

/** Compiles a project in which the package is installed, and React and Node's types. */
function compile(files, more = []) {
  const project = mkdtempSync(join(tmpdir(), 'types-'));
  try {
    writeFileSync(join(project, 'package.json'), '{"type": "module"}');
    for (const [name, text] of Object.entries(files)) writeFileSync(join(project, name), text);
    mkdirSync(join(project, 'node_modules'));
    symlinkSync(pkg, join(project, 'node_modules', 'instruct-pix2pix-web'), 'junction');
    mkdirSync(join(project, 'node_modules', '@types'));
    for (const name of ['@types/node', '@types/react', 'csstype', 'react', 'undici-types']) {
      symlinkSync(join(folder, 'node_modules', name), join(project, 'node_modules', name), 'junction');
    }
    const tsc = join(folder, 'node_modules', 'typescript', 'bin', 'tsc');
    execFileSync(process.execPath, [tsc, ...OPTIONS, ...more, ...Object.keys(files)], {
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

/** These are for other programs than TypeScript's: a service worker, and settings of bundlers. */
const NOT_TYPED = ['sw.js', 'build.mjs', 'rollup.config.js'];

test('every example of the README compiles', () => {
  const files = {};
  for (const [i, { language, file, code }] of examples().entries()) {
    if (language === 'js' && !NOT_TYPED.includes(file)) files[`example-${i}.mts`] = code;
    // Annotations are all that an example of JavaScript lacks.
    if (language === 'jsx') files[`example-${i}.tsx`] = code.replace('{ file }', '{ file }: { file: File }');
  }
  assert.ok(Object.keys(files).length >= 8);
  assert.equal(compile(files, ['--jsx', 'react-jsx', '--types', 'node,react']), '');
});

/** Limits where there is none, and a part of an event. */
const WITHOUT_DEFAULT = ['cacheLimit', 'inferenceStep', 'memoryBudget'];

test('options that are numbers, flags or choices say what they are by default', () => {
  const names = ['index', 'react', 'element', 'node/index', 'plugins/esbuild', 'plugins/rollup'];
  const property = /(\/\*\*(?:(?!\*\/)[^])*\*\/)?\n +(\w+)\?: ([^;{},()]+);/g;
  const plain = /^(number|boolean|Seed|BusyPolicy|LogLevel|LoadOptions\['\w+'\]|'[\w-]+')$/;
  const options = names
    .flatMap((name) => [...readFileSync(join(pkg, `${name}.d.ts`), 'utf8').matchAll(property)])
    .filter(([, , , type]) => type.split('|').some((part) => plain.test(part.trim())));
  assert.ok(options.length > 40, `${options.length}`);
  const without = options.filter(([, comment]) => !comment?.includes('@default')).map(([, , name]) => name);
  assert.deepEqual([...new Set(without)].sort(), WITHOUT_DEFAULT);
});

test('the types of the other entry points', () => {
  const use = `
    import { useInstructPix2Pix } from 'instruct-pix2pix-web/react';
    import { InstructPix2PixElement } from 'instruct-pix2pix-web/element';
    import { DiskStore, InstructPix2Pix, InstructPix2PixXL, cache } from 'instruct-pix2pix-web/node';
    import esbuild from 'instruct-pix2pix-web/esbuild';
    import rollup from 'instruct-pix2pix-web/rollup';
    export async function use() {
      const { status, edit, result } = useInstructPix2Pix('a/b', { autoLoad: true, dtype: 'float32' });
      if (status === 'ready') await edit({ image: new Blob(), prompt: 'p' });
      result?.images[0] satisfies ImageData | undefined;
      // @ts-expect-error pictures are what a component shows
      await edit({ image: new Blob(), prompt: 'p', outputType: 'np' });
      const element = document.createElement('instruct-pix2pix');
      element satisfies InstructPix2PixElement;
      element.addEventListener('result', ({ detail }) => detail.images[0].width);
      // @ts-expect-error it says what went on
      element.addEventListener('step', ({ detail }) => detail.images);
      const pipe = await InstructPix2Pix.fromPretrained('./model', { cache: './models' });
      const { images } = await pipe.edit({ image: new Uint8Array(), prompt: 'p', outputType: 'blob' });
      images satisfies Blob[];
      await pipe.savePretrained('./copy');
      await InstructPix2PixXL.fromPretrained('a/b', { cache: new DiskStore() });
      await cache.list({ cache: new DiskStore('./models') });
      esbuild({ folder: 'vendor' }).name satisfies string;
      rollup().name satisfies string;
    }
  `;
  assert.equal(compile({ 'use.mts': use }, ['--types', 'react']), '');
});

test('the types know queues, streams and what is asked before a download', () => {
  const use = `
    import { cache, env, InstructPix2Pix } from 'instruct-pix2pix-web';
    import type { EditEvent, Requirements } from 'instruct-pix2pix-web';
    export async function use(image: ImageData, signal: AbortSignal) {
      env.logLevel = 'debug';
      // @ts-expect-error no such level
      env.logLevel = 'loud';
      const found: Requirements = await InstructPix2Pix.requirements('a/b', { dtype: 'float16', signal });
      if (found.problems.some(({ code }) => code === 'no-adapter')) return;
      // @ts-expect-error there may be none
      found.adapter.f16;
      const pipe = await InstructPix2Pix.fromPretrained('a/b', { busyPolicy: 'replace', workerUrl: '/w.js' });
      for await (const event of pipe.editStream({ image, prompt: 'p', signal, outputType: 'np' })) {
        event satisfies EditEvent<'np'>;
        if (event.type === 'step') event.step satisfies number;
        else event.images.shape satisfies number[];
        // @ts-expect-error only results have pictures
        if (event.type === 'step') event.images;
      }
      // @ts-expect-error a stream has no other form
      pipe.editStream({ image, prompt: 'p', returnDict: false });
      // @ts-expect-error no such policy
      await pipe.edit({ image, prompt: 'p', busyPolicy: 'shove' });
      await pipe.warmup({ width: 512, signal });
      await pipe.enableVaeTiling({ signal });
      await pipe.setAdapters('a', 1, { signal });
      await cache.list({ signal });
    }
  `;
  assert.equal(compile({ 'use.mts': use }), '');
});

test('the types say what the options are', () => {
  const use = `
    import { DirectInstructPix2Pix, InstructPix2Pix, InstructPix2PixError } from 'instruct-pix2pix-web';
    import type { EditOptions, LoadProgress } from 'instruct-pix2pix-web';
    export async function use(image: ImageData, bitmap: ImageBitmap, progress: LoadProgress) {
      await using pipe = await InstructPix2Pix.fromPretrained(new URL('https://example.test/'), {
        dtype: 'float32',
        prompt: 'p',
        negativePrompt: ['n'],
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
      await pipe.setAdapters(adapterName, { textEncoder: 0.2, unet: { mid: 1, up: { block_1: [0.1, 1, 0] } } });
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
