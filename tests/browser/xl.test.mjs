/**
 * The class for SDXL, through the package, on software WebGPU; its numbers are compared by parity.mjs. `FULL=1` adds a watermark and the numbers of
 * a LoRA.
 */

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, readSafetensors, repository } from './harness.mjs';
import { serveHub } from './hub.mjs';
import { singleFile, singleFileXL } from './single-file.mjs';
import { openSite } from './site.mjs';

endAfterMinutes(40);

const FULL = process.env.FULL === '1';
const fixtures = `${repository}tests/fixtures`;
const model = `${fixtures}/oracle/models/tiny-sdxl-ip2p`;

let assertRefused, beside, close, hub, page, problems, whole;

before(async () => {
  whole = mkdtempSync(join(tmpdir(), 'whole-xl-'));
  const names = JSON.parse(readFileSync(`${fixtures}/single_file_xl.json`, 'utf8'));
  writeFileSync(join(whole, 'xl.safetensors'), singleFileXL(model, names));
  writeFileSync(join(whole, 'cosxl_edit.safetensors'), singleFileXL(model, names, true));
  writeFileSync(join(whole, 'sd.safetensors'), singleFile(`${repository}www/models/tiny-random`));
  beside = mkdtempSync(join(tmpdir(), 'beside-'));
  cpSync(model, beside, { recursive: true });
  cpSync(join(whole, 'xl.safetensors'), join(beside, 'xl.safetensors'));
  hub = await serveHub({
    'tests/whole': whole,
    'tests/beside': beside,
    'diffusers/sdxl-instructpix2pix-768': model,
  });
  ({ assertRefused, close, page, problems } = await openSite({
    '/oracle': `${fixtures}/oracle`,
    '/fixtures': fixtures,
    '/whole': whole,
  }));
  await page.evaluate(async (endpoint) => {
    window.endpoint = endpoint;
    window.model = '/oracle/models/tiny-sdxl-ip2p';
    // One load for all tests, by the class that lets the model decide.
    window.pipe = await InstructPix2Pix.fromPretrained(model, { dtype: 'float32' });
    window.edit = (options) =>
      pipe.edit({ ...quick, image: picture(32, 32), height: 16, width: 16, ...options });
    window.latents = async (options) =>
      (await edit({ outputType: 'latent', ...options })).latents.data;
  }, hub.url);
});

after(async () => {
  await close?.();
  hub?.close();
  for (const folder of [whole, beside]) if (folder) rmSync(folder, { recursive: true });
});

test('the model decides on the class', async () => {
  const found = await page.evaluate(() => ({
    isXL: pipe instanceof InstructPix2PixXL,
    className: pipe.info.className,
    components: Object.keys(pipe.components).sort(),
  }));
  assert.deepEqual(found, {
    isXL: true,
    className: 'StableDiffusionXLInstructPix2PixPipeline',
    components: [
      'scheduler',
      'textEncoder',
      'textEncoder2',
      'tokenizer',
      'tokenizer2',
      'unet',
      'vae',
    ],
  });
  await assertRefused(
    'unsupported',
    /StableDiffusionInstructPix2PixPipeline/,
    'InstructPix2PixXL.fromPretrained(tiny)',
  );
  await assertRefused(
    'invalid-argument',
    /isCosxlEdit/,
    'InstructPix2Pix.fromPretrained(tiny, { isCosxlEdit: true })',
  );
  await assertRefused(
    'unsupported',
    /sd.safetensors, a model of SD/,
    'InstructPix2PixXL.fromSingleFile("/whole/sd.safetensors")',
  );
});

