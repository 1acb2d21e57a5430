/**
 * Downloads, the cache and what goes wrong with them, on the tiny model from a stand-in for the Hub.
 * `FULL=1` adds what takes long.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

const full = process.env.FULL === '1';
const tiny = `${repository}www/models/tiny-random`;
const WEIGHTS = ['text_encoder/model', 'vae/diffusion_pytorch_model', 'unet/diffusion_pytorch_model'];
const weightFile = (stem) => `${stem}.safetensors`;
const UNET = weightFile(WEIGHTS[2]);
/** Small, so that the tiny model has many pieces. */
const RANGE = 64 << 10;
endAfterMinutes(30);

let browser, hub, server, context, page, problems;

before(async () => {
  hub = await serveHub({ 'tests/tiny': tiny });
  server = await serve(`${folder}site`, { '/pkg': pkg, '/models': `${repository}www/models` });
  browser = await launch();
  context = await browser.newContext();
  ({ page, problems } = await newPage());
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
});

beforeEach(async () => {
  await hub.reset();
  await page.evaluate(() => forget());
});

async function newPage() {
  const opened = await openPage({ newPage: () => context.newPage() }, server.url);
  await useHelpers(opened.page);
  return opened;
}

async function useHelpers(page) {
  await page.evaluate(
    async (defaults) => {
      const [helpers, downloads] = [await import('/helpers.js'), await import('/downloads.js')];
      Object.assign(window, helpers, downloads, await import('/pkg/index.js'));
      window.load = loader(defaults);
    },
    { endpoint: hub.url, rangeBytes: RANGE },
  );
}

const load = (options, model) =>
  page.evaluate(([options, model]) => window.load(options, model), [options, model]);

/** What was asked of the CDN and of the Hub's files, whole or in part. */
async function requests() {
  return (await hub.log()).filter(({ method, status }) => method === 'GET' && status < 300);
}

const sizes = Object.fromEntries(
  WEIGHTS.map((stem) => [weightFile(stem), statSync(join(tiny, weightFile(stem))).size]),
);
const pieces = Object.values(sizes).reduce((sum, size) => sum + Math.ceil(size / RANGE), 0);

function assertLoaded(outcome) {
  assert.equal(outcome.resolved, true, outcome.message);
  assert.equal(outcome.last.loaded, outcome.last.total);
}

function assertRefused(outcome, code) {
  assert.equal(outcome.code, code, outcome.message ?? 'it loaded');
  assert.ok(outcome.isPackageError);
}

/** Ends a page's process, as the system does where memory is short. */
async function crash(page) {
  const session = await page.context().newCDPSession(page);
  const crashed = new Promise((resolve) => page.once('crash', resolve));
  // Nobody is left to answer.
  session.send('Page.crash').catch(() => {});
  await crashed;
}

/** The requests of a load that finds everything but the revision's commit on this machine. */
const REVISION = ['/api/models/tests/tiny/revision/main'];

/** The database's entries by their keys, as sizes. */
const entries = () => page.evaluate(() => window.entries());

