/** Parts of the demo page that need no browser. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { describeMachine } from '../../www/js/advice.js';
import { draw, MODELS, SCHEDULERS } from '../../www/js/catalogue.js';
import { cropBox, isCropped, originalSize, shrunk, targetSize } from '../../www/js/fit.js';
import { neededPart, resize } from '../../www/js/lanczos.js';
import { Pace } from '../../www/js/pace.js';
import { fromFragment, fromJson, toFragment, toJson } from '../../www/js/parameters.js';
import { readText, sizeOfPng, writeText } from '../../www/js/png.js';
import { COLOURS, previewOf } from '../../www/js/preview.js';
import { Timeline } from '../../www/js/timeline.js';
import { bytes, duration, speed } from '../../www/js/units.js';
import { variantsOf } from '../../www/js/variants.js';

const root = new URL('../../', import.meta.url);
const read = (path) => readFileSync(new URL(path, root));
const golden = JSON.parse(read('tests/fixtures/fit.json'));

/** RGB in base64 as RGBA. */
function rgba(text, [width, height]) {
  const rgb = Buffer.from(text, 'base64');
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
  return { data, width, height };
}

describe('fitting', () => {
  test("the original's sizes", () => {
    for (const [width, height, resolution, ...wanted] of golden.sizes) {
      const size = originalSize(width, height, resolution);
      assert.deepEqual([size.width, size.height], wanted, `${width} x ${height} at ${resolution}`);
    }
  });

  test('is that of Pillow, to the bit', () => {
    for (const { size, target, centre, pixels, fitted } of golden.fits) {
      const picture = rgba(pixels, size);
      const [width, height] = target;
      const [x, y] = centre;
      const box = cropBox(picture, { width, height }, { x, y });
      const { data } = resize(picture, { width, height }, box);
      assert.deepEqual(data, rgba(fitted, target).data, `${size} to ${target}`);
    }
  });

  test('needs no more of a picture than its part', () => {
    const [{ size, pixels }] = golden.fits;
    const picture = rgba(pixels, size);
    const target = { width: 8, height: 8 };
    const box = cropBox(picture, target, { zoom: 4, x: 0.7, y: 0.4 });
    const part = neededPart(picture, target, box);
    assert.ok(part.width < picture.width && part.height < picture.height, JSON.stringify(part));
    const data = new Uint8ClampedArray(4 * part.width * part.height);
    for (let row = 0; row < part.height; row++) {
      const start = 4 * ((part.y + row) * picture.width + part.x);
      data.set(picture.data.subarray(start, start + 4 * part.width), 4 * row * part.width);
    }
    const shifted = box.map((side, i) => side - (i % 2 ? part.y : part.x));
    assert.deepEqual(
      resize({ ...part, data }, target, shifted, picture).data,
      resize(picture, target, box).data,
    );
  });

  test('shapes', () => {
    const picture = { width: 448, height: 296 };
    const size = (shape, size) => Object.values(targetSize(picture, { shape, size }));
    assert.deepEqual(size('whole', 64), [64, 42]);
    assert.deepEqual(size('whole', 512), [448, 296]);
    assert.deepEqual(size('square', 128), [128, 128]);
    assert.deepEqual(size('landscape', 768), [768, 512]);
    assert.deepEqual(size('portrait', 768), [512, 768]);
    assert.deepEqual(size('original', 512), [576, 384]);
    assert.throws(() => size('round', 64), RangeError);
  });

  test('crops', () => {
    const picture = { width: 400, height: 200 };
    const square = { width: 64, height: 64 };
    assert.deepEqual(cropBox(picture, square), [100, 0, 300, 200]);
    assert.deepEqual(cropBox(picture, square, { zoom: 2, x: 0, y: 1 }), [0, 100, 100, 200]);
    assert.equal(isCropped(picture, cropBox(picture, square)), true);
    assert.equal(isCropped(picture, cropBox(picture, { width: 200, height: 100 })), false);
  });

  test('huge photos are made smaller first', () => {
    assert.equal(shrunk({ width: 4000, height: 4000 }), undefined);
    const { width, height } = shrunk({ width: 12000, height: 9000 });
    assert.ok(width * height <= 16e6 && width * height > 15.9e6, `${width} x ${height}`);
    assert.ok(Math.abs(width / height - 4 / 3) < 1e-3);
  });
});

