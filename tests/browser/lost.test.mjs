/** A GPU device that goes away, or runs out of memory, in the middle of an edit and between edits. */

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

endAfterMinutes(20);

/** The package, with accidents in its worker. */
const prone = mkdtempSync(join(tmpdir(), 'prone-'));

let browser, hub, server, page;

/** Keeps the thread's devices, and does with the last one what a channel says. */
const ACCIDENTS = `
  const request = GPUAdapter.prototype.requestDevice;
  let last;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    return (last = await request.apply(this, args));
  };
  const channel = new BroadcastChannel('accident');
  channel.onmessage = ({ data }) => {
    if (data === 'lost') {
      // The engine hears of it first.
      last?.lost.then(() => setTimeout(() => channel.postMessage('done'), 200));
      last?.destroy();
    } else if (data === 'memory' && last) {
      const error = new GPUOutOfMemoryError('no memory');
      last.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error }));
    }
  };
`;

const LONG = { skip: process.env.FULL !== '1' && 'without FULL=1' };

before(async () => {
  hub = await serveHub({ 'tests/tiny': `${repository}www/models/tiny-random` });
  // Not by a route: with one, Playwright stands between workers and other origins.
  cpSync(pkg, prone, { recursive: true });
  writeFileSync(`${prone}/worker.js`, `${ACCIDENTS}\n${readFileSync(`${pkg}/worker.js`)}`);
  server = await serve(`${folder}site`, { '/pkg': prone, '/models': `${repository}www/models` });
  browser = await launch();
  const context = await browser.newContext();
  await context.addInitScript(ACCIDENTS);
  ({ page } = await openPage({ newPage: () => context.newPage() }, 'about:blank'));
  await page.goto(server.url);
  await page.evaluate(async () => {
    Object.assign(window, await import('/helpers.js'), await import('/pkg/index.js'));
    window.accident = (kind) =>
      new Promise((resolve) => {
        const channel = new BroadcastChannel('accident');
        channel.onmessage = () => resolve(channel.close());
        channel.postMessage(kind);
      });
    /** An edit in whose course something happens. */
    window.interrupted = (pipe, kind) => {
      let done = false;
      const onStep = () => {
        if (!done) accident(kind);
        done = true;
      };
      return attempt(pipe.edit({ ...quick, numInferenceSteps: 50, image: picture(), onStep }));
    };
  });
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
  rmSync(prone, { recursive: true });
});

function assertError(error, code, message = /./) {
  assert.equal(error.code, code, error.message ?? JSON.stringify(error));
  assert.ok(error.isPackageError);
  assert.match(error.message, message);
}

test('in a worker, the next call starts a new one and loads from the cache by itself', async () => {
  await page.evaluate(async (endpoint) => {
    window.pipe = await InstructPix2Pix.fromPretrained('tests/tiny', { endpoint });
  }, hub.url);
  assert.ok((await hub.log()).some(({ file }) => file?.endsWith('.safetensors')), 'it was downloaded');
  await hub.reset();
  const found = await page.evaluate(async () => {
    await pipe.setScheduler('DDIMScheduler');
    const edit = async () =>
      (await pipe.edit({ ...quick, image: picture() })).images[0].data;
    const before = await edit();
    const lost = await interrupted(pipe, 'lost');
    // Changes made before the loss are still there.
    const after = difference(before, await edit());
    // Lost while nothing runs: nobody is told, and the next call helps itself.
    await accident('lost');
    const idle = difference(before, await edit());
    const memory = await interrupted(pipe, 'memory');
    const recovered = difference(before, await edit());
    await pipe.dispose();
    return { lost, after, idle, memory, recovered };
  });
  // The server sees what workers ask for, too.
  assert.deepEqual(await hub.log(), [], 'no request at all');
  assertError(found.lost, 'device-lost');
  assert.equal(found.lost.retryable, true);
  assert.deepEqual([found.after, found.idle, found.recovered], ['none', 'none', 'none']);
  assertError(
    found.memory,
    'out-of-memory',
    /[kMG]B \([1-9]\d{4,} bytes\) of GPU memory, on top of the .*\([1-9]\d{6,} bytes\).*24 x 16.*need less/s,
  );
});

