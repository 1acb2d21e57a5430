/** What those who come from diffusers expect of loading, schedulers, checkers and adapters, through the package. */

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { endAfterMinutes, repository } from './harness.mjs';
import { serveHub } from './hub.mjs';
import { singleFile } from './single-file.mjs';
import { openSite } from './site.mjs';

endAfterMinutes(30);

const tiny = `${repository}www/models/tiny-random`;
const adapters = `${repository}tests/fixtures/oracle/adapters`;

let assertRefused, close, hub, page, whole;

before(async () => {
  whole = mkdtempSync(join(tmpdir(), 'whole-'));
  writeFileSync(join(whole, 'whole.safetensors'), singleFile(tiny));
  hub = await serveHub({ 'tests/tiny': tiny, 'tests/whole': whole, 'tests/adapters': adapters });
  ({ assertRefused, close, page } = await openSite({ '/whole': whole }));
  await page.evaluate(async (endpoint) => {
    window.endpoint = endpoint;
    window.pipe = await worker();
    window.image = picture(16, 16);
    window.bytes = async (options, from = pipe) =>
      (await from.edit({ ...quick, image, ...options })).images[0].data;
    /** What is written to the console while `run` runs. */
    window.warnings = async (run) => {
      const { warn } = console;
      const texts = [];
      console.warn = (text) => texts.push(text);
      try {
        await run();
      } finally {
        console.warn = warn;
      }
      return texts;
    };
  }, hub.url);
});

after(async () => {
  await close?.();
  hub?.close();
  rmSync(whole, { recursive: true, force: true });
});

describe('schedulers', () => {
  test('take some keys anew, and tell their configuration', async () => {
    const found = await page.evaluate(async () => {
      const before = pipe.info.schedulerConfig;
      const several = { numInferenceSteps: 4 };
      await pipe.setScheduler('DPMSolverMultistepScheduler');
      const plain = await bytes(several);
      await pipe.setScheduler('DPMSolverMultistepScheduler', { use_karras_sigmas: true });
      const karras = await bytes(several);
      const { scheduler, schedulerConfig } = pipe.info;
      const whole = await bytes({ ...several, scheduler: schedulerConfig });
      await pipe.setScheduler(before);
      return {
        before,
        scheduler,
        schedulerConfig,
        moved: difference(plain, karras) !== 'none',
        same: difference(karras, whole),
        after: pipe.info.schedulerConfig,
      };
    });
    assert.equal(found.before._class_name, 'EulerAncestralDiscreteScheduler');
    assert.equal(found.before.beta_start, 0.00085);
    assert.ok(Object.values(found.before).every((value) => value !== null), 'what is absent stays absent');
    assert.equal(found.scheduler, 'DPMSolverMultistepScheduler');
    assert.deepEqual(found.schedulerConfig, {
      ...found.before,
      _class_name: 'DPMSolverMultistepScheduler',
      use_karras_sigmas: true,
    });
    assert.deepEqual([found.moved, found.same], [true, 'none']);
    assert.deepEqual(found.after, found.before);
  });

  test('are given to a load by name or configuration', async () => {
    const found = await page.evaluate(async () => {
      const { vae, unet, textEncoder, tokenizer } = pipe.components;
      const given = { vae, unet, textEncoder, tokenizer };
      const config = { ...pipe.info.schedulerConfig, _class_name: 'DDIMScheduler' };
      const found = [];
      for (const scheduler of ['DDIMScheduler', config]) {
        const other = await InstructPix2Pix.fromPretrained(tiny, { ...given, scheduler });
        const same = difference(await bytes({ scheduler: 'DDIMScheduler' }), await bytes({}, other));
        found.push([other.info.scheduler, same]);
        await other.dispose();
      }
      return found;
    });
    assert.deepEqual(found, [['DDIMScheduler', 'none'], ['DDIMScheduler', 'none']]);
    await assertRefused('unsupported', /Nope/, 'InstructPix2Pix.fromPretrained(tiny, { scheduler: "Nope" })');
  });

  test('with a key that none has are refused, and the nearest key is named', async () => {
    const nearest = /use_karas_sigmas.*`use_karras_sigmas`/;
    const changes = '{ use_karas_sigmas: true }';
    await assertRefused('invalid-argument', nearest, `pipe.setScheduler('DDIMScheduler', ${changes})`);
    const config = '{ _class_name: "DDIMScheduler", use_karas_sigmas: true }';
    await assertRefused('invalid-argument', nearest, `pipe.setScheduler(${config})`);
    await assertRefused('invalid-argument', nearest, `pipe.edit({ ...quick, image, scheduler: ${config} })`);
    await assertRefused('invalid-argument', nearest, `InstructPix2Pix.fromPretrained(tiny, { scheduler: ${config} })`);
  });

  test('that cannot be made make no pipeline of components', async () => {
    const made = 'new InstructPix2Pix({ ...pipe.components, scheduler: "Nope", requiresSafetyChecker: false })';
    await assertRefused('unsupported', /Nope/, `${made}.edit({ ...quick, image })`);
  });
});

