/**
 * A model of full size: 2.1 GB of weights from a stand-in for the Hub, through the cache, to the GPU,
 * in a heap that does not grow with the file. `FULL=1` only.
 */

import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeSync, closeSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

const OFF = { skip: process.env.FULL !== '1' && 'without FULL=1' };
const MIB = 2 ** 20;
/** What the wasm heap and what JavaScript holds may take together, bytes. */
const BUDGET = 256 * MIB;
/** How often memory is looked at, milliseconds. */
const PERIOD = 100;
/** The weights' files, as diffusers and transformers name them. */
const STEMS = { unet: 'diffusion_pytorch_model', vae: 'diffusion_pytorch_model', text_encoder: 'model' };
endAfterMinutes(30);

let browser, hub, model, page, server, session, total;

before(async () => {
  if (OFF.skip) return;
  model = mkdtempSync(join(tmpdir(), 'sd15-'));
  total = writeModel(model);
  hub = await serveHub({ 'tests/sd15': model });
  server = await serve(`${folder}site`, { '/pkg': pkg });
  browser = await launch();
  const context = await browser.newContext();
  ({ page } = await openPage({ newPage: () => context.newPage() }, server.url));
  session = await context.newCDPSession(page);
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
  if (model) rmSync(model, { recursive: true });
});

/** Stable Diffusion 1.5 with zeros for weights, in float16. Returns the weights' size in bytes. */
function writeModel(model) {
  const tiny = `${repository}www/models/tiny-random`;
  for (const name of ['model_index.json', 'tokenizer', 'scheduler']) {
    cpSync(join(tiny, name), join(model, name), { recursive: true });
  }
  const components = JSON.parse(readFileSync(`${repository}tests/fixtures/sd15.json`, 'utf8'));
  let total = 0;
  for (const [name, { config, shapes }] of Object.entries(components)) {
    mkdirSync(join(model, name));
    writeFileSync(join(model, name, 'config.json'), JSON.stringify(config));
    let end = 0;
    const header = {};
    for (const [key, shape] of Object.entries(shapes)) {
      const start = end;
      end += shape.reduce((product, side) => product * side, 2);
      header[key] = { dtype: 'F16', shape, data_offsets: [start, end] };
    }
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    const path = join(model, name, `${STEMS[name]}.safetensors`);
    const file = openSync(path, 'w');
    writeSync(file, length);
    writeSync(file, json);
    closeSync(file);
    // Zeros that take no room on most disks.
    truncateSync(path, 8 + json.length + end);
    total += 8 + json.length + end;
  }
  return total;
}

/** Loads the model in the page, and tells how long it took and the most memory that was seen. */
async function load(options) {
  let peak = 0;
  let done = false;
  const watch = (async () => {
    while (!done) {
      // What is held, without garbage.
      await session.send('HeapProfiler.collectGarbage');
      const { usedSize, embedderHeapUsedSize, backingStorageSize } =
        await session.send('Runtime.getHeapUsage');
      peak = Math.max(peak, usedSize + (embedderHeapUsedSize ?? 0) + (backingStorageSize ?? 0));
      await new Promise((resolve) => setTimeout(resolve, PERIOD));
    }
  })();
  const found = await page.evaluate(async (options) => {
    const { DirectInstructPix2Pix } = await import('/pkg/index.js');
    const start = performance.now();
    let last;
    const pipe = await DirectInstructPix2Pix.fromPretrained('tests/sd15', {
      ...options,
      onProgress: (event) => {
        if (event.type === 'download') last = event;
      },
    });
    const seconds = (performance.now() - start) / 1000;
    const { wasmHeap } = await pipe.memory();
    await pipe.dispose();
    return { seconds, last, wasmHeap };
  }, options);
  done = true;
  await watch;
  return { ...found, peak };
}

function assertWithin(found, what, t) {
  const told = (bytes) => `${(bytes / MIB).toFixed(0)} MiB`;
  t.diagnostic(
    `${what}: ${found.seconds.toFixed(0)} s; wasm heap ${told(found.wasmHeap)}, JavaScript holds ` +
      `${told(found.peak)} at most`,
  );
  const sum = found.wasmHeap + found.peak;
  assert.ok(sum <= BUDGET, `${what}: ${told(sum)}`);
}

test('two gigabytes pass through a heap of at most 256 MiB', OFF, async (t) => {
  const first = await load({ endpoint: hub.url });
  assert.equal(first.last.loaded, first.last.total);
  assert.ok(first.last.total >= total);
  assertWithin(first, 'from the network, into the cache', t);
  await hub.reset();
  const second = await load({ endpoint: hub.url, localFilesOnly: true });
  assert.equal(second.last.cached, second.last.total);
  assert.deepEqual(await hub.log(), []);
  assertWithin(second, 'from the cache', t);
});
