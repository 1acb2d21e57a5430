/** The package's public interface, with the tiny model on software WebGPU. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  encodePng,
  endAfterMinutes,
  folder,
  launch,
  openPage,
  pkg,
  repository,
  serve,
  toBase64,
} from './harness.mjs';
import { breakModels } from './broken-models.mjs';

const mounts = { '/pkg': pkg, '/models': `${repository}www/models` };
endAfterMinutes(40);

let browser, broken, page, problems, server;

before(async () => {
  broken = breakModels(`${repository}www/models/tiny-random`);
  server = await serve(`${folder}site`, { ...mounts, '/broken': broken.folder });
  browser = await launch();
  ({ page, problems } = await openPage(browser, server.url));
  await useHelpers(page);
});

after(async () => {
  await browser?.close();
  server?.close();
  broken?.remove();
});

/** Makes `helpers` and the package's names global on a page. */
async function useHelpers(page) {
  await page.evaluate(async () => {
    Object.assign(window, await import('/helpers.js'), await import('/pkg/index.js'));
  });
}

/** A fresh page with the helpers, for tests that leave it broken. */
async function withPage(run, { url = server.url, from = browser, prepare } = {}) {
  const context = await from.newContext();
  try {
    const { page } = await openPage({ newPage: () => context.newPage() }, 'about:blank');
    await prepare?.(page);
    await page.goto(url);
    await useHelpers(page);
    return await run(page);
  } finally {
    await context.close();
  }
}

/** Appends code to the package's worker script. */
async function appendToWorker(page, code) {
  await page.route('**/pkg/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${await response.text()}\n${code}` });
  });
}

function assertError(error, code, message = /./) {
  assert.equal(error.code, code, error.message ?? JSON.stringify(error));
  assert.ok(error.isPackageError, 'an InstructPix2PixError');
  assert.equal(error.name, 'InstructPix2PixError');
  assert.match(error.message, message);
}

test('the package can be imported where there is no window', async () => {
  const names = Object.keys(await import(`${pkg}/index.js`));
  assert.deepEqual(names.sort(), [
    'Component',
    'DirectInstructPix2Pix',
    'DirectInstructPix2PixXL',
    'InstructPix2Pix',
    'InstructPix2PixError',
    'InstructPix2PixXL',
    'cache',
    'env',
  ]);
});

