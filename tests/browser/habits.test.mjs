/** What callers expect of any such package: queues, streams, signals, defaults, questions before a download. */

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { serveHub } from './hub.mjs';

endAfterMinutes(40);

const tiny = `${repository}www/models/tiny-random`;

let browser, hub, page, problems, server;

before(async () => {
  server = await serve(`${folder}site`, { '/pkg': pkg, '/models': `${repository}www/models` });
  hub = await serveHub({ 'a/tiny': tiny });
  browser = await launch();
  ({ page, problems } = await openPage(browser, server.url));
  await page.evaluate(async (endpoint) => {
    Object.assign(window, await import('/helpers.js'), await import('/pkg/index.js'));
    window.endpoint = endpoint;
    /** Runs with other defaults, and puts them back. */
    window.within = async (defaults, run) => {
      const before = { ...env };
      Object.assign(env, defaults);
      try {
        return await run();
      } finally {
        for (const name of Object.keys(env)) delete env[name];
        Object.assign(env, before);
      }
    };
    /** What is written to the console meanwhile. */
    window.listening = async (run) => {
      const said = [];
      const before = { ...console };
      for (const level of ['error', 'warn', 'info', 'debug']) {
        console[level] = (text) => said.push(`${level}: ${text}`);
      }
      try {
        await run();
      } finally {
        Object.assign(console, before);
      }
      return said;
    };
  }, hub.url);
});

after(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
});

beforeEach(() => hub.reset());

function assertRefused(error, code, message) {
  assert.equal(error.code, code, error.message ?? JSON.stringify(error));
  assert.ok(error.isPackageError);
  assert.match(error.message, message);
}

// The first test, because all others profit: shaders take their time on this machine's CPU.
test('a warm-up leaves nothing to compile for edits of its size', async () => {
  const found = await page.evaluate(async () => {
    const pipe = await worker();
    const time = async (run) => {
      const start = performance.now();
      await run();
      return performance.now() - start;
    };
    const warmup = await time(() => pipe.warmup({ width: 24, height: 16 }));
    const first = await time(() => pipe.edit({ ...quick, image: picture() }));
    return { warmup, first, wrong: await attempt(pipe.warmup({ width: 7 })) };
  });
  console.log(`warm-up ${found.warmup.toFixed(0)} ms, edit after it ${found.first.toFixed(0)} ms`);
  assert.ok(found.first < found.warmup / 2, `${found.first} ms after ${found.warmup}`);
  assertRefused(found.wrong, 'invalid-argument', /width, height/);
});

describe('an edit while another one runs', () => {
  /** The outcomes of three edits, the second and third asked for during the first. */
  const three = (policy, where) =>
    page.evaluate(
      async ([policy, where]) => {
        const shareWith = await worker();
        const options = { busyPolicy: policy, shareWith };
        const pipe = await {
          load: () => InstructPix2Pix.fromPretrained(tiny, options),
          constructor: () => new InstructPix2Pix({ ...shareWith.components, busyPolicy: policy }),
          edit: () => InstructPix2Pix.fromPretrained(tiny, { shareWith }),
        }[where]();
        const own = where === 'edit' ? { busyPolicy: policy } : {};
        const image = picture();
        const order = [];
        const edit = (name, options) =>
          attempt(pipe.edit({ ...quick, image, ...options }).then(() => order.push(name)));
        let others;
        const onStep = () => {
          others ??= [edit('b', own), edit('c', own)];
        };
        const first = await edit('a', { numInferenceSteps: 2, onStep });
        const outcomes = [first, ...(await Promise.all(others))];
        const after = await attempt(pipe.edit({ ...quick, image, ...own }));
        await pipe.dispose();
        return { order, outcomes, after };
      },
      [policy, where],
    );

  test('waits, unless asked otherwise', async () => {
    const { order, outcomes } = await three(undefined, 'edit');
    assert.deepEqual(order, ['a', 'b', 'c']);
    assert.ok(outcomes.every(({ resolved }) => resolved));
  });

  for (const where of ['load', 'constructor', 'edit']) {
    test(`is refused by busyPolicy 'reject' of the ${where}`, async () => {
      const { order, outcomes, after } = await three('reject', where);
      assert.deepEqual(order, ['a']);
      for (const outcome of outcomes.slice(1)) assertRefused(outcome, 'busy', /another edit/);
      assert.ok(after.resolved, 'when nothing runs, edits are taken');
    });

    test(`takes the others' place by busyPolicy 'replace' of the ${where}`, async () => {
      const { order, outcomes, after } = await three('replace', where);
      assert.deepEqual(order, ['c']);
      for (const outcome of outcomes.slice(0, 2)) assertRefused(outcome, 'aborted', /later edit/);
      assert.ok(after.resolved);
    });
  }

  test('has one of three policies', async () => {
    const errors = await page.evaluate(async () => {
      const pipe = await worker();
      return [
        await attempt(pipe.edit({ ...quick, image: picture(), busyPolicy: 'shove' })),
        await attempt(InstructPix2Pix.fromPretrained(tiny, { busyPolicy: 'shove' })),
      ];
    });
    for (const error of errors) assertRefused(error, 'invalid-argument', /busyPolicy.*queue/);
  });
});

