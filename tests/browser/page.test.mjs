/** The demo page, as far as it goes without an edit; page-edit.test.mjs has those. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { writeText } from '../../www/js/png.js';
import { endAfterMinutes, launch, output, repository } from './harness.mjs';
import {
  assertFits,
  CAT,
  give,
  measured,
  openDemo,
  oriented,
  serveDemo,
  slowLine,
  violationsOn,
} from './page.mjs';

/** What a page may weigh before anything is asked of it, bytes. */
const PAGE_BYTES = 400e3;
/** When something is to be seen, milliseconds; the machine may be busy with other things. */
const FIRST_PAINT_MS = 2000;
const CANCEL_MS = 100;

const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };

endAfterMinutes(15);

let browser, server;

before(async () => {
  mkdirSync(output, { recursive: true });
  server = await serveDemo();
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
    assert.match(await page.locator('#model-note').textContent(), /^A small model that comes with/);
    const engine = files.filter(({ name }) => /\.wasm|worker\.js|models\//.test(name));
    assert.deepEqual(engine, []);
  });
});

test('the policy holds, in the page and in every answer', async () => {
  const policy =
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; " +
    "img-src 'self' blob:; connect-src 'self' https:; manifest-src 'self'; base-uri 'none'; " +
    "form-action 'none'; object-src 'none'";
  for (const path of ['', 'js/picture-worker.js', 'pkg/worker.js', 'sw.js', 'none']) {
    const { headers } = await fetch(server.url + path);
    assert.equal(headers.get('content-security-policy'), `${policy}; frame-ancestors 'none'`, path);
  }
  await onPage(async (page, { problems, strangers }) => {
    const meta = page.locator('meta[http-equiv="Content-Security-Policy"]');
    assert.equal(await meta.getAttribute('content'), policy);
    const found = await page.evaluate(async () => {
      const refused = [];
      document.addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI }) =>
        refused.push(`${effectiveDirective} ${blockedURI}`),
      );
      const script = document.createElement('script');
      script.textContent = 'globalThis.isRun = true';
      document.head.append(script);
      const error = await fetch('http://stranger.invalid/').catch(({ name }) => name);
      await new Promise((resolve) => setTimeout(resolve));
      return { refused: [...new Set(refused)], error, isRun: globalThis.isRun ?? false };
    });
    assert.deepEqual(found, {
      refused: ['script-src-elem inline', 'connect-src http://stranger.invalid/'],
      error: 'TypeError',
      isRun: false,
    });
    // The browser logs what it refuses.
    const others = problems.filter((text) => !/Content Security Policy|violates/.test(text));
    problems.splice(0, problems.length, ...others);
    strangers.splice(0, strangers.length, ...strangers.filter((url) => !/stranger/.test(url)));
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
    await shoot(page, 'huge');

    const clear = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(5000, 5000);
      canvas.getContext('2d').fillRect(0, 0, 1, 1);
      const blob = await canvas.convertToBlob();
      return [...new Uint8Array(await blob.arrayBuffer())];
    });
    await give(page, 'drop', clear, 'clear.png');
    await sizeIs(page, '4000 × 4000');
    const middle = await page.locator('#before-image').evaluate((image) => {
      const context = new OffscreenCanvas(1, 1).getContext('2d');
      context.drawImage(image, 2000, 2000, 1, 1, 0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data];
    });
    assert.deepEqual(middle, [255, 255, 255, 255], 'what is transparent becomes white');
  });
});

