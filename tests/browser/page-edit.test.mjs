/**
 * Edits on the demo page with the built-in model, as a person makes them. The tests share one page, in order:
 * each page that edits compiles its shaders first.
 */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { readText } from '../../www/js/png.js';
import { endAfterMinutes, launch, output, repository } from './harness.mjs';
import { singleFile } from './single-file.mjs';
import {
  assertFits,
  CAT,
  give,
  longestTask,
  measured,
  openDemo,
  serveDemo,
  statisticsOf,
  violationsOn,
} from './page.mjs';

/** A task of the main thread that takes longer is felt. */
const LONGEST_TASK_MS = 50;
/** What 12 steps may take on two cores without a GPU, once the shaders are compiled. */
const EDIT_MS = 60_000;
const CANCEL_MS = 100;

endAfterMinutes(40);

let browser, context, finish, page, problems, server;
/** The last result as a file. */
let file;
/** What 12 steps took, shaders compiled, milliseconds. */
let twelveSteps;

before(async () => {
  mkdirSync(output, { recursive: true });
  server = await serveDemo();
  browser = await launch();
  const options = { viewport: { width: 1280, height: 900 }, acceptDownloads: true };
  ({ page, context, finish, problems } = await openDemo(browser, server.url, options));
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.evaluate(() => {
    globalThis.said = [];
    const status = document.querySelector('#status');
    const observer = new MutationObserver(() =>
      said.push({ text: status.textContent, at: performance.now() }),
    );
    observer.observe(status, { childList: true, characterData: true, subtree: true });
  });
});

after(async () => {
  await browser?.close();
  server?.close();
});

const shoot = (name) => page.screenshot({ path: `${output}page-${name}.png`, fullPage: true });
const status = () => page.getByRole('status').textContent();
const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;

/** Tab by tab, as far as something is focused. */
async function tabTo(locator) {
  for (let presses = 0; presses < 200; presses++) {
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`not reached by keyboard: ${locator}`);
}

/** Waits until the edit that runs has ended, and says how. */
async function ended() {
  const error = page.getByRole('alert');
  await page
    .getByText(/^(Done in|Cancelled)/)
    .or(error)
    .filter({ visible: true })
    .first()
    .waitFor();
  if (await error.isVisible()) assert.fail(`the page says: ${await error.innerText()}`);
  return status();
}

/** Types an instruction and edits. */
async function edit(prompt) {
  await page.getByLabel('Instruction').fill(prompt);
  await page.getByRole('button', { name: 'Edit', exact: true }).click();
  await page.getByRole('button', { name: 'Cancel' }).waitFor();
  return ended();
}

test('the whole path by keyboard alone, and no long task', async (t) => {
  const sample = page.getByRole('button', { name: 'Sample photo: a cow' });
  await tabTo(sample);
  await page.keyboard.press('Enter');
  await page.getByText('480 × 360, cropped and scaled to 128 × 128').waitFor();
  await tabTo(page.getByLabel('Instruction'));
  await page.keyboard.type('make it black and white');
  const task = await longestTask(page, async () => {
    await page.keyboard.press('Enter');
    await page.getByText(/The first edit compiles its shaders/).waitFor();
    await shoot('edit-first');
    await page.getByText(/^Step \d+ of 12, about .* left$/).waitFor();
    await page.locator('#preview').waitFor();
    const frame = await page.locator('#after .frame').boundingBox();
    const preview = await page.locator('#preview').boundingBox();
    assert.ok(
      Math.abs(preview.width - preview.height) < 1,
      'the preview is as square as the picture',
    );
    assert.ok(preview.height <= frame.height, 'all of the preview is to be seen');
    await shoot('edit-step');
    assert.match(await ended(), /^Done in/);
  });
  const said = await page.evaluate(() => globalThis.said);
  const texts = said.map(({ text }) => text);
  assert.ok(
    texts.some((text) => /^Loading the model: .* of 27\.\d MB \(\w+\)/.test(text)),
    texts.join('\n'),
  );
  const steps = said.filter(({ text }) => /^Step \d/.test(text));
  assert.equal(steps.length, 12, texts.join('\n'));
  assert.equal(steps[0].text, 'Step 1 of 12', 'compilation tells nothing of the time that is left');
  assert.equal(steps[11].text, 'Step 12 of 12, decoding…');
  for (const { text, at } of steps.slice(1, 8)) {
    const [, promised] = text.match(/^Step \d+ of 12, about ([\d.]+) s left$/) ?? assert.fail(text);
    const was = (steps[11].at - at) / 1000;
    assert.ok(promised > was / 2 && promised < was * 2, `“${text}”, and it was ${was} s`);
  }
  const [load, edit] = [await measured(page, 'load'), await measured(page, 'edit')];
  t.diagnostic(`load: ${seconds(load)}`);
  t.diagnostic(`first edit, with compilation: ${seconds(edit)}`);
  t.diagnostic(`longest task of the main thread: ${task.toFixed(0)} ms`);
  assert.ok(task < LONGEST_TASK_MS, `the main thread was blocked for ${task} ms`);
  const [was, is] = [
    await statisticsOf(page.locator('#compare-image')),
    await statisticsOf(page.locator('#after-image')),
  ];
  assert.deepEqual([is.width, is.height], [128, 128]);
  t.diagnostic(`colour ${was.colour.toFixed(1)} to ${is.colour.toFixed(1)}`);
  assert.ok(is.colour < was.colour / 3, `colour ${was.colour} to ${is.colour}`);
  await shoot('edit-done');

  const range = page.getByLabel('Show before, from the left');
  await tabTo(range);
  for (let presses = 0; presses < 5; presses++) await page.keyboard.press('PageUp');
  const clip = await page.locator('#compare-image').evaluate((image) => image.style.clipPath);
  assert.match(clip, /^inset\(0(px)? 50% 0(px)? 0(px)?\)$/);
  await shoot('edit-compared');
  assert.deepEqual(await violationsOn(page), []);
});