describe('a stream', () => {
  test('tells the steps, then the result, and the callback hears of them too', async () => {
    const found = await page.evaluate(async () => {
      const pipe = await worker();
      const [events, heard] = [[], []];
      const options = { ...quick, numInferenceSteps: 3, image: picture() };
      const onStep = ({ step }) => void heard.push(step);
      for await (const { type, step, images } of pipe.editStream({ ...options, onStep })) {
        events.push(type === 'step' ? step : images.length);
      }
      return { events, heard };
    });
    assert.deepEqual(found, { events: [0, 1, 2, 1], heard: [0, 1, 2] });
  });

  test('that is left stops its edit, and the next one runs', async () => {
    const found = await page.evaluate(async () => {
      const pipe = await worker();
      const heard = [];
      const options = { ...quick, numInferenceSteps: 50, image: picture() };
      const onStep = ({ step }) => void heard.push(step);
      for await (const { step } of pipe.editStream({ ...options, onStep })) if (step === 1) break;
      const { images } = await pipe.edit({ ...quick, image: picture() });
      return { heard, images: images.length };
    });
    assert.ok(found.heard.length <= 4, `steps ${found.heard}`);
    assert.equal(found.images, 1);
  });

  test('throws what its edit rejects with', async () => {
    const errors = await page.evaluate(async () => {
      const pipe = await worker();
      const drain = async (options) => {
        for await (const event of pipe.editStream({ ...quick, image: picture(), ...options })) void event;
      };
      const signal = AbortSignal.abort(new RangeError('mine'));
      return [
        await attempt(drain({ signal })),
        await attempt(drain({ numInferenceSteps: 0 })),
        await attempt(drain({ onStep: () => false })),
      ];
    });
    assert.equal(errors[0].message, 'mine');
    assertRefused(errors[1], 'invalid-argument', /numInferenceSteps/);
    assertRefused(errors[2], 'aborted', /returned false/);
  });
});

