/** The entry for Node and the command line, on Dawn with a software Vulkan driver; and in Deno, which has WebGPU. */

import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { inflateSync } from 'node:zlib';
import { after, before, describe, test } from 'node:test';
import { encodePng, endAfterMinutes, pkg, readSafetensors, repository } from './harness.mjs';
import { serveHub } from './hub.mjs';
import { install } from './install.mjs';
import { exampleOf } from './readme.mjs';

endAfterMinutes(40);

const FULL = process.env.FULL === '1';
const tiny = join(repository, 'www', 'models', 'tiny-random');
const goldens = join(repository, 'tests', 'fixtures', 'examples', 'examples.safetensors');

let app, hub;

before(async () => {
  app = install('node');
  hub = await serveHub({ 'timbrooks/instruct-pix2pix': tiny });
  const { width, height, data } = picture();
  // Decoders look into the file, and not at its name.
  writeFileSync(join(app, 'photo.jpg'), encodePng({ width, height, data }));
});

after(() => hub?.close());

/** The same as in the browser, see `site/helpers.js`. */
function picture(width = 24, height = 16) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      data.set([x * 9, y * 14, (x * 31 + y * 57) % 256], (y * width + x) * 3);
    }
  }
  return { width, height, data };
}

/** Chromium brings SwiftShader's driver; Dawn refuses Debian 12's lavapipe. */
function driver() {
  const places = [dirname(realpathSync(process.env.CHROME)), '/usr/lib/chromium', '/opt/google/chrome'];
  const found = places.map((place) => join(place, 'vk_swiftshader_icd.json')).find(existsSync);
  if (!found) throw new Error(`no software Vulkan driver in ${places.join(', ')}`);
  return found;
}

function environment() {
  // Drivers complain where the last one is not set.
  const { HF_TOKEN: _, ...rest } = { XDG_RUNTIME_DIR: app, ...process.env };
  if (rest.VK_DRIVER_FILES || rest.VK_ICD_FILENAMES) return rest;
  return { ...rest, VK_DRIVER_FILES: driver(), VK_ICD_FILENAMES: driver() };
}

const cli = () => join(app, 'node_modules', 'instruct-pix2pix-web', 'node', 'cli.js');

/** Runs what `npm install` linked the command to, as people call it. */
function npx(args) {
  const windows = process.platform === 'win32';
  const all = ['--no-install', 'instruct-pix2pix-web', ...args];
  const settings = { cwd: app, env: environment(), encoding: 'utf8', shell: windows };
  return spawnSync(windows ? 'npx.cmd' : 'npx', windows ? all.map((arg) => `"${arg}"`) : all, settings);
}

/** Runs the command to its end. */
function run(args, options) {
  const settings = { cwd: app, env: environment(), encoding: 'utf8', ...options };
  return spawnSync(process.execPath, [cli(), ...args], settings);
}

/** RGBA of a PNG file of ours, whose rows have no filter. */
function readPng(bytes) {
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const parts = [];
  for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const length = bytes.readUInt32BE(at);
    if (bytes.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(bytes.subarray(at + 8, at + 8 + length));
  }
  const rows = inflateSync(Buffer.concat(parts));
  const stride = width * 4 + 1;
  const data = Buffer.concat(
    Array.from({ length: height }, (_, y) => rows.subarray(y * stride + 1, (y + 1) * stride)),
  );
  return { width, height, data };
}

/** Compares a file with diffusers' "make the mountains snowy" of the tiny model. */
function assertMountains(file) {
  const { width, height, data } = readPng(readFileSync(file));
  assert.deepEqual([width, height], [24, 16]);
  // [1, H, W, 3] in 0 to 1.
  const wanted = readSafetensors(readFileSync(goldens))['mountains'].data;
  let worst = 0;
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      worst = Math.max(worst, Math.abs(data[i * 4 + c] - Math.round(wanted[i * 3 + c] * 255)));
    }
  }
  console.log(`bytes differ by ${worst} at most`);
  assert.ok(worst <= 1, `${worst}`);
}