describe('loading', () => {
  test('tells its progress in bytes, and what was loaded', async () => {
    const { events, info } = await page.evaluate(async () => {
      const events = [];
      const onProgress = (event) => events.push(event);
      // Relative to the page's base, which is a folder deeper.
      const pipe = await InstructPix2Pix.fromPretrained('../models/tiny-random', { onProgress });
      const { info } = pipe;
      await pipe.dispose();
      return { events, info };
    });
    assert.equal(info.model, `${server.url}models/tiny-random`);
    assert.match(info.dtype, /^float(16|32)$/);
    assert.equal(info.weightDtype, 'float16');
    assert.equal(info.scheduler, 'EulerAncestralDiscreteScheduler');
    assert.ok(info.adapter.length > 0);

    const downloads = events.filter(({ type }) => type === 'download');
    const { total } = downloads[0];
    assert.ok(total > 1e6, 'the total is known from the first event on');
    let loaded = 0;
    for (const event of downloads) {
      assert.equal(event.total, total);
      assert.ok(event.loaded >= loaded && event.loaded <= total, 'bytes only grow');
      assert.ok(event.component && event.file);
      ({ loaded } = event);
    }
    assert.equal(loaded, total);
    const components = events.filter(({ type }) => type === 'component');
    for (const name of ['text_encoder', 'unet', 'vae']) {
      assert.ok(
        components.some(({ component }) => component === name),
        name,
      );
    }
    assert.deepEqual(events.at(-1), { type: 'ready' });
  });

  test('a prompt that is known already is encoded on the way, and changes no result', async () => {
    const { types, same, others, error } = await page.evaluate(async () => {
      const texts = { prompt: 'make it snowy', negativePrompt: ['blurry'] };
      const types = [];
      const onProgress = ({ type }) => types.push(type);
      const pipe = await InstructPix2Pix.fromPretrained(tiny, { ...texts, onProgress });
      const plain = await worker();
      const edit = async (pipe, more) => {
        const { images } = await pipe.edit({ ...quick, ...more, image: picture() });
        return images[0].data;
      };
      const same = difference(await edit(plain, texts), await edit(pipe, texts));
      const others = difference(await edit(plain), await edit(pipe));
      await pipe.dispose();
      const error = await attempt(InstructPix2Pix.fromPretrained(tiny, { prompt: [] }));
      return { types, same, others, error };
    });
    assert.equal(types.filter((type) => type === 'encoded').length, 1);
    assert.ok(types.indexOf('encoded') < types.lastIndexOf('component'));
    assert.deepEqual([same, others], ['none', 'none']);
    assertError(error, 'invalid-argument', /prompt/);
  });

  const refused = (model, options) =>
    page.evaluate(
      ([model, options]) => attempt(InstructPix2Pix.fromPretrained(model, options)),
      [model, options],
    );

  test('a model that is not there', async () => {
    assertError(await refused('/models/no-such-model'), 'not-found', /no-such-model/);
    assertError(await refused('owner/name', { endpoint: '/' }), 'not-found', /owner\/name/);
  });

  test('a server that is not there', async () => {
    const error = await refused('https://localhost:1/model');
    assertError(error, 'network', /localhost:1/);
    assert.equal(error.retryable, true);
  });

  test('a name that is neither id nor URL', async () => {
    for (const model of ['name', 'a/b/c', '', 'https://']) {
      assertError(await refused(model), 'invalid-argument');
    }
  });

  test('an option of another type, or none of its name', async () => {
    assertError(await refused('/models/tiny-random', { token: 7 }), 'invalid-argument', /token/);
    assertError(await refused('/models/tiny-random', { dtyp: '' }), 'invalid-argument', /dtyp/);
    const dtype = await refused('/models/tiny-random', { dtype: 'int8' });
    assertError(dtype, 'invalid-argument', /dtype|int8/);
  });

  test('broken models', async (t) => {
    for (const [name, { code, message }] of Object.entries(broken.models)) {
      await t.test(name, async () => assertError(await refused(`/broken/${name}`), code, message));
    }
  });

  test('an aborted signal rejects before anything is fetched', async () => {
    const requests = [];
    page.on('request', (request) => requests.push(request.url()));
    const error = await page.evaluate(() =>
      attempt(InstructPix2Pix.fromPretrained(tiny, { signal: AbortSignal.abort('no more') })),
    );
    page.removeAllListeners('request');
    assert.equal(error.thrown, 'no more');
    assert.deepEqual(requests, []);
  });

  for (const name of ['InstructPix2Pix', 'DirectInstructPix2Pix']) {
    test(`${name}: an abort while loading rejects at once with its reason`, async () => {
      const error = await page.evaluate(async (name) => {
        const controller = new AbortController();
        const onProgress = () => controller.abort();
        const { signal } = controller;
        return attempt(window[name].fromPretrained(tiny, { onProgress, signal }));
      }, name);
      assert.equal(error.name, 'AbortError');
    });
  }

  test('a progress callback that throws stops loading with what it threw', async () => {
    const error = await page.evaluate(() =>
      attempt(
        InstructPix2Pix.fromPretrained(tiny, {
          onProgress() {
            throw new RangeError('mine');
          },
        }),
      ),
    );
    assert.deepEqual([error.name, error.message], ['RangeError', 'mine']);
  });
});

