/**
 * Many faults at once, anywhere on the way of a model: what loads has the right hashes, and what
 * does not load says why. `cache.test.mjs` has each fault of a weight file by itself; here are those
 * of the Hub's listings and small files, and random ones everywhere. `FULL=1` adds rounds.
 */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

const FULL = process.env.FULL === '1';
const ROUNDS = FULL ? 10 : 1;
/** What the gate leaves out. */
const skip = !FULL && 'without FULL=1';
const tiny = `${repository}www/models/tiny-random`;
const ID = 'tests/tiny';
/** Small, so that the tiny model has many pieces. */
const RANGE = 64 << 10;
endAfterMinutes(FULL ? 90 : 30);

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const files = readdirSync(tiny, { recursive: true })
  .map((name) => name.replaceAll('\\', '/'))
  .filter((name) => statSync(join(tiny, name)).isFile());

let browser, context, hub, page, problems, server;

before(async () => {
  hub = await serveHub({ [ID]: tiny });
  server = await serve(`${folder}site`, { '/pkg': pkg });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
});

beforeEach(async () => {
  await hub.reset();
  await context?.close();
  context = await browser.newContext();
  ({ page, problems } = await openPage({ newPage: () => context.newPage() }, server.url));
  await page.evaluate(async () => {
    const [helpers, downloads] = [await import('/helpers.js'), await import('/downloads.js')];
    Object.assign(window, helpers, downloads, await import('/pkg/index.js'));
  });
});

/** Loads the model and lets go of it. */
function load(options = {}) {
  return page.evaluate(
    ([id, options]) =>
      attempt(InstructPix2Pix.fromPretrained(id, options).then((pipe) => pipe.dispose())),
    [ID, { endpoint: hub.url, rangeBytes: RANGE, stallTimeout: 1500, ...options }],
  );
}

/** The sha256 of each file that the cache has of the model. */
const keptHashes = () => page.evaluate((name) => keptHashes(name), `${hub.url}/${ID}`);

/** That the model has loaded, and that what was kept of it is what the folder has. */
async function assertRight(outcome) {
  assert.equal(outcome.resolved, true, outcome.message);
  const kept = Object.entries(await keptHashes()).filter(([path]) => files.includes(path));
  assert.ok(kept.length >= 10, `${kept.length} files were kept`);
  assert.ok(kept.filter(([path]) => path.endsWith('.safetensors')).length >= 3);
  for (const [path, hash] of kept) assert.equal(hash, sha256(readFileSync(join(tiny, path))), path);
}

const met = async () => new Set((await hub.log()).map(({ fault }) => fault).filter(Boolean));

describe('the Hub itself', () => {
  test('listings and small files go wrong once each', async () => {
    const fault = (path, fault) => ({ origin: 'hub', method: 'GET', path, fault });
    const rules = [
      fault('/api/models/*/revision/*', { kind: 'status', status: 500 }),
      { ...fault('/api/models/*/revision/*', { kind: 'length', delta: -1 }), nth: 2 },
      fault('/api/models/*/tree/*', { kind: 'cut', after: 700 }),
      fault('model_index.json', { kind: 'html' }),
      fault('text_encoder/config.json', { kind: 'hang' }),
      fault('vae/config.json', { kind: 'cut', after: 0 }),
      fault('unet/config.json', { kind: 'length', delta: -1 }),
      fault('scheduler/scheduler_config.json', { kind: 'status', status: 503 }),
      fault('tokenizer/vocab.json', { kind: 'stall', after: 5000 }),
      fault('tokenizer/merges.txt', { kind: 'no-cors' }),
      fault('tokenizer/tokenizer_config.json', { kind: 'redirect-loop' }),
    ];
    await hub.reset(...rules);
    await assertRight(await load());
    const { rules: after } = await hub.control({});
    const missed = after.filter(({ hits }) => hits !== 1).map(({ path }) => path);
    assert.deepEqual(missed, [], 'all were met');
  });

  test('what is asked to wait waits', { skip }, async () => {
    const limit = { kind: 'status', status: 429, retryAfter: 2, expose: true };
    await hub.reset({ origin: 'hub', path: '/api/models/*/tree/*', fault: limit });
    await assertRight(await load());
    const asked = (await hub.log()).filter(({ path }) => path.includes('/tree/'));
    assert.equal(asked.length, 2);
    const waited = asked[1].at - asked[0].at;
    assert.ok(waited >= 1950, `asked again after ${waited} ms`);
  });

  test('listings in pages, and texts that come packed', async () => {
    const packed = { origin: 'hub', times: 0, path: '*', fault: { kind: 'gzip' } };
    await hub.control({ reset: true, pageSize: 5, rules: [packed] });
    await assertRight(await load());
    const log = await hub.log();
    assert.ok(log.filter(({ path }) => path.includes('/tree/')).length > 3);
    assert.ok(log.filter(({ fault }) => fault === 'gzip').length > 10);
  });

  test('the server is gone for a while', { skip }, async () => {
    await hub.reset({ path: 'vae/*.safetensors', origin: 'hub', fault: { kind: 'restart', ms: 1000 } });
    await assertRight(await load());
    assert.ok((await met()).has('restart'));
  });

  const always = { times: 0 };
  const refusals = {
    'a small file with wrong bytes': ['hash-mismatch', /unet\/config\.json/, {
      rules: [{ path: 'unet/config.json', fault: { kind: 'bytes' }, ...always }],
    }],
    'a listing that is a page': ['invalid-response', /tree/, {
      rules: [{ path: '*/tree/*', fault: { kind: 'html' }, ...always }],
    }],
    'a listing that never ends well': ['network', /tree/, {
      rules: [{ path: '*/tree/*', fault: { kind: 'cut', after: 100 }, ...always }],
    }],
    'no CORS at all': ['network', /./, { rules: [{ fault: { kind: 'no-cors' }, ...always }] }],
    'too many requests, for ever': ['http-status', /429/, {
      rules: [{ path: '*/tree/*', fault: { kind: 'status', status: 429 }, ...always }],
    }],
    'another token': ['http-status', /token/, { gate: { [ID]: 'hf_right' } }, { token: 'hf_wrong' }],
    'a revision that there is not': ['not-found', /absent/, {}, { revision: 'absent' }],
  };
  for (const [name, [code, message, control, options]] of Object.entries(refusals)) {
    test(`${name} is an error of its own`, async () => {
      await hub.control({ reset: true, ...control });
      const error = await load(options);
      assert.equal(error.code, code, error.message ?? 'it loaded');
      assert.match(error.message, message);
      assert.ok(error.isPackageError);
      // What has gone wrong does not stay.
      await hub.reset();
      if (FULL) await assertRight(await load());
    });
  }
});