describe('a signal', () => {
  test('that is aborted keeps every call from being made', async () => {
    const names = await page.evaluate(async () => {
      const pipe = await worker();
      const signal = AbortSignal.abort('no more');
      const calls = {
        encodePrompt: () => pipe.encodePrompt({ prompt: 'p', signal }),
        encodeImage: () => pipe.encodeImage({ image: picture(), signal }),
        setScheduler: () => pipe.setScheduler('DDIMScheduler', undefined, { signal }),
        setSafetyChecker: () => pipe.setSafetyChecker(false, { signal }),
        enableFreeU: () => pipe.enableFreeU({ s1: 1, s2: 1, b1: 1, b2: 1 }, { signal }),
        disableFreeU: () => pipe.disableFreeU({ signal }),
        enableVaeTiling: () => pipe.enableVaeTiling({ signal }),
        disableVaeTiling: () => pipe.disableVaeTiling({ signal }),
        enableVaeSlicing: () => pipe.enableVaeSlicing({ signal }),
        disableVaeSlicing: () => pipe.disableVaeSlicing({ signal }),
        setAdapters: () => pipe.setAdapters([], 1, { signal }),
        getListAdapters: () => pipe.getListAdapters({ signal }),
        getActiveAdapters: () => pipe.getActiveAdapters({ signal }),
        deleteAdapters: () => pipe.deleteAdapters([], { signal }),
        enableLora: () => pipe.enableLora({ signal }),
        disableLora: () => pipe.disableLora({ signal }),
        fuseLora: () => pipe.fuseLora({ signal }),
        unfuseLora: () => pipe.unfuseLora({ signal }),
        loadLoraWeights: () => pipe.loadLoraWeights('/models/none.safetensors', { signal }),
        unloadLoraWeights: () => pipe.unloadLoraWeights({ signal }),
        loadTextualInversion: () => pipe.loadTextualInversion('/models/none.pt', { signal }),
        unloadTextualInversion: () => pipe.unloadTextualInversion(undefined, { signal }),
        saveLoraWeights: () => pipe.saveLoraWeights({ signal }),
        savePretrained: () => pipe.savePretrained({}, { signal }),
        warmup: () => pipe.warmup({ signal }),
        memory: () => pipe.memory({ signal }),
        'cache.list': () => cache.list({ signal }),
        'cache.delete': () => cache.delete('a/b', { signal }),
        'cache.clear': () => cache.clear({ signal }),
        'cache.export': () => cache.export('a/b', { signal }),
        'cache.import': () => cache.import(new Blob(), { signal }),
        fromPretrained: () => InstructPix2Pix.fromPretrained(tiny, { signal }),
        fromSingleFile: () => InstructPix2Pix.fromSingleFile('/models/none.safetensors', { signal }),
        download: () => InstructPix2Pix.download(tiny, { signal }),
        isSupported: () => InstructPix2Pix.isSupported({ signal }),
        requirements: () => InstructPix2Pix.requirements(tiny, { signal }),
      };
      const deaf = [];
      for (const [name, call] of Object.entries(calls)) {
        const { thrown } = await attempt(call());
        if (thrown !== 'no more') deaf.push(name);
      }
      return deaf;
    });
    assert.deepEqual(names, []);
  });

  test('ends the waiting of a call in the queue', async () => {
    const { name } = await page.evaluate(async () => {
      const pipe = await worker();
      const controller = new AbortController();
      const edit = pipe.edit({ ...quick, image: picture() });
      const waiting = attempt(pipe.setScheduler('DDIMScheduler', undefined, { signal: controller.signal }));
      controller.abort();
      const outcome = await waiting;
      await edit;
      return outcome;
    });
    assert.equal(name, 'AbortError');
  });

  test('is the only option of most calls', async () => {
    const error = await page.evaluate(async () =>
      attempt((await worker()).enableVaeTiling({ tiles: 2 })),
    );
    assertRefused(error, 'invalid-argument', /tiles: there is no such option/);
  });
});