test('the next edit is fast, goes on from the result, and shows every step', async (t) => {
  await page.getByRole('button', { name: 'Undo' }).click();
  await page.getByText('Undone.').waitFor();
  await page.evaluate(() => {
    globalThis.previews = new Set();
    const { putImageData } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.putImageData = function (picture, ...rest) {
      if (this.canvas.id === 'preview') previews.add(picture.data.join());
      return putImageData.call(this, picture, ...rest);
    };
  });
  await give(page, 'paste', CAT, 'cat.jpg');
  await page.locator('#before-size', { hasText: '448 × 296' }).waitFor();
  const task = await longestTask(page, () => edit('make it darker'));
  const time = (twelveSteps = await measured(page, 'edit'));
  t.diagnostic(`12 steps at 128 x 128: ${seconds(time)}; longest task ${task.toFixed(0)} ms`);
  assert.ok(time < EDIT_MS, `${time} ms`);
  assert.ok(task < LONGEST_TASK_MS, `the main thread was blocked for ${task} ms`);
  assert.equal(await page.evaluate(() => previews.size), 12);
  const was = await statisticsOf(page.locator('#compare-image'));
  const is = await statisticsOf(page.locator('#after-image'));
  t.diagnostic(`mean ${was.mean.toFixed(1)} to ${is.mean.toFixed(1)}`);
  assert.ok(is.mean < 0.8 * was.mean, `mean ${was.mean} to ${is.mean}`);
  assert.ok(is.colour > was.colour / 3, 'it is no black and white picture');

  await page.getByRole('button', { name: 'Keep editing this' }).click();
  await page.locator('#before-size', { hasText: /^128 × 128/ }).waitFor();
  assert.equal(await page.locator('#after-image').isVisible(), false);
  const source = await statisticsOf(page.locator('#before-image'));
  assert.ok(Math.abs(source.mean - is.mean) < 1, 'the result is what is edited now');
});

test('an edit is cancelled at once', async (t) => {
  await page.getByLabel('Steps', { exact: true }).fill('500');
  await page.getByRole('button', { name: 'Edit', exact: true }).click();
  await page.getByText(/^Step [2-9] of 500/).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  assert.equal(await ended(), 'Cancelled.');
  const time = await measured(page, 'cancel');
  t.diagnostic(`rejected ${time.toFixed(0)} ms after the click`);
  assert.ok(time < CANCEL_MS, `${time} ms`);
  assert.equal(await page.locator('#preview').isVisible(), false);
  // No step comes after it.
  await page.waitForTimeout(3000);
  assert.equal(await status(), 'Cancelled.');
  // Nor does the GPU go on.
  await page.getByLabel('Steps', { exact: true }).fill('500');
  await page.getByRole('button', { name: 'Edit', exact: true }).click();
  await page.getByText(/^Step [2-9] of 500/).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('Cancelled.').waitFor();
  await page.getByLabel('Steps', { exact: true }).fill('1');
  assert.match(await edit('make it darker'), /^Done/);
  const next = await measured(page, 'edit');
  t.diagnostic(`an edit of 1 step right after it: ${seconds(next)}`);
  assert.ok(next < (5 * twelveSteps) / 12, `${next} ms after a cancel`);
});