describe('surroundings', () => {
  for (const name of ['InstructPix2Pix', 'DirectInstructPix2Pix']) {
    const load = (page) =>
      page.evaluate((name) => attempt(window[name].fromPretrained(tiny)), name);

    test(`${name}: an insecure context`, async () => {
      const insecure = await launch({ args: ['--host-resolver-rules=MAP example.test 127.0.0.1'] });
      try {
        const url = server.url.replace(/\/\/[^:/]+/, '//example.test');
        const error = await withPage(load, { url, from: insecure });
        assertError(error, 'insecure-context', /https/);
      } finally {
        await insecure.close();
      }
    });

    test(`${name}: a browser without WebGPU`, async () => {
      const error = await withPage(load, {
        async prepare(page) {
          await page.addInitScript(() => delete Navigator.prototype.gpu);
          await appendToWorker(page, 'delete WorkerNavigator.prototype.gpu;');
        },
      });
      assertError(error, 'no-webgpu', /Chrome.*Safari.*Firefox/);
    });

    test(`${name}: WebGPU without an adapter`, async () => {
      const without = await launch({ webgpu: false });
      try {
        const error = await withPage(load, { from: without });
        assertError(error, 'no-adapter', /Chrome.*Safari.*Firefox/);
      } finally {
        await without.close();
      }
    });

    test(`${name}: wasm that cannot be fetched`, async () => {
      const error = await withPage(load, {
        prepare: (page) => page.route('**/*.wasm', (route) => route.fulfill({ status: 404 })),
      });
      assertError(error, 'engine');
    });
  }

  test('a worker script that cannot be fetched', async () => {
    const error = await withPage((page) => page.evaluate(() => attempt(worker())), {
      prepare: (page) => page.route('**/worker.js', (route) => route.fulfill({ status: 404 })),
    });
    assertError(error, 'engine', /worker/);
  });

  /** An edit during which the worker runs `code`, and one after it. */
  const crash = (code) =>
    withPage(
      (page) =>
        page.evaluate(async () => {
          const image = picture();
          const pipe = await worker();
          let signalled = false;
          const onStep = () => {
            if (!signalled) new BroadcastChannel('crash').postMessage('now');
            signalled = true;
          };
          const first = attempt(pipe.edit({ ...quick, numInferenceSteps: 50, image, onStep }));
          const second = attempt(pipe.edit({ ...quick, image }));
          const outcomes = await Promise.all([first, second]);
          return [...outcomes, await attempt(pipe.edit({ ...quick, image }))];
        }),
      {
        prepare: (page) =>
          appendToWorker(
            page,
            `new BroadcastChannel('crash').onmessage = () => setTimeout(() => { ${code} });`,
          ),
      },
    );

  test('a worker that dies rejects what is pending and what comes later', async () => {
    const outcomes = await crash(`throw new Error('boom')`);
    for (const error of outcomes) assertError(error, 'engine', /boom/);
  });

  test('a panic of the engine rejects what is pending and what comes later', async () => {
    // (module (func unreachable) (start 0)), as a panic in a task of the engine traps.
    const trap = '0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,8,1,0,10,5,1,3,0,0,11';
    const outcomes = await crash(
      `new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.of(${trap})));`,
    );
    for (const error of outcomes) assertError(error, 'engine', /internal error.*unreachable/);
  });
});

