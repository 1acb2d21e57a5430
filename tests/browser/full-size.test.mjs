/**
 * Models of full size: 2.1 GB of weights from a stand-in for the Hub, through the cache, to the GPU, and 12.3 GB that become
 * smaller on their way, in a heap that does not grow with the file; and a LoRA of 0.4 GB. `FULL=1` only.
 *
 * The hub makes all weights on the fly, so that no disk has them: see `xtask/src/server/hub/generated.rs`.
 */

import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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
/** Of the values that the hub makes: of files with the same ones, the cache would keep one. */
const SEEDS = { sd: 1, xl: 2, lora: 3 };
/** Bytes of one range request, and of one chunk of the cache. */
const CHUNK_BYTES = 8 * MIB;
/** The name that a LoRA's file has where none is given. */
const LORA = 'pytorch_lora_weights.safetensors';
/** Its rank: 422 MB for the small model. */
const RANK = 18432;
endAfterMinutes(90);

let browser, folders, hub, page, server, session, total;

before(async () => {
  if (OFF.skip) return;
  folders = ['sd15-', 'sdxl-', 'lora-', 'profile-'].map((name) => mkdtempSync(join(tmpdir(), name)));
  const tests = `${repository}tests/fixtures`;
  total = {
    sd: writeModel(folders[0], `${repository}www/models/tiny-random`, `${tests}/sd15.json`, SEEDS.sd),
    // As `diffusers/sdxl-instructpix2pix-768` has them.
    xl: writeModel(folders[1], `${tests}/oracle/models/tiny-sdxl-ip2p`, `${tests}/sdxl.json`, SEEDS.xl, {
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
  // Other contexts are private windows, whose storage is memory, and has not room for this.
  browser = await launch({ profile: folders[3] });
  await open();
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
  for (const folder of folders ?? []) rmSync(folder, { recursive: true });
});

/** Opens a page, whose wasm heap has seen nothing yet, in place of the one before. */
async function open() {
  await page?.close();
  ({ page } = await openPage(browser, server.url));
  session = await browser.newCDPSession(page);
}

/**
 * A model with made up weights, in float16 where `dtypes` does not say otherwise, and the rest as the small model at `like` has
 * it. Returns the weights' size in bytes.
 */
function writeModel(model, like, shapesOf, seed, dtypes = {}) {
  const small = (name) => /^(model_index.json|tokenizer.*|scheduler)$/.test(name);
  for (const name of readdirSync(like).filter(small)) {
    cpSync(join(like, name), join(model, name), { recursive: true });
  }
  let total = 0;
  for (const [name, { config, shapes }] of Object.entries(JSON.parse(readFileSync(shapesOf, 'utf8')))) {
    mkdirSync(join(model, name));
    writeFileSync(join(model, name, 'config.json'), JSON.stringify(config));
    total += describe(join(model, name, `${STEMS[name]}.safetensors`), seed, shapes, dtypes[name] ?? 'F16');
  }
  return total;
}

/** Has the hub make a file of tensors of these shapes. Returns their size in bytes. */
function describe(path, seed, shapes, dtype) {
  writeFileSync(`${path}.generated.json`, JSON.stringify({ seed, dtype, shapes }));
  const bytes = (shape) => shape.reduce((product, side) => product * side, SIZES[dtype]);
  return Object.values(shapes).reduce((sum, shape) => sum + bytes(shape), 0);
}

/** A LoRA for the attention of a model, in single precision. Returns its size in bytes. */
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
  return describe(path, SEEDS.lora, shapes, 'F32');
}

/** Does something in the page, and tells what comes of it and the most memory that was seen. */
async function watched(work) {
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
  const found = await work().finally(() => (done = true));
  await watch;
  return { ...found, peak };
}

/** Loads a model in the page, and tells how long it took and the most memory that was seen. */
function load(Class, model, options) {
  return watched(() => page.evaluate(async ([name, model, options]) => {
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
  }, [Class, model, options]));
}

/**
 * In the page: has the package turn SDXL's weights into halves for a `cache` that keeps none of them. What comes of the UNet is
 * compared, tensor by tensor and each value, with what this engine's own `Float16Array` makes of the same numbers.
 */
async function dropTensors([endpoint, model, seed, chunkBytes]) {
  const file = 'unet/diffusion_pytorch_model.safetensors';
  const tree = await (await fetch(`${endpoint}/api/models/${model}/tree/main?recursive=true`)).json();
  const { size, lfs } = tree.find(({ path }) => path === file);
  const read = async (from, to) => {
    const headers = { range: `bytes=${from}-${to - 1}` };
    return (await fetch(`${endpoint}/${model}/resolve/main/${file}`, { headers })).arrayBuffer();
  };
  const data = 8 + Number(new DataView(await read(0, 8)).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(await read(8, data)));
  const tensors = Object.entries(header).map(([name, { shape, data_offsets: [start, end] }]) => {
    return { name, isWeight: shape.length > 1, start: data + start, end: data + end, dropped: 0 };
  });
  tensors.sort((a, b) => a.start - b.start);

  // As `generated.rs` describes them: by eight bits of the random ones, the others that stay and those that are set, and what is
  // added.
  const recipes = [new Int32Array(256), new Int32Array(256), new Int32Array(256)];
  const [kept, set, added] = recipes;
  for (let i = 0; i < 256; i++) {
    const [halvings, kind] = [i & 31, i >> 5];
    // Mantissa bits that a half has no place for; 24 are the one in front of them, too.
    const cut = Math.max(13, halvings);
    kept[i] = kind > 2 ? 0x7fffff : cut > 22 ? 0 : -(2 ** cut) & 0x7fffff;
    set[i] = ((126 - halvings) << 23) | (kind > 2 || cut > 23 ? 0 : 2 ** (cut - 1));
    added[i] = [0, 1, -1][kind] ?? 0;
  }
  const bits = new Int32Array(chunkBytes / 4);
  const floats = new Float32Array(bits.buffer);
  const halves = new Float16Array(bits.length);
  const halfBits = new Uint16Array(halves.buffer);
  /** Makes so many values, from the one with this number on. */
  const make = (first, count) => {
    for (let i = 0; i < count; i++) {
      let x = (first + i) ^ seed;
      x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
      x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
      x ^= x >>> 16;
      const recipe = (x >>> 23) & 255;
      bits[i] = (((x & kept[recipe]) | set[recipe]) + added[recipe]) | (x & 0x80000000);
    }
  };

  const wrong = [];
  let [checking, halfBytes] = [0, 0];
  /** Takes a chunk whose weights are halves, in place of what would keep them. */
  const take = (index, bytes) => {
    const before = performance.now();
    const [from, to] = [index * chunkBytes, Math.min((index + 1) * chunkBytes, size)];
    let at = 0;
    for (const tensor of tensors.filter(({ start, end }) => start < to && end > from)) {
      const [first, last] = [Math.max(tensor.start, from), Math.min(tensor.end, to)];
      const count = (last - first) / 4;
      make((first - data) / 4, count);
      const length = count * (tensor.isWeight ? 2 : 4);
      // A copy, because views need an aligned beginning.
      const { buffer } = new Uint8Array(bytes.slice(at, at + length));
      const found = tensor.isWeight ? new Uint16Array(buffer) : new Int32Array(buffer);
      if (tensor.isWeight) halves.set(floats.subarray(0, count));
      const expected = tensor.isWeight ? halfBits : bits;
      for (let i = 0; i < count; i++) {
        if (found[i] !== expected[i] && wrong.length < 10) {
          wrong.push({ tensor: tensor.name, at: (first - tensor.start) / 4 + i, value: floats[i], found: found[i] });
        }
      }
      at += length;
      if (tensor.isWeight) halfBytes += length;
      tensor.dropped += last - first;
    }
    // The fast hash is behind them.
    if (at + 8 !== bytes.byteLength) wrong.push({ index, bytes: bytes.byteLength });
    checking += performance.now() - before;
  };

  /** The entries' names, with the bytes of those that may be asked for again. */
  const entries = new Map();
  const cache = {
    get: (key) => entries.get(key),
    delete: (key) => void entries.delete(key),
    keys: () => entries.keys(),
    put(key, bytes) {
      const [, id, index, rounded] = /^chunk\/([^/]+)\/(\d+)(~.*)?$/.exec(key) ?? [];
      if (rounded && id === `sha256-${lfs.oid}`) take(Number(index), bytes);
      entries.set(key, rounded ? undefined : bytes);
      const [, content] = /^content\/(.*)$/.exec(key) ?? [];
      if (!content) return;
      // What was served, and came before its turn to be hashed, is read once more then and never again.
      const { hashed } = JSON.parse(new TextDecoder().decode(bytes));
      for (const [other, held] of entries) {
        const [, of, place] = /^chunk\/([^/]+)\/(\d+)$/.exec(other) ?? [];
        if (held && of === content && Number(place) < hashed) entries.set(other, undefined);
      }
    },
  };
  const { DirectInstructPix2PixXL } = await import('/pkg/index.js');
  const { heapBytes } = await import('/pkg/instruct_pix2pix.js');
  const warnings = [];
  let last;
  const start = performance.now();
  await DirectInstructPix2PixXL.download(model, {
    endpoint,
    cache,
    weightDtype: 'float16',
    rangeBytes: chunkBytes,
    onProgress: (event) => {
      if (event.type === 'download') last = event;
      if (event.type === 'warning') warnings.push(event.message);
    },
  });
  const seconds = (performance.now() - start) / 1000;
  // The chunk with the header stays as it was served.
  const uneven = tensors.filter(({ start, end, dropped }) => {
    return dropped !== Math.max(0, end - Math.max(start, chunkBytes));
  });
  return { seconds, checking: checking / 1000, last, wasmHeap: heapBytes(), size, halfBytes, wrong, uneven, warnings };
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

test('ten gigabytes in float32 come as halves to a consumer that drops the tensors', OFF, async (t) => {
  await open();
  const found = await watched(() => page.evaluate(dropTensors, [hub.url, 'tests/sdxl', SEEDS.xl, CHUNK_BYTES]));
  const { seconds, checking, last, size, halfBytes, wasmHeap, peak } = found;
  const streamed = seconds - checking;
  report(found, `SDXL to nobody, its UNet of ${(size / 1e9).toFixed(2)} GB`, t);
  t.diagnostic(
    `of these, ${checking.toFixed(0)} s for comparing ${(halfBytes / 2e9).toFixed(2)}e9 halves; without, ` +
      `${(last.total / streamed / 1e6).toFixed(0)} MB/s`,
  );
  assert.deepEqual([found.wrong, found.uneven, found.warnings], [[], [], []]);
  assert.equal(last.loaded, last.total);
  assert.ok(last.total >= total.xl && size > 10e9);
  assert.ok(halfBytes > 0.49 * size, `${halfBytes} bytes of halves`);
  assert.ok(wasmHeap <= XL_HEAP, told(wasmHeap));
  assert.ok(wasmHeap + peak <= XL_HEAP + BUDGET / 2, told(peak));
});

test('twelve gigabytes in float32 become integers or halves on their way', OFF, async (t) => {
  await open();
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
  await open();
  const ask = { endpoint: hub.url };
  const { model } = await page.evaluate(async ([ask]) => {
    const { InstructPix2PixXL } = await import('/pkg/index.js');
    return InstructPix2PixXL.requirements('tests/sdxl', ask);
  }, [ask]);
  assert.ok(model.storageBytes < 7.2e9, `${model.storageBytes} bytes to store`);
  const loaded = (options) => load('DirectInstructPix2PixXL', 'tests/sdxl', { ...ask, ...options });
  const first = await loaded();
  const entry = await page.evaluate(async () => {
    const { cache } = await import('/pkg/index.js');
    return (await cache.list()).find(({ model }) => model.endsWith('/sdxl'));
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