test('of two pictures the one that was called for last is shown', async () => {
  await onPage(async (page) => {
    await give(page, 'drop', CAT, 'cat.jpg');
    await sizeIs(page, '448 × 296');
    // The next file is read slowly, so that the one after it is faster.
    await page.evaluate(() => {
      const { slice } = Blob.prototype;
      Blob.prototype.slice = function (...args) {
        const part = slice.apply(this, args);
        Blob.prototype.slice = slice;
        part.arrayBuffer = async () => {
          await new Promise((resolve) => setTimeout(resolve, 1000));
          return Blob.prototype.arrayBuffer.call(part);
        };
        return part;
      };
    });
    await give(page, 'drop', readFileSync(`${repository}www/samples/cow.jpg`), 'cow.jpg');
    await page.getByRole('button', { name: 'Sample photo: a macaw' }).click();
    await sizeIs(page, '480 × 372');
    await page.waitForTimeout(1500);
    assert.match(await page.locator('#before-size').textContent(), /^480 × 372/);
    const views = page.getByRole('list', { name: 'History' }).getByRole('button');
    assert.equal(await views.count(), 2);

    // Two views back, of which the first is decoded slowly.
    await page.getByRole('button', { name: 'Sample photo: Machu Picchu' }).click();
    await sizeIs(page, '480 × 270');
    await page.evaluate(() => {
      const { decode } = HTMLImageElement.prototype;
      HTMLImageElement.prototype.decode = async function () {
        HTMLImageElement.prototype.decode = decode;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      };
      const undo = document.querySelector('#undo');
      undo.click();
      undo.click();
    });
    await sizeIs(page, '448 × 296');
    await page.waitForTimeout(1500);
    assert.match(await page.locator('#before-size').textContent(), /^448 × 296/);
    assert.equal(await views.first().getAttribute('aria-current'), 'true');
  });
});

test('a part of the page that does not start is said, and started again', async () => {
  const line = await slowLine(server.url, Infinity);
  line.refused.add('/js/picture-worker.js');
  await onPage(
    async (page, { problems }) => {
      await give(page, 'drop', CAT, 'cat.jpg');
      const error = page.getByRole('alert');
      await error.getByText('The part of this page that reads pictures did not start.').waitFor();
      await error.getByText('Check the connection').waitFor();
      line.refused.clear();
      await give(page, 'drop', CAT, 'cat.jpg');
      await sizeIs(page, '448 × 296');
      problems.splice(0, problems.length, ...problems.filter((text) => !/500/.test(text)));
    },
    {},
    line.url,
  );
  line.close();
});