describe('anything, anywhere', () => {
  const random = (below) => Math.floor(Math.random() * below);
  const pick = (values) => values[random(values.length)];
  const FAULTS = [
    () => ({ kind: 'cut', after: random(RANGE) }),
    () => ({ kind: 'status', status: pick([429, 500, 502, 503, 504]) }),
    () => ({ kind: 'html' }),
    () => ({ kind: 'ignore-range' }),
    () => ({ kind: 'length', delta: pick([-100, -1, 1, 100]) }),
    () => ({ kind: 'no-cors' }),
    () => ({ kind: 'redirect-loop' }),
    () => ({ kind: 'slow', bytesPerSecond: 100_000 }),
    () => ({ kind: 'stall', after: random(RANGE) }),
    () => ({ kind: 'hang' }),
    () => ({ kind: 'restart', ms: random(400) }),
  ];

  /** Each at its own place among the requests, so that no request fails too often. */
  const storm = (faults, more = {}) =>
    Array.from({ length: faults }, (_, i) => ({
      nth: 1 + i * 7 + random(7),
      fault: pick(FAULTS)(),
      ...more,
    }));

  for (let round = 0; round < ROUNDS; round++) {
    test(`faults at random are survived: round ${round + 1} of ${ROUNDS}`, async (t) => {
      const rules = storm(14);
      t.diagnostic(rules.map(({ nth, fault }) => `${nth} ${JSON.stringify(fault)}`).join(', '));
      await hub.reset(...rules);
      await assertRight(await load());
      assert.ok((await met()).size >= 3, [...(await met())].join());
    });
  }

  test('connections break at random bytes', async (t) => {
    const cuts = Array.from({ length: FULL ? 100 : 40 }, (_, i) => ({
      origin: 'cdn',
      nth: 2 + 3 * i,
      fault: { kind: 'cut', after: random(RANGE) },
    }));
    await hub.reset(...cuts);
    await assertRight(await load());
    const log = await hub.log();
    const broken = log.filter(({ fault, done }) => fault === 'cut' && !done).length;
    t.diagnostic(`${broken} answers broke`);
    assert.ok(broken >= 20, `${broken} answers broke`);
    const size = (path) => statSync(join(tiny, path)).size;
    const wanted = files.filter((path) => path.endsWith('.safetensors') && !path.startsWith('safety'));
    const total = wanted.reduce((sum, path) => sum + size(path), 0);
    const sent = log.reduce((sum, entry) => sum + (entry.origin === 'cdn' ? entry.sent : 0), 0);
    // What had arrived when a connection broke is not asked for again; a socket's buffer may be lost.
    assert.ok(sent - total <= broken * RANGE, `${sent} bytes were sent for ${total}`);
    t.diagnostic(`${sent} bytes were sent for ${total}`);
  });

  test('wrong bytes anywhere are noticed', async (t) => {
    const rules = [{ method: 'GET', nth: 5 + random(60), path: '*', fault: { kind: 'bytes' } }];
    await hub.reset(...rules);
    const outcome = await load();
    t.diagnostic(`${rules[0].nth}: ${outcome.code ?? 'loaded'} ${outcome.message ?? ''}`);
    // In a listing they may break the JSON, name another file, or stand in a file nobody reads.
    if (!outcome.resolved) assert.ok(outcome.isPackageError, outcome.message);
    await hub.reset();
    await assertRight(await load());
  });
});

test('nothing was left uncaught', () => {
  assert.deepEqual(problems.filter((problem) => problem.startsWith('uncaught')), []);
});