describe('arguments of edit()', () => {
  const refused = (options, size = [16, 16]) =>
    page.evaluate(
      async ([options, size]) => {
        const pipe = await worker();
        return attempt(pipe.edit({ ...quick, image: picture(...size), ...options }));
      },
      [options, size],
    );

  const invalid = {
    'no steps': { numInferenceSteps: 0 },
    'negative steps': { numInferenceSteps: -3 },
    'half a step': { numInferenceSteps: 1.5 },
    'NaN guidanceScale': { guidanceScale: NaN },
    'infinite guidanceScale': { guidanceScale: Infinity },
    'NaN imageGuidanceScale': { imageGuidanceScale: NaN },
    'NaN eta': { eta: NaN, scheduler: 'DDIMScheduler' },
    'half a seed': { seed: 0.5 },
    'a prompt that is no text': { prompt: 7 },
    'an option that does not exist': { steps: 20 },
  };
  for (const [name, options] of Object.entries(invalid)) {
    test(name, async () => {
      const [argument] = Object.keys(options);
      assertError(await refused(options), 'invalid-argument', new RegExp(argument));
    });
  }

  test('an option that cannot be sent to the worker', async () => {
    const error = await page.evaluate(async () => {
      const scheduler = { _class_name: 'DDIMScheduler', step() {} };
      return attempt((await worker()).edit({ ...quick, image: picture(), scheduler }));
    });
    assertError(error, 'invalid-argument', /worker/);
  });

  test('a picture under 8 pixels', async () => {
    assertError(await refused({}, [7, 16]), 'invalid-argument', /7/);
    assertError(await refused({}, [16, 7]), 'invalid-argument', /7/);
  });

  test('a scheduler that is not implemented', async () => {
    assertError(await refused({ scheduler: 'NoSuchScheduler' }), 'unsupported', /NoSuchScheduler/);
  });

  test('latents of another shape', async () => {
    const error = await page.evaluate(async () => {
      const latents = { data: new Float32Array(3), shape: [1, 3, 1, 1] };
      return attempt((await worker()).edit({ ...quick, image: picture(), latents }));
    });
    assertError(error, 'invalid-argument', /latents/);
  });

  test('no picture, and one that does not decode', async () => {
    const errors = await page.evaluate(async () => {
      const pipe = await worker();
      return [
        await attempt(pipe.edit(quick)),
        await attempt(pipe.edit({ ...quick, image: new Blob(['no picture']) })),
        await attempt(pipe.edit({ ...quick, image: '/no/such/picture.jpg' })),
      ];
    });
    assertError(errors[0], 'invalid-argument', /image/);
    assertError(errors[1], 'image-decode');
    assertError(errors[2], 'not-found');
  });

  test('after all of these the pipeline still works', async () => {
    const size = await page.evaluate(async () => {
      const { images } = await (await worker()).edit({ ...quick, image: picture() });
      return [images[0].width, images[0].height];
    });
    assert.deepEqual(size, [24, 16]);
  });
});