test('what is no component is refused in a component’s place', async () => {
  for (const name of ['vae', 'unet', 'textEncoder', 'tokenizer', 'featureExtractor']) {
    await assertRefused('invalid-argument', new RegExp(name), `InstructPix2Pix.fromPretrained(tiny, { ${name}: {} })`);
  }
});

describe('the safety checker', () => {
  test('counts from its call on, awaited or not', async () => {
    const found = await page.evaluate(async () => {
      const before = pipe.edit({ ...quick, image });
      const set = pipe.setSafetyChecker(() => true);
      const judged = pipe.edit({ ...quick, image });
      const off = pipe.setSafetyChecker(null);
      const after = pipe.edit({ ...quick, image });
      await Promise.all([set, off]);
      return (await Promise.all([before, judged, after])).map((each) => each.nsfwContentDetected);
    });
    assert.deepEqual(found, [null, [true], null].map((flags) => flags ?? undefined));
  });

  test('that could not be loaded leaves the one before in its place', async () => {
    const found = await page.evaluate(async () => {
      await pipe.setSafetyChecker(() => true);
      const failed = await attempt(pipe.setSafetyChecker(true, { model: '/no/such/model' }));
      const { nsfwContentDetected } = await pipe.edit({ ...quick, image });
      await pipe.setSafetyChecker(false);
      return [failed.code, nsfwContentDetected];
    });
    assert.deepEqual(found, ['not-found', [true]]);
  });

  test('is refused where there is none, and for what is none', async () => {
    await assertRefused('invalid-argument', /boolean or function/, 'pipe.setSafetyChecker(pipe.components.unet)');
    await assertRefused('invalid-argument', /boolean or function/, 'InstructPix2Pix.fromPretrained(tiny, { safetyChecker: {} })');
    const found = await page.evaluate(async () => {
      const index = await (await fetch(`${tiny}/model_index.json`)).json();
      const without = { ...index, safety_checker: [null, null], feature_extractor: [null, null] };
      // The same model, which says that it has none.
      const fetchIndex = async (url, init) =>
        String(url).endsWith('model_index.json') ? new Response(JSON.stringify(without)) : fetch(url, init);
      const options = { cache: false, fetch: fetchIndex, safetyChecker: true };
      return attempt(InstructPix2Pix.fromPretrained(tiny, options));
    });
    assert.equal(found.code, 'invalid-argument');
    assert.match(found.message, /safetyChecker.*none/);
  });

  test('that is left out on purpose is warned of, unless that is meant', async () => {
    const found = await page.evaluate(async () => {
      const { vae, unet, textEncoder, tokenizer } = pipe.components;
      const given = { vae, unet, textEncoder, tokenizer };
      const load = (options) =>
        warnings(async () => (await InstructPix2Pix.fromPretrained(tiny, { ...given, ...options })).dispose());
      return [
        await load({}),
        await load({ safetyChecker: null }),
        await load({ safetyChecker: null, requiresSafetyChecker: false }),
      ];
    });
    assert.deepEqual([found[0].length, found[2].length], [0, 0]);
    assert.match(found[1].join(), /safety checker/);
  });
});

test('pictures may be arrays as numpy has them', async () => {
  const found = await page.evaluate(async () => {
    const [width, height] = [24, 16];
    const samples = picture(width, height).data.filter((_, i) => i % 4 < 3);
    const last = Float32Array.from(samples, (byte) => byte / 255);
    const first = new Float32Array(last.length);
    last.forEach((value, i) => (first[(i % 3) * width * height + Math.floor(i / 3)] = value));
    return difference(
      await bytes({ image: { data: last, shape: [1, height, width, 3] } }),
      await bytes({ image: { data: first, shape: [1, 3, height, width] } }),
    );
  });
  assert.equal(found, 'none');
  await assertRefused('invalid-argument', /N, H, W, 3/, 'bytes({ image: { data: new Float32Array(2048), shape: [1, 2, 32, 32] } })');
});

test('the legacy callback is told of inference steps', async () => {
  const calls = await page.evaluate(async () => {
    const calls = [];
    const callback = (step, timestep, latents) => calls.push([step, timestep, latents.shape]);
    await bytes({ numInferenceSteps: 5, scheduler: 'DDIMScheduler', callback, callbackSteps: 2 });
    return calls;
  });
  const shape = [1, 4, 8, 8];
  assert.deepEqual(calls, [[0, 801, shape], [2, 401, shape], [4, 1, shape]]);
  await assertRefused('invalid-argument', /callbackSteps/, 'bytes({ callback() {}, callbackSteps: 0 })');
});

