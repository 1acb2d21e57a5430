/**
 * The READMEs' examples, each as it stands: those for pages here, and the rest elsewhere. The models'
 * names lead to small ones, by a stand-in for the Hub.
 */

import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { encodePng, endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';
import { examples } from './readme.mjs';

endAfterMinutes(60);

const FULL = process.env.FULL === '1';
const fixtures = `${repository}tests/fixtures`;

/** Examples that are executed by another test, where their programs are. */
const ELSEWHERE = {
  'build.mjs': 'apps.test.mjs',
  'rollup.config.js': 'apps.test.mjs',
  'sw.js': 'hosting.test.mjs',
  'app.js': 'hosting.test.mjs',
  'edit.mjs': 'node.test.mjs',
};

const all = examples();
const pages = all.filter(({ language, file }) => language === 'js' && !ELSEWHERE[file]);

let adapters, browser, bundles, hub, page, problems, server;

before(async () => {
  adapters = mkdtempSync(join(tmpdir(), 'adapters-'));
  bundles = mkdtempSync(join(tmpdir(), 'bundles-'));
  copyFileSync(
    `${fixtures}/oracle/adapters/lora_peft.safetensors`,
    join(adapters, 'pytorch_lora_weights.safetensors'),
  );
  hub = await serveHub({
    'timbrooks/instruct-pix2pix': `${repository}www/models/tiny-random`,
    'diffusers/sdxl-instructpix2pix-768': `${fixtures}/oracle/models/tiny-sdxl-ip2p`,
    'sd-concepts-library/cat-toy': `${fixtures}/examples/cat-toy`,
    'someone/some-lora': adapters,
  });
  server = await serve(`${folder}site`, { '/pkg': pkg, '/vendor': pkg, '/bundles': bundles });
  browser = await launch();
  const context = await browser.newContext();
  const data = new Uint8Array(24 * 16 * 3).map((_, i) => (i * 37) % 256);
  const photo = encodePng({ width: 24, height: 16, data });
  await context.route('**/photo.jpg', (route) => route.fulfill({ body: photo }));
  ({ page, problems } = await openPage({ newPage: () => context.newPage() }, `${server.url}readme.html`));
  await page.evaluate(prepare, hub.url);
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
  for (const place of [adapters, bundles]) rmSync(place, { recursive: true, force: true });
});

/** Software WebGPU takes its time: all examples share one worker, and edits have two steps. */
async function prepare(hub) {
  const { env, InstructPix2Pix, InstructPix2PixXL } = await import('/pkg/index.js');
  env.fetch = (url, init) => fetch(url.replace('https://huggingface.co', hub), init);
  const kept = await InstructPix2Pix.fromPretrained('timbrooks/instruct-pix2pix');
  const load = InstructPix2Pix.fromPretrained;
  InstructPix2Pix.fromPretrained = function (model, options) {
    return load.call(this, model, { shareWith: kept, ...options });
  };
  for (const { prototype } of [InstructPix2Pix, InstructPix2PixXL]) {
    const { edit, warmup } = prototype;
    prototype.edit = function (options) {
      window.edits = (window.edits ?? 0) + 1;
      return edit.call(this, { ...options, numInferenceSteps: 2 });
    };
    prototype.warmup = function () {
      return warmup.call(this, { width: 24, height: 16 });
    };
  }
}

test('every example is executed by some test', () => {
  for (const { language, file, code } of all) {
    assert.ok(['js', 'jsx', 'html', 'sh'].includes(language), `${language}: ${code}`);
    if (file) assert.ok(ELSEWHERE[file], file);
  }
  const shells = all.filter(({ language }) => language === 'sh').flatMap(({ code }) => code.trim().split('\n'));
  // The first two by install.mjs, the last by node.test.mjs.
  assert.deepEqual(shells, [
    'npm install instruct-pix2pix-web',
    'npm install instruct-pix2pix-web webgpu',
    'npx instruct-pix2pix-web photo.jpg "make it snowy" -o out.png',
  ]);
});

describe('on a page', () => {
  for (const [i, { code }] of pages.entries()) {
    const title = code.split('\n').find((line) => !line.startsWith('import')) || code.split('\n')[2];
    const skip = i > 0 && !FULL && 'without FULL=1';
    test(`example ${i + 1}: ${title}`, { skip }, async () => {
      problems.length = 0;
      const thrown = await page.evaluate(async (code) => {
        const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
        try {
          // As an inline module: addresses are relative to the page, names go through the import map.
          await import(url);
        } catch (error) {
          return `${error.code}: ${error.message}`;
        }
      }, code);
      assert.equal(thrown, undefined);
      assert.deepEqual(problems.filter((problem) => !/404/.test(problem)), []);
      const edits = await page.evaluate(() => {
        const { edits = 0 } = window;
        window.edits = 0;
        return edits;
      });
      if (code.includes('.edit(') || code.includes('.editStream(')) assert.equal(edits, 1);
    });
  }

  test('the element', { skip: !FULL && 'without FULL=1' }, async () => {
    const [{ code }] = all.filter(({ language }) => language === 'html');
    const size = await page.evaluate(async (html) => {
      const found = document.createRange().createContextualFragment(html);
      document.body.append(found);
      await customElements.whenDefined('instruct-pix2pix');
      const element = document.querySelector('instruct-pix2pix');
      element.src = '/photo.jpg';
      const { images } = await element.edit();
      element.remove();
      return [images[0].width, images[0].height];
    }, code);
    assert.deepEqual(size, [24, 16]);
  });

  test('the React component', { skip: !FULL && 'without FULL=1' }, async () => {
    const [{ code }] = all.filter(({ language }) => language === 'jsx');
    await bundle(code);
    const size = await page.evaluate(async () => {
      const { mount } = await import('/bundles/editor.js');
      const file = await (await fetch('/photo.jpg')).blob();
      const place = document.body.appendChild(document.createElement('main'));
      mount(place, file);
      const until = async (done) => {
        while (!done()) await new Promise((resolve) => setTimeout(resolve, 50));
      };
      await until(() => place.querySelector('button'));
      place.querySelector('button').click();
      await until(() => /ready|error/.test(place.querySelector('p').textContent));
      await until(() => place.querySelector('canvas').width === 24 || /rror/.test(place.textContent));
      const canvas = place.querySelector('canvas');
      return [canvas.width, canvas.height, place.querySelector('p').textContent.trim()];
    });
    assert.deepEqual(size.slice(0, 2), [24, 16], size[2]);
  });
});

/** Compiles the component, with React and on the page's own instance of the package. */
async function bundle(code) {
  const { build } = await import('esbuild');
  const component = join(bundles, 'component.jsx');
  const entry = join(bundles, 'entry.js');
  writeFileSync(component, code);
  writeFileSync(
    entry,
    `import { createElement } from 'react';
     import { createRoot } from 'react-dom/client';
     import { Editor } from './component.jsx';
     export const mount = (place, file) => createRoot(place).render(createElement(Editor, { file }));`,
  );
  await build({
    entryPoints: [entry],
    outfile: join(bundles, 'editor.js'),
    bundle: true,
    format: 'esm',
    platform: 'browser',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"production"' },
    nodePaths: [join(folder, 'node_modules')],
    alias: { 'instruct-pix2pix-web/react': join(pkg, 'react.js') },
    plugins: [
      {
        name: 'one instance',
        setup: ({ onResolve }) =>
          onResolve({ filter: /^\.\/index\.js$/ }, ({ importer }) =>
            importer.startsWith(pkg) ? { path: '/pkg/index.js', external: true } : undefined,
          ),
      },
    ],
  });
}