describe('an edit', () => {
  test('gives pictures, seed, timings and latents, and reports its steps', async () => {
    const found = await page.evaluate(async () => {
      const steps = [];
      const result = await (
        await worker()
      ).edit({
        ...quick,
        numInferenceSteps: 3,
        image: picture(),
        onStep: (event) => void steps.push(event),
      });
      const { images, latents, ...rest } = result;
      const { data } = images[0];
      return {
        ...rest,
        steps,
        isImageData: images.length === 1 && images[0] instanceof ImageData,
        isOpaque: data.every((value, i) => i % 4 !== 3 || value === 255),
        latents: latents.shape.length === 4 && latents.data instanceof Float32Array,
        memory: await (await worker()).memory(),
      };
    });
    assert.deepEqual(
      found.steps.map(({ step, steps }) => [step, steps]),
      [
        [0, 3],
        [1, 3],
        [2, 3],
      ],
    );
    const fallsOff = (key, sign) =>
      found.steps.every((step, i) => i === 0 || sign * (step[key] - found.steps[i - 1][key]) > 0);
    assert.ok(fallsOff('timestep', -1) && fallsOff('elapsed', 1), JSON.stringify(found.steps));
    assert.ok(found.isImageData && found.isOpaque && found.latents);
    assert.equal(found.seed, 1);
    const { total, encode, denoise, decode } = found.timings;
    for (const part of [encode, denoise, decode]) assert.ok(part > 0 && part <= total);
    assert.ok(found.memory.wasmHeap >= 1 << 20);
  });

  test('the worker and the direct class make the same picture', async () => {
    const differences = await page.evaluate(async () => {
      const image = picture();
      const blob = await canvasOf(image).convertToBlob({ type: 'image/png' });
      const expected = (await (await worker()).edit({ ...quick, image })).images[0].data;
      const others = {
        'worker, Blob': (await worker()).edit({ ...quick, image: blob }),
        'worker, canvas': (await worker()).edit({ ...quick, image: canvasOf(image) }),
        'direct, ImageData': (await direct()).edit({ ...quick, image }),
      };
      const found = {};
      for (const [name, edit] of Object.entries(others)) {
        found[name] = difference((await edit).images[0].data, expected);
      }
      found['the caller’s picture'] = difference(image.data, picture().data);
      return found;
    });
    for (const [name, found] of Object.entries(differences)) assert.equal(found, 'none', name);
  });

  test('ignores transparency, and keeps the colours below it', async () => {
    const opaque = new Uint8Array(16 * 16 * 4).map((_, i) => (i % 4 === 3 ? 255 : (i * 5) % 256));
    const clear = opaque.map((value, i) => (i % 4 === 3 ? i % 256 : value));
    const pictures = [opaque, clear].map((data) =>
      toBase64(encodePng({ width: 16, height: 16, data })),
    );
    const found = await page.evaluate(async (pictures) => {
      const results = [];
      for (const text of pictures) {
        const image = `data:image/png;base64,${text}`;
        results.push((await (await worker()).edit({ ...quick, image })).images[0].data);
      }
      return difference(...results);
    }, pictures);
    assert.equal(found, 'none');
  });

  test('seeds decide the noise', async () => {
    const { same, seeds, types } = await page.evaluate(async () => {
      const pipe = await worker();
      const edit = async (seed) => pipe.edit({ ...quick, seed, image: picture() });
      const results = [];
      for (const seed of [5, 5n, 6, 2n ** 63n, undefined, undefined]) {
        results.push(await edit(seed));
      }
      const equal = (a, b) =>
        difference(results[a].images[0].data, results[b].images[0].data) === 'none';
      return {
        same: { 'as number and bigint': equal(0, 1), 'of other seeds': equal(0, 2) },
        seeds: results.map(({ seed }) => String(seed)),
        types: results.map(({ seed }) => typeof seed),
      };
    });
    assert.deepEqual(same, { 'as number and bigint': true, 'of other seeds': false });
    assert.deepEqual(seeds.slice(0, 4), ['5', '5', '6', '9223372036854775808']);
    assert.notEqual(seeds[4], seeds[5], 'a seed is drawn');
    assert.deepEqual(types.slice(0, 4), ['number', 'number', 'number', 'bigint']);
  });

  test('a scheduler goes by name or by configuration', async () => {
    const found = await page.evaluate(async () => {
      const edit = async (scheduler) =>
        (await (await worker()).edit({ ...quick, scheduler, image: picture() })).images[0].data;
      const byName = await edit('DDIMScheduler');
      const config = await (await fetch(`${tiny}/scheduler/scheduler_config.json`)).json();
      return {
        config: difference(byName, await edit({ ...config, _class_name: 'DDIMScheduler' })),
        own: difference(byName, await edit(undefined)),
      };
    });
    assert.equal(found.config, 'none');
    assert.notEqual(found.own, 'none');
  });
});