test('variants are a grid, of which one is chosen', async (t) => {
  await page.getByLabel('Steps', { exact: true }).fill('2');
  await page.getByLabel('Variants').selectOption('seeds-2');
  await page.getByLabel('Seed', { exact: true }).fill('41');
  const task = await longestTask(page, () => edit('make it night'));
  t.diagnostic(`longest task ${task.toFixed(0)} ms`);
  assert.ok(task < LONGEST_TASK_MS, `the main thread was blocked for ${task} ms`);
  const results = page.getByRole('group', { name: 'Results' }).getByRole('button');
  assert.equal(await results.count(), 2);
  assert.match(await page.locator('#after-detail').textContent(), /seed 41$/);
  await results.last().click();
  await page.locator('#after-detail', { hasText: 'seed 42' }).waitFor();
  assert.equal(await page.getByRole('link').getAttribute('download'), 'instruct-pix2pix-42.png');
  await shoot('edit-variants');
  assert.deepEqual(await violationsOn(page), []);
  await page.emulateMedia({ colorScheme: 'dark' });
  await shoot('edit-variants-dark');
  assert.deepEqual(await violationsOn(page), []);
  await page.emulateMedia({ colorScheme: null });
  await page.getByLabel('Variants').selectOption('1');
});

test('the result is downloaded, copied and shared, with its settings', async () => {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'Download PNG' }).click(),
  ]);
  file = readFileSync(await download.path());
  const inside = JSON.parse(readText(new Uint8Array(file), 'instruct-pix2pix'));
  const { prompt, seed, steps, text, image, model } = inside;
  assert.deepEqual(
    { prompt, seed, steps, text, image, model },
    {
      prompt: 'make it night',
      seed: '42',
      steps: 2,
      text: 1.25,
      image: 1.1,
      model: './models/built-in',
    },
  );

  await page.getByRole('button', { name: 'Share settings' }).click();
  await page.getByText('It holds no picture.').waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(link.startsWith(`${server.url}#prompt=make+it+night&`), link);
  assert.ok(link.length < 300, link);

  await page.getByRole('button', { name: 'Copy' }).click();
  await page.getByText('The picture is on the clipboard.').waitFor();
  const types = await page.evaluate(async () => (await navigator.clipboard.read())[0].types);
  assert.deepEqual(types, ['image/png']);

  await page.getByLabel('Instruction').fill('something else');
  await page.getByLabel('Steps', { exact: true }).fill('9');
  await give(page, 'drop', file, 'result.png');
  await page.getByText('Your instruction was “something else”.').waitFor();
  assert.equal(await page.getByLabel('Instruction').inputValue(), 'make it night');
  assert.equal(await page.getByLabel('Steps', { exact: true }).inputValue(), '2');
});

test('results are there after a reload, and edits are possible without a network', async (t) => {
  await page.getByRole('button', { name: 'Undo' }).click();
  await page.getByText('Undone.').waitFor();
  await page.locator('#after-image').waitFor();
  const before = await statisticsOf(page.locator('#after-image'));
  await page.waitForFunction(async () => {
    const cache = await caches.open('instruct-pix2pix-page-1');
    return (
      navigator.serviceWorker.controller && (await cache.match('./pkg/instruct_pix2pix_bg.wasm'))
    );
  });
  server.close();
  await page.reload();
  await page.locator('#after-image').waitFor();
  assert.deepEqual(await statisticsOf(page.locator('#after-image')), before);
  assert.match(await page.locator('#after-detail').textContent(), /“make it night”.*seed 42$/);
  const results = page.getByRole('group', { name: 'Results' }).getByRole('button');
  assert.equal(await results.count(), 2, 'the whole grid');

  // At the width of a phone, since nothing else is new.
  await page.setViewportSize({ width: 360, height: 740 });
  await assertFits(page);
  await page.getByLabel('Steps', { exact: true }).fill('2');
  await edit('invert the colours');
  t.diagnostic(`load without a network: ${seconds(await measured(page, 'load'))}`);
  await page.getByText('what is on this machine is used').waitFor();
  const strip = await page.locator('#views').boundingBox();
  const current = await page.locator('#views [aria-current]').boundingBox();
  assert.ok(current.x + current.width <= strip.x + strip.width, 'the latest view is not out of sight');
  const [was, is] = [
    await statisticsOf(page.locator('#compare-image')),
    await statisticsOf(page.locator('#after-image')),
  ];
  assert.ok(Math.abs(is.mean - was.mean) > 10, `mean ${was.mean} to ${is.mean}`);
  await shoot('edit-phone');
  await assertFits(page);
  assert.deepEqual(await violationsOn(page), []);
  await page.emulateMedia({ colorScheme: 'dark' });
  await shoot('edit-phone-dark');
  // The browser logs what it could not fetch.
  problems.splice(
    0,
    problems.length,
    ...problems.filter((text) => !/ERR_|Failed to load/.test(text)),
  );
  await finish();
});