describe('texts in PNG files', () => {
  const icon = new Uint8Array(read('www/icons/icon-192.png'));

  test('are read back, in any script', () => {
    const text = 'make it „schön“ 雪 ❄';
    const once = writeText(icon, 'key', text);
    assert.equal(readText(once, 'key'), text);
    assert.equal(readText(once, 'other'), undefined);
    assert.deepEqual(sizeOfPng(once), { width: 192, height: 192 });
    const twice = writeText(once, 'key', 'other');
    assert.equal(readText(twice, 'key'), 'other', 'there is one of each');
    assert.equal(twice.length - icon.length, 4 + 4 + 4 + 'key'.length + 5 + 'other'.length);
  });

  test('are not believed in damaged files', () => {
    const whole = writeText(icon, 'key', 'text');
    const damaged = whole.slice();
    damaged[damaged.indexOf(0x78, 33 + 12)] ^= 1; // the x of "text"
    assert.equal(readText(damaged, 'key'), undefined);
    for (let length = 0; length < 70; length++) {
      readText(whole.subarray(0, length), 'key'); // must not throw
    }
    const endless = whole.slice();
    new DataView(endless.buffer).setUint32(33, 0xffffffff);
    assert.equal(readText(endless, 'key'), undefined);
    assert.throws(() => writeText(new Uint8Array(100), 'key', 'text'), TypeError);
  });
});

describe('parameters', () => {
  const parameters = {
    prompt: 'turn it “blue” & 50% darker #1',
    negativePrompt: 'people',
    steps: 12,
    text: 1.25,
    image: 1.1,
    seed: '18446744073709551615',
    scheduler: 'DDIMScheduler',
    model: './models/built-in',
    shape: 'square',
    size: 128,
    loras: [
      ['someone/some-lora', 0.5],
      ['https://example.org/a%20b.safetensors?x=1&y', -1],
    ],
  };

  test('survive files and links', () => {
    assert.deepEqual(fromJson(toJson(parameters)), parameters);
    assert.deepEqual(fromFragment(`#${toFragment(parameters)}`), parameters);
  });

  test('of others are not trusted', () => {
    const bad = {
      prompt: 'x'.repeat(1001),
      steps: 0,
      text: -1,
      image: 'much',
      seed: '18446744073709551616',
      scheduler: 'constructor',
      model: 'javascript:alert(1)',
      shape: '__proto__',
      size: 1e9,
      loras: [['javascript:alert(1)', 1]],
    };
    assert.equal(fromJson(JSON.stringify(bad)), undefined);
    assert.equal(fromFragment(toFragment(bad)), undefined);
    assert.deepEqual(fromJson(JSON.stringify({ ...bad, steps: 5 })), { steps: 5 });
    for (const text of ['', '{', 'null', '[]', '3']) assert.equal(fromJson(text), undefined);
    assert.equal(fromFragment('#edit'), undefined);
    assert.equal(fromFragment('steps=&size=+'), undefined);
    assert.equal(fromFragment('model=https://user:secret@example.org/'), undefined);
    for (const lora of [
      '',
      'a/b',
      'much a/b',
      '99 a/b',
      '1',
      '1 https://user:secret@example.org/x',
    ]) {
      assert.equal(fromFragment(`#${new URLSearchParams({ lora })}`), undefined, lora);
    }
    for (const loras of ['a/b', [['a/b', '1']], [['a/b', 1, 2]], Array(9).fill(['a/b', 1])]) {
      assert.equal(fromJson(JSON.stringify({ loras })), undefined, JSON.stringify(loras));
    }
  });
});