test('a checkpoint in one file is the same model, and CosXL-Edit is sampled as it was trained', async () => {
  const found = await page.evaluate(async () => {
    const own = await latents();
    const of = async (pipe, options) => {
      const request = { ...quick, image: picture(32, 32), height: 16, width: 16, outputType: 'latent' };
      return (await pipe.edit({ ...request, ...options })).latents.data;
    };
    const found = [];
    for (const [Class, source, options] of [
      [InstructPix2PixXL, '/whole/xl.safetensors', { config: model }],
      // The file's keys decide on the class, and that on the configurations.
      [InstructPix2Pix, `${endpoint}/tests/whole/blob/main/xl.safetensors`, { endpoint }],
      [InstructPix2Pix, `${endpoint}/tests/whole/blob/main/cosxl_edit.safetensors`, { endpoint }],
    ]) {
      const other = await Class.fromSingleFile(source, { ...options, dtype: 'float32', shareWith: pipe });
      const { className, scheduler, schedulerConfig } = other.info;
      const isXL = other instanceof InstructPix2PixXL;
      const result = await of(other);
      found.push([isXL, className, scheduler, schedulerConfig.prediction_type, difference(own, result)]);
      if (options.endpoint && scheduler !== 'EDMEulerScheduler') {
        const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle('xl', { create: true });
        await other.savePretrained(directory);
        const again = await InstructPix2PixXL.fromPretrained(directory, { dtype: 'float32', shareWith: pipe });
        found.push(difference(own, await of(again)));
        await again.dispose();
      }
      await other.dispose();
    }
    return found;
  });
  const xl = [true, 'StableDiffusionXLInstructPix2PixPipeline'];
  const same = [...xl, 'EulerDiscreteScheduler', 'epsilon', 'none'];
  const cosxl = found.pop();
  assert.deepEqual(found, [same, same, 'none']);
  assert.deepEqual(cosxl.slice(0, 4), [...xl, 'EDMEulerScheduler', 'v_prediction']);
  assert.notEqual(cosxl[4], 'none');
});

test('a checkpoint in one file that was loaded once is loaded without a network, with its configurations', async () => {
  const load = (source, options) =>
    page.evaluate(async ([source, options]) => {
      const warnings = [];
      const onProgress = ({ type, code }) => {
        if (type === 'warning') warnings.push(code);
      };
      const given = { endpoint, dtype: 'float32', shareWith: pipe, onProgress, ...options };
      const other = await InstructPix2Pix.fromSingleFile(source, given);
      const request = { ...quick, image: picture(32, 32), height: 16, width: 16, outputType: 'latent' };
      const result = (await other.edit(request)).latents.data;
      await other.dispose();
      return [warnings, difference(await latents(), result)];
    }, [source, options]);
  for (const [source, options] of [
    [`${hub.url}/tests/whole/blob/main/xl.safetensors`],
    // Configurations of the same repository.
    [`${hub.url}/tests/beside/blob/main/xl.safetensors`, { config: 'tests/beside' }],
  ]) {
    assert.deepEqual(await load(source, options), [[], 'none'], source);
    await hub.reset();
    assert.deepEqual(await load(source, { ...options, localFilesOnly: true }), [[], 'none']);
    assert.deepEqual(await hub.log(), [], 'no request at all');
    await page.context().setOffline(true);
    const [warnings, difference] = await load(source, options).finally(() => page.context().setOffline(false));
    assert.deepEqual([new Set(warnings), difference], [new Set(['offline']), 'none']);
  }
});

// Of a small model with random weights, which integers change more than a trained one: the least and the most.
for (const [weightDtype, least, most] of [
  ['int8', 1e-4, 0.1],
  ['int4', 1e-3, 0.7],
]) {
  test(`weights in ${weightDtype}: edits are near those of float16, and take less of the GPU`, async () => {
    const found = await page.evaluate(async (weightDtype) => {
      const request = { ...quick, image: picture(32, 32), height: 16, width: 16, outputType: 'latent' };
      const small = await InstructPix2Pix.fromPretrained(model, { dtype: 'float32', weightDtype });
      const { info } = small;
      const { latents: { data } } = await small.edit(request);
      await small.dispose();
      const halves = await latents();
      const square = (values) => values.reduce((sum, x) => sum + x * x, 0);
      const cost = Math.sqrt(square(data.map((x, i) => x - halves[i])) / square(halves));
      const needs = (options) => InstructPix2Pix.requirements(model, options);
      const [less, all] = [await needs({ weightDtype }), await needs()].map((found) => found.model.memoryBytes);
      return { info, cost, less, all };
    }, weightDtype);
    console.log(`SDXL in ${weightDtype}: ${found.cost.toExponential(1)} from float16`);
    assert.deepEqual([found.info.weightDtype, found.info.residency], [weightDtype, 'all']);
    assert.ok(found.cost > least && found.cost < most, `${found.cost} from float16`);
    assert.ok(found.less < found.all, `${found.less} bytes in place of ${found.all}`);
  });
}