/** A page with the tiny model, whose edits take seconds. `/hub` stands in for the Hub. */
async function openTiny() {
  const tiny = `${repository}www/models/tiny-random`;
  const own = await serveDemo({
    '/hub/timbrooks/instruct-pix2pix/resolve/main': tiny,
    '/adapters': `${repository}tests/fixtures/oracle/adapters`,
  });
  const opened = await openDemo(browser, own.url, { acceptDownloads: true });
  ({ page, problems } = opened);
  const canvas = await page.evaluate(async (endpoint) => {
    const { env } = await import('./pkg/index.js');
    env.endpoint = endpoint;
    const canvas = new OffscreenCanvas(32, 24);
    canvas.getContext('2d').fillRect(0, 0, 16, 24);
    const blob = await canvas.convertToBlob();
    return [...new Uint8Array(await blob.arrayBuffer())];
  }, `${own.url}hub`);
  await give(page, 'drop', canvas, 'small.png');
  await page.locator('#before-size', { hasText: '32 × 24' }).waitFor();
  return {
    ...opened,
    url: own.url,
    async finish() {
      await opened.finish();
      own.close();
    },
  };
}

/** Edits in few steps with a seed; what is shown then. */
async function tinyEdit({ steps = 2, seed = '1', prompt = 'make it snowy' } = {}) {
  await page.getByLabel('Steps', { exact: true }).fill(String(steps));
  await page.getByLabel('Seed', { exact: true }).fill(seed);
  assert.match(await edit(prompt), /^Done/);
  const { print, width, height } = await statisticsOf(page.locator('#after-image'));
  assert.deepEqual([width, height], [32, 24]);
  return print;
}

/** The parameters in the result as it is downloaded. */
async function downloadedParameters() {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: 'Download PNG' }).click(),
  ]);
  const bytes = new Uint8Array(readFileSync(await download.path()));
  return JSON.parse(readText(bytes, 'instruct-pix2pix'));
}

test('a model and LoRAs come from the disk, and LoRAs from an address', async () => {
  const { context, finish, url } = await openTiny();
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.locator('#folder-files').setInputFiles(`${repository}www/models/tiny-random`);
  assert.match(
    await page.getByLabel('Which model').locator('option:checked').textContent(),
    /^tiny-random, from this disk$/,
  );
  await page.locator('#fit summary').click();
  await page.getByLabel('Shape').selectOption('whole');
  const without = await tinyEdit();
  await page.locator('#lora summary').click();
  await page
    .locator('#lora-file')
    .setInputFiles(`${repository}tests/fixtures/oracle/adapters/lora_peft.safetensors`);
  await page.getByText('lora_peft.safetensors will be loaded with the next edit.').waitFor();
  const full = await tinyEdit();
  assert.notEqual(full, without);
  await page.getByLabel('Weight of lora_peft.safetensors').fill('0.5');
  await page.getByLabel('Instruction').focus();
  const half = await tinyEdit();
  assert.ok(half !== full && half !== without, 'half its weight is something else');
  assert.deepEqual((await downloadedParameters()).loras, [], 'files are nothing for others');
  await page.getByRole('button', { name: 'Remove lora_peft.safetensors' }).click();
  assert.equal(await tinyEdit(), without);

  const address = `${url}adapters/lora_peft.safetensors`;
  await page.locator('#lora-source').fill(address);
  await page.locator('#lora-source').press('Enter');
  await page.getByLabel(`Weight of ${address}`).fill('0.5');
  assert.equal(await tinyEdit(), half, 'it is the same LoRA');
  assert.deepEqual((await downloadedParameters()).loras, [[address, 0.5]]);
  await page.getByRole('button', { name: 'Share settings' }).click();
  await page.getByText('It holds no picture.').waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole('button', { name: `Remove ${address}` }).click();
  await page.evaluate((hash) => (location.hash = hash), new URL(link).hash);
  await page.getByText(`They name the LoRA ${address}, which Edit would load.`).waitFor();
  assert.equal(await page.getByLabel(`Weight of ${address}`).inputValue(), '0.5');
  await finish();
});