test('variants', () => {
  const parameters = { seed: '18446744073709551615', text: 1.25, image: 1.1 };
  assert.deepEqual(variantsOf(parameters, '1'), [parameters]);
  const seeds = variantsOf(parameters, 'seeds-4').map(({ seed }) => seed);
  assert.deepEqual(seeds, ['18446744073709551615', '0', '1', '2']);
  const grid = variantsOf(parameters, 'guidance-9');
  assert.equal(new Set(grid.map(({ text, image }) => `${text} ${image}`)).size, 9);
  assert.deepEqual(grid[4], parameters, 'the middle is what was asked for');
  assert.ok(
    grid.every(({ image }) => image >= 1),
    'guidance stays on',
  );
});

test('guidance is drawn from its range', () => {
  assert.equal(
    draw([6, 9], () => 0),
    6,
  );
  assert.equal(
    draw([1.2, 1.8], () => 0.5),
    1.5,
  );
  assert.equal(
    draw([6, 9], () => 0.99999),
    9,
  );
});

test('undo', () => {
  const timeline = new Timeline();
  assert.equal(timeline.current, undefined);
  assert.equal(timeline.move(-1), false);
  const view = (id) => ({ id, source: `${id}.png`, results: [{ picture: `${id}-after.png` }] });
  for (const id of ['a', 'b', 'c']) timeline.push(view(id));
  assert.ok(timeline.move(-1) && timeline.current.id === 'b' && timeline.canRedo);
  timeline.push(view('d'));
  assert.deepEqual(
    timeline.views.map(({ id }) => id),
    ['a', 'b', 'd'],
    'what was undone gives way',
  );
  assert.equal(timeline.canRedo, false);
  assert.equal(timeline.pictures.has('c.png'), false);
  assert.equal(timeline.pictures.has('a-after.png'), true);
  for (let i = 0; i < 100; i++) timeline.push(view(String(i)));
  assert.equal(timeline.views.length, 40);
  assert.equal(timeline.current.id, '99');
  const restored = new Timeline({ views: timeline.views, at: 1000 });
  assert.equal(restored.current.id, '99');
});

test('previews', () => {
  const colours = {
    factors: [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [0, 0, 0],
    ],
    bias: [0.5, 0.5, 0.5],
  };
  const planes = [0.5, -0.5, 0, 1].flatMap((value) => [value, value / 2]);
  const tensor = { data: Float32Array.from(planes), shape: [1, 4, 1, 2] };
  const { data, width, height } = previewOf(tensor, colours);
  assert.deepEqual([width, height], [2, 1]);
  assert.deepEqual([...data], [255, 0, 128, 255, 191, 64, 128, 255]);
  // What begins as noise of a deviation of 14 is no flash of white and black.
  const loud = Float32Array.from({ length: 400 }, (_, i) => 14 * Math.sin(i * i));
  const map = COLOURS.StableDiffusionInstructPix2PixPipeline;
  const shown = previewOf({ data: loud, shape: [1, 4, 10, 10] }, map).data;
  const extremes = shown.filter((value, i) => i % 4 !== 3 && (value === 0 || value === 255));
  assert.ok(extremes.length < 75, `${extremes.length} of 300`);
});

test("the built-in model's own defaults are the page's", () => {
  const [model] = MODELS;
  const defaults = JSON.parse(read('www/models/built-in/defaults.json'));
  assert.equal(model.id, './models/built-in');
  assert.deepEqual(model.guidance, {
    text: defaults.guidanceScale,
    image: defaults.imageGuidanceScale,
  });
  assert.equal(model.size, defaults.size);
  assert.equal(model.presets.balanced.steps, defaults.numInferenceSteps);
  assert.deepEqual(model.colours, defaults.latentToRgb);
});

