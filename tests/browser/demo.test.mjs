/** The demo page, used as a person would, with the tiny model on software WebGPU. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import {
  encodePng,
  endAfterMinutes,
  fromBase64,
  launch,
  openPage,
  output,
  pkg,
  readSafetensors,
  repository,
  serve,
} from './harness.mjs';
import { longestTask } from './page.mjs';

/** A task of the main thread that takes longer is felt. */
const LONGEST_TASK_MS = 50;
/** What the same edit gives natively: width, height, RGB in base64. */
const GOLDEN = `${repository}tests/fixtures/demo_seed42.json`;

const oracle = `${repository}tests/fixtures/oracle/`;
const edit = { prompt: 'make it snowy', numInferenceSteps: 10, seed: 42 };

endAfterMinutes(40);

let browser, png, server;

before(async () => {
  mkdirSync(output, { recursive: true });
  server = await serve(`${repository}www`, { '/pkg': pkg });
  browser = await launch();
  const { image_u8 } = readSafetensors(
    readFileSync(`${oracle}cases/sd_default_euler_a.safetensors`),
  );
  const [, height, width] = image_u8.shape;
  png = encodePng({ width, height, data: image_u8.data });
});

after(async () => {
  await browser?.close();
  server?.close();
});

/** Opens the page, and closes it after `run`, which must have caused no error in the console. */
async function onPage(run, options) {
  const { page, problems } = await openPage(browser, server.url, options);
  const strangers = [];
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (/^https?:$/.test(url.protocol) && url.origin !== new URL(server.url).origin) {
      strangers.push(url.href);
    }
  });
  try {
    await run(page, problems);
    assert.deepEqual(problems, []);
    assert.deepEqual(strangers, [], 'the page asks no other server');
  } finally {
    await page.close();
  }
}

const file = (name, buffer) => ({ name, mimeType: 'image/png', buffer });

async function fillIn(page, { steps = edit.numInferenceSteps } = {}) {
  await page.locator('#file').setInputFiles(file('picture.png', png));
  await page.getByLabel('Which model').selectOption('./models/tiny-random');
  await page.getByLabel('Instruction').fill(edit.prompt);
  await page.getByLabel('Steps', { exact: true }).fill(String(steps));
  await page.getByLabel('Seed', { exact: true }).fill(String(edit.seed));
}

/** Waits until the edit that runs has ended with a result. */
async function ended(page) {
  const error = page.getByRole('alert');
  await page.locator('#after-image').or(error).filter({ visible: true }).first().waitFor();
  if (await error.isVisible()) assert.fail(`the page says: ${await error.innerText()}`);
  await page.getByRole('button', { name: 'Edit', exact: true, disabled: false }).waitFor();
}

/** The result on the page, as RGBA, once there is one. */
async function result(page) {
  await ended(page);
  const { width, height, data } = await page.locator('#after-image').evaluate(async (image) => {
    await image.decode();
    const context = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext('2d');
    context.drawImage(image, 0, 0);
    const { width, height, data } = context.getImageData(
      0,
      0,
      image.naturalWidth,
      image.naturalHeight,
    );
    return { width, height, data: [...data] };
  });
  return { width, height, data: Uint8Array.from(data) };
}

/** How far apart two pictures are, in levels of 0 to 255. */
function largestDifference(a, b) {
  assert.equal(a.length, b.length);
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i])), 0);
}

test('a picture is edited, and the page never blocks', async (t) => {
  await onPage(async (page) => {
    await fillIn(page);
    const start = performance.now();
    const task = await longestTask(page, async () => {
      await page.getByRole('button', { name: 'Edit', exact: true }).click();
      await ended(page);
    });
    const wall = performance.now() - start;
    const status = await page.getByRole('status').textContent();
    t.diagnostic(`${(wall / 1000).toFixed(1)} s with loading; the page says: ${status}`);
    t.diagnostic(`longest task ${task.toFixed(0)} ms`);
    await page.screenshot({ path: `${output}demo.png`, fullPage: true });

    assert.match(status, /^Done in .* of memory/);
    assert.ok(task < LONGEST_TASK_MS, `the main thread was blocked for ${task} ms`);
    const edited = await result(page);
    const golden = JSON.parse(readFileSync(GOLDEN, 'utf8'));
    assert.deepEqual([edited.width, edited.height], [golden.width, golden.height]);
    const colours = edited.data.filter((_, i) => i % 4 !== 3);
    const difference = largestDifference(colours, fromBase64(golden.data));
    t.diagnostic(`${difference} levels from the native golden`);
    assert.ok(difference <= 2, `${difference} levels from the native golden`);
  });
});