describe('defaults', () => {
  test('count for what a call leaves out, and only for that', async () => {
    const errors = await page.evaluate(() =>
      within({ endpoint: '/nowhere', cache: false }, async () => [
        await attempt(InstructPix2Pix.fromPretrained('a/tiny')),
        await attempt(InstructPix2Pix.fromPretrained('a/tiny', { endpoint })),
        await attempt(InstructPix2Pix.download('a/tiny', { endpoint: undefined })),
      ]),
    );
    assertRefused(errors[0], 'not-found', /nowhere/);
    assert.ok(errors[1].resolved, errors[1].message);
    assertRefused(errors[2], 'not-found', /nowhere/);
  });

  test('of no meaning are refused', async () => {
    const errors = await page.evaluate(async () => [
      await within({ endpiont: '/' }, () => attempt(InstructPix2Pix.fromPretrained(tiny))),
      await within({ logLevel: 'loud' }, () => attempt(InstructPix2Pix.fromPretrained(tiny))),
      await within({ busyPolicy: 'shove' }, () => attempt(InstructPix2Pix.fromPretrained(tiny))),
    ]);
    assertRefused(errors[0], 'invalid-argument', /endpiont/);
    assertRefused(errors[1], 'invalid-argument', /logLevel.*silent/);
    assertRefused(errors[2], 'invalid-argument', /busyPolicy/);
  });

  test('say how much the console shows', async () => {
    const said = await page.evaluate(async () => {
      const edit = () =>
        listening(async () => {
          const pipe = await InstructPix2Pix.fromPretrained(tiny, { shareWith: await worker() });
          // Too long for the tokenizer, which is warned of.
          await pipe.edit({ ...quick, prompt: 'snow '.repeat(100), image: picture() });
          await pipe.dispose();
        });
      const levels = {};
      for (const logLevel of ['silent', 'error', 'warn', 'info', 'debug']) {
        levels[logLevel] = await within({ logLevel }, edit);
      }
      return levels;
    });
    assert.deepEqual([said.silent, said.error], [[], []]);
    assert.equal(said.warn.length, 1, said.warn.join('\n'));
    assert.match(said.warn[0], /^warn: instruct-pix2pix-web: /);
    assert.equal(said.info.filter((line) => line.startsWith('warn')).length, 1);
    assert.ok(said.info.some((line) => /^info: .*is loaded after/.test(line)), said.info.join('\n'));
    assert.ok(said.info.some((line) => /^info: .*an edit took/.test(line)), said.info.join('\n'));
    const kinds = (level) => said[level].map((line) => line.split(':', 1)[0]);
    assert.deepEqual(kinds('debug'), kinds('info'), 'the rest is said by workers');
  });

  test('say how much the console shows of workers', async () => {
    const said = {};
    for (const logLevel of ['error', 'warn', 'info', 'debug']) {
      const kinds = (said[logLevel] = []);
      const listen = (message) => {
        if (message.text().startsWith('instruct-pix2pix-web: ')) kinds.push(message.type());
      };
      page.on('console', listen);
      await page.evaluate(async (logLevel) => {
        await within({ logLevel }, async () => {
          const pipe = await InstructPix2Pix.fromPretrained(tiny);
          const matrix = (...shape) => ({ data: new Float32Array(shape[0] * shape[1]), shape });
          const layer = (name) => ({
            [`${name}.lora_A.weight`]: matrix(4, 16),
            [`${name}.lora_B.weight`]: matrix(16, 4),
          });
          // The worker warns of the second one.
          const known = 'text_encoder.text_model.encoder.layers.0.self_attn.k_proj';
          await pipe.loadLoraWeights({ ...layer(known), ...layer('unet.nowhere') });
          await pipe.dispose();
        });
      }, logLevel);
      page.off('console', listen);
    }
    assert.deepEqual(said.error, []);
    assert.deepEqual(said.warn, ['warning']);
    assert.ok(said.info.includes('warning') && !said.info.includes('debug'), `${said.info}`);
    assert.ok(said.debug.includes('warning') && said.debug.includes('debug'), `${said.debug}`);
  });
});