test('results are lists of pictures alone, of the size that is asked for', async () => {
  const [length, width, height] = await page.evaluate(async () => {
    const list = await edit({ width: 24, returnDict: false });
    return [list.length, list[0][0].width, list[0][0].height];
  });
  assert.deepEqual([length, width, height], [1, 24, 16]);
});

test('the legacy callback comes when an inference step has ended', async () => {
  const calls = await page.evaluate(async () => {
    const calls = { all: [], second: [], onStep: [] };
    const scheduler = 'HeunDiscreteScheduler';
    await edit({
      scheduler,
      numInferenceSteps: 3,
      callback: (step, timestep, latents) => calls.all.push([step, timestep, latents.shape]),
      onStep: ({ inferenceStep }) => void calls.onStep.push(inferenceStep ?? null),
    });
    await edit({
      scheduler,
      numInferenceSteps: 3,
      callback: (step) => calls.second.push(step),
      callbackSteps: 4,
    });
    return calls;
  });
  assert.deepEqual(calls.onStep, [null, 0, null, 1, 2]);
  assert.deepEqual(
    calls.all.map(([step, , shape]) => [step, shape]),
    [0, 1, 2].map((step) => [step, [1, 4, 8, 8]]),
  );
  // The call of the UNet counts, as in diffusers: the last one is number 4.
  assert.deepEqual(calls.second, [2]);
  await assertRefused('invalid-argument', /callbackSteps/, 'edit({ callback() {}, callbackSteps: 0 })');
});

test('encoded prompts and pictures stand for theirs', async () => {
  const found = await page.evaluate(async () => {
    const texts = { prompt: 'p', prompt2: 'q', negativePrompt: 'r' };
    const embeds = await pipe.encodePrompt(texts);
    const image = await pipe.encodeImage({ image: picture(32, 32), height: 16, width: 16 });
    const direct = await latents(texts);
    const passed = await latents({ prompt: undefined, image, ...embeds });
    return {
      names: Object.keys(embeds).sort(),
      shapes: [embeds.promptEmbeds.shape, embeds.pooledPromptEmbeds.shape, image.shape],
      same: difference(direct, passed),
      empty: difference(await latents(), await latents({ prompt2: '' })),
      other: difference(direct, await latents({ ...texts, prompt2: 'x' })) !== 'none',
    };
  });
  assert.deepEqual(found, {
    names: ['negativePooledPromptEmbeds', 'negativePromptEmbeds', 'pooledPromptEmbeds', 'promptEmbeds'],
    shapes: [[1, 77, 40], [1, 32], [1, 4, 8, 8]],
    same: 'none',
    empty: 'none',
    other: true,
  });
});

test('a pipeline is built of components, with settings of its own', async () => {
  const found = await page.evaluate(async () => {
    const own = await latents();
    const build = (settings) => new InstructPix2PixXL({ ...pipe.components, ...settings });
    const of = async (other) => {
      const options = { ...quick, image: picture(32, 32), height: 16, width: 16 };
      const { latents } = await other.edit({ ...options, outputType: 'latent' });
      await other.dispose();
      return latents.data;
    };
    return {
      same: difference(own, await of(build({}))),
      zeros: difference(own, await of(build({ forceZerosForEmptyPrompt: false }))) !== 'none',
      scaled: difference(own, await of(build({ isCosxlEdit: true }))) !== 'none',
    };
  });
  assert.deepEqual(found, { same: 'none', zeros: true, scaled: true });
  await assertRefused(
    'invalid-argument',
    /textEncoder2/,
    'new InstructPix2PixXL({ ...pipe.components, textEncoder2: undefined })',
  );
  await assertRefused('invalid-argument', /textEncoder2/, 'new InstructPix2Pix(pipe.components)');
});

test('what is left out is what diffusers takes', async () => {
  const [left, given] = await page.evaluate(async () => [
    difference(await latents(), await latents({ guidanceScale: 5, imageGuidanceScale: 1.5, guidanceRescale: 0 })),
    difference(await latents(), await latents({ guidanceScale: 7.5 })),
  ]);
  assert.equal(left, 'none');
  assert.notEqual(given, 'none');
});

