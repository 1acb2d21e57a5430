/**
 * What a load leaves to later ones, what it sends to whom, and how it goes on when a part of it is
 * late: on the tiny model from a stand-in for the Hub.
 */

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

const tiny = `${repository}www/models/tiny-random`;
const UNET = 'unet/diffusion_pytorch_model.safetensors';
const SIZE = statSync(join(tiny, UNET)).size;
/** Small, so that the tiny model has many pieces. */
const RANGE = 64 << 10;
endAfterMinutes(20);

let browser, context, hub, mirror, page, problems, server;

before(async () => {
  hub = await serveHub({ 'tests/tiny': tiny });
  mirror = await serveHub({ 'tests/tiny': tiny });
  server = await serve(`${folder}site`, { '/pkg': pkg, '/models': `${repository}www/models` });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  for (const each of [server, hub, mirror]) each?.close();
});

beforeEach(async () => {
  await Promise.all([hub.reset(), mirror.reset(), context?.close()]);
  context = await browser.newContext();
  await context.addInitScript(readFileSync(`${folder}site/gpu-count.js`, 'utf8'));
  ({ page, problems } = await openPage({ newPage: () => context.newPage() }, server.url));
  await page.evaluate(
    async (defaults) => {
      const [helpers, downloads] = [await import('/helpers.js'), await import('/downloads.js')];
      Object.assign(window, helpers, downloads, await import('/pkg/index.js'));
      Object.assign(window, { defaults, load: loader(defaults) });
    },
    { endpoint: hub.url, rangeBytes: RANGE },
  );
});

const load = (options, model) =>
  page.evaluate(([options, model]) => window.load(options, model), [options, model]);

function assertLoaded(outcome) {
  assert.equal(outcome.resolved, true, outcome.message);
  assert.equal(outcome.last.loaded, outcome.last.total);
}

describe('later reads', () => {
  test('stay at the commit, send nothing and fetch nothing anew', async () => {
    const first = await page.evaluate(async () => {
      // As small as the model can be.
      const refused = await attempt(
        DirectInstructPix2Pix.fromPretrained('tests/tiny', { ...defaults, memoryBudget: 1 }),
      );
      const memoryBudget = Number(refused.message.match(/take (\d+) at least/)[1]);
      window.pipe = await DirectInstructPix2Pix.fromPretrained('tests/tiny', {
        ...defaults,
        memoryBudget,
        forceDownload: true,
      });
      return pipe.info;
    });
    assert.equal(first.residency, 'inTurn');
    const { models } = await hub.control({});
    assert.equal(first.revision, models['tests/tiny'].main);
    const newer = mkdtempSync(join(tmpdir(), 'newer-'));
    try {
      cpSync(tiny, newer, { recursive: true });
      writeFileSync(join(newer, 'README.md'), 'newer');
      await hub.control({ publish: [{ repo: 'tests/tiny', revision: 'main', folder: newer }] });
      await hub.reset();
      const edited = await page.evaluate(async () => {
        const outcome = await attempt(pipe.edit({ ...quick, image: picture() }));
        await pipe.dispose();
        return outcome;
      });
      assert.equal(edited.resolved, true, edited.message);
      assert.deepEqual(await hub.log(), []);
    } finally {
      await hub.control({ publish: [{ repo: 'tests/tiny', revision: 'main', folder: tiny }] });
      rmSync(newer, { recursive: true });
    }
  });

  test('have all that saving the model copies', async () => {
    assertLoaded(await load());
    await hub.reset();
    const saved = await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const directory = await root.getDirectoryHandle('saved', { create: true });
      const use = async (pipe) => {
        await pipe.savePretrained(directory);
        const names = await Array.fromAsync((await directory.getDirectoryHandle('tokenizer')).keys());
        return names.sort();
      };
      return load({ localFilesOnly: true, use });
    });
    assertLoaded(saved);
    assert.deepEqual(saved.value, readdirSync(join(tiny, 'tokenizer')).sort());
    assert.deepEqual(await hub.log(), []);
  });

  test('models in turn that are not kept say what that means', async () => {
    const warnings = await page.evaluate(async () => {
      const options = { ...defaults, cache: false };
      const refused = await attempt(
        DirectInstructPix2Pix.fromPretrained('tests/tiny', { ...options, memoryBudget: 1 }),
      );
      const memoryBudget = Number(refused.message.match(/take (\d+) at least/)[1]);
      return (await load({ ...options, memoryBudget })).warnings;
    });
    assert.deepEqual(warnings.map(({ code }) => code), ['storage']);
    assert.match(warnings[0].message, /every edit downloads/);
  });
});