test('scheduler, negative prompt and random guidance reach the edit', async () => {
  const { finish } = await openTiny();
  await page.getByLabel('Which model').selectOption('./models/tiny-random');
  const plain = await tinyEdit();
  await page.getByLabel('Scheduler').selectOption('DDIMScheduler');
  assert.notEqual(await tinyEdit(), plain);
  assert.match(await page.locator('#after-detail').textContent(), /, DDIM$/);
  await page.getByLabel('Scheduler').selectOption('');
  await page.getByLabel('Not wanted').fill('a cow on a meadow');
  assert.notEqual(await tinyEdit(), plain);
  assert.equal((await downloadedParameters()).negativePrompt, 'a cow on a meadow');
  await page.getByRole('button', { name: 'Reset settings' }).click();
  assert.equal(await tinyEdit(), plain, 'all is as it was');

  await page.getByLabel('Random guidance').check();
  const drawn = [];
  for (const seed of ['1', '2', '3']) {
    await tinyEdit({ steps: 1, seed });
    const { text, image } = await downloadedParameters();
    assert.ok(text >= 6 && text <= 9, `text guidance ${text}`);
    assert.ok(image >= 1.2 && image <= 1.8, `image guidance ${image}`);
    assert.equal(await page.locator('#guidance').inputValue(), String(text));
    assert.match(
      await page.locator('#after-detail').textContent(),
      new RegExp(`text ${text}, image ${image},`),
    );
    drawn.push(`${text} ${image}`);
  }
  assert.ok(new Set(drawn).size > 1, drawn.join());

  await page.getByRole('button', { name: 'Reset settings' }).click();
  await page.getByLabel('Variants').selectOption('guidance-4');
  await tinyEdit({ steps: 1, prompt: 'make it foggy' });
  const results = page.getByRole('group', { name: 'Results' }).getByRole('button');
  assert.deepEqual(await results.evaluateAll((buttons) => buttons.map(({ title }) => title)), [
    'text 5.63, image 1.2',
    'text 5.63, image 1.8',
    'text 9.38, image 1.2',
    'text 9.38, image 1.8',
  ]);
  await results.last().click();
  await page.locator('#after-detail', { hasText: 'text 9.38, image 1.8' }).waitFor();

  const recent = page.locator('#recent option');
  const instructions = () => recent.evaluateAll((options) => options.map(({ value }) => value));
  assert.deepEqual(await instructions(), ['make it foggy', 'make it snowy'], 'the latest first');
  await page.reload();
  assert.deepEqual(await instructions(), ['make it foggy', 'make it snowy']);
  await page.getByRole('button', { name: 'Clear history' }).click();
  await page.getByText('The history is deleted.').waitFor();
  assert.deepEqual(await instructions(), []);
  await page.reload();
  assert.deepEqual(await instructions(), []);
  await finish();
});

test('a checkpoint in one file is opened, and its edits are those of the folder', async () => {
  const { finish } = await openTiny();
  await page.getByLabel('Which model').selectOption('./models/tiny-random');
  const folder = await tinyEdit();
  await page.locator('#checkpoint-file').setInputFiles({
    name: 'tiny.safetensors',
    mimeType: 'application/octet-stream',
    buffer: singleFile(`${repository}www/models/tiny-random`),
  });
  assert.match(
    await page.getByLabel('Which model').locator('option:checked').textContent(),
    /^tiny\.safetensors, from this disk$/,
  );
  await page.locator('#fit summary').click();
  await page.getByLabel('Shape').selectOption('whole');
  assert.equal(await tinyEdit(), folder);
  await finish();
});

test('Escape cancels an edit', async () => {
  const { finish } = await openTiny();
  await page.getByLabel('Which model').selectOption('./models/tiny-random');
  await page.getByLabel('Steps', { exact: true }).fill('500');
  await page.getByLabel('Instruction').fill('make it snowy');
  await page.getByRole('button', { name: 'Edit', exact: true }).click();
  await page.getByText(/^Step \d+ of 500/).waitFor();
  await page.keyboard.press('Escape');
  assert.equal(await ended(), 'Cancelled.');
  assert.ok((await measured(page, 'cancel')) < CANCEL_MS);
  await finish();
});
