/**
 * Models of full size: 2.1 GB of weights from a stand-in for the Hub, through the cache, to the GPU, and 12.3 GB that become
 * smaller on their way, in a heap that does not grow with the file; and a LoRA of 0.4 GB. `FULL=1` only.
 */

import assert from 'node:assert/strict';
import { cpSync, readdirSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, truncateSync, writeSync, closeSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

const OFF = { skip: process.env.FULL !== '1' && 'without FULL=1' };
const MIB = 2 ** 20;
/** What the wasm heap and what JavaScript holds may take together, bytes. */
const BUDGET = 256 * MIB;
/** What the wasm heap may take for SDXL, bytes. */
const XL_HEAP = 400e6;
/** How often memory is looked at, milliseconds. */
const PERIOD = 100;
/** The weights' files, as diffusers and transformers name them. */
const STEMS = {
  unet: 'diffusion_pytorch_model',
  vae: 'diffusion_pytorch_model',
  text_encoder: 'model',
  text_encoder_2: 'model',
};
const SIZES = { F16: 2, F32: 4 };
/** The name that a LoRA's file has where none is given. */
const LORA = 'pytorch_lora_weights.safetensors';
/** Its rank: 422 MB for the small model. */
const RANK = 18432;
endAfterMinutes(60);

let browser, folders, hub, page, server, session, total;

before(async () => {
  if (OFF.skip) return;
  folders = ['sd15-', 'sdxl-', 'lora-'].map((name) => mkdtempSync(join(tmpdir(), name)));
  const tests = `${repository}tests/fixtures`;
  total = {
    sd: writeModel(folders[0], `${repository}www/models/tiny-random`, `${tests}/sd15.json`),
    // As `diffusers/sdxl-instructpix2pix-768` has them.
    xl: writeModel(folders[1], `${tests}/oracle/models/tiny-sdxl-ip2p`, `${tests}/sdxl.json`, {
      unet: 'F32',
      vae: 'F32',
    }),
  };
  const tiny = `${repository}www/models/tiny-random`;
  total.lora = writeLora(join(folders[2], LORA), tiny);
  hub = await serveHub({
    'tests/sd15': folders[0],
    'tests/sdxl': folders[1],
    'tests/lora': folders[2],
    'tests/tiny': tiny,
  });
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
  for (const folder of folders ?? []) rmSync(folder, { recursive: true });
});

/**
 * A model with zeros for weights, in float16 where `dtypes` does not say otherwise, and the rest as the small model at `like` has
 * it. Returns the weights' size in bytes.
 */
function writeModel(model, like, shapesOf, dtypes = {}) {
  const small = (name) => /^(model_index.json|tokenizer.*|scheduler)$/.test(name);
  for (const name of readdirSync(like).filter(small)) {
    cpSync(join(like, name), join(model, name), { recursive: true });
  }
  let total = 0;
  for (const [name, { config, shapes }] of Object.entries(JSON.parse(readFileSync(shapesOf, 'utf8')))) {
    mkdirSync(join(model, name));
    writeFileSync(join(model, name, 'config.json'), JSON.stringify(config));
    total += writeZeros(join(model, name, `${STEMS[name]}.safetensors`), shapes, dtypes[name] ?? 'F16');
  }
  return total;
}

/** A file of zeros for tensors of these shapes. Returns its size in bytes. */
function writeZeros(path, shapes, dtype) {
  let end = 0;
  const header = {};
  for (const [key, shape] of Object.entries(shapes)) {
    const start = end;
    end += shape.reduce((product, side) => product * side, SIZES[dtype]);
    header[key] = { dtype, shape, data_offsets: [start, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(path, 'w');
  writeSync(file, length);
  writeSync(file, json);
  closeSync(file);
  // Zeros that take no room on most disks.
  truncateSync(path, 8 + json.length + end);
  return 8 + json.length + end;
}

/** A LoRA of zeros for the attention of a model, in single precision. Returns its size in bytes. */
function writeLora(path, model) {
  const bytes = readFileSync(join(model, 'unet', `${STEMS.unet}.safetensors`));
  const weights = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())));
  const shapes = {};
  for (const [key, { shape }] of Object.entries(weights)) {
    const layer = /^(.*attn\d\.to_(?:q|k|v|out\.0))\.weight$/.exec(key)?.[1];
    if (!layer) continue;
    shapes[`unet.${layer}.lora_A.weight`] = [RANK, shape[1]];
    shapes[`unet.${layer}.lora_B.weight`] = [shape[0], RANK];
  }
  return writeZeros(path, shapes, 'F32');
}

/** Loads a model in the page, and tells how long it took and the most memory that was seen. */
async function load(Class, model, options) {
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
  const found = await page.evaluate(async ([name, model, options]) => {
    const Class = (await import('/pkg/index.js'))[name];
    const start = performance.now();
    let last;
    const pipe = await Class.fromPretrained(model, {
      ...options,
      onProgress: (event) => {
        if (event.type === 'download') last = event;
      },
    });
    const seconds = (performance.now() - start) / 1000;
    const { wasmHeap } = await pipe.memory();
    await pipe.dispose();
    return { seconds, last, wasmHeap };
  }, [Class, model, options]);
  done = true;
  await watch;
  return { ...found, peak };
}

const told = (bytes) => `${(bytes / MIB).toFixed(0)} MiB`;

function report(found, what, t) {
  t.diagnostic(
    `${what}: ${found.seconds.toFixed(0)} s; wasm heap ${told(found.wasmHeap)}, JavaScript holds ` +
      `${told(found.peak)} at most`,
  );
}

function assertWithin(found, what, t) {
  report(found, what, t);
  const sum = found.wasmHeap + found.peak;
  assert.ok(sum <= BUDGET, `${what}: ${told(sum)}`);
}

test('two gigabytes pass through a heap of at most 256 MiB', OFF, async (t) => {
  const sd = (options) => load('DirectInstructPix2Pix', 'tests/sd15', { endpoint: hub.url, ...options });
  const first = await sd();
  assert.equal(first.last.loaded, first.last.total);
  assert.ok(first.last.total >= total.sd);
  assertWithin(first, 'from the network, into the cache', t);
  await hub.reset();
  const second = await sd({ localFilesOnly: true });
  assert.equal(second.last.cached, second.last.total);
  assert.deepEqual(await hub.log(), []);
  assertWithin(second, 'from the cache', t);
});

test('twelve gigabytes in float32 become integers or halves on their way', OFF, async (t) => {
  for (const weightDtype of ['int4', 'float16']) {
    const options = { endpoint: hub.url, cache: false, weightDtype };
    const found = await load('DirectInstructPix2PixXL', 'tests/sdxl', options);
    assert.equal(found.last.loaded, found.last.total);
    assert.ok(found.last.total >= total.xl && total.xl > 12e9);
    report(found, `SDXL to ${weightDtype}`, t);
    assert.ok(found.wasmHeap <= XL_HEAP, `${weightDtype}: ${told(found.wasmHeap)}`);
    assert.ok(found.wasmHeap + found.peak <= XL_HEAP + BUDGET / 2, `${weightDtype}: ${told(found.peak)}`);
  }
});

test('twelve gigabytes in float32 are stored as halves, and loaded from them', OFF, async (t) => {
  // Other contexts are private windows, whose storage is memory.
  const profile = mkdtempSync(join(tmpdir(), 'profile-'));
  const kept = await launch({ profile });
  const others = { page, session };
  t.after(async () => {
    ({ page, session } = others);
    await kept.close();
    rmSync(profile, { recursive: true });
  });
  ({ page } = await openPage(kept, server.url));
  session = await kept.newCDPSession(page);
  const ask = { endpoint: hub.url };
  const { model } = await page.evaluate(async ([ask]) => {
    const { InstructPix2PixXL } = await import('/pkg/index.js');
    return InstructPix2PixXL.requirements('tests/sdxl', ask);
  }, [ask]);
  assert.ok(model.storageBytes < 7.2e9, `${model.storageBytes} bytes to store`);
  const loaded = (options) => load('DirectInstructPix2PixXL', 'tests/sdxl', { ...ask, ...options });
  const first = await loaded();
  const [entry] = await page.evaluate(async () => {
    const { cache } = await import('/pkg/index.js');
    return cache.list();
  });
  report(first, `SDXL into the cache, ${(entry.bytes / 1e9).toFixed(2)} GB of it`, t);
  assert.ok(Math.abs(entry.bytes / model.storageBytes - 1) < 0.02, `${entry.bytes} bytes of ${model.storageBytes} that were told`);
  assert.ok(first.wasmHeap <= XL_HEAP, told(first.wasmHeap));
  await hub.reset();
  const second = await loaded({ localFilesOnly: true });
  assert.deepEqual([second.last.cached, await hub.log()], [second.last.total, []]);
  report(second, 'SDXL from the cache', t);
  assert.ok(second.wasmHeap <= XL_HEAP, told(second.wasmHeap));
});

test('a LoRA larger than the heap may be passes through it', OFF, async (t) => {
  assert.ok(total.lora > XL_HEAP);
  const found = await page.evaluate(async ([endpoint, LORA]) => {
    const { DirectInstructPix2Pix } = await import('/pkg/index.js');
    const pipe = await DirectInstructPix2Pix.fromPretrained('tests/tiny', { endpoint });
    const heaps = {};
    const load = async (from, source, options) => {
      const { unusedKeys } = await pipe.loadLoraWeights(source, { adapterName: from, ...options });
      if (unusedKeys.length) throw new Error(`unused: ${unusedKeys}`);
      heaps[from] = (await pipe.memory()).wasmHeap;
      await pipe.unloadLoraWeights();
    };
    await load('network', 'tests/lora', { endpoint });
    await load('cache', 'tests/lora', { endpoint, localFilesOnly: true });
    const answer = await fetch(`${endpoint}/tests/lora/resolve/main/${LORA}`);
    await load('file', new File([await answer.blob()], LORA));
    await pipe.dispose();
    return heaps;
  }, [hub.url, LORA]);
  for (const [from, heap] of Object.entries(found)) {
    t.diagnostic(`a LoRA of ${told(total.lora)} from the ${from}: wasm heap ${told(heap)}`);
    assert.ok(heap < XL_HEAP, `${from}: ${told(heap)}`);
  }
});