test("the built-in model's card names the weights that are there", () => {
  const card = read('www/models/built-in/README.md').toString();
  const named = [...card.matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map(([, hash, path]) => [
    path,
    hash,
  ]);
  const paths = [
    'text_encoder/model.safetensors',
    'unet/diffusion_pytorch_model.safetensors',
    'vae/diffusion_pytorch_model.safetensors',
  ];
  const hash = (path) => createHash('sha256').update(read(`www/models/built-in/${path}`));
  assert.deepEqual(
    named,
    paths.map((path) => [path, hash(path).digest('hex')]),
  );
});

test('the service worker keeps every file of the page', () => {
  const kept = [
    ...read('www/sw.js')
      .toString()
      .matchAll(/'([\w./-]+)'/g),
  ].map(([, name]) => name);
  const files = (folder) => readdirSync(new URL(`www/${folder}`, root));
  for (const name of files('js')) assert.ok(kept.includes(name.replace('.js', '')), name);
  for (const name of files('css')) assert.ok(kept.includes(`./css/${name}`), name);
  for (const name of files('samples').filter((name) => name.endsWith('.jpg'))) {
    assert.ok(kept.includes(`./samples/${name}`), name);
  }
  const { icons } = JSON.parse(read('www/manifest.webmanifest'));
  for (const { src } of icons) assert.ok(read(`www/${src}`).length > 0, src);
});

test('every scheduler of the package is offered', () => {
  const types = read('pkg-template/index.d.ts').toString();
  const [names] = types.match(/export type SchedulerName =[^;]+;/);
  assert.deepEqual(
    Object.keys(SCHEDULERS).sort(),
    [...names.matchAll(/'(\w+)'/g)].map(([, name]) => name).sort(),
  );
});

test('machines in plain words', () => {
  const found = {
    adapter: {
      vendor: 'nvidia',
      architecture: 'ampere',
      description: '',
      software: false,
      f16: true,
    },
    model: { missingBytes: 2.13e9, memoryBytes: 2.13e9 },
    storage: { free: 1e9 },
    problems: [{ code: 'storage', message: 'the model needs 1 byte' }],
  };
  const { sentences, problems } = describeMachine(found);
  assert.match(sentences[0], /^Graphics: NVIDIA Ampere\. .*half precision/);
  assert.match(sentences.join(' '), /2\.13 GB to download, once/);
  assert.match(problems[0], /^The model needs 1 byte\. Delete a model/);
  const [address] = describeMachine({
    ...found,
    problems: [{ code: 'not-found', message: 'https://a/b was not found' }],
  }).problems;
  assert.match(address, /^https:\/\/a\/b was not found\. /);
  const software = describeMachine({ ...found, adapter: { software: true } });
  assert.match(software.sentences[0], /^No graphics chip/);
  const none = { code: 'no-webgpu', message: 'there is no WebGPU here' };
  const without = describeMachine({ ...found, adapter: undefined, problems: [none] });
  assert.match(without.problems[0], /Take Chrome/);
});

test('the time that is left is that of steps, without encoding and compilation', () => {
  const pace = new Pace();
  assert.equal(pace.left(12), undefined);
  pace.ended(1, 60_000);
  assert.equal(pace.left(11), undefined, 'the first step says nothing');
  pace.ended(2, 62_000);
  assert.equal(pace.left(10), 20_000);
  pace.ended(3, 66_000);
  assert.equal(pace.left(9), 27_000);
  // The next picture of the grid: what lies between the two is no step.
  pace.ended(1, 90_000);
  assert.equal(pace.left(11), 33_000);
  for (let step = 2; step <= 6; step++) pace.ended(step, 90_000 + 500 * (step - 1));
  assert.equal(pace.left(6), 3_000, 'the latest steps count');
});

test('the speed of a download', () => {
  const event = { loaded: 3e6, cached: 1e6, bytesPerSecond: 2.5e6, secondsLeft: 12 };
  assert.equal(speed(event), ', 2.5 MB a second, about 12 s left');
  assert.equal(speed({ ...event, secondsLeft: undefined }), ', 2.5 MB a second');
  assert.equal(speed({ ...event, bytesPerSecond: 0 }), '');
  assert.equal(speed({ ...event, cached: 3e6 }), ', from this browser’s cache');
});

test('numbers as people read them', () => {
  assert.deepEqual([999, 52e3, 27.6e6, 2.13e9].map(bytes), [
    '999 bytes',
    '52 kB',
    '27.6 MB',
    '2.13 GB',
  ]);
  assert.deepEqual([1234, 45678, 240e3, 9e6].map(duration), ['1.2 s', '46 s', '4 min', '2.5 h']);
});