describe('the cache', () => {
  test('a model is downloaded once, and loads with the network off', async () => {
    const first = await load();
    assertLoaded(first);
    assert.equal(first.last.cached, 0);
    assert.ok(first.events.some(({ type, needed }) => type === 'storage' && needed > 1e6));
    const asked = await requests();
    for (const file of Object.keys(sizes)) {
      const sent = asked.filter((r) => r.origin === 'cdn' && r.file.endsWith(file));
      assert.equal(sent.reduce((sum, r) => sum + r.sent, 0), sizes[file], `${file}, each byte once`);
    }

    await hub.reset();
    const second = await load();
    assertLoaded(second);
    assert.equal(second.last.cached, second.last.total);
    assert.deepEqual((await hub.log()).map(({ path }) => path), REVISION);

    await hub.reset();
    const offline = [];
    page.on('request', (request) => offline.push(request.url()));
    const local = await load({ localFilesOnly: true });
    assertLoaded(local);
    assert.deepEqual(await hub.log(), [], 'no request at all');
    await context.setOffline(true);
    const fallback = await load().finally(() => context.setOffline(false));
    assertLoaded(fallback);
    assert.equal(fallback.warnings[0].code, 'offline');
    assertLoaded(await load({ localFilesOnly: true, inWorker: true }));
  });

  test('a page that ends during the download goes on from there', async (t) => {
    const points = full ? 10 : 2;
    for (let point = 0; point < points; point++) {
      await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 400_000 } });
      await page.evaluate(() => forget());
      const stopAt = 0.1 + Math.random() * 0.8;
      t.diagnostic(`ends at ${(100 * stopAt).toFixed(0)} %`);
      const running = page.evaluate(
        (stopAt) =>
          new Promise((resolve) => {
            const onProgress = ({ type, loaded, total }) =>
              type === 'download' && loaded > stopAt * total && resolve();
            window.load({ onProgress, inWorker: true }).then(resolve);
          }),
        stopAt,
      );
      await running;
      // Closed, or gone from one moment to the next.
      if (point % 2 === 1) await crash(page);
      await page.close();
      const before = await requests();
      await hub.reset();
      ({ page, problems } = await newPage());
      const outcome = await load();
      assertLoaded(outcome);
      const after = (await requests()).filter(({ origin }) => origin === 'cdn');
      const seen = new Set(
        before.filter((r) => r.origin === 'cdn' && r.done).map((r) => `${r.file} ${r.range}`),
      );
      const twice = after.filter((r) => seen.has(`${r.file} ${r.range}`));
      // What was sent may have been on its way into the database: six at most.
      assert.ok(twice.length <= 6, `${twice.length} of ${pieces} pieces were fetched twice`);
      assert.ok(outcome.last.cached > 0);
      const kept = await page.evaluate((name) => keptHashes(name), `${hub.url}/tests/tiny`);
      for (const file of Object.keys(sizes)) {
        const hash = createHash('sha256').update(readFileSync(join(tiny, file))).digest('hex');
        assert.equal(kept[file], hash, file);
      }
    }
  });

  test('a damaged piece is found and fetched again, before it reaches the GPU', async () => {
    const loadAndEdit = () =>
      page.evaluate(() => {
        const use = async (pipe) => {
          const { latents } = await pipe.edit({ ...quick, image: picture() });
          return [...latents.data];
        };
        return load({ use });
      });
    const undamaged = await loadAndEdit();
    assertLoaded(undamaged);
    const hash = createHash('sha256').update(readFileSync(join(tiny, UNET))).digest('hex');
    const key = await page.evaluate((pattern) => damage(pattern), `^chunk/sha256-${hash}/00002$`);
    await hub.reset();
    const outcome = await loadAndEdit();
    assertLoaded(outcome);
    assert.equal(outcome.warnings[0].code, 'corrupt');
    assert.ok(undamaged.value.length > 8 && new Set(undamaged.value).size > 8);
    assert.deepEqual(outcome.value, undamaged.value);
    const fetched = (await requests()).filter(({ origin }) => origin === 'cdn');
    assert.equal(fetched.length, 1, key);
    assert.match(fetched[0].range, new RegExp(`^bytes=${2 * RANGE}-`));
  });

  test('wrong bytes from the network are refused, and nothing of that file is kept', async () => {
    const at = sizes[UNET] - 5;
    await hub.reset({ path: `*${UNET}`, covers: at, fault: { kind: 'bytes', at } });
    const outcome = await load();
    assertRefused(outcome, 'hash-mismatch');
    assert.match(outcome.message, /unet/);
    const hash = createHash('sha256').update(readFileSync(join(tiny, UNET))).digest('hex');
    const kept = Object.keys(await entries());
    assert.ok(kept.length > 10, 'the other files stay');
    assert.deepEqual(kept.filter((key) => key.includes(hash)), []);
    assertLoaded(await load());
  });

  test('two tabs: one downloads, the other waits and reads', async () => {
    await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 2_000_000 } });
    const { page: other } = await newPage();
    const outcomes = await Promise.all([load(), other.evaluate(() => window.load())]);
    await other.close();
    outcomes.forEach(assertLoaded);
    const waited = outcomes.filter(({ events }) => events.some(({ type }) => type === 'waiting'));
    assert.equal(waited.length, 1);
    assert.equal(waited[0].last.cached, waited[0].last.total);
    const fetched = (await requests()).filter(({ origin }) => origin === 'cdn');
    assert.equal(fetched.length, pieces);
  });

  test('what a quota is too small for is kept in memory until the page ends', async () => {
    // A profile of its own: Chromium believes for minutes what it found of the quota before.
    const fresh = await browser.newContext();
    try {
      const { page } = await openPage({ newPage: () => fresh.newPage() }, server.url);
      await useHelpers(page);
      const session = await fresh.newCDPSession(page);
      const { origin } = new URL(server.url);
      await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 1_000_000 });
      const outcome = await page.evaluate(() => load());
      assertLoaded(outcome);
      assert.equal(outcome.warnings[0]?.code, 'storage');
      assert.match(outcome.warnings[0].message, /memory.*no room/);
      assert.equal(outcome.warnings.length, 1);
      await hub.reset();
      const second = await page.evaluate(() => load({ localFilesOnly: true }));
      assertLoaded(second);
      assert.equal(second.last.cached, second.last.total);
      assert.deepEqual(await hub.log(), [], 'no request at all');
      // A download is for later pages.
      assertRefused(
        await page.evaluate((url) => download({ endpoint: url }), hub.url),
        'storage',
      );
      const next = await openPage({ newPage: () => fresh.newPage() }, server.url);
      await useHelpers(next.page);
      assertRefused(await next.page.evaluate(() => load({ localFilesOnly: true })), 'not-cached');
    } finally {
      await fresh.close();
    }
  });

  test('too little room is found out before the download', async () => {
    const { page: own } = await newPage();
    const outcome = await own.evaluate(async () => {
      StorageManager.prototype.estimate = async () => ({ quota: 2_000_000, usage: 600_000 });
      return load();
    });
    assertLoaded(outcome);
    assert.match(outcome.warnings[0].message, /memory.*needs 7\.\d MB, 1\.4 MB free/);
    await hub.reset();
    assertLoaded(await own.evaluate(() => load()));
    assert.deepEqual((await hub.log()).map(({ path }) => path), REVISION);
    await own.close();
    const kept = Object.keys(await entries());
    assert.deepEqual(kept.filter((key) => key.startsWith('chunk/sha256')), []);
  });

  test('where a database cannot be had, a small model is kept in memory', async () => {
    const { page: own } = await newPage();
    await own.evaluate(() => {
      // As some browsers have it in private windows; others have none.
      indexedDB.constructor.prototype.open = () => {
        throw new DOMException('The operation is insecure.', 'SecurityError');
      };
    });
    for (const change of [() => {}, () => Object.defineProperty(window, 'indexedDB', { value: undefined })]) {
      await own.evaluate(change);
      const outcome = await own.evaluate(() => load());
      assertLoaded(outcome);
      assert.deepEqual(outcome.warnings.map(({ code }) => code), ['storage']);
      assert.match(outcome.warnings[0].message, /up to 50\.3 MB .* memory.*(insecure|no IndexedDB)/);
      await hub.reset();
      const second = await own.evaluate(() => load({ localFilesOnly: true }));
      assertLoaded(second);
      assert.equal(second.last.cached, second.last.total);
      assert.deepEqual(await hub.log(), [], 'no request at all');
    }
    assertRefused(await own.evaluate((url) => download({ endpoint: url }), hub.url), 'storage');
    await own.close();
  });

  test('a database that is deleted underneath is made anew', async () => {
    await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 3_000_000 } });
    const outcome = await page.evaluate(async () => {
      let deleted;
      const onProgress = ({ type, loaded, total }) => {
        if (type !== 'download' || deleted || loaded < total / 2) return;
        deleted = new Promise((resolve, reject) => {
          const request = indexedDB.deleteDatabase('instruct-pix2pix-web');
          request.onsuccess = resolve;
          request.onerror = () => reject(request.error);
        });
      };
      const outcome = await window.load({ onProgress });
      await deleted;
      return { ...outcome, deleted: deleted !== undefined };
    });
    assert.equal(outcome.resolved, true, outcome.message);
    assert.ok(outcome.deleted);
    assert.match(outcome.warnings[0]?.message, /removed from the cache/);
    // What came after that is there for the next load, and nothing is taken to be there that is not.
    const second = await load();
    assertLoaded(second);
    const { cached, total } = second.last;
    assert.ok(cached > total / 10 && cached < total, `${cached} of ${total} bytes were there`);
    assertLoaded(await load({ localFilesOnly: true }));
  });

  test('a newer revision does not break the cached one', async () => {
    const { models } = await hub.control({});
    assertLoaded(await load());
    const newer = mkdtempSync(join(tmpdir(), 'newer-'));
    try {
      cpSync(tiny, newer, { recursive: true });
      writeFileSync(join(newer, 'README.md'), 'newer');
      await hub.control({ publish: [{ repo: 'tests/tiny', revision: 'main', folder: newer }] });
      // It is found, and its listing never comes.
      await hub.control({ rules: [{ path: '*/tree/*', times: 0, fault: { kind: 'status', status: 404 } }] });
      assertLoaded(await load({ localFilesOnly: true }));
      assertLoaded(await load({ revision: models['tests/tiny'].main }));
      const older = await load();
      assertLoaded(older);
      assert.deepEqual(older.warnings.map(({ code }) => code), ['offline']);
      // The repository is gone, or became private.
      for (const status of [404, 401]) {
        await hub.reset({ path: '/api/*', times: 0, fault: { kind: 'status', status } });
        const outcome = await load();
        assertLoaded(outcome);
        assert.deepEqual(outcome.warnings.map(({ code }) => code), ['offline'], status);
      }
      await hub.reset();
      const outcome = await load();
      assertLoaded(outcome);
      // The same contents under another commit.
      assert.equal(outcome.last.cached, outcome.last.total);
    } finally {
      await hub.control({ publish: [{ repo: 'tests/tiny', revision: 'main', folder: tiny }] });
      rmSync(newer, { recursive: true });
    }
  });

  test('models are listed, exported, deleted and imported', async () => {
    assertLoaded(await load());
    const found = await page.evaluate(async (endpoint) => {
      const name = `${endpoint}/tests/tiny`;
      const before = await cache.list();
      const file = await cache.export(name);
      const deleted = [await cache.delete(name), await cache.delete(name)];
      const between = await cache.list();
      const left = Object.keys(await entries());
      const imported = await cache.import(file);
      const refused = await attempt(cache.import(new Blob(['no archive'])));
      const missing = await attempt(cache.export('no/such'));
      const bytes = new Uint8Array(await file.arrayBuffer());
      const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
      return { before, deleted, between, left, imported, refused, missing, archive: btoa(text) };
    }, hub.url);
    const [model] = found.before;
    assert.equal(found.before.length, 1);
    assert.equal(model.model, `${hub.url}/tests/tiny`);
    assert.match(model.revision, /^[0-9a-f]{40}$/);
    assert.ok(model.complete && model.bytes > 1e6 && Date.now() - model.lastUsed < 1e6);
    assert.deepEqual([found.deleted, found.between, found.left], [[true, false], [], ['version']]);
    assert.equal(found.imported, model.model);
    assertRefused(found.refused, 'invalid-argument');
    assertRefused(found.missing, 'not-cached');
    await hub.reset();
    assertLoaded(await load({ localFilesOnly: true }));
    assert.deepEqual(await hub.log(), []);

    const unpacked = mkdtempSync(join(tmpdir(), 'archive-'));
    try {
      const archive = Buffer.from(found.archive, 'base64');
      execFileSync('tar', ['-x', '-C', unpacked], { input: archive });
      for (const file of Object.keys(sizes)) {
        assert.ok(readFileSync(join(unpacked, file)).equals(readFileSync(join(tiny, file))), file);
      }
    } finally {
      rmSync(unpacked, { recursive: true });
    }
  });

  test('weights in float32 are kept as halves, unless they are wanted as they are', async () => {
    const VAE = weightFile(WEIGHTS[1]);
    const found = await page.evaluate(async (endpoint) => {
      const options = { endpoint, rangeBytes: 32 << 10 };
      const edit = async (pipe) => {
        const picture = new ImageData(16, 16);
        picture.data.forEach((_, i) => (picture.data[i] = (i * 7) % 251));
        const { images } = await pipe.edit({
          image: picture, prompt: 'make it snowy', numInferenceSteps: 1, seed: 7, outputType: 'latent',
        });
        return [...images.data];
      };
      const requirements = () => InstructPix2Pix.requirements('tests/tiny', options);
      const before = await requirements();
      const first = await window.load({ ...options, use: edit });
      const after = await requirements();
      const [{ bytes }] = await cache.list();
      const sizes = await entries();
      const name = `${endpoint}/tests/tiny`;
      const refused = await attempt(cache.export(name));
      const second = await window.load({ ...options, localFilesOnly: true, use: edit });
      const lacking = await window.load({ ...options, localFilesOnly: true, weightDtype: 'float32' });
      const floats = await window.load({ ...options, weightDtype: 'float32' });
      const hashes = await keptHashes(name);
      return { before, first, after, bytes, sizes, refused, second, lacking, floats, hashes };
    }, hub.url);
    const { before, first, after, second, floats } = found;
    for (const outcome of [first, second, floats]) assertLoaded(outcome);
    assert.deepEqual(second.value, first.value);
    assert.equal(second.last.cached, second.last.total);
    const spared = sizes[VAE] / 2;
    const within = (value, expected) => Math.abs(value - expected) < sizes[VAE] / 30;
    assert.ok(within(before.model.missingBytes - before.model.storageBytes, spared));
    assert.equal(before.storage.needed, before.model.storageBytes);
    assert.deepEqual([after.model.missingBytes, after.storage.needed], [0, 0]);
    const event = first.events.find(({ type }) => type === 'storage');
    assert.equal(event.needed, before.model.storageBytes);
    const stored = Object.entries(found.sizes).filter(([key]) => key.startsWith('chunk/'));
    const sum = stored.reduce((all, [, size]) => all + size - 8, 0);
    assert.equal(found.bytes, sum);
    assert.ok(within(first.last.total - sum, spared), `${first.last.total}, ${sum}`);
    assertRefused(found.refused, 'unsupported');
    assertRefused(found.lacking, 'not-cached');
    assert.ok(within(floats.last.total - floats.last.cached, sizes[VAE]));
    const served = createHash('sha256').update(readFileSync(join(tiny, VAE))).digest('hex');
    assert.equal(found.hashes[VAE], served);
  });

  test('a store and a fetch of the user’s own', async () => {
    // What the store does not take stays in its memory.
    const { page: own } = await newPage();
    const found = await own.evaluate(async () => {
      // The browser's own room is not what it takes.
      StorageManager.prototype.estimate = async () => ({ quota: 2_000_000, usage: 600_000 });
      const entries = new Map();
      const urls = [];
      const options = {
        cache: {
          get: async (key) => entries.get(key),
          put: (key, value) => void entries.set(key, value),
          delete: (key) => void entries.delete(key),
          keys: () => entries.keys(),
        },
        fetch: (url, init) => {
          urls.push(url);
          return fetch(url, init);
        },
      };
      const first = await load({ ...options, inWorker: true });
      const asked = urls.length;
      const second = await load({ ...options, localFilesOnly: true });
      const listed = await cache.list({ cache: options.cache });
      const failing = { ...options.cache, put: () => { throw new Error('mine'); }, get: () => undefined, keys: () => [] };
      const third = await load({ ...options, cache: failing });
      const wrong = await load({ cache: { get() {} } });
      return { first, second, third, wrong, asked, after: urls.length, listed, entries: entries.size };
    });
    [found.first, found.second, found.third].forEach(assertLoaded);
    assert.ok(found.asked > pieces && found.entries > pieces, `${found.asked} requests`);
    assert.equal(found.listed.length, 1);
    assert.deepEqual([found.first.warnings, found.second.warnings], [[], []]);
    assert.match(found.third.warnings[0].message, /mine/);
    assertRefused(found.wrong, 'invalid-argument');
    assert.deepEqual(Object.keys(await entries()), [], 'the browser’s own was not used');
    await own.close();
  });

  test('the limit makes the model used least recently give way', async () => {
    assertLoaded(await load({}, '/models/tiny-random'));
    const total = Object.values(sizes).reduce((sum, size) => sum + size);
    const outcome = await load({ cacheLimit: Math.round(total * 1.5 + 2e6) });
    assertLoaded(outcome);
    const names = await page.evaluate(async () => (await cache.list()).map(({ model }) => model));
    assert.deepEqual(names, [`${hub.url}/tests/tiny`]);
  });
});