test('the result can be downloaded, and is what the package gives', async () => {
  await onPage(async (page) => {
    await fillIn(page, { steps: 1 });
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    const { data } = await result(page);
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('link', { name: 'Download PNG' }).click(),
    ]);
    assert.equal(download.suggestedFilename(), 'instruct-pix2pix-42.png');
    const bytes = [...readFileSync(await download.path())];
    const downloaded = await page.evaluate(async (bytes) => {
      const bitmap = await createImageBitmap(new Blob([Uint8Array.from(bytes)]));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
      context.drawImage(bitmap, 0, 0);
      return [...context.getImageData(0, 0, bitmap.width, bitmap.height).data];
    }, bytes);
    assert.equal(largestDifference(data, downloaded), 0, 'the file');

    const byPackage = await page.evaluate(
      async ([edit, bytes]) => {
        const { InstructPix2Pix } = await import('./pkg/index.js');
        const pipe = await InstructPix2Pix.fromPretrained('./models/tiny-random');
        const image = new Blob([Uint8Array.from(bytes)]);
        const { images } = await pipe.edit({ ...edit, numInferenceSteps: 1, image });
        await pipe.dispose();
        return [...images[0].data];
      },
      [edit, [...png]],
    );
    assert.equal(largestDifference(data, byPackage), 0, 'the package');
  });
});

test('the sample photo is scaled down for the tiny model, by keyboard alone', async () => {
  await onPage(
    async (page) => {
      await page.getByRole('button', { name: 'Sample photo: a cat' }).focus();
      await page.keyboard.press('Enter');
      await page.getByText('448 × 296').waitFor();
      await page.getByLabel('Which model').focus();
      await page.keyboard.type('tiny');
      await page.getByText('scaled to 64 × 42').waitFor();
      await page.getByLabel('Steps', { exact: true }).focus();
      await page.keyboard.press('Control+A');
      await page.keyboard.type('1');
      await page.getByLabel('Instruction').focus();
      await page.keyboard.type('turn the cat into a tiger');
      await page.keyboard.press('Enter');
      const { width, height } = await result(page);
      assert.deepEqual([width, height], [64, 42]);
      await page.screenshot({ path: `${output}demo-phone-dark.png`, fullPage: true });
    },
    { viewport: { width: 390, height: 844 }, colorScheme: 'dark' },
  );
});

test('pictures can be dropped and pasted', async () => {
  await onPage(async (page) => {
    for (const type of ['drop', 'paste']) {
      await page.evaluate(
        ([type, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], 'picture.png'));
          const options = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(
            type === 'drop'
              ? new DragEvent(type, { ...options, dataTransfer: data })
              : new ClipboardEvent(type, { ...options, clipboardData: data }),
          );
        },
        [type, [...png]],
      );
      await page.getByText('48 × 48').waitFor();
      await page.reload();
    }
  });
});

test('an edit can be cancelled, and another one made', async () => {
  await onPage(async (page) => {
    await fillIn(page, { steps: 500 });
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await page.getByText(/^Step \d+ of 500/).waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByText('Cancelled.').waitFor();
    assert.equal(await page.locator('#error').isVisible(), false);
    await page.getByLabel('Steps', { exact: true }).fill('1');
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await result(page);
  });
});

test('what goes wrong is shown with its code', async () => {
  await onPage(async (page, problems) => {
    const error = page.getByRole('alert');
    await page.getByLabel('Instruction').fill(edit.prompt);
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await error.getByText('invalid-argument').waitFor();

    await page.locator('#file').setInputFiles(file('picture.png', Buffer.from('no picture')));
    await error.getByText('image-decode').waitFor();

    await page.locator('#file').setInputFiles(file('picture.png', png));
    await page.getByLabel('Which model').selectOption({ label: 'another…' });
    await page.getByLabel('Hub id or URL').fill('./models/no-such-model');
    await page.getByRole('button', { name: 'Edit', exact: true }).click();
    await error.getByText('not-found').waitFor();
    assert.match(await error.textContent(), /no-such-model/);
    await page.screenshot({ path: `${output}demo-error.png`, fullPage: true });
    // The browser itself logs a 404.
    problems.splice(0, problems.length, ...problems.filter((text) => !/404/.test(text)));
  });
});
