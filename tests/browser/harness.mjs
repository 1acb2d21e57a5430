/**
 * What the browser tests share: a server, a Chromium on software WebGPU, and the two file formats
 * that the tests must read or write themselves.
 *
 * `cargo xtask` says where things are: XTASK (its own executable), CHROME, PKG (the built package).
 */

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';
import { chromium } from 'playwright-core';

export const repository = fileURLToPath(new URL('../../', import.meta.url));
export const folder = fileURLToPath(new URL('./', import.meta.url));
/** What the tests leave for people to look at; not committed. */
export const output = `${folder}output/`;

/** The built package. */
export const pkg = environment('PKG');

function environment(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run the tests by \`cargo xtask test\``);
  return value;
}

/** Ends the process when it hangs: what runs inside a page has no time limit. */
export function endAfterMinutes(minutes) {
  setTimeout(() => {
    console.error(`not done after ${minutes} minutes`);
    process.exit(1);
  }, minutes * 60_000).unref();
}

/**
 * Serves a folder on loopback, and others below it.
 *
 * @param {string} root
 * @param {Record<string, string>} [mounts] folders by their path, e.g. `{ '/pkg': pkg }`
 * @param {{ policy?: boolean }} [options] whether the policy of the folder's page comes with every answer, as
 *   `cargo xtask demo` has it
 * @returns {Promise<{ url: string, close: () => void }>} `url` ends with a slash
 */
export async function serve(root, mounts = {}, { policy = false } = {}) {
  const args = Object.entries(mounts).flatMap(([path, dir]) => ['--mount', `${path}=${dir}`]);
  if (policy) args.push('--policy');
  const server = spawn(environment('XTASK'), ['serve', root, '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const close = () => server.kill();
  process.once('exit', close);
  const line = await Promise.race([
    once(createInterface(server.stdout), 'line').then(([first]) => first),
    once(server, 'exit').then(([code]) => {
      throw new Error(`the server ended with ${code}`);
    }),
  ]);
  const address = line.match(/https?:\/\/\S+/)?.[0];
  if (!address) throw new Error(`no address in the server's first line: ${line}`);
  return { url: new URL('/', address).href, close };
}

const CHROME_ARGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const SOFTWARE_WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];
/** The machine's own GPU; on Linux, Chromium asks for more than one flag before it believes in one. */
const HARDWARE_WEBGPU = ['--enable-unsafe-webgpu', '--ignore-gpu-blocklist'].concat(
  process.platform === 'linux'
    ? ['--enable-features=Vulkan', '--use-angle=vulkan', '--disable-vulkan-surface']
    : [],
);

/**
 * @param {{ webgpu?: boolean | 'hardware', args?: string[], profile?: string }} [options] without `webgpu` there is
 *   the API but no adapter, whatever hardware the machine has; a `profile` is a folder that keeps what pages store
 * @returns {Promise<import('playwright-core').Browser>} with a `profile` its context, which has `newPage` and `close`, too
 */
export function launch({ webgpu = true, args = [], profile } = {}) {
  const gpu =
    webgpu === 'hardware'
      ? HARDWARE_WEBGPU
      : webgpu
        ? SOFTWARE_WEBGPU
        : ['--disable-gpu', '--disable-software-rasterizer'];
  const options = { executablePath: environment('CHROME'), args: [...CHROME_ARGS, ...gpu, ...args] };
  return profile ? chromium.launchPersistentContext(profile, options) : chromium.launch(options);
}

/**
 * Opens a page and collects what goes wrong on it.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {string} url
 * @param {import('playwright-core').BrowserContextOptions} [options]
 * @returns {Promise<{ page: import('playwright-core').Page, problems: string[] }>}
 */
export async function openPage(browser, url, options) {
  const page = await browser.newPage(options);
  // Software WebGPU is slow.
  page.setDefaultTimeout(20 * 60_000);
  const problems = [];
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.stack ?? error}`));
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(`console: ${message.text()}`);
  });
  await page.goto(url);
  return { page, problems };
}

/**
 * Bytes as an argument or a result of `page.evaluate`: arrays of numbers take far longer.
 *
 * @param {ArrayBufferView} view
 */
export function toBase64(view) {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('base64');
}

/** @param {string} text */
export function fromBase64(text) {
  return new Uint8Array(Buffer.from(text, 'base64'));
}

const VIEWS = { F32: Float32Array, I32: Int32Array, I64: BigInt64Array, U8: Uint8Array };

/**
 * Reads a safetensors file. Types without a JavaScript array come as their bytes.
 *
 * @param {Uint8Array} bytes
 * @returns {Record<string, { dtype: string, shape: number[], data: ArrayLike<any> }>}
 */
export function readSafetensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerEnd = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, headerEnd)));
  delete header.__metadata__;
  return Object.fromEntries(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => {
        // A copy, because views need an aligned beginning.
        const { buffer } = new Uint8Array(bytes.subarray(headerEnd + begin, headerEnd + end));
        return [name, { dtype, shape, data: new (VIEWS[dtype] ?? Uint8Array)(buffer) }];
      },
    ),
  );
}

/**
 * Changes the header of a safetensors file and leaves its data alone.
 *
 * @param {Uint8Array} bytes
 * @param {(header: Record<string, any>) => void} edit
 */
export function editSafetensorsHeader(bytes, edit) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerEnd = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, headerEnd)));
  edit(header);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  return Buffer.concat([length, text, bytes.subarray(headerEnd)]);
}

/**
 * Writes a PNG of 8 bits a channel.
 *
 * @param {{ width: number, height: number, data: Uint8Array }} picture RGB or RGBA
 * @param {{ gamma?: number }} [options] a gAMA chunk, in units of 1/100000
 */
export function encodePng({ width, height, data }, { gamma } = {}) {
  const channels = data.length / (width * height);
  const stride = width * channels;
  const rows = Buffer.alloc(height * (stride + 1));
  for (let y = 0; y < height; y++) {
    rows.set(data.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, channels === 4 ? 6 : 2], 8);
  const chunks = [chunk('IHDR', header)];
  if (gamma !== undefined) chunks.push(chunk('gAMA', uint32(gamma)));
  // Stored, not compressed: the pictures are tiny.
  chunks.push(chunk('IDAT', deflateSync(rows, { level: 0 })), chunk('IEND', Buffer.alloc(0)));
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...chunks]);
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  return Buffer.concat([uint32(data.length), body, uint32(crc32(body))]);
}

/** zlib has it too, but only from Node 20.15 on. */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function uint32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