describe('the network', () => {
  const faults = {
    'a connection that breaks': { kind: 'cut', after: 1000 },
    'status 429': { kind: 'status', status: 429, retryAfter: 1, expose: true },
    'status 500': { kind: 'status', status: 500 },
    'status 503': { kind: 'status', status: 503 },
    'a page in place of the file': { kind: 'html' },
    'a connection that stalls': { kind: 'stall', after: 1000 },
    'no answer': { kind: 'hang' },
    'a server that ignores ranges': { kind: 'ignore-range' },
    'an expired signature': { kind: 'expired' },
    'a server that restarts': { kind: 'restart', ms: 700 },
    'another length, once': { kind: 'length', delta: 10 },
  };
  for (const [name, fault] of Object.entries(faults)) {
    test(`${name} is survived`, async () => {
      await hub.reset({ origin: 'cdn', path: `*${UNET}`, nth: 3, fault });
      const outcome = await load({ stallTimeout: 1500 });
      assertLoaded(outcome);
      assert.ok((await hub.log()).some((entry) => entry.fault === fault.kind), 'the fault was met');
    });
  }

  test('a server that never knows ranges sends each file once', async () => {
    await hub.reset({ origin: 'cdn', times: 0, path: `*${UNET}`, fault: { kind: 'ignore-range' } });
    assertLoaded(await load());
    const sent = (await requests()).reduce((sum, r) => sum + (r.file?.endsWith(UNET) ? r.sent : 0), 0);
    assert.ok(sent < 1.1 * sizes[UNET], `${sent} bytes of ${sizes[UNET]}`);
  });

  test('signatures that expire all the time', async () => {
    await hub.control({ signatureMs: 150, rules: [] });
    assertLoaded(await load());
  });

  const final = {
    'a file of another length': [{ kind: 'length', delta: -3 }, 'invalid-response'],
    'a page in place of every answer': [{ kind: 'html' }, 'invalid-response'],
    'a redirect that never ends': [{ kind: 'redirect-loop' }, 'network'],
    'status 403': [{ kind: 'status', status: 403 }, 'http-status'],
  };
  for (const [name, [fault, code]] of Object.entries(final)) {
    test(`${name} is an error of its own`, async () => {
      await hub.reset({ path: `*${UNET}`, times: 0, fault });
      assertRefused(await load(), code);
    });
  }

  test('the token goes to the Hub and to nobody else', async () => {
    await hub.control({ reset: true, gate: { 'tests/tiny': 'hf_secret' } });
    const refused = await load();
    assertRefused(refused, 'http-status');
    assert.match(refused.message, /token/);
    await hub.control({ reset: true, gate: { 'tests/tiny': 'hf_secret' } });
    // A page whose engine has not started yet, to be as talkative as it can be.
    const { page: talkative } = await newPage();
    const said = [];
    talkative.on('console', (message) => said.push(`${message.text()} ${message.location().url}`));
    talkative.on('worker', (worker) => worker.evaluate(() => console.debug('the worker is heard')));
    await talkative.evaluate(() => {
      env.logLevel = 'debug';
    });
    const refusedAloud = await talkative.evaluate(() => load({ token: 'hf_wrong_secret' }));
    assertRefused(refusedAloud, 'http-status');
    const outcomes = [];
    for (const inWorker of [false, true]) {
      outcomes.push(
        await talkative.evaluate(
          (inWorker) => load({ token: 'hf_secret', forceDownload: true, inWorker }),
          inWorker,
        ),
      );
    }
    outcomes.forEach(assertLoaded);
    await talkative.close();
    for (const heard of [/is loaded after/, /the worker is heard/]) {
      assert.ok(said.some((text) => heard.test(text)), said.join('\n'));
    }
    const tells = (text) => /hf_(wrong_)?secret/.test(text);
    assert.deepEqual(said.filter(tells), []);
    const log = await hub.log();
    assert.ok(log.some(({ origin, authorization }) => origin === 'hub' && authorization));
    const leaks = log.filter(({ origin, authorization, asks }) =>
      origin === 'cdn' && (authorization || /authorization/i.test(asks ?? '')));
    assert.deepEqual(leaks, []);
    assert.ok(!tells(JSON.stringify([refusedAloud, ...outcomes])));
    const stored = await page.evaluate(async () => {
      const database = await new Promise((resolve) => {
        const request = indexedDB.open('instruct-pix2pix-web', 1);
        request.onsuccess = () => resolve(request.result);
      });
      const values = await new Promise((resolve) => {
        const request = database.transaction('entries').objectStore('entries').getAll();
        request.onsuccess = () => resolve(request.result);
      });
      return values.some((value) => new TextDecoder('latin1').decode(value).includes('hf_secret'));
    });
    assert.equal(stored, false);
  });

  for (const inWorker of [false, true]) {
    const where = inWorker ? 'in a worker' : 'on the page';
    test(`an abort ${where} stops within 200 ms and keeps what has arrived`, async () => {
      await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 400_000 } });
      const found = await page.evaluate(async (inWorker) => {
        const controller = new AbortController();
        let aborted;
        const onProgress = ({ type, loaded, total }) => {
          if (type !== 'download' || loaded < total / 3 || aborted) return;
          aborted = { at: performance.now(), loaded, total };
          controller.abort();
        };
        const { name } = await load({ signal: controller.signal, onProgress, inWorker });
        return { name, delay: performance.now() - aborted.at, ...aborted };
      }, inWorker);
      assert.equal(found.name, 'AbortError');
      assert.ok(found.delay < 200, `${found.delay} ms`);
      // What the sockets had taken already may still be counted; a download that went on would come
      // to its end, slow as it is.
      const sent = async () => (await hub.log()).reduce((sum, entry) => sum + entry.sent, 0);
      let before, now = await sent();
      do {
        before = now;
        await new Promise((resolve) => setTimeout(resolve, 1000));
        now = await sent();
      } while (now > before);
      assert.ok(now < found.total * 0.75, `${now} of ${found.total} bytes were sent`);
      await hub.reset();
      const outcome = await load();
      assertLoaded(outcome);
      // Also of the pieces that were on their way.
      const { cached } = outcome.last;
      assert.ok(cached >= found.loaded, `${cached} bytes were kept of ${found.loaded}`);
      const fetched = (await requests()).filter(({ origin }) => origin === 'cdn');
      const sentAgain = fetched.reduce((sum, r) => sum + r.sent, 0);
      assert.equal(sentAgain, outcome.last.total - cached, 'and none of these are sent again');
      const left = Object.keys(await entries()).filter((key) => key.includes('+'));
      assert.deepEqual(left, [], 'nothing is left over of them');
    });
  }
});