test('downloads say how fast they are, and whatever is waited for can be cancelled', async (t) => {
  const line = await slowLine(server.url, 1.5e6);
  line.held.add('/held.jpg');
  await onPage(
    async (page) => {
      await page.getByLabel('Which model').selectOption('./models/tiny-random');
      await page.locator('#kept summary').click();
      const download = page.getByRole('button', { name: 'Download the chosen model now' });
      await download.click();
      await page
        .getByText(
          /^Loading the model: [\d.]+ [kM]B of 8\.\d MB \(\w+\), [\d.]+ [kM]B a second, about .* left$/,
        )
        .waitFor();
      await shoot(page, 'loading');
      assert.deepEqual(await violationsOn(page), []);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await page.getByText('Cancelled.').waitFor();
      const time = await measured(page, 'cancel');
      t.diagnostic(`the download rejected ${time.toFixed(0)} ms after the click`);
      assert.ok(time < CANCEL_MS, `${time} ms`);
      await shoot(page, 'cancelled');
      await download.click();
      await page.getByText('The model is on this machine, and works offline.').waitFor();

      // A picture that does not come.
      await page.getByRole('button', { name: 'Address…' }).click();
      await page.getByLabel('Address of a picture').fill(`${line.url}held.jpg`);
      await page.getByRole('button', { name: 'Fetch' }).click();
      await page.getByLabel('Instruction').fill('make it snowy');
      await page.getByRole('button', { name: 'Edit', exact: true }).click();
      await page.getByText('One moment…').waitFor();
      await page.keyboard.press('Escape');
      await page.getByText('Cancelled.').waitFor();
      const waited = await measured(page, 'cancel');
      assert.ok(waited < CANCEL_MS, `${waited} ms`);
    },
    {},
    line.url,
  );
  line.close();
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
  const settings =
    '#prompt=add+fog&steps=7&text=2&image=1.3&seed=5&scheduler=DDIMScheduler&lora=0.5+a%2Fb';
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
      await page.getByText('They name the LoRA a/b, which Edit would load.').waitFor();
      assert.equal(await page.locator('#loras input').inputValue(), '0.5');

      await page.getByRole('button', { name: 'Fast' }).click();
      assert.deepEqual((await values()).slice(1, 4), ['6', '1.25', '1.1']);
      assert.equal(await page.getByRole('button', { name: 'Fast', pressed: true }).count(), 1);
      await page.getByLabel('Slider of steps').fill('30');
      assert.equal((await values())[1], '30');
      assert.equal(await page.getByRole('button', { name: 'Fast', pressed: true }).count(), 0);
      await page.getByRole('button', { name: 'Balanced' }).click();
      assert.equal((await values())[1], '12');
      await page.getByRole('button', { name: 'As the original' }).click();
      assert.equal((await values())[1], '100');
      await page.getByRole('button', { name: 'make it night' }).click();
      assert.equal((await values())[0], 'make it night');
      await page.getByLabel('Not wanted').fill('people');
      await page.getByLabel('Variants').selectOption('seeds-4');
      await page.getByLabel('Random guidance').check();
      await page.getByLabel('Scheduler').selectOption('LCMScheduler');
      await page.locator('#fit summary').click();
      await page.getByLabel('Shape').selectOption('landscape');
      await page.getByRole('button', { name: 'Reset settings' }).click();
      assert.deepEqual(await values(), ['make it night', '12', '1.25', '1.1', '', '']);
      assert.equal(await page.getByLabel('New random seed').isChecked(), true);
      assert.equal(await page.getByLabel('Random guidance').isChecked(), false);
      assert.equal(await page.getByLabel('Not wanted').inputValue(), '');
      assert.equal(await page.getByLabel('Variants').inputValue(), '1');
      assert.equal(await page.getByLabel('Shape').inputValue(), 'square');

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
      await shoot(page, 'taken-over');
      assert.deepEqual(await violationsOn(page), []);

      await page.getByLabel('Which model').selectOption('timbrooks/instruct-pix2pix');
      assert.deepEqual((await values()).slice(1, 4), ['20', '7.5', '1.5']);
      await page.getByRole('button', { name: 'As the original' }).click();
      assert.equal((await values())[5], 'EulerAncestralDiscreteScheduler');
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
    await shoot(page, 'undone');
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
    const left = await page.evaluate(() => document.querySelector('#import-file').files.length);
    assert.equal(left, 0, 'the same archive can be chosen again');
    // What the machine can do is said of the model that a link chooses, too.
    await page.evaluate(() => (location.hash = '#model=./models/built-in'));
    await page.getByText(/^This model: 2\d\.\d MB to download, once\.$/).waitFor();
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
  const own = await serveDemo();
  const { page, context, finish, problems } = await openDemo(browser, own.url);
  const manifest = await page.evaluate(async () => {
    const link = document.querySelector('link[rel=manifest]');
    return (await fetch(link.href)).json();
  });
  assert.equal(manifest.display, 'standalone');
  assert.ok(manifest.icons.some(({ sizes }) => sizes === '512x512'));
  const session = await context.newCDPSession(page);
  const { installabilityErrors } = await session.send('Page.getInstallabilityErrors');
  const errors = installabilityErrors.filter(({ errorId }) => errorId !== 'in-incognito');
  assert.deepEqual(errors, []);
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
  await context.setOffline(true);
  await page.getByText('Offline: models on this machine still work').waitFor();
  await shoot(page, 'offline');
  assert.deepEqual(await violationsOn(page), []);
  await context.setOffline(false);
  await page.locator('#offline').waitFor({ state: 'hidden' });
  problems.splice(
    0,
    problems.length,
    ...problems.filter((text) => !/ERR_CONNECTION|Failed to load/.test(text)),
  );
  await finish();
});

test('it is installed where the browser offers that', async () => {
  await onPage(async (page) => {
    const button = page.getByRole('button', { name: 'Install as an app' });
    assert.equal(await button.isVisible(), false);
    const isTaken = await page.evaluate(() => {
      const event = new Event('beforeinstallprompt', { cancelable: true });
      event.prompt = () => (globalThis.isAsked = true);
      return !dispatchEvent(event);
    });
    assert.equal(isTaken, true, 'the browser shows no banner of its own');
    await button.click();
    assert.equal(await page.evaluate(() => globalThis.isAsked), true);
    assert.equal(await button.isVisible(), false);
  });
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
