/** `image.js` of the package's template: every kind of picture gives the pixels that diffusers would see. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  encodePng,
  endAfterMinutes,
  folder,
  launch,
  openPage,
  pkg,
  repository,
  serve,
  toBase64,
} from './harness.mjs';

endAfterMinutes(40);

let browser, page, server;

before(async () => {
  server = await serve(`${folder}site`, {
    '/pkg': pkg,
    '/template': `${repository}pkg-template`,
  });
  browser = await launch();
  ({ page } = await openPage(browser, server.url));
  await page.evaluate(async () => {
    const { readImage } = await import('/template/image.js');
    const glue = await import('/pkg/instruct_pix2pix.js');
    await glue.default();
    window.helpers = await import('/helpers.js');
    window.decoded = 0;
    window.read = (source) =>
      readImage(
        source,
        async (bytes) => {
          window.decoded++;
          return glue.decodeImage(bytes);
        },
        new AbortController().signal,
      );
    window.fromBase64 = async (text) => (await fetch(`data:image/png;base64,${text}`)).blob();
  });
});

after(async () => {
  await browser?.close();
  server?.close();
});

test('every kind of picture gives the same pixels', async () => {
  const differences = await page.evaluate(async () => {
    const { picture, canvasOf, difference } = window.helpers;
    const image = picture();
    const element = canvasOf(image, document.createElement('canvas'));
    const blob = await canvasOf(image).convertToBlob({ type: 'image/png' });
    const url = URL.createObjectURL(blob);
    const sources = {
      ImageData: image,
      ImageBitmap: await createImageBitmap(image),
      canvas: element,
      OffscreenCanvas: canvasOf(image),
      'image element': Object.assign(new Image(), { src: url }),
      Blob: blob,
      File: new File([blob], 'picture.png'),
      'URL string': url,
      URL: new URL(url),
      'data URL': element.toDataURL(),
    };
    if ('Float16Array' in window) {
      const halves = Float16Array.from(image.data, (value) => value / 255);
      const format = { pixelFormat: 'rgba-float16' };
      sources['ImageData of half floats'] = new ImageData(
        halves,
        image.width,
        image.height,
        format,
      );
    }
    const found = {};
    for (const [kind, source] of Object.entries(sources)) {
      const { data, width, height } = await window.read(source);
      found[kind] =
        width === image.width && height === image.height && data instanceof Uint8Array
          ? difference(data, image.data)
          : `${width} x ${height}`;
    }
    found['the caller’s ImageData'] = image.data.length > 0 ? 'none' : 'detached';
    return found;
  });
  for (const [kind, found] of Object.entries(differences)) assert.equal(found, 'none', kind);
});

test('canvases, bitmaps and ImageData are read before edit() returns', async () => {
  const same = await page.evaluate(async () => {
    const { picture, canvasOf, difference } = window.helpers;
    const image = picture();
    const expected = image.data.slice();
    const canvas = canvasOf(image);
    const bitmap = await createImageBitmap(image);
    const reads = [window.read(image), window.read(canvas), window.read(bitmap)];
    image.data.fill(0);
    canvas.getContext('2d').clearRect(0, 0, 99, 99);
    bitmap.close();
    return (await Promise.all(reads)).map(({ data }) => difference(data, expected));
  });
  assert.deepEqual(same, ['none', 'none', 'none']);
});

test('the colours of transparent pixels are those in the file', async () => {
  const data = new Uint8Array(8 * 8 * 4).map((_, i) =>
    i % 4 === 3 ? (i >> 2) % 3 : (i * 7) % 256,
  );
  const png = toBase64(encodePng({ width: 8, height: 8, data }));
  const result = await page.evaluate(async (text) => {
    const before = window.decoded;
    const { data } = await window.read(await window.fromBase64(text));
    return { data: [...data], decoded: window.decoded - before };
  }, png);
  assert.equal(result.decoded, 1, 'the engine decodes it');
  const colours = (pixels) => [...pixels].filter((_, i) => i % 4 !== 3);
  assert.deepEqual(colours(result.data), colours(data));
});

test('transparent pictures that only the browser decodes keep what the canvas says', async () => {
  const result = await page.evaluate(async () => {
    // A GIF of one transparent pixel.
    const url = 'data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7';
    const { data, width, height } = await window.read(url);
    return { data: [...data], width, height };
  });
  assert.deepEqual(result, { data: [0, 0, 0, 0], width: 1, height: 1 });
});

test('colours are the numbers in the file, not converted', async () => {
  const data = new Uint8Array(16 * 16 * 3).map((_, i) => i % 256);
  const png = toBase64(encodePng({ width: 16, height: 16, data }, { gamma: 100000 }));
  const pixels = await page.evaluate(async (text) => {
    const blob = await window.fromBase64(text);
    const element = Object.assign(new Image(), { src: URL.createObjectURL(blob) });
    return {
      blob: [...(await window.read(blob)).data],
      element: [...(await window.read(element)).data],
    };
  }, png);
  for (const [kind, found] of Object.entries(pixels)) {
    assert.deepEqual(
      found.filter((_, i) => i % 4 !== 3),
      [...data],
      kind,
    );
  }
});

test('photographs are turned upright by their EXIF orientation', async () => {
  const corners = await page.evaluate(async () => {
    const { canvasOf, picture, withOrientation } = window.helpers;
    // Red left half, blue right half.
    const image = picture(32, 16);
    for (let i = 0; i < image.data.length; i += 4) {
      image.data.set((i / 4) % 32 < 16 ? [255, 0, 0] : [0, 0, 255], i);
    }
    const jpeg = await canvasOf(image).convertToBlob({ type: 'image/jpeg', quality: 1 });
    const rotated = await withOrientation(jpeg, 6); // the camera was turned: show rotated right
    const look = async (source) => {
      const { data, width, height } = await window.read(source);
      const colour = (x, y) => [...data.subarray((y * width + x) * 4).subarray(0, 3)];
      return { size: [width, height], top: colour(4, 2), bottom: colour(width - 4, height - 2) };
    };
    const element = Object.assign(new Image(), { src: URL.createObjectURL(rotated) });
    const found = { blob: await look(rotated), element: await look(element) };
    const { createImageBitmap } = window;
    try {
      window.createImageBitmap = undefined;
      found['no decoder in the browser'] = await look(rotated);
    } finally {
      window.createImageBitmap = createImageBitmap;
    }
    return found;
  });
  for (const [kind, { size, top, bottom }] of Object.entries(corners)) {
    assert.deepEqual(size, [16, 32], kind);
    assert.ok(top[0] > 200 && top[2] < 60, `${kind}: red on top, found ${top}`);
    assert.ok(bottom[2] > 200 && bottom[0] < 60, `${kind}: blue at the bottom, found ${bottom}`);
  }
});

test('what is no picture has a code', async () => {
  const codes = await page.evaluate(async () => {
    const { InstructPix2PixError } = await import('/template/errors.js');
    const closed = await createImageBitmap(new ImageData(8, 8));
    closed.close();
    const sources = {
      text: new Blob(['this is no picture'], { type: 'image/png' }),
      empty: new Blob([]),
      'closed bitmap': closed,
      'empty canvas': new OffscreenCanvas(0, 0),
      'broken element': Object.assign(new Image(), { src: '/helpers.js' }),
      404: '/no/such/picture.png',
      'no server': 'https://localhost:1/picture.png',
      'no URL': 'https://',
      number: 42,
      nothing: undefined,
    };
    const found = {};
    for (const [kind, source] of Object.entries(sources)) {
      try {
        await window.read(source);
      } catch (error) {
        found[kind] = error instanceof InstructPix2PixError && error.code;
      }
    }
    return found;
  });
  assert.deepEqual(codes, {
    text: 'image-decode',
    empty: 'image-decode',
    'closed bitmap': 'image-decode',
    'empty canvas': 'image-decode',
    'broken element': 'image-decode',
    404: 'not-found',
    'no server': 'network',
    'no URL': 'invalid-argument',
    number: 'invalid-argument',
    nothing: 'invalid-argument',
  });
});

test('a picture of another origin without CORS may not be read', async () => {
  const other = await serve(`${repository}www/samples`);
  try {
    const error = await page.evaluate(async (base) => {
      const { attempt, canvasOf, picture } = window.helpers;
      const element = Object.assign(new Image(), { src: `${base}chelsea.jpg` });
      await element.decode();
      const canvas = canvasOf(picture(), document.createElement('canvas'));
      canvas.getContext('2d').drawImage(element, 0, 0);
      return attempt(window.read(canvas));
    }, other.url);
    assert.equal(error.code, 'invalid-argument');
    assert.match(error.message, /origin/);
  } finally {
    other.close();
  }
});