describe('files', () => {
  /** The model's files by their paths. */
  function listFiles(folder, prefix = '') {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory()
        ? listFiles(join(folder, entry.name), `${prefix}${entry.name}/`)
        : [`${prefix}${entry.name}`],
    );
  }

  test('a picked folder is a model', async () => {
    await page.evaluate(() => {
      document.body.innerHTML = '<input type="file" webkitdirectory multiple>';
    });
    await page.setInputFiles('input', tiny);
    for (const inWorker of [false, true]) {
      const outcome = await page.evaluate(
        (inWorker) => load({ inWorker }, document.querySelector('input').files),
        inWorker,
      );
      assertLoaded(outcome);
    }
    assert.deepEqual(await hub.log(), []);
  });

  test('a dropped folder is a model', async () => {
    await page.evaluate(() => {
      document.body.innerHTML = '<div style="width: 200px; height: 200px">here</div>';
      document.ondragover = (event) => event.preventDefault();
      window.dropped = new Promise((resolve) => {
        document.ondrop = (event) => {
          event.preventDefault();
          resolve(load({}, event.dataTransfer.items));
        };
      });
    });
    const session = await context.newCDPSession(page);
    const data = { items: [], files: [tiny.replace(/\/$/, '')], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) {
      await session.send('Input.dispatchDragEvent', { type, x: 100, y: 100, data });
    }
    assertLoaded(await page.evaluate(() => dropped));
    assert.deepEqual(await hub.log(), []);
  });

  test('a directory’s handle is a model', async () => {
    const files = listFiles(tiny);
    const outcome = await page.evaluate(async (files) => {
      const root = await navigator.storage.getDirectory();
      for (const path of files) {
        const names = path.split('/');
        let directory = root;
        for (const name of names.slice(0, -1)) {
          directory = await directory.getDirectoryHandle(name, { create: true });
        }
        const handle = await directory.getFileHandle(names.at(-1), { create: true });
        const writable = await handle.createWritable();
        await writable.write(await (await fetch(`/models/tiny-random/${path}`)).blob());
        await writable.close();
      }
      return load({}, root);
    }, files);
    assertLoaded(outcome);
  });

  test('files that are no model are refused', async () => {
    const outcome = await page.evaluate(() => load({}, [new File(['x'], 'x.txt')]));
    assertRefused(outcome, 'invalid-argument');
    assert.match(outcome.message, /model_index.json/);
  });
});

test('nothing was left uncaught', () => {
  assert.deepEqual(problems.filter((problem) => problem.startsWith('uncaught')), []);
});