describe('before a download', () => {
  test('a browser with WebGPU is supported, and one without is not', async () => {
    assert.equal(await page.evaluate(() => InstructPix2Pix.isSupported()), true);
    const without = await launch({ webgpu: false });
    try {
      const { page } = await openPage(without, server.url);
      const found = await page.evaluate(async (url) => {
        const { InstructPix2Pix } = await import('/pkg/index.js');
        const { ok, problems, adapter, model } = await InstructPix2Pix.requirements(url);
        return { supported: await InstructPix2Pix.isSupported(), ok, problems, adapter, model };
      }, '/models/tiny-random');
      assert.equal(found.supported, false);
      assert.equal(found.ok, false);
      assert.deepEqual(
        found.problems.map(({ code, fatal }) => [code, fatal]),
        [['no-adapter', true]],
      );
      assert.equal(found.adapter, undefined);
      assert.ok(found.model.bytes > 1e6);
    } finally {
      await without.close();
    }
  });

  test('what a model takes is known, and nothing but metadata is fetched', async () => {
    const found = await page.evaluate(async () => {
      await cache.clear();
      const before = await InstructPix2Pix.requirements('a/tiny', { endpoint });
      const total = await new Promise((resolve) => {
        const onProgress = ({ type, total }) => type === 'download' && resolve(total);
        InstructPix2Pix.download('a/tiny', { endpoint, onProgress });
      });
      return { before, total };
    });
    const { ok, problems, adapter, dtype, model, storage } = found.before;
    assert.deepEqual(problems, []);
    assert.equal(ok, true);
    assert.equal(adapter.software, true);
    assert.equal(typeof adapter.f16, 'boolean');
    assert.ok(adapter.maxStorageBufferBindingSize >= 128 * 1024 ** 2);
    assert.equal(dtype, adapter.f16 ? 'float16' : 'float32');
    assert.equal(model.className, 'StableDiffusionInstructPix2PixPipeline');
    assert.equal(model.bytes, found.total, 'what loading will tell');
    assert.ok(model.missingBytes > 0 && model.missingBytes <= model.bytes);
    assert.ok(model.memoryBytesInTurn > 0 && model.memoryBytesInTurn < model.memoryBytes);
    assert.deepEqual([model.residency, model.memoryBytesHeld], ['all', model.memoryBytes]);
    assert.deepEqual(
      model.parts.map(({ component, stays }) => [component, stays]),
      [['text_encoder', true], ['vae', true], ['unet', true]],
    );
    assert.equal(model.parts.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0), model.memoryBytes);
    assert.ok(model.parts.every(({ largestBytes, memoryBytes }) => largestBytes > 0 && largestBytes < memoryBytes));
    assert.equal(storage.needed, model.missingBytes);
    assert.ok(storage.free > storage.needed);
  });

  test('no weights are fetched, and none are missing that the cache has', async () => {
    await page.evaluate(async () => cache.clear());
    await hub.reset();
    await page.evaluate(() => InstructPix2Pix.requirements('a/tiny', { endpoint }));
    const weights = (await hub.log()).filter(({ file }) => file?.endsWith('.safetensors'));
    assert.deepEqual(weights, []);
    const { model, storage } = await page.evaluate(async () => {
      await InstructPix2Pix.download('a/tiny', { endpoint });
      return InstructPix2Pix.requirements('a/tiny', { endpoint });
    });
    assert.equal(model.missingBytes, 0);
    assert.equal(storage.needed, 0);
  });

  test('what would fail is told, and why', async () => {
    const found = await page.evaluate(async () => {
      const ask = async (model, options) => {
        const { ok, problems } = await InstructPix2Pix.requirements(model, options);
        return { ok, problems };
      };
      return {
        missing: await ask('a/none', { endpoint }),
        budget: await ask('a/tiny', { endpoint, memoryBudget: 1000 }),
        class: await InstructPix2PixXL.requirements('a/tiny', { endpoint }),
        offline: await ask('https://localhost:1/model'),
        option: await attempt(InstructPix2Pix.requirements('a/tiny', { endpiont: endpoint })),
      };
    });
    const assertProblem = ({ ok, problems }, code, message) => {
      assert.equal(ok, false);
      assert.deepEqual(problems.map((problem) => problem.code), [code]);
      assert.match(problems[0].message, message);
      assert.equal(problems[0].fatal, true);
    };
    assertProblem(found.missing, 'http-status', /a\/none/);
    assertProblem(found.budget, 'invalid-argument', /memoryBudget/);
    assertProblem(found.class, 'unsupported', /XL/);
    assertProblem(found.offline, 'network', /localhost:1/);
    assert.equal(found.offline.problems[0].retryable, true);
    assertRefused(found.option, 'invalid-argument', /endpiont/);
  });

  test('the plan goes by the budget, and loading keeps to it', async () => {
    const { planned, info } = await page.evaluate(async () => {
      const all = await InstructPix2Pix.requirements('a/tiny', { endpoint });
      const options = { endpoint, memoryBudget: all.model.memoryBytes - 1 };
      const { model: planned } = await InstructPix2Pix.requirements('a/tiny', options);
      const pipe = await InstructPix2Pix.fromPretrained('a/tiny', options);
      await pipe.dispose();
      return { planned, info: pipe.info };
    });
    assert.deepEqual([planned.residency, planned.memoryBytesHeld], ['inTurn', planned.memoryBytesInTurn]);
    assert.ok(planned.parts.every(({ stays }) => !stays));
    assert.equal(info.residency, planned.residency);
  });

  test('an adapter without a buffer for a weight is refused, and no weights are fetched', async () => {
    const context = await browser.newContext();
    await context.addInitScript(() => {
      const descriptors = Object.getOwnPropertyDescriptors(GPUSupportedLimits.prototype);
      for (const name of ['maxBufferSize', 'maxStorageBufferBindingSize']) {
        const { get } = descriptors[name];
        Object.defineProperty(GPUSupportedLimits.prototype, name, {
          get() {
            return Math.min(get.call(this), globalThis.mostBytes ?? Infinity);
          },
        });
      }
    });
    try {
      const { page } = await openPage({ newPage: () => context.newPage() }, server.url);
      await hub.reset();
      const found = await page.evaluate(async (endpoint) => {
        const { DirectInstructPix2Pix } = await import('/pkg/index.js');
        const { attempt } = await import('/helpers.js');
        const ask = (weightDtype) => DirectInstructPix2Pix.requirements('a/tiny', { endpoint, weightDtype });
        const largest = async (weightDtype) =>
          Math.max(...(await ask(weightDtype)).model.parts.map(({ largestBytes }) => largestBytes));
        // Halves fit, floats do not.
        globalThis.mostBytes = await largest('float16');
        const halves = await ask('float16');
        const floats = await ask('float32');
        const load = (options) => attempt(DirectInstructPix2Pix.fromPretrained('a/tiny', { endpoint, ...options }));
        const budget = { weightDtype: 'float32', memoryBudget: 1e9 };
        return { halves, floats, refused: [await load({ weightDtype: 'float32' }), await load(budget)] };
      }, hub.url);
      assert.deepEqual([found.halves.ok, found.halves.problems], [true, []]);
      const advice = /text_encoder on this GPU: a weight takes .* in float32, .*weightDtype: 'float16'/s;
      assert.equal(found.floats.ok, false);
      assert.deepEqual(found.floats.problems.map(({ code }) => code), ['unsupported']);
      assert.match(found.floats.problems[0].message, advice);
      for (const refused of found.refused) assertRefused(refused, 'unsupported', advice);
      const weights = (await hub.log()).filter(({ file }) => file?.endsWith('.safetensors'));
      assert.deepEqual(weights, []);
    } finally {
      await context.close();
    }
  });

  test('too little room is told, and is no reason not to load', async () => {
    const context = await browser.newContext();
    await context.addInitScript(() => {
      StorageManager.prototype.estimate = async () => ({ quota: 1000, usage: 900 });
    });
    try {
      const { page } = await openPage({ newPage: () => context.newPage() }, server.url);
      const { ok, problems, storage } = await page.evaluate(async () => {
        const { InstructPix2Pix } = await import('/pkg/index.js');
        return InstructPix2Pix.requirements('/models/tiny-random');
      });
      assert.equal(ok, true);
      assert.deepEqual(problems.map(({ code, fatal }) => [code, fatal]), [['storage', false]]);
      assert.equal(storage.free, 100);
    } finally {
      await context.close();
    }
  });
});

