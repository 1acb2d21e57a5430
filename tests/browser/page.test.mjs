/** The demo page, as far as it goes without an edit; page-edit.test.mjs has those. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { writeText } from '../../www/js/png.js';
import { endAfterMinutes, launch, output, pkg, repository, serve } from './harness.mjs';
import { assertFits, CAT, give, openDemo, oriented, violationsOn } from './page.mjs';

/** What a page may weigh before anything is asked of it, bytes. */
const PAGE_BYTES = 400e3;
/** When something is to be seen, milliseconds; the machine may be busy with other things. */
const FIRST_PAINT_MS = 2000;

const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };

endAfterMinutes(15);

let browser, server;

before(async () => {
  mkdirSync(output, { recursive: true });
  server = await serve(`${repository}www`, { '/pkg': pkg });
  browser = await launch({
    args: ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  });
});

after(async () => {
  await browser?.close();
  server?.close();
});

const shoot = (page, name) =>
  page.screenshot({ path: `${output}page-${name}.png`, fullPage: true });

async function onPage(run, options, url = server.url) {
  const { page, finish, ...rest } = await openDemo(browser, url, options);
  await run(page, rest);
  await finish();
}

/** Waits until a picture of such a size is shown. */
const sizeIs = (page, text) => page.locator('#before-size', { hasText: text }).waitFor();

test('something is seen before the engine is asked for', async (t) => {
  await onPage(async (page) => {
    await page.waitForLoadState('networkidle');
    const { paint, files } = await page.evaluate(() => ({
      paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,
      files: performance.getEntriesByType('resource').map(({ name, decodedBodySize }) => ({
        name,
        size: decodedBodySize,
      })),
    }));
    const size = files.reduce((sum, file) => sum + file.size, 0);
    t.diagnostic(
      `first paint after ${paint.toFixed(0)} ms; ${files.length} files of ${size} bytes`,
    );
    assert.ok(paint < FIRST_PAINT_MS, `first paint after ${paint} ms`);
    assert.ok(size < PAGE_BYTES, `${size} bytes`);
    const engine = files.filter(({ name }) => /\.wasm|worker\.js|models\//.test(name));
    assert.deepEqual(engine, []);
  });
});

test('pictures come by drop, paste, file, sample, camera and address, upright', async () => {
  await onPage(async (page) => {
    await give(page, 'drop', CAT, 'cat.jpg');
    await sizeIs(page, '448 × 296, cropped and scaled to 128 × 128');
    await give(page, 'paste', oriented(CAT, 6), 'turned.jpg');
    await sizeIs(page, '296 × 448');

    const [chooser] = await Promise.all([
      page.waitForEvent('filechooser'),
      page.getByRole('button', { name: 'Choose a picture…' }).click(),
    ]);
    await chooser.setFiles(`${repository}www/samples/macaw.jpg`);
    await sizeIs(page, '480 × 372');

    await page.getByRole('button', { name: 'Sample photo: a cow' }).click();
    await sizeIs(page, '480 × 360');

    await page.getByRole('button', { name: 'Camera…' }).click();
    await page.getByRole('button', { name: 'Take the picture', disabled: false }).waitFor();
    await shoot(page, 'camera');
    assert.deepEqual(await violationsOn(page), []);
    await page.getByRole('button', { name: 'Take the picture' }).click();
    await page.waitForFunction(
      () => !document.querySelector('#before-size').textContent.startsWith('480 × 360'),
    );
    assert.match(await page.locator('#before-size').textContent(), /^\d+ × \d+, cropped/);
    const isOn = await page.evaluate(
      () => document.querySelector('#camera-video').srcObject !== null,
    );
    assert.equal(isOn, false, 'the camera is off again');

    await page.getByRole('button', { name: 'Address…' }).click();
    await shoot(page, 'address');
    assert.deepEqual(await violationsOn(page), []);
    await page.getByLabel('Address of a picture').fill(`${server.url}samples/machu-picchu.jpg`);
    await page.keyboard.press('Enter');
    await sizeIs(page, '480 × 270');
  });
});

test('what goes wrong with a picture is said with what to do', async () => {
  await onPage(async (page, { problems }) => {
    const error = page.getByRole('alert');
    await give(page, 'drop', Buffer.from('no picture'), 'no.png');
    await error.getByText('image-decode').waitFor();
    await error.getByText('Save the picture as JPEG').waitFor();
    await shoot(page, 'error');
    assert.deepEqual(await violationsOn(page), []);
    await page.getByRole('button', { name: 'Address…' }).click();
    await page.getByLabel('Address of a picture').fill(`${server.url}none.jpg`);
    await page.getByRole('button', { name: 'Fetch' }).click();
    await error.getByText('not-found').waitFor();
    // The browser itself logs a 404.
    problems.splice(0, problems.length, ...problems.filter((text) => !/404/.test(text)));
  });
});

test('a huge photo is made smaller, and the page says so', async () => {
  await onPage(async (page) => {
    const bytes = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(6000, 4000);
      canvas.getContext('2d').fillRect(0, 0, 3000, 2000);
      const blob = await canvas.convertToBlob({ type: 'image/jpeg', quality: 0.5 });
      return [...new Uint8Array(await blob.arrayBuffer())];
    });
    await give(page, 'drop', bytes, 'huge.jpg');
    await page
      .getByText(/^A large photo, 6000 × 4000: it was scaled down to 4898 × 3265 first/)
      .waitFor();
    await sizeIs(page, '4898 × 3265');
  });
});