describe('the command', () => {
  test('edits as diffusers does, shows its progress and keeps the model', () => {
    const cache = join(app, 'models');
    rmSync(cache, { recursive: true, force: true });
    const floats = ['--dtype', 'float32', '--weight-dtype', 'float32'];
    const { status, stdout, stderr } = npx([
      ...['photo.jpg', 'make the mountains snowy', '-o', 'out.png', '--steps', '3', '--seed', '0'],
      ...['--endpoint', hub.url, '--cache', cache, ...floats],
    ]);
    assert.equal(status, 0, stderr);
    assert.equal(stdout, 'out.png\n');
    // Components come side by side, and any of them may be the last.
    assert.match(stderr, /100 % \w+ .* of /);
    assert.match(stderr, /100 % step 3 of 3/);
    assert.match(stderr, /seed 0, [\d.]+ s on /);
    assertMountains(join(app, 'out.png'));
    const entries = readdirSync(cache);
    assert.ok(entries.length > 10 && entries.every((name) => name.endsWith('.entry')), String(entries));
  });

  test('finds the model on the disk, and sends no request', { skip: !FULL && 'without FULL=1' }, async () => {
    await hub.reset();
    const { status, stderr } = run([
      ...['photo.jpg', 'make it snowy', '-o', 'again.png', '--steps', '1', '--count', '2', '--quiet'],
      ...['--endpoint', hub.url, '--cache', join(app, 'models'), '--local-files-only'],
    ]);
    assert.equal(status, 0, stderr);
    assert.equal(stderr, '');
    assert.deepEqual(await hub.log(), []);
    assert.ok(existsSync(join(app, 'again.png')) && existsSync(join(app, 'again.2.png')));
  });

  test('says how it is used, and its version', () => {
    const { status, stdout } = run(['--help']);
    assert.equal(status, 0);
    assert.match(stdout, /^usage: instruct-pix2pix-web PICTURE INSTRUCTION/);
    const { version } = JSON.parse(readFileSync(join(pkg, 'package.json'), 'utf8'));
    assert.equal(run(['-v']).stdout, `${version}\n`);
  });

  const misuses = {
    'no instruction': [['photo.jpg'], /instruction/],
    'an unknown option': [['a', 'b', '--stepps', '3'], /stepps/],
    'steps that are no number': [['a', 'b', '--steps', 'few'], /--steps: few/],
    'half a seed': [['a', 'b', '--seed', '0.5'], /--seed: 0.5/],
    'another format': [['a', 'b', '-o', 'out.webp'], /out\.webp/],
  };
  for (const [name, [args, message]] of Object.entries(misuses)) {
    test(`${name} is misuse`, () => {
      const { status, stderr } = run(args);
      assert.equal(status, 2);
      assert.match(stderr, message);
      assert.match(stderr, /--help/);
    });
  }

  test('fails with the code of what went wrong', () => {
    const failed = (args, code) => {
      const { status, stderr } = run(['photo.jpg', 'p', ...args]);
      assert.equal(status, 1, stderr);
      assert.match(stderr, new RegExp(`\\(${code}\\)`));
    };
    failed(['--model', './nowhere'], 'ENOENT');
    failed(['--model', 'a/b', '--local-files-only', '--cache', join(app, 'empty')], 'not-cached');
    failed(['--model', 'a/b', '--endpoint', 'http://127.0.0.1:1'], 'network');
  });

  test('without Dawn says what to install', () => {
    const dawn = join(app, 'node_modules', 'webgpu');
    renameSync(dawn, `${dawn}-away`);
    try {
      const { status, stderr } = run(['photo.jpg', 'p', '--model', tiny]);
      assert.equal(status, 1);
      assert.match(stderr, /npm install webgpu \(no-webgpu\)/);
    } finally {
      renameSync(`${dawn}-away`, dawn);
    }
  });

  test('ends by Ctrl+C', { skip: process.platform === 'win32' && 'there are no signals' }, async () => {
    const args = [cli(), 'photo.jpg', 'p', '--model', 'timbrooks/instruct-pix2pix', '--endpoint', hub.url];
    await hub.reset({ path: '*', fault: { kind: 'hang' }, times: 0 });
    const child = spawn(process.execPath, args, { cwd: app, env: environment(), stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    while ((await hub.log()).length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    child.kill('SIGINT');
    assert.equal(await ended, 130);
    await hub.reset();
  });
});

test('the README’s example runs', { skip: !FULL && 'without FULL=1' }, () => {
  writeFileSync(join(app, 'edit.mjs'), exampleOf('edit.mjs'));
  const preload = "import { env } from 'instruct-pix2pix-web/node'; env.endpoint = process.env.HUB;";
  writeFileSync(join(app, 'preload.mjs'), preload);
  rmSync(join(app, 'out.png'), { force: true });
  const args = ['--import', './preload.mjs', 'edit.mjs'];
  const env = { ...environment(), HUB: hub.url, XDG_CACHE_HOME: join(app, 'caches') };
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: app, env, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  const { width, height } = readPng(readFileSync(join(app, 'out.png')));
  assert.deepEqual([width, height], [24, 16]);
  assert.ok(readdirSync(join(app, 'caches', 'instruct-pix2pix-web')).length > 10);
});

test('the rest of the API takes paths, and keeps models on the disk', { skip: !FULL && 'without FULL=1' }, () => {
  const lora = join(repository, 'tests', 'fixtures', 'oracle', 'adapters', 'lora_peft.safetensors');
  writeFileSync(join(app, 'api.mjs'), API);
  const env = { ...environment(), HUB: hub.url, LORA: lora, XDG_CACHE_HOME: join(app, 'api-caches') };
  const settings = { cwd: app, env, encoding: 'utf8' };
  const { status, stdout, stderr } = spawnSync(process.execPath, ['api.mjs'], settings);
  assert.equal(status, 0, stderr);
  const found = JSON.parse(stdout);
  assert.equal(found.supported, true);
  const { before, after } = found.requirements;
  assert.deepEqual([before.ok, before.problems], [true, []]);
  assert.ok(before.adapter && before.model.missingBytes > 1e6, JSON.stringify(before));
  assert.equal(after.model.missingBytes, 0, 'all of it is in the cache');
  const { photo, ...others } = found.pictures;
  assert.equal(photo.length, 24 * 16 * 4);
  assert.deepEqual(others.bytes, photo, 'the bytes of a file are the file');
  assert.deepEqual(others.url, photo, 'so is its address');
  assert.notDeepEqual(others.lora, photo);
  assert.deepEqual(others.unloaded, photo);
  assert.deepEqual(others.saved, photo, 'what was saved is what was loaded');
  assert.deepEqual(found.events, ['step 0', 'step 1', 'result 1']);
  assert.equal(found.adapter, 'style');
  assert.equal(found.cached.length, 1);
  assert.equal(found.cached[0].model, `${hub.url.replace(/\/$/, '')}/timbrooks/instruct-pix2pix`);
  assert.equal(found.cached[0].complete, true);
  assert.deepEqual(found.afterDeletion, []);
  assert.equal(found.aborted.reason, 'enough');
  assert.ok(found.aborted.steps <= 3, `${found.aborted.steps} steps`);
  for (const name of ['model_index.json', 'unet/config.json', 'vae/diffusion_pytorch_model.safetensors']) {
    assert.ok(existsSync(join(app, 'saved', name)), name);
  }
});

describe('Deno', { skip: !FULL && 'without FULL=1' }, () => {
  let place;

  before(() => {
    place = install('deno');
    cpSync(join(app, 'photo.jpg'), join(place, 'photo.jpg'));
  });

  /** What a script writes that has all permissions. */
  async function deno(args) {
    const program = join(place, 'node_modules', 'deno', 'bin.cjs');
    const env = { ...environment(), XDG_CACHE_HOME: join(place, 'caches') };
    const run = promisify(execFile)(process.execPath, [program, 'run', '-A', ...args], { cwd: place, env });
    return (await run).stdout;
  }

  test('runs the command, which edits as diffusers does', async () => {
    const stdout = await deno([
      ...['node_modules/instruct-pix2pix-web/node/cli.js', 'photo.jpg', 'make the mountains snowy', '-o', 'out.png'],
      ...['--steps', '3', '--seed', '0', '--dtype', 'float32', '--weight-dtype', 'float32'],
      ...['--endpoint', hub.url],
    ]);
    assert.equal(stdout, 'out.png\n');
    assertMountains(join(place, 'out.png'));
    assert.ok(readdirSync(join(place, 'caches', 'instruct-pix2pix-web')).length > 10, 'the model is kept');
  });

  test('runs the README’s example, from the disk', async () => {
    await hub.reset();
    rmSync(join(place, 'out.png'), { force: true });
    writeFileSync(join(place, 'edit.mjs'), exampleOf('edit.mjs'));
    const preload = `import { env } from 'instruct-pix2pix-web/node'; env.endpoint = '${hub.url}';`;
    writeFileSync(join(place, 'preload.mjs'), preload);
    writeFileSync(join(place, 'main.mjs'), "import './preload.mjs'; await import('./edit.mjs');");
    await deno(['main.mjs']);
    const { width, height } = readPng(readFileSync(join(place, 'out.png')));
    assert.deepEqual([width, height], [24, 16]);
    const files = (await hub.log()).filter(({ origin }) => origin === 'cdn');
    assert.deepEqual(files, [], 'the weights come from the disk');
  });
});

/** A script of Node's, which says what it found. */
const API = `
  import { readFile } from 'node:fs/promises';
  import { pathToFileURL } from 'node:url';
  import { cache, env, InstructPix2Pix } from 'instruct-pix2pix-web/node';

  env.endpoint = process.env.HUB;
  const model = 'timbrooks/instruct-pix2pix';
  const floats = { dtype: 'float32', weightDtype: 'float32' };
  const quick = { prompt: 'make it snowy', numInferenceSteps: 2, seed: 1 };
  const found = { pictures: {}, requirements: {}, events: [] };

  found.supported = await InstructPix2Pix.isSupported();
  found.requirements.before = await InstructPix2Pix.requirements(model, floats);
  await InstructPix2Pix.download(model, { weightDtype: 'float32' });
  found.requirements.after = await InstructPix2Pix.requirements(model, floats);

  const pipe = await InstructPix2Pix.fromPretrained(model, floats);
  const edit = async (name, by, image = 'photo.jpg') => {
    const { images } = await by.edit({ ...quick, image });
    found.pictures[name] = [...images[0].data];
  };
  await edit('photo', pipe);
  await edit('bytes', pipe, new Uint8Array(await readFile('photo.jpg')));
  await edit('url', pipe, pathToFileURL('photo.jpg'));

  found.adapter = (await pipe.loadLoraWeights(process.env.LORA, { adapterName: 'style' })).adapterName;
  for await (const event of pipe.editStream({ ...quick, image: 'photo.jpg' })) {
    const isStep = event.type === 'step';
    found.events.push(isStep ? 'step ' + event.step : 'result ' + event.images.length);
    if (!isStep) found.pictures.lora = [...event.images[0].data];
  }
  await pipe.unloadLoraWeights();
  await edit('unloaded', pipe);

  const controller = new AbortController();
  let steps = 0;
  const onStep = () => {
    if (++steps === 2) controller.abort('enough');
  };
  const long = { ...quick, image: 'photo.jpg', numInferenceSteps: 50, onStep, signal: controller.signal };
  const reason = await pipe.edit(long).then(() => 'it ended', (thrown) => thrown);
  found.aborted = { reason, steps };

  await pipe.savePretrained('./saved');
  await pipe.dispose();
  const again = await InstructPix2Pix.fromPretrained('./saved', floats);
  await edit('saved', again);
  await again.dispose();

  found.cached = await cache.list();
  await cache.delete(found.cached[0].model);
  found.afterDeletion = await cache.list();
  console.log(JSON.stringify(found));
  process.exit();
`;

describe('progress', () => {
  /** What a stream is written, by events. */
  async function written(settings, tell) {
    const place = join(app, 'node_modules', 'instruct-pix2pix-web', 'node', 'progress.js');
    const { Progress } = await import(pathToFileURL(place));
    let text = '';
    const progress = new Progress({ ...settings, write: (more) => (text += more) });
    tell(progress);
    progress.end();
    return text;
  }

  const download = (loaded) => ({
    type: 'download',
    component: 'unet',
    loaded,
    total: 2e9,
    bytesPerSecond: 5e7,
    secondsLeft: (2e9 - loaded) / 5e7,
  });

  test('is a bar on a terminal, as wide as the window', async () => {
    const settings = { isTTY: true, columns: 60 };
    const text = await written(settings, (progress) => {
      progress.loading(download(5e8));
      progress.loading(download(2e9));
      progress.step({ step: 0, steps: 2, elapsed: 1000 });
    });
    const lines = text.split(/[\r\n]+/).filter(Boolean);
    assert.equal(lines[0].replace('\x1b[K', ''), '██████░░░░░░░░░░░░░░░░░░  25 % unet 500.0 MB of 2.0 GB, 50.');
    assert.match(lines[1], /^█{24} 100 % unet 2\.0 GB of 2\.0 GB/);
    assert.match(lines[2], /^█{12}░{12} {2}50 % step 1 of 2, 0:01 left/);
    assert.ok(text.endsWith('\n'), 'the prompt gets a line of its own');
  });

  test('is a line for every quarter elsewhere, and warnings are told', async () => {
    const text = await written({}, (progress) => {
      for (let part = 0; part <= 100; part++) progress.loading(download(part * 2e7));
      progress.loading({ type: 'warning', code: 'storage', message: 'no room' });
      progress.loading({ type: 'waiting' });
    });
    const shares = [...text.matchAll(/^ *(\d+) % /gm)].map(([, share]) => Number(share));
    assert.deepEqual(shares, [0, 25, 50, 75, 100]);
    assert.match(text, /^warning: no room$/m);
    assert.match(text, /^another process/m);
  });

});

test('a file that is not written to its end leaves what was there', async () => {
  const place = join(app, 'node_modules', 'instruct-pix2pix-web', 'node', 'local.js');
  const { directoryAt } = await import(pathToFileURL(place));
  const write = async (text, end) => {
    const folder = await directoryAt(join(app, 'written')).getDirectoryHandle('unet');
    const file = await (await folder.getFileHandle('config.json')).createWritable();
    await file.write(new TextEncoder().encode(text));
    await file.write(new Blob([text]));
    await file[end]();
  };
  await write('old', 'close');
  await write('new', 'abort');
  const folder = join(app, 'written', 'unet');
  assert.deepEqual(readdirSync(folder), ['config.json']);
  assert.equal(readFileSync(join(folder, 'config.json'), 'utf8'), 'oldold');
});

describe('a store of files', () => {
  let DiskStore, folder;

  before(async () => {
    const place = join(app, 'node_modules', 'instruct-pix2pix-web', 'node', 'disk.js');
    ({ DiskStore } = await import(pathToFileURL(place)));
    folder = join(app, 'store');
    rmSync(folder, { recursive: true, force: true });
  });

  test('keeps what it is given, under any key', async () => {
    const store = new DiskStore(folder);
    assert.deepEqual(await store.keys(), []);
    assert.equal(await store.get('none'), undefined);
    const keys = ['a', 'a/b', 'c:d*?"<>|', '../up', 'sha256-0/1', 'ü'];
    for (const [i, key] of keys.entries()) await store.put(key, Uint8Array.of(i).buffer);
    await store.put('a', Uint8Array.of(9, 9).buffer);
    assert.deepEqual((await store.keys()).sort(), [...keys].sort());
    assert.deepEqual([...(await new DiskStore(folder).get('a'))], [9, 9]);
    assert.deepEqual([...(await store.get('../up'))], [3]);
    await store.delete('a');
    await store.delete('a');
    assert.equal(await store.get('a'), undefined);
    assert.ok(!existsSync(join(folder, '..', 'up')), 'nothing is written outside of it');
  });

  test('shows nothing of what was not written whole', async () => {
    writeFileSync(join(folder, '1-0.partial'), 'half');
    assert.ok((await new DiskStore(folder).keys()).every((key) => !key.includes('partial')));
  });

  test('has a folder of its own on every system', async () => {
    const place = join(app, 'node_modules', 'instruct-pix2pix-web', 'node', 'disk.js');
    const { defaultFolder } = await import(pathToFileURL(place));
    const linux = defaultFolder({ env: { XDG_CACHE_HOME: '/c' }, platform: 'linux' });
    assert.equal(linux, join('/c', 'instruct-pix2pix-web'));
    const windows = defaultFolder({ env: { LOCALAPPDATA: '/l' }, platform: 'win32' });
    assert.equal(windows, join('/l', 'instruct-pix2pix-web'));
    assert.match(defaultFolder({ env: {}, platform: 'darwin' }), /Library.Caches/);
  });
});