test('a cache that fails is an error of the calls that are about it', async () => {
  const error = await page.evaluate(() => {
    const fail = () => {
      throw new Error('the disk is gone');
    };
    return attempt(cache.list({ cache: { get: fail, put: fail, delete: fail, keys: fail } }));
  });
  assertRefused(error, 'storage', /the disk is gone/);
});

describe('files elsewhere', () => {
  test('the worker and the wasm may have other addresses', async () => {
    await page.route('**/elsewhere/*', async (route) => {
      const url = route.request().url().replace('/elsewhere/', '/pkg/');
      await route.fulfill({ response: await route.fetch({ url }) });
    });
    const requests = [];
    page.on('request', (request) => requests.push(new URL(request.url()).pathname));
    const outcome = await page.evaluate(async () => {
      const site = { workerUrl: '/elsewhere/worker.js', wasmUrl: '/elsewhere/instruct_pix2pix_bg.wasm' };
      const pipe = await InstructPix2Pix.fromPretrained(tiny, site);
      const { wasmHeap } = await pipe.memory();
      await pipe.dispose();
      return wasmHeap;
    });
    page.removeAllListeners('request');
    await page.unroute('**/elsewhere/*');
    assert.ok(outcome > 0);
    const fetched = requests.filter((path) => /worker|wasm/.test(path));
    assert.deepEqual(fetched.sort(), ['/elsewhere/instruct_pix2pix_bg.wasm', '/elsewhere/worker.js']);
  });

  test('what is not there is an error', async () => {
    const errors = await page.evaluate(async () => [
      await attempt(InstructPix2Pix.fromPretrained(tiny, { workerUrl: '/no/worker.js' })),
      await attempt(InstructPix2Pix.fromPretrained(tiny, { wasmUrl: '/no/such.wasm' })),
      await attempt(InstructPix2Pix.fromPretrained(tiny, { wasmUrl: 'https://' })),
    ]);
    assertRefused(errors[0], 'engine', /worker/);
    assertRefused(errors[1], 'engine', /could not be started/);
    assertRefused(errors[2], 'invalid-argument', /not a URL/);
  });
});

test('nothing was left uncaught', () => {
  assert.deepEqual(
    problems.filter((problem) => problem.startsWith('uncaught')),
    [],
  );
});