test('size and crop are chosen, and the frame moves', async () => {
  await onPage(async (page) => {
    await give(page, 'drop', CAT, 'cat.jpg');
    await sizeIs(page, '128 × 128');
    await page.getByText('Size and crop').click();
    const frame = page.locator('#crop-box');
    const before = await frame.boundingBox();
    await page.getByLabel('Left to right').fill('0');
    // The slider may be farther down than the screen goes.
    await frame.scrollIntoViewIfNeeded();
    const moved = await frame.boundingBox();
    assert.ok(moved.x < before.x - 20, `${before.x} to ${moved.x}`);
    await page.mouse.move(moved.x + moved.width / 2, moved.y + moved.height / 2);
    await page.mouse.down();
    await page.mouse.move(moved.x + moved.width / 2 + 30, moved.y + moved.height / 2, { steps: 4 });
    await page.mouse.up();
    const dragged = await frame.boundingBox();
    assert.ok(Math.abs(dragged.x - moved.x - 30) < 6, `${moved.x} to ${dragged.x}`);
    await page.getByLabel('Zoom').fill('2');
    assert.ok((await frame.boundingBox()).width < 0.6 * before.width);
    await shoot(page, 'crop');
    assert.deepEqual(await violationsOn(page), []);
    await page.getByLabel('Shape').selectOption('original');
    await page.getByLabel('Size', { exact: true }).selectOption('512');
    await sizeIs(page, '448 × 296, cropped and scaled to 576 × 384');
    await page.getByLabel('Shape').selectOption('whole');
    assert.equal(await page.locator('#before-size').textContent(), '448 × 296');
    assert.equal(await frame.isVisible(), false);
  });
});