test('a watermark is put into pictures that have room for it', { skip: !FULL && 'without FULL=1' }, async () => {
  const found = await page.evaluate(async () => {
    const [plain, marked] = [false, true].map(
      (addWatermarker) => new InstructPix2PixXL({ ...pipe.components, addWatermarker }),
    );
    // Whole, the VAE's attention takes minutes without a GPU.
    await Promise.all([plain, marked].map((pipe) => pipe.enableVaeTiling()));
    const warnings = [];
    const edit = async (pipe, side) => {
      const request = { ...quick, image: picture(32, 32), numInferenceSteps: 1, height: side, width: side };
      const result = await pipe.edit(request);
      warnings.push(...result.warnings);
      return result.images[0].data;
    };
    const compare = async (side) => difference(await edit(plain, side), await edit(marked, side));
    const [large, none] = [await compare(256), warnings.length];
    const small = await compare(32);
    return { large: large !== 'none', none, small, warnings };
  });
  assert.deepEqual([found.large, found.none, found.small], [true, 0, 'none']);
  assert.equal(found.warnings.length, 1);
  assert.match(found.warnings[0], /addWatermarker/);
});

test("an adapter's scale counts for one call, and what belongs to the second encoder is saved", async () => {
  const found = await page.evaluate(async () => {
    const options = { dtype: 'float32', shareWith: pipe };
    const adapted = await InstructPix2Pix.fromPretrained(model, options);
    await adapted.loadLoraWeights('/oracle/adapters/lora_xl_peft.safetensors');
    const encode = async (loraScale) => {
      const embeds = await adapted.encodePrompt({ prompt: 'make it snowy', loraScale });
      return embeds.promptEmbeds.data;
    };
    const whole = await encode(1);
    const half = await encode(0.5);
    const again = await encode(1);
    const saved = new Uint8Array(await (await adapted.saveLoraWeights()).arrayBuffer());
    const length = Number(new DataView(saved.buffer).getBigUint64(0, true));
    const keys = Object.keys(JSON.parse(new TextDecoder().decode(saved.subarray(8, 8 + length))));
    await adapted.dispose();
    const of = (prefix) => keys.some((key) => key.startsWith(prefix));
    return {
      half: difference(whole, half) !== 'none',
      again: difference(whole, again),
      saved: ['unet.', 'text_encoder.', 'text_encoder_2.'].map(of),
    };
  });
  assert.deepEqual(found, { half: true, again: 'none', saved: [true, true, true] });
});

test('within a memory budget models take turns, and give the same pictures', async () => {
  const found = await page.evaluate(async () => {
    const options = { dtype: 'float32', memoryBudget: 5e6, shareWith: pipe };
    const small = await InstructPix2Pix.fromPretrained(model, options);
    const texts = { prompt: 'p', prompt2: 'q' };
    const request = { ...quick, ...texts, image: picture(32, 32), height: 16, width: 16 };
    const { latents: own } = await small.edit({ ...request, outputType: 'latent' });
    const again = await small.edit({ ...request, outputType: 'latent' });
    const refused = await attempt(small.encodePrompt(texts));
    const residency = small.info.residency;
    await small.dispose();
    const all = await latents(texts);
    return {
      residency: [residency, pipe.info.residency],
      same: [difference(own.data, all), difference(again.latents.data, all)],
      refused: refused.code,
    };
  });
  assert.deepEqual(found, {
    residency: ['inTurn', 'all'],
    same: ['none', 'none'],
    refused: 'unsupported',
  });
  await assertRefused(
    'invalid-argument',
    /memoryBudget/,
    'InstructPix2Pix.fromPretrained(model, { memoryBudget: 1000 })',
  );
});

