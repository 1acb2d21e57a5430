/** What is packed, and what the checkers of packages say of it. */

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { folder, repository } from './harness.mjs';
import { npm, pack } from './install.mjs';

const modules = join(folder, 'node_modules');

/** What the scripts of a page import: the last two when they are asked for. */
const IMPORTED = ['./shared.js', './instruct_pix2pix.js', './support.js', './single-file.js'];

let place, unpacked;

before(() => {
  place = mkdtempSync(join(tmpdir(), 'packed-'));
  npm(['install', '--no-save', '--no-package-lock', '--ignore-scripts', pack()], place);
  unpacked = join(place, 'node_modules', 'instruct-pix2pix-web');
});

after(() => rmSync(place, { recursive: true, force: true }));

const text = (name) => readFileSync(join(unpacked, name), 'utf8');
const manifest = () => JSON.parse(text('package.json'));

test('its version is that of Cargo.toml', () => {
  const [, version] = readFileSync(join(repository, 'Cargo.toml'), 'utf8').match(/^version = "(.+)"$/m);
  assert.equal(manifest().version, version);
});

test('every file that the manifest names is packed', () => {
  const { exports, bin, sideEffects, types } = manifest();
  const named = [types, ...Object.values(bin), ...sideEffects];
  for (const entry of Object.values(exports)) {
    named.push(...(typeof entry === 'string' ? [entry] : Object.values(entry)));
  }
  for (const name of [...named, 'README.md', 'CHANGELOG.md', 'LICENSE-MIT', 'LICENSE-APACHE']) {
    assert.ok(existsSync(join(unpacked, name)), name);
  }
  for (const entry of Object.values(exports)) {
    if (typeof entry !== 'string') assert.equal(Object.keys(entry)[0], 'types', 'types come first');
  }
});

test('every entry point can be imported on a server, and the Node one without a GPU', async () => {
  const script = `
    for (const name of ['', '/react', '/element', '/node', '/esbuild', '/rollup']) {
      const before = Object.keys(globalThis).length;
      const found = Object.keys(await import('instruct-pix2pix-web' + name));
      if (found.length === 0) throw new Error(name + ' exports nothing');
      if (Object.keys(globalThis).length !== before) throw new Error(name + ' leaves globals');
    }
  `;
  npm(['install', '--no-save', '--no-package-lock', '--ignore-scripts', pack(), 'react@19.3.1'], place);
  execFileSync(process.execPath, ['--input-type=module', '--eval', script], { cwd: place });
});

/** What esbuild leaves of an import that names nothing. */
async function bareImport(name) {
  const contents = `import 'instruct-pix2pix-web${name}';`;
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: place },
    bundle: true,
    format: 'esm',
    platform: name === '/node' ? 'node' : 'browser',
    external: ['webgpu'],
    write: false,
    // It warns of imports that come to nothing.
    logLevel: 'error',
  });
  return outputFiles[0].text.replace(/^\/\/.*$/gm, '').trim();
}

test('bundlers know which imports count by themselves', async () => {
  for (const name of ['', '/react']) assert.equal((await bareImport(name)).length, 0, name);
  assert.match(await bareImport('/element'), /customElements\.define\(/);
  assert.match(await bareImport('/node'), /\.cache \?\?= new DiskStore\(\)/);
});

test('the licences of what is in the wasm come along', () => {
  const licences = text('THIRD_PARTY_LICENSES.txt');
  for (const name of ['burn', 'wgpu', 'tokenizers', 'image', 'safetensors']) {
    assert.match(licences, new RegExp(`^${name} \\d[\\d.]*: .*(MIT|Apache)`, 'm'));
  }
  assert.doesNotMatch(licences, /^wasm-bindgen-cli-support /m, 'what only builds it does not');
  assert.match(licences, /Permission is hereby granted, free of charge/);
  assert.match(licences, /TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION/);
});

test('the scripts of a page and its worker are within their budget, and import nothing else', () => {
  const core = ['index.js', 'shared.js', 'worker.js'];
  const sizes = core.map((name) => gzipSync(text(name), { level: 9 }).length);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`${total} bytes with gzip`);
  assert.ok(total <= 15_000, `${total}`);
  const imported = /(?:\bfrom\s*"|\bimport\(["`])([^"`]+)["`]/g;
  for (const name of core) {
    for (const [, other] of text(name).matchAll(imported)) {
      assert.ok(IMPORTED.includes(other), `${name} imports ${other}`);
    }
  }
});

test('no script needs eval', () => {
  for (const name of ['index', 'shared', 'worker', 'support', 'single-file', 'element', 'react']) {
    assert.doesNotMatch(text(`${name}.js`), /\beval\(|new Function\(/, name);
  }
});

test('publint has nothing to say', async () => {
  const { publint } = await import('publint');
  const { messages } = await publint({ pkgDir: unpacked, strict: true });
  assert.deepEqual(messages, []);
});

test('the types are right for every resolver of ES modules', () => {
  const attw = join(modules, '@arethetypeswrong', 'cli', 'dist', 'index.js');
  // These two are addresses for bundlers, and have no types.
  const addresses = ['worker.js', 'instruct_pix2pix_bg.wasm'];
  const args = [attw, pack(), '--profile', 'esm-only', '--exclude-entrypoints', ...addresses];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
});

test('every error code is provoked by a test', () => {
  const [, list] = text('index.d.ts').match(/^export type InstructPix2PixErrorCode =(.*?);$/ms);
  const codes = [...list.matchAll(/^ {2}\| '([a-z0-9-]+)'/gm)].map(([, code]) => code);
  assert.ok(codes.length > 20);
  // These write of codes that nothing provoked.
  const quoting = ['types.test.mjs', 'page-parts.test.mjs'];
  const names = readdirSync(folder).filter((name) => /\.test\.mjs$|^broken-models\.mjs$/.test(name));
  const lines = names
    .filter((name) => !quoting.includes(name))
    .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'));
  // An assertion, or a row of a table of cases: `code: 'x'`, or `'what is done': ['x', ...` or `'x'`.
  const asserts = /assert|\bfailed\(|^ +(code|'[^']+'|\w+): (\[.*)?'[a-z-]+'/;
  const asserted = lines.filter((line) => asserts.test(line)).join('\n');
  assert.deepEqual(codes.filter((code) => !asserted.includes(`'${code}'`)), []);
});