describe('a checkpoint in one file', () => {
  test('gives the same pictures, from an address, a file and a link to its page', async () => {
    const found = await page.evaluate(async () => {
      const own = await bytes();
      const file = await (await fetch('/whole/whole.safetensors')).blob();
      const sources = [
        '/whole/whole.safetensors',
        new File([file], 'mine.safetensors'),
        'https://huggingface.co/tests/whole/blob/main/whole.safetensors',
        `${endpoint}/tests/whole/resolve/main/whole.safetensors`,
      ];
      const found = [];
      for (const source of sources) {
        const isHub = String(source).includes('tests/whole');
        const options = { config: isHub ? 'tests/tiny' : tiny, endpoint: isHub ? endpoint : undefined, shareWith: pipe };
        const other = await InstructPix2Pix.fromSingleFile(source, options);
        found.push(difference(own, await bytes({}, other)));
        if (source === sources[0]) {
          await other.setSafetyChecker(true);
          found.push(other.components.safetyChecker?.name);
          const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle('one', { create: true });
          await other.savePretrained(directory);
          const again = await InstructPix2Pix.fromPretrained(directory, { shareWith: pipe });
          found.push(difference(own, await bytes({}, again)));
          await again.dispose();
        }
        await other.dispose();
      }
      return found;
    });
    assert.deepEqual(found, ['none', 'safetyChecker', 'none', 'none', 'none', 'none']);
  });
});

describe('adapters', () => {
  test('that are several are learnt all or not at all', async () => {
    const found = await page.evaluate(async () => {
      const good = { '<good>': { data: new Float32Array(16).fill(1), shape: [16] } };
      const bad = { '<bad>': { data: new Float32Array(5).fill(1), shape: [5] } };
      const failed = await attempt(pipe.loadTextualInversion([good, bad]));
      const again = await attempt(pipe.loadTextualInversion(good));
      await pipe.unloadTextualInversion();
      return [failed.code !== undefined, again.resolved];
    });
    assert.deepEqual(found, [true, true]);
  });

  test('are for the encoder of a tokenizer, too', async () => {
    const found = await page.evaluate(async () => {
      const word = (name) => ({ [name]: { data: new Float32Array(16).fill(1), shape: [16] } });
      const added = [
        ...(await pipe.loadTextualInversion(word('<a>'), { tokenizer: 'tokenizer' })),
        ...(await pipe.loadTextualInversion(word('<b>'), { textEncoder: pipe.components.textEncoder })),
        ...(await pipe.loadTextualInversion(word('<c>'), {
          textEncoder: 'textEncoder',
          tokenizer: pipe.components.tokenizer,
        })),
      ];
      const mixed = await attempt(
        pipe.loadTextualInversion(word('<d>'), { textEncoder: 'textEncoder', tokenizer: 'tokenizer2' }),
      );
      await pipe.unloadTextualInversion();
      return { added, mixed };
    });
    assert.deepEqual(found.added, ['<a>', '<b>', '<c>']);
    assert.equal(found.mixed.code, 'invalid-argument');
    assert.match(found.mixed.message, /tokenizer2/);
  });

  test('are named by file and folder, fetched anew, and with a token of their own', async () => {
    await hub.reset();
    const found = await page.evaluate(async () => {
      const from = { endpoint };
      const weightName = 'lora_peft.safetensors';
      await pipe.loadLoraWeights('tests/adapters', { ...from, weightName, resumeDownload: false });
      const names = await pipe.getListAdapters();
      await pipe.unloadLoraWeights();
      const added = await pipe.loadTextualInversion('tests/adapters', {
        ...from,
        weightName: 'ti_single.safetensors',
        token: '<mine>',
        hfToken: 'hf_secret',
        forceDownload: true,
      });
      await pipe.unloadTextualInversion();
      const missing = await attempt(
        pipe.loadLoraWeights('tests/adapters', { ...from, weightName, subfolder: 'elsewhere' }),
      );
      return { names, added, missing };
    });
    assert.deepEqual(Object.values(found.names).flat().length > 0, true);
    assert.ok(found.added.includes('<mine>'));
    assert.equal(found.missing.code, 'not-found');
    assert.match(found.missing.message, /elsewhere/);
    const asked = (await hub.log()).filter(({ path }) => path.includes('ti_single'));
    assert.ok(asked.some(({ authorization }) => authorization), 'the token came along');
  });
});