test('settings come from presets, examples, links and PNG files', async () => {
  const settings = '#prompt=add+fog&steps=7&text=2&image=1.3&seed=5&scheduler=DDIMScheduler';
  await onPage(
    async (page, { context }) => {
      await context.grantPermissions(['clipboard-read', 'clipboard-write']);
      const values = () =>
        page.evaluate(() =>
          ['prompt', 'steps', 'guidance', 'image-guidance', 'seed', 'scheduler'].map(
            (id) => document.getElementById(id).value,
          ),
        );
      assert.deepEqual(await values(), ['add fog', '7', '2', '1.3', '5', 'DDIMScheduler']);
      assert.equal(await page.getByLabel('New random seed').isChecked(), false);

      await page.getByRole('button', { name: 'Fast' }).click();
      assert.deepEqual((await values()).slice(1, 4), ['6', '1.25', '1.1']);
      assert.equal(await page.getByRole('button', { name: 'Fast', pressed: true }).count(), 1);
      await page.getByLabel('Slider of steps').fill('30');
      assert.equal((await values())[1], '30');
      assert.equal(await page.getByRole('button', { name: 'Fast', pressed: true }).count(), 0);
      await page.getByRole('button', { name: 'make it night' }).click();
      assert.equal((await values())[0], 'make it night');

      const png = new Uint8Array(readFileSync(`${repository}www/icons/icon-192.png`));
      const inside = {
        prompt: 'make it „schön“',
        steps: 9,
        text: 3,
        image: 1.2,
        seed: '77',
        scheduler: '',
        model: 'evil/model',
      };
      await give(
        page,
        'drop',
        writeText(png, 'instruct-pix2pix', JSON.stringify(inside)),
        'made.png',
      );
      await page
        .getByText('its settings were taken over. They name the model evil/model')
        .waitFor();
      assert.deepEqual(await values(), ['make it „schön“', '9', '3', '1.2', '77', '']);

      await page.getByLabel('Which model').selectOption('timbrooks/instruct-pix2pix');
      assert.deepEqual((await values()).slice(1, 4), ['20', '7.5', '1.5']);
      await sizeIs(page, 'scaled to 512 × 512');
      await page.getByText('(text 6 to 9, image 1.2 to 1.8)').waitFor();
    },
    {},
    server.url + settings,
  );
});

test('undo, redo, and a history that outlives a reload', async () => {
  await onPage(async (page) => {
    await give(page, 'drop', CAT, 'cat.jpg');
    await sizeIs(page, '448 × 296');
    await page.getByRole('button', { name: 'Sample photo: a cow' }).click();
    await sizeIs(page, '480 × 360');
    await page.getByRole('button', { name: 'Sample photo: a macaw' }).click();
    await sizeIs(page, '480 × 372');
    await page.getByRole('button', { name: 'Undo' }).click();
    await sizeIs(page, '480 × 360');
    await page.reload();
    await sizeIs(page, '480 × 360');
    await page.locator('h1').click();
    await page.keyboard.press('Control+z');
    await sizeIs(page, '448 × 296');
    await page.keyboard.press('Control+Shift+z');
    await sizeIs(page, '480 × 360');
    await page.getByRole('button', { name: 'Redo' }).click();
    await sizeIs(page, '480 × 372');
    assert.equal(await page.getByRole('button', { name: 'Redo' }).isDisabled(), true);
    await page.getByRole('list', { name: 'History' }).getByRole('button').first().click();
    await sizeIs(page, '448 × 296');
    await page.reload();
    await sizeIs(page, '448 × 296');
    await page.getByRole('button', { name: 'Clear history' }).click();
    await page.getByText('The history is deleted.').waitFor();
    await page.reload();
    await page.waitForLoadState('networkidle');
    assert.equal(await page.locator('#history').isVisible(), false);
    const kept = await page.evaluate(async () => {
      const request = indexedDB.open('instruct-pix2pix-page');
      await new Promise((resolve) => (request.onsuccess = resolve));
      const count = request.result.transaction('pictures').objectStore('pictures').count();
      await new Promise((resolve) => (count.onsuccess = resolve));
      return count.result;
    });
    assert.equal(kept, 0, 'no picture stays behind');
  });
});