for (const make of ['worker', 'direct']) {
  describe(`stopping and waiting: ${make}`, () => {
    test('edits run one after the other, in order', async () => {
      const log = await page.evaluate(async (make) => {
        const pipe = await window[make]();
        const log = [];
        const edit = (name, image) => {
          const onStep = ({ step }) => void log.push(`${name}${step}`);
          return pipe.edit({ ...quick, numInferenceSteps: 2, image, onStep }).then(
            () => log.push(name),
            () => log.push(`${name} failed`),
          );
        };
        // b fails before its turn, and must not let c start early.
        await Promise.all([
          edit('a', picture()),
          edit('b', new Blob(['no picture'])),
          edit('c', picture()),
        ]);
        return log.filter((entry) => entry !== 'b failed');
      }, make);
      assert.deepEqual(log, ['a0', 'a1', 'a', 'c0', 'c1', 'c']);
    });

    test('an aborted signal rejects before anything is done', async () => {
      const error = await page.evaluate(async (make) => {
        const pipe = await window[make]();
        const signal = AbortSignal.abort(new RangeError('mine'));
        return attempt(pipe.edit({ ...quick, image: picture(), signal }));
      }, make);
      assert.deepEqual([error.name, error.message], ['RangeError', 'mine']);
    });

    test('an abort rejects at once, and the edit stops before its next steps', async () => {
      const found = await page.evaluate(async (make) => {
        const pipe = await window[make]();
        const controller = new AbortController();
        let abortedAt;
        let later = 0;
        const steps = [];
        const running = attempt(
          pipe.edit({
            ...quick,
            numInferenceSteps: 60,
            image: picture(),
            signal: controller.signal,
            onStep({ step }) {
              steps.push(performance.now());
              if (step > 3) later++;
              if (step === 3) {
                setTimeout(() => {
                  abortedAt = performance.now();
                  controller.abort();
                });
              }
            },
          }),
        );
        const waiting = attempt(
          pipe.edit({ ...quick, image: picture(), signal: controller.signal }),
        );
        const errors = [(await running).name, (await waiting).name];
        const delay = performance.now() - abortedAt;
        const stepsAtAbort = later;
        const next = performance.now();
        const result = await pipe.edit({ ...quick, image: picture() });
        return {
          errors,
          delay,
          unheard: later - stepsAtAbort,
          untilNext: performance.now() - next,
          total: result.timings.total,
          // Not the first ones: shaders are compiled in them.
          step: (steps[3] - steps[1]) / 2,
        };
      }, make);
      assert.deepEqual(found.errors, ['AbortError', 'AbortError']);
      assert.equal(found.unheard, 0, 'no step is reported after the abort');
      assert.ok(found.delay < 100, `rejected after ${found.delay} ms`);
      const waited = found.untilNext - found.total;
      console.log(
        `${make}: rejected after ${found.delay.toFixed(1)} ms, the engine was free ` +
          `after ${waited.toFixed(0)} ms, a step takes ${found.step.toFixed(0)} ms`,
      );
      // The step that was under way, and a second one for what else the machine does.
      assert.ok(waited < 2 * found.step, `the engine went on for ${waited} ms`);
    });

    test('onStep stops the edit by returning false, or by throwing', async () => {
      const errors = await page.evaluate(async (make) => {
        const pipe = await window[make]();
        const steps = [];
        const edit = (onStep) =>
          attempt(pipe.edit({ ...quick, numInferenceSteps: 20, image: picture(), onStep }));
        const returned = await edit(({ step }) => {
          steps.push(step);
          return false;
        });
        const thrown = await edit(() => {
          throw new RangeError('mine');
        });
        return { returned, thrown, steps };
      }, make);
      assertError(errors.returned, 'aborted');
      assert.deepEqual(errors.steps, [0]);
      assert.deepEqual([errors.thrown.name, errors.thrown.message], ['RangeError', 'mine']);
    });

    test('dispose() rejects what runs, what waits and what comes later', async () => {
      const errors = await page.evaluate(async (make) => {
        const classes = { worker: InstructPix2Pix, direct: DirectInstructPix2Pix };
        const pipe = await classes[make].fromPretrained(tiny);
        const image = picture();
        let disposed;
        const first = attempt(
          pipe.edit({
            ...quick,
            numInferenceSteps: 20,
            image,
            onStep: () => void (disposed ??= pipe.dispose()),
          }),
        );
        const second = attempt(pipe.edit({ ...quick, image }));
        const pending = await Promise.all([first, second]);
        await disposed;
        await pipe.dispose();
        const again = [attempt(pipe.edit({ ...quick, image })), attempt(pipe.memory())];
        return [...pending, ...(await Promise.all(again))];
      }, make);
      for (const error of errors) assertError(error, 'disposed');
    });
  });
}

test('`await using` disposes', async () => {
  const disposed = await page.evaluate(async () => {
    const pipe = await InstructPix2Pix.fromPretrained(tiny);
    await pipe[Symbol.asyncDispose]();
    return attempt(pipe.memory());
  });
  assertError(disposed, 'disposed');
});

test('nothing was left uncaught', () => {
  assert.deepEqual(
    problems.filter((problem) => problem.startsWith('uncaught')),
    [],
  );
});