describe('the network', () => {
  test('the model’s token stays with its endpoint', async () => {
    await hub.control({ reset: true, gate: { 'tests/tiny': 'hf_secret' } });
    const codes = await page.evaluate(async (mirror) => {
      const token = 'hf_secret';
      const pipe = await DirectInstructPix2Pix.fromPretrained('tests/tiny', { ...defaults, token });
      const weightName = 'absent.safetensors';
      const outcomes = [
        await attempt(pipe.loadLoraWeights('tests/tiny', { weightName, endpoint: mirror })),
        await attempt(pipe.loadTextualInversion('tests/tiny', { weightName, endpoint: mirror })),
        await attempt(
          pipe.setSafetyChecker(true, { model: 'tests/tiny', subfolder: 'absent', endpoint: mirror }),
        ),
      ];
      return outcomes.map(({ code }) => code);
    }, mirror.url);
    assert.deepEqual(codes, ['not-found', 'not-found', 'not-found']);
    const seen = await mirror.log();
    assert.ok(seen.length > 3);
    assert.ok(seen.every(({ authorization, asks }) => !authorization && !/auth/i.test(asks ?? '')));
    // One that is given for it goes there, and the model's goes to the model's.
    await Promise.all([hub.reset(), mirror.reset()]);
    await page.evaluate(async (mirror) => {
      const pipe = await DirectInstructPix2Pix.fromPretrained('tests/tiny', {
        ...defaults,
        token: 'hf_secret',
      });
      const weightName = 'absent.safetensors';
      const own = { weightName, endpoint: mirror, token: 'hf_other' };
      await attempt(pipe.loadLoraWeights('tests/tiny', own));
      await attempt(pipe.loadLoraWeights('tests/other', { weightName }));
      await attempt(pipe.loadLoraWeights('tests/other', { weightName, endpoint: `${defaults.endpoint}/` }));
    }, mirror.url);
    assert.ok((await mirror.log()).some(({ authorization }) => authorization));
    const other = (await hub.log()).filter(({ path, method }) => /other/.test(path) && method === 'GET');
    assert.ok(other.length >= 2 && other.every(({ authorization }) => authorization));
  });

  test('a load in a worker that is aborted ends the page’s own requests', async () => {
    await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 400_000 } });
    const found = await page.evaluate(async () => {
      const signals = [];
      const controller = new AbortController();
      const outcome = await load({
        inWorker: true,
        signal: controller.signal,
        fetch: (url, init) => {
          signals.push(init.signal);
          return fetch(url, init);
        },
        onProgress: ({ type, loaded, total }) => {
          if (type === 'download' && loaded > total / 4) controller.abort();
        },
      });
      await new Promise((resolve) => setTimeout(resolve, 500));
      return { name: outcome.name, asked: signals.length, going: signals.filter((s) => !s.aborted).length };
    });
    assert.equal(found.name, 'AbortError');
    assert.ok(found.asked > 5);
    assert.equal(found.going, 0);
  });

  test('another Last-Modified is another file', async () => {
    const loadAt = (date) =>
      page.evaluate(async (date) => {
        const outcome = await load(
          {
            async fetch(url, init) {
              const { body, status, headers } = await fetch(url, init);
              const given = new Headers(headers);
              given.delete('ETag');
              given.set('Last-Modified', date);
              return new Response(body, { status, headers: given });
            },
          },
          '/models/tiny-random',
        );
        return outcome;
      }, date);
    const dates = ['Mon, 01 Jan 2024 00:00:00 GMT', 'Tue, 02 Jan 2024 00:00:00 GMT'];
    for (const [date, isThere] of [[dates[0], false], [dates[0], true], [dates[1], false]]) {
      const outcome = await loadAt(date);
      assertLoaded(outcome);
      const { cached, total } = outcome.last;
      assert.equal(cached > total / 2, isThere, `${cached} of ${total} bytes were there`);
    }
  });

  test('a page whose timers come late notices a silent connection in time', async () => {
    await hub.reset({ origin: 'cdn', path: `*${UNET}`, nth: 3, fault: { kind: 'hang' } });
    assertLoaded(
      await page.evaluate(() => {
        // As hidden pages do.
        const { setTimeout } = window;
        window.setTimeout = (run, ms) => setTimeout(run, Math.max(ms, 1000));
        return load({ stallTimeout: 1500 });
      }),
    );
    const log = await hub.log();
    const hung = log.find(({ fault }) => fault === 'hang');
    const again = log.find(({ n, range, file }) => n > hung.n && range === hung.range && file === hung.file);
    assert.ok(again.at - hung.at < 6000, `asked again after ${again.at - hung.at} ms`);
  });

  test('a range that is late does not hold up the others', async () => {
    const rule = { origin: 'cdn', path: `*${UNET}`, covers: RANGE, fault: { kind: 'hang' } };
    await hub.reset(rule);
    const found = await page.evaluate(async () => {
      const before = gpuCount().created.bytes;
      const made = () => gpuCount().created.bytes - before;
      let [part, isWhole] = [0, false];
      const onProgress = ({ type, loaded, total }) => {
        isWhole ||= type === 'download' && loaded === total;
      };
      // While nothing arrives, nothing is told.
      const timer = setInterval(() => {
        if (!isWhole) part = made();
      }, 100);
      const outcome = await load({ stallTimeout: 4000, onProgress });
      clearInterval(timer);
      return { ...outcome, part, all: made() };
    });
    assertLoaded(found);
    // The tensors of those that came are on the GPU before it comes.
    assert.ok(found.part > 0.9 * found.all, `${found.part} of ${found.all} bytes were there`);
    const log = (await hub.log()).filter(({ file, origin }) => origin === 'cdn' && file?.endsWith(UNET));
    const [late, again] = log.filter(({ range }) => range.startsWith(`bytes=${RANGE}-`));
    assert.equal(late.fault, 'hang');
    const before = log.filter(({ at }) => at < again.at - 100).length;
    assert.equal(before, Math.ceil(SIZE / RANGE), 'all were asked for while one was late');
  });

  test('weights go to the GPU while others are on their way', async () => {
    await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 1_000_000 } });
    const found = await page.evaluate(async () => {
      const seen = [];
      const outcome = await load({
        onProgress: ({ type, loaded, total }) =>
          type === 'download' && seen.push({ part: loaded / total, bytes: gpuCount().created.bytes }),
      });
      return { ...outcome, seen, all: gpuCount().created.bytes };
    });
    assertLoaded(found);
    const half = found.seen.findLast(({ part }) => part < 0.8);
    assert.ok(half.part > 0.5 && half.bytes > 0.3 * found.all, JSON.stringify({ half, all: found.all }));
  });

  test('fewer requests are under way after failures, and never more than were asked for', async () => {
    const parallel = (options) =>
      page.evaluate(async (options) => {
        await forget();
        let [now, failures] = [0, 0];
        /** How many were under way, each time that another was asked for. */
        const starts = [];
        const outcome = await load({
          ...options,
          async fetch(url, init) {
            if (!init.headers.Range) return fetch(url, init);
            starts.push({ now: ++now, failures });
            try {
              const response = await fetch(url, init);
              if (!response.ok) failures++;
              const copy = new Response(await response.arrayBuffer(), response);
              Object.defineProperty(copy, 'url', { value: response.url });
              return copy;
            } finally {
              now--;
            }
          },
        });
        return { ...outcome, starts };
      }, options);
    const most = (starts) => Math.max(...starts.map(({ now }) => now));
    const slow = { origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 1_000_000 } };
    await hub.reset(slow);
    const well = await parallel();
    assertLoaded(well);
    assert.equal(most(well.starts), 6);
    for (const wanted of [1, 16]) {
      const outcome = await parallel({ parallel: wanted });
      assertLoaded(outcome);
      assert.equal(most(outcome.starts), wanted);
    }
    for (const wrong of [0, 17, NaN]) {
      const outcome = await load({ parallel: wrong });
      assert.equal(outcome.code, 'invalid-argument', `${wrong}: ${outcome.message}`);
      assert.match(outcome.message, /parallel.*1 to 16/);
    }
    const failing = { origin: 'cdn', path: `*${UNET}`, fault: { kind: 'status', status: 503 } };
    await hub.reset(...Array.from({ length: 8 }, (_, i) => ({ ...failing, nth: 2 + i })), slow);
    const badly = await parallel();
    assertLoaded(badly);
    assert.equal(most(badly.starts), 6);
    // Those that were under way come to their ends first; each success then makes room for a quarter
    // of a request.
    const after = badly.starts.filter(({ failures }) => failures === 8);
    assert.ok(most(after.slice(8, 14)) < 6, JSON.stringify(after));
    assert.equal(most(after.slice(30)), 6, 'and more again');
  });
});