test('models are kept, exported, deleted and imported', async () => {
  await onPage(async (page) => {
    await page.getByLabel('Which model').selectOption('./models/tiny-random');
    await page.locator('#kept summary').click();
    await page.getByText(/free for this page\. No model is kept yet\./).waitFor();
    await page.getByRole('button', { name: 'Download the chosen model now' }).click();
    await page.getByText('The model is on this machine, and works offline.').waitFor();
    const row = page.locator('#models li');
    await row.getByText(/models\/tiny-random: 8\.\d MB, used just now/).waitFor();
    const [archive] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: /^Export/ }).click(),
    ]);
    assert.match(archive.suggestedFilename(), /tiny-random\.tar$/);
    await page.locator('#machine summary').click();
    await page.getByText('This model is on this machine: nothing to download.').waitFor();
    await page.getByText(/^No graphics chip is in use/).waitFor();
    await shoot(page, 'models');
    assert.deepEqual(await violationsOn(page), []);
    await page.getByRole('button', { name: /^Delete/ }).click();
    await row.waitFor({ state: 'detached' });
    await page.locator('#import-file').setInputFiles(await archive.path());
    await page.getByText(/is imported\.$/).waitFor();
    await row.getByText(/tiny-random/).waitFor();
  });
});

for (const [name, options] of [
  ['desktop-light', { viewport: { width: 1280, height: 900 }, colorScheme: 'light' }],
  ['desktop-dark', { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' }],
  ['phone-light', { ...PHONE, colorScheme: 'light' }],
  ['phone-dark', { ...PHONE, colorScheme: 'dark' }],
]) {
  test(`it fits, and is accessible: ${name}`, async () => {
    await onPage(async (page) => {
      await page
        .getByRole('button', { name: 'Sample photo: a cat' })
        .locator('img')
        .evaluate((image) => image.decode());
      await shoot(page, `${name}-empty`);
      assert.deepEqual(await violationsOn(page), []);
      await assertFits(page);
      await page.getByRole('button', { name: 'Sample photo: a cat' }).click();
      await sizeIs(page, '448 × 296');
      await page.evaluate(() =>
        document.querySelectorAll('details').forEach((each) => (each.open = true)),
      );
      await page.getByText(/free for this page/).waitFor();
      await page.getByText(/^This page may store/).waitFor();
      await page.locator('#lora-source').fill('someone/some-lora');
      await page.getByRole('button', { name: 'Add', exact: true }).click();
      await page.getByLabel('Weight of someone/some-lora').waitFor();
      await shoot(page, `${name}-open`);
      assert.deepEqual(await violationsOn(page), []);
      await assertFits(page);
    }, options);
  });
}

test('it opens without a network, once it was there', async () => {
  const own = await serve(`${repository}www`, { '/pkg': pkg });
  const { page, finish, problems } = await openDemo(browser, own.url);
  const manifest = await page.evaluate(async () => {
    const link = document.querySelector('link[rel=manifest]');
    return (await fetch(link.href)).json();
  });
  assert.equal(manifest.display, 'standalone');
  assert.ok(manifest.icons.some(({ sizes }) => sizes === '512x512'));
  // In charge, and with all files.
  await page.evaluate(async () => {
    for (;;) {
      const cache = await caches.open('instruct-pix2pix-page-1');
      const kept = ['./', './pkg/instruct_pix2pix_bg.wasm'].map((path) => cache.match(path));
      if ((await Promise.all(kept)).every(Boolean) && navigator.serviceWorker.controller) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
  own.close();
  await page.reload();
  await page.getByRole('button', { name: 'Sample photo: a macaw' }).click();
  await sizeIs(page, '480 × 372');
  // The engine too.
  await page.locator('#kept summary').click();
  await page.getByText(/No model is kept yet/).waitFor();
  problems.splice(
    0,
    problems.length,
    ...problems.filter((text) => !/ERR_CONNECTION|Failed to load/.test(text)),
  );
  await finish();
});

test('a browser that cannot is told what to do', async () => {
  const without = await launch({ webgpu: false });
  try {
    const { page, finish } = await openDemo(without, server.url);
    await page.getByText('Edits do not work in this browser as it is.').waitFor();
    await page
      .getByText(/hardware acceleration/)
      .first()
      .waitFor();
    await shoot(page, 'unsupported');
    assert.deepEqual(await violationsOn(page), []);
    await finish();
  } finally {
    await without.close();
  }
});