test('models of a checkpoint in one file take turns within a memory budget, and give the same pictures', async () => {
  const found = await page.evaluate(async () => {
    const request = { ...quick, image: picture(32, 32), height: 16, width: 16, outputType: 'latent' };
    const file = await (await fetch('/whole/cosxl_edit.safetensors')).blob();
    const found = [];
    for (const [source, options] of [
      [`${endpoint}/tests/whole/blob/main/cosxl_edit.safetensors`, { endpoint }],
      // A file of the user's own is read again where it is.
      [new File([file], 'cosxl_edit.safetensors'), { endpoint }],
    ]) {
      const of = async (more) => {
        const events = [];
        const onProgress = ({ type, code }) => {
          if (type === 'warning') events.push(code);
        };
        const given = { ...options, dtype: 'float32', shareWith: pipe, onProgress, ...more };
        const other = await InstructPix2Pix.fromSingleFile(source, given);
        const { residency, scheduler } = other.info;
        const results = [];
        for (let i = 0; i < 2; i++) results.push((await other.edit(request)).latents.data);
        await other.dispose();
        return { residency, scheduler, events, results };
      };
      // One that is large enough for all is heeded, too.
      const [all, turns] = [await of({ memoryBudget: 1e9 }), await of({ memoryBudget: 5e6 })];
      found.push([
        [all.residency, turns.residency],
        [all.scheduler, turns.scheduler],
        [...all.events, ...turns.events],
        turns.results.map((result) => difference(all.results[0], result)),
      ]);
    }
    return found;
  });
  const schedulers = ['EDMEulerScheduler', 'EDMEulerScheduler'];
  const same = [['all', 'inTurn'], schedulers, [], ['none', 'none']];
  assert.deepEqual(found, [same, same]);
  await assertRefused(
    'invalid-argument',
    /memoryBudget: 1000 bytes; .* take \d+ at least/,
    'InstructPix2Pix.fromSingleFile("/whole/xl.safetensors", { config: model, memoryBudget: 1000 })',
  );
});

test("a LoRA in the names of Stability's blocks gives the latents of diffusers", { skip: !FULL && 'without FULL=1' }, async () => {
  // Of gen_xl_extras.py, as the edit.
  const golden = readSafetensors(readFileSync(`${fixtures}/xl_extras.safetensors`)).sgm_beside_attention.data;
  const found = await page.evaluate(async () => {
    const options = { dtype: 'float32', weightDtype: 'float32', shareWith: pipe };
    const exact = await InstructPix2Pix.fromPretrained(model, options);
    await exact.loadLoraWeights('/fixtures/lora_xl_sgm.safetensors');
    const image = new ImageData(32, 32);
    image.data.fill(255);
    for (let i = 0; i < 32 * 32 * 3; i++) image.data[i + Math.floor(i / 3)] = (i * 7) % 251;
    const request = { prompt: 'make it snowy', image, height: 32, width: 32, seed: 7 };
    const { latents } = await exact.edit({ ...request, numInferenceSteps: 2, outputType: 'latent' });
    await exact.dispose();
    return [...latents.data];
  });
  assert.equal(found.length, golden.length);
  const largest = (values) => values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const peak = largest(found.map((x, i) => x - golden[i])) / largest(golden);
  console.log(`SDXL with a LoRA: latents peak ${peak.toExponential(1)}`);
  assert.ok(peak <= 1e-4);
});

test('options that are not for the model, or that are no sizes, are refused', async () => {
  const cases = [
    ['aestheticScore', 'edit({ aestheticScore: 6 })'],
    ['denoisingEnd', 'edit({ denoisingEnd: 2 })'],
    ['guidanceRescale', 'edit({ guidanceRescale: -1 })'],
    ['height', 'edit({ height: 4 })'],
    ['height', 'edit({ height: 16.5 })'],
    ['originalSize', 'edit({ originalSize: 16 })'],
    ['pooledPromptEmbeds', 'edit({ prompt: undefined, promptEmbeds: { data: new Float32Array(77 * 40), shape: [1, 77, 40] } })'],
    ['prompt2', 'worker().then((pipe) => pipe.edit({ ...quick, image: picture(), prompt2: "p" }))'],
    ['textEncoder', 'pipe.loadTextualInversion(new Uint8Array(8), { textEncoder: 3 })'],
  ];
  for (const [argument, run] of cases) {
    await assertRefused('invalid-argument', new RegExp(argument), run);
  }
  assert.deepEqual(problems, []);
});