describe('what pages are told', () => {
  test('speed and time left', async () => {
    await hub.reset({ origin: 'cdn', times: 0, fault: { kind: 'slow', bytesPerSecond: 300_000 } });
    const { events } = await load();
    const told = events.filter(({ type, bytesPerSecond }) => type === 'download' && bytesPerSecond > 0);
    assert.ok(told.length > 5);
    for (const { bytesPerSecond, secondsLeft, loaded, total } of told) {
      // Six connections at most.
      assert.ok(bytesPerSecond < 6 * 300_000 * 1.5, `${bytesPerSecond} bytes a second`);
      assert.ok(Math.abs(secondsLeft - (total - loaded) / bytesPerSecond) < 1e-6);
    }
    assert.equal(told.at(-1).secondsLeft, 0);
    const [first] = events.filter(({ type }) => type === 'download');
    assert.deepEqual([first.bytesPerSecond, first.secondsLeft], [0, undefined]);
  });

  test('the browser is asked to keep the cache, unless there is none', async () => {
    const asked = await page.evaluate(async () => {
      let asked = 0;
      StorageManager.prototype.persist = async () => ++asked > 0;
      await load();
      const first = asked;
      await load({ cache: false });
      await load({}, [new File(['x'], 'x.txt')]);
      const second = asked;
      await DirectInstructPix2Pix.download('tests/tiny', defaults);
      return [first, second, asked];
    });
    assert.deepEqual(asked, [1, 1, 2]);
  });

  test('a download that cannot be kept is refused, and ends at once', async () => {
    const found = await page.evaluate(async () => {
      const full = () => {
        throw new DOMException('no room', 'QuotaExceededError');
      };
      const cache = { get() {}, delete() {}, keys: () => [], put: (key) => key.startsWith('chunk') && full() };
      const kept = await attempt(InstructPix2Pix.download('tests/tiny', { ...defaults, cache }));
      const { estimate } = StorageManager.prototype;
      StorageManager.prototype.estimate = async () => ({ quota: 2_000_000, usage: 600_000 });
      const room = await attempt(DirectInstructPix2Pix.download('tests/tiny', defaults));
      StorageManager.prototype.estimate = estimate;
      Object.defineProperty(window, 'indexedDB', { value: undefined, configurable: true });
      const none = await attempt(DirectInstructPix2Pix.download('tests/tiny', defaults));
      return { kept, room, none };
    });
    for (const [name, error] of Object.entries(found)) {
      assert.equal(error.code, 'storage', `${name}: ${error.message ?? 'it resolved'}`);
      assert.ok(error.isPackageError);
    }
    assert.match(found.kept.message, /no room/);
    assert.match(found.room.message, /needs 7\.\d MB, 1\.4 MB free/);
    const sent = (await hub.log()).filter(({ origin }) => origin === 'cdn');
    assert.deepEqual(sent, [], 'no weights were fetched');
  });

  test('a store with other things in it keeps them', async () => {
    const found = await page.evaluate(async () => {
      const entries = new Map([['mine', 1], ['photos/1', 2]]);
      const store = {
        get: (key) => entries.get(key),
        put: (key, value) => void entries.set(key, value),
        delete: (key) => void entries.delete(key),
        keys: () => entries.keys(),
      };
      const outcome = await load({ cache: store });
      const during = entries.size;
      await cache.clear({ cache: store });
      return { ...outcome, during, left: [...entries.keys()] };
    });
    assertLoaded(found);
    assert.ok(found.during > 20);
    assert.deepEqual(found.left, ['mine', 'photos/1', 'version']);
  });

  test('nothing was left uncaught', () => {
    assert.deepEqual(problems.filter((problem) => problem.startsWith('uncaught')), []);
  });
});