const MEMORY_ADVICE =
  /\(\d{7,} bytes\) of weights in float16; `weightDtype: 'int8'` needs .*\(\d{7,} bytes\).*memoryBudget: \d{7,}/s;

test('a load that the GPU has no memory for says how much it asked for, and what would do', async () => {
  const error = await page.evaluate(async () => {
    let done = false;
    const onProgress = ({ type }) => {
      if (type === 'component' && !done) accident('memory');
      done ||= type === 'component';
    };
    // Within a budget that is kept to, models do not take turns by themselves.
    const options = { onProgress, rangeBytes: 65536, memoryBudget: 1e9 };
    return attempt(InstructPix2Pix.fromPretrained(tiny, options));
  });
  assertError(error, 'out-of-memory', MEMORY_ADVICE);
});

test('where the GPU has no memory for all models, they take turns', async () => {
  const found = await page.evaluate(async () => {
    const own = await InstructPix2Pix.fromPretrained(tiny);
    const edit = async (pipe) => (await pipe.edit({ ...quick, image: picture() })).images[0].data;
    const expected = await edit(own);
    await own.dispose();
    const events = [];
    /** Loads on a device that ends once, or as often as there is one. */
    const load = (Class, times) => {
      events.length = 0;
      const onProgress = (event) => {
        events.push(event);
        if (event.type === 'component' && times-- > 0) accident('memory');
      };
      return Class.fromPretrained(tiny, { onProgress, rangeBytes: 65536 });
    };
    const loads = [];
    for (const Class of [InstructPix2Pix, DirectInstructPix2Pix]) {
      const pipe = await load(Class, 1);
      const warnings = events.filter(({ type }) => type === 'warning');
      loads.push([pipe.info.residency, warnings.map(({ code }) => code), difference(expected, await edit(pipe))]);
      // Another accident is one as before.
      await pipe.dispose();
    }
    return { loads, message: events.find(({ code }) => code === 'memory').message };
  });
  const turns = ['inTurn', ['memory'], 'none'];
  assert.deepEqual(found.loads, [turns, turns]);
  assert.match(found.message, /no room for .*[kMG]B of weights.*take turns, .*[kMG]B at a time/);
});

test('the GPU process crashes', LONG, async () => {
  const session = await browser.newBrowserCDPSession();
  await page.evaluate(async () => {
    window.pipe = await InstructPix2Pix.fromPretrained(tiny);
    window.running = attempt(pipe.edit({ ...quick, numInferenceSteps: 100, image: picture() }));
  });
  await new Promise((resolve) => setTimeout(resolve, 2000));
  // The browser need not answer before the process is gone.
  session.send('Browser.crashGpuProcess').catch(() => {});
  assertError(await page.evaluate(() => running), 'device-lost');
  const next = await page.evaluate(async () => {
    const outcome = await attempt(pipe.edit({ ...quick, image: picture() }));
    await pipe.dispose();
    return outcome;
  });
  assert.equal(next.resolved, true, next.message);
});

test('on the calling thread, the pipeline stays rejected and says so', LONG, async () => {
  const found = await page.evaluate(async () => {
    const pipe = await DirectInstructPix2Pix.fromPretrained(tiny);
    const lost = await interrupted(pipe, 'lost');
    const later = await attempt(pipe.edit({ ...quick, image: picture() }));
    await pipe.dispose();
    const again = await DirectInstructPix2Pix.fromPretrained(tiny);
    const anew = await attempt(again.edit({ ...quick, image: picture() }));
    await again.dispose();
    return { lost, later, anew };
  });
  assertError(found.lost, 'device-lost', /load the model again/);
  assertError(found.later, 'device-lost', /load the model again/);
  assert.equal(found.anew.resolved, true, found.anew.message);
});
