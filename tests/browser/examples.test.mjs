/**
 * The seed examples of diffusers' documentation, under the names of their repositories, from a
 * stand-in for the Hub, against the pictures that diffusers makes of them with the tiny model
 * (`tests/fixtures/gen_examples.py`).
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, readSafetensors, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

endAfterMinutes(20);

const examples = `${repository}tests/fixtures/examples`;
const golden = readSafetensors(readFileSync(`${examples}/examples.safetensors`));
/** Samples in 0 to 1; the oracle's tolerance for pictures in float32. */
const TOLERANCE = 1e-4;

let browser, hub, page, server;

before(async () => {
  hub = await serveHub({
    'timbrooks/instruct-pix2pix': `${repository}www/models/tiny-random`,
    'sd-concepts-library/cat-toy': `${examples}/cat-toy`,
  });
  server = await serve(`${folder}site`, { '/pkg': pkg, '/examples': examples });
  browser = await launch();
  ({ page } = await openPage(browser, server.url));
  await page.evaluate(async (endpoint) => {
    const { picture } = await import('/helpers.js');
    const { InstructPix2Pix } = await import('/pkg/index.js');
    window.pipe = await InstructPix2Pix.fromPretrained('timbrooks/instruct-pix2pix', {
      endpoint,
      dtype: 'float32',
      weightDtype: 'float32',
    });
    window.edit = async (prompt, seed) => {
      const edit = { prompt, seed, image: picture(), numInferenceSteps: 3, outputType: 'np' };
      return Array.from((await pipe.edit(edit)).images.data);
    };
  }, hub.url);
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
});

beforeEach(() => hub.reset());

function assertGolden(name, samples) {
  const { data } = golden[name];
  assert.equal(samples.length, data.length);
  const error = samples.reduce((max, value, i) => Math.max(max, Math.abs(value - data[i])), 0);
  assert.ok(error <= TOLERANCE, `${name}: ${error}`);
}

test('make the mountains snowy', async () => {
  assertGolden('mountains', await page.evaluate(() => edit('make the mountains snowy', 0)));
});

test('sd-concepts-library/cat-toy, whose word is downloaded once', async () => {
  const learn = () => page.evaluate(() => pipe.loadTextualInversion('sd-concepts-library/cat-toy'));
  const sent = async (file) => (await hub.log()).filter((entry) => entry.file?.endsWith(file)).length;
  assert.deepEqual(await learn(), ['<cat-toy>']);
  assert.ok((await sent('learned_embeds.bin')) > 0);
  assertGolden('cat_toy', await page.evaluate(() => edit('A <cat-toy> backpack', 1)));
  await page.evaluate(() => pipe.unloadTextualInversion());
  await hub.reset();
  assert.deepEqual(await learn(), ['<cat-toy>']);
  assert.equal(await sent('learned_embeds.bin'), 0, 'the cache has it');
  await page.evaluate(async () => {
    await pipe.unloadTextualInversion();
    await pipe.loadTextualInversion('sd-concepts-library/cat-toy', { forceDownload: true });
    await pipe.unloadTextualInversion();
  });
  assert.ok((await sent('learned_embeds.bin')) > 0, 'fetched anew');
  await hub.reset();
  const offline = { localFilesOnly: true };
  await page.evaluate(async (options) => {
    await pipe.loadTextualInversion('sd-concepts-library/cat-toy', options);
    await pipe.unloadTextualInversion();
  }, offline);
  assert.deepEqual(await hub.log(), []);
});

test('charturnerv2.pt', async () => {
  const tokens = await page.evaluate(() =>
    pipe.loadTextualInversion('/examples/charturnerv2/charturnerv2.pt', { token: 'charturnerv2' }),
  );
  assert.deepEqual(tokens, ['charturnerv2', 'charturnerv2_1', 'charturnerv2_2']);
  const prompt =
    'charturnerv2, multiple views of the same character in the same outfit, a character turnaround ' +
    'of a woman wearing a black jacket and red shirt, best quality, intricate details.';
  assertGolden('charturner', await page.evaluate((prompt) => edit(prompt, 2), prompt));
});
