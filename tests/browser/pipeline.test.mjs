/** What diffusers' pipeline does beside the plain edit, through the package, on software WebGPU. */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { endAfterMinutes, repository } from './harness.mjs';
import { openSite } from './site.mjs';

endAfterMinutes(40);

let assertRefused, close, page, problems;

before(async () => {
  ({ assertRefused, close, page, problems } = await openSite({
    '/adapters': `${repository}tests/fixtures/oracle/adapters`,
  }));
  await page.evaluate(async () => {
    // One load for all tests; each leaves the pipeline as it found it.
    window.pipe = await worker();
    window.edit = (options) => pipe.edit({ ...quick, image: picture(16, 16), ...options });
    window.bytes = async (options) => (await edit(options)).images[0].data;
  });
});

after(() => close?.());

describe('inputs', () => {
  test('several prompts and pictures, each with its seed, are edits of their own', async () => {
    const found = await page.evaluate(async () => {
      const [a, b] = [picture(16, 16), picture(16, 16)];
      b.data.reverse();
      for (let i = 3; i < b.data.length; i += 4) b.data[i] = 255;
      const prompt = ['make it snowy', 'turn it into a cartoon'];
      const both = await edit({ image: [a, b], prompt, seed: [1, 2] });
      const alone = [
        await bytes({ image: a, prompt: prompt[0], seed: 1 }),
        await bytes({ image: b, prompt: prompt[1], seed: 2 }),
      ];
      const peak = (x, y) => x.reduce((max, value, i) => Math.max(max, Math.abs(value - y[i])), 0);
      return {
        peaks: both.images.map(({ data }, i) => peak(data, alone[i])),
        apart: peak(...alone),
      };
    });
    assert.equal(found.peaks.length, 2);
    for (const peak of found.peaks) assert.ok(peak <= 1, `${peak} levels`);
    assert.ok(found.apart > 1, 'the two differ');
  });

  test('prompts and pictures that are encoded once serve many edits', async () => {
    const found = await page.evaluate(async () => {
      const image = picture(16, 16);
      const embeds = await pipe.encodePrompt({ prompt: quick.prompt });
      const latents = await pipe.encodeImage({ image });
      const whole = await bytes({ image });
      const parts = await bytes({ image: latents, prompt: undefined, ...embeds });
      return {
        same: difference(whole, parts),
        shapes: [embeds.promptEmbeds.shape, embeds.negativePromptEmbeds.shape, latents.shape],
      };
    });
    assert.equal(found.same, 'none');
    assert.deepEqual(found.shapes, [[1, 77, 16], [1, 77, 16], [1, 4, 8, 8]]);
  });

  test('what contradicts itself is refused', async () => {
    const cases = [
      ['promptEmbeds', 'edit({ promptEmbeds: { data: new Float32Array(1232), shape: [1, 77, 16] } })'],
      ['prompt', 'edit({ prompt: undefined })'],
      ['promptEmbeds', 'edit({ prompt: undefined, promptEmbeds: { data: new Float32Array(3), shape: [1, 77, 16] } })'],
      ['image', 'edit({ image: [picture(16, 16), picture(24, 16)], prompt: ["a", "b"] })'],
      ['image', 'edit({ image: [picture(16, 16), picture(16, 16)] })'],
      ['seed', 'edit({ seed: [1, 2, 3] })'],
      ['outputType', 'edit({ outputType: "pil" })'],
      ['numImagesPerPrompt', 'edit({ numImagesPerPrompt: 0.5 })'],
      ['onStepTensorInputs', 'edit({ onStepTensorInputs: ["noise"] })'],
      ['onStep', 'edit({ onStep: () => ({ noise: 1 }) })'],
      ['latents', 'edit({ onStep: () => ({ latents: { data: new Float32Array(4), shape: [1, 4, 1, 1] } }) })'],
      ['sigmas', 'edit({ timesteps: [500], sigmas: [1, 0] })'],
      ['crossAttentionKwargs|gain', 'edit({ crossAttentionKwargs: { gain: 1 } })'],
    ];
    for (const [argument, run] of cases) {
      await assertRefused('invalid-argument', new RegExp(argument), run);
    }
  });
});

describe('outputs', () => {
  test('come as pictures, files, samples or latents', async () => {
    const found = await page.evaluate(async () => {
      const { images: [image], latents } = await edit();
      const { images: np } = await edit({ outputType: 'np' });
      const { images: pt } = await edit({ outputType: 'pt' });
      const { images: latent } = await edit({ outputType: 'latent' });
      const { images: [blob] } = await edit({ outputType: 'blob' });
      const bitmap = await createImageBitmap(blob);
      const context = new OffscreenCanvas(16, 16).getContext('2d');
      context.drawImage(bitmap, 0, 0);
      const list = await edit({ outputType: 'latent', returnDict: false });
      const off = (i, value) => Math.abs(value * 255 - image.data[Math.floor(i / 3) * 4 + (i % 3)]);
      return {
        shapes: [np.shape, pt.shape, latent.shape],
        np: Math.max(...np.data.map((value, i) => off(i, value))),
        pt: Math.max(
          ...np.data.map((value, i) => Math.abs(value - pt.data[(i % 3) * 256 + Math.floor(i / 3)])),
        ),
        latent: difference(latent.data, latents.data),
        blob: [blob.type, difference(context.getImageData(0, 0, 16, 16).data, image.data)],
        list: [list.length, difference(list[0].data, latents.data), list[1]],
      };
    });
    assert.deepEqual(found.shapes, [[1, 16, 16, 3], [1, 3, 16, 16], [1, 4, 8, 8]]);
    assert.ok(found.np <= 0.5001, `${found.np} levels`);
    assert.equal(found.pt, 0);
    assert.equal(found.latent, 'none');
    assert.deepEqual(found.blob, ['image/png', 'none']);
    assert.deepEqual(found.list, [2, 'none', undefined]);
  });

  test('a verdict of the caller’s own blackens', async () => {
    const found = await page.evaluate(async () => {
      const seen = [];
      await pipe.setSafetyChecker(async (image) => seen.push([image.width, image.height]) > 0);
      const { images, nsfwContentDetected } = await edit();
      await pipe.setSafetyChecker(false);
      const after = await edit();
      const isBlack = ({ data }) => data.every((value, i) => value === (i % 4 === 3 ? 255 : 0));
      return {
        seen,
        nsfwContentDetected,
        black: isBlack(images[0]),
        after: [isBlack(after.images[0]), after.nsfwContentDetected],
      };
    });
    assert.deepEqual(found, {
      seen: [[16, 16]],
      nsfwContentDetected: [true],
      black: true,
      after: [false, undefined],
    });
  });

  test('what may be a mistake is warned of', async () => {
    const { warnings } = await page.evaluate(async () => edit({ imageGuidanceScale: 0.5 }));
    assert.equal(warnings.length, 1);
    assert.match(warnings[0], /imageGuidanceScale 0.5/);
  });
});

test('onStep sees tensors, and the edit goes on with those that it returns', async () => {
  const found = await page.evaluate(async () => {
    const names = ['latents', 'promptEmbeds', 'imageLatents'];
    const events = [];
    const numInferenceSteps = 2;
    const plain = await bytes({ numInferenceSteps });
    const onStep = async (event) => {
      events.push(event);
      await new Promise((resolve) => setTimeout(resolve, 10));
      return Object.fromEntries(names.map((name) => [name, event[name]]));
    };
    const same = await bytes({ numInferenceSteps, onStep, onStepTensorInputs: names });
    const zero = ({ latents: { data, shape } }) => ({
      latents: { data: new Float32Array(data.length), shape },
    });
    const changed = await edit({ numInferenceSteps, onStep: zero, outputType: 'latent' });
    return {
      same: difference(plain, same),
      shapes: names.map((name) => events[0][name].shape),
      zero: changed.images.data.every((value) => value === 0),
      none: await edit({
        numInferenceSteps: 1,
        onStepTensorInputs: [],
        onStep: (event) => void events.push(event),
      }).then(() => events.at(-1).latents),
    };
  });
  assert.equal(found.same, 'none');
  assert.deepEqual(found.shapes, [[1, 4, 8, 8], [3, 77, 16], [3, 4, 8, 8]]);
  assert.ok(found.zero, 'the last step’s replacement is the result');
  assert.equal(found.none, undefined);
});

describe('components', () => {
  test('are shared by pipelines, each with a scheduler of its own', async () => {
    const found = await page.evaluate(async () => {
      const ddim = await bytes({ scheduler: 'DDIMScheduler' });
      const { components } = pipe;
      const other = new InstructPix2Pix({
        ...components,
        scheduler: 'DDIMScheduler',
        requiresSafetyChecker: false,
      });
      const image = picture(16, 16);
      const shared = (await other.edit({ ...quick, image })).images[0].data;
      await other.setScheduler('EulerAncestralDiscreteScheduler');
      const own = (await other.edit({ ...quick, image })).images[0].data;
      await other.dispose();
      return {
        names: Object.keys(components),
        ddim: difference(ddim, shared),
        own: difference(await bytes(), own),
        scheduler: [pipe.info.scheduler, other.info.scheduler],
        disposed: await attempt(other.edit({ ...quick, image })),
      };
    });
    assert.deepEqual(found.names, ['vae', 'textEncoder', 'tokenizer', 'unet', 'scheduler']);
    assert.equal(found.ddim, 'none');
    assert.equal(found.own, 'none', 'and disposing of one leaves the other alone');
    const euler = 'EulerAncestralDiscreteScheduler';
    assert.deepEqual(found.scheduler, [euler, euler]);
    assert.equal(found.disposed.code, 'disposed');
  });

  test('that are missing or misplaced are refused, and a missing checker is warned of', async () => {
    const build = (change) => `new InstructPix2Pix({ ...pipe.components, ${change} })`;
    const cases = [
      [/unet/, build('unet: undefined')],
      [/vae/, build('vae: pipe.components.unet')],
      [/featureExtractor/, build('safetyChecker: Object.assign(Object.create(Component.prototype), { name: "safetyChecker" })')],
      [/safetyChecker/, build('safetyChecker: {}')],
      [/colour/, build('colour: {}')],
    ];
    for (const [message, run] of cases) await assertRefused('invalid-argument', message, run);
    await assertRefused('unsupported', /Nonsense/, 'pipe.setScheduler("Nonsense")');
    const warned = await page.evaluate(async () => {
      const { warn } = console;
      const warnings = [];
      console.warn = (text) => warnings.push(text);
      const made = [true, false].map(
        (requiresSafetyChecker) => new InstructPix2Pix({ ...pipe.components, requiresSafetyChecker }),
      );
      console.warn = warn;
      await Promise.all(made.map((each) => each.dispose()));
      return warnings;
    });
    assert.equal(warned.length, 1);
    assert.match(warned[0], /safety checker/);
  });
});

describe('whole models', () => {
  test('are saved, and loaded again from what was written', async () => {
    const found = await page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const directory = await root.getDirectoryHandle('saved', { create: true });
      await pipe.savePretrained(directory);
      const paths = [];
      const walk = async (folder, prefix) => {
        for await (const [name, handle] of folder.entries()) {
          if (handle.kind === 'directory') await walk(handle, `${prefix}${name}/`);
          else paths.push(prefix + name);
        }
      };
      await walk(directory, '');
      const again = await InstructPix2Pix.fromPretrained(directory);
      const { images } = await again.edit({ ...quick, image: picture(16, 16) });
      await again.dispose();
      return { paths, same: difference(await bytes(), images[0].data) };
    });
    assert.ok(found.paths.includes('unet/diffusion_pytorch_model.safetensors'), `${found.paths}`);
    assert.equal(found.same, 'none');
  });

  test('take given components in place of their own', async () => {
    const found = await page.evaluate(async () => {
      const { vae, textEncoder, tokenizer, unet } = pipe.components;
      const downloads = [];
      const onProgress = ({ type, component }) => type === 'download' && downloads.push(component);
      const given = { vae, textEncoder, tokenizer, unet };
      const other = await InstructPix2Pix.fromPretrained(tiny, { ...given, onProgress });
      const { images } = await other.edit({ ...quick, image: picture(16, 16) });
      await other.dispose();
      return {
        downloads,
        same: difference(await bytes(), images[0].data),
        misplaced: await attempt(InstructPix2Pix.fromPretrained(tiny, { vae: unet })),
      };
    });
    assert.deepEqual(found.downloads, []);
    assert.equal(found.same, 'none');
    assert.equal(found.misplaced.code, 'invalid-argument');
  });

  test('are downloaded without a GPU', async () => {
    const found = await page.evaluate(async () => {
      const events = [];
      await InstructPix2Pix.download(tiny, { onProgress: (event) => events.push(event) });
      const kept = await cache.list();
      const denied = await attempt(InstructPix2Pix.download('/no/such/model'));
      return { last: events.at(-1).type, kept: kept.map(({ complete }) => complete), denied };
    });
    assert.equal(found.last, 'ready');
    assert.ok(found.kept.includes(true));
    assert.equal(found.denied.code, 'not-found');
  });

  test('in one file need safetensors', async () => {
    await assertRefused(
      'unsupported',
      /safetensors/,
      'InstructPix2Pix.fromSingleFile(new File(["x"], "model.ckpt"), { config: tiny })',
    );
    await assertRefused(
      'invalid-safetensors',
      /model\.safetensors/,
      'InstructPix2Pix.fromSingleFile(new Blob(["no safetensors at all"]), { config: tiny })',
    );
  });
});

describe('LoRA', () => {
  test('is loaded from addresses, files and bytes, weighted, switched off and taken away', async () => {
    const found = await page.evaluate(async () => {
      const url = '/adapters/lora_peft.safetensors';
      const file = await (await fetch(url)).blob();
      const plain = await bytes();
      const toy = await pipe.loadLoraWeights(url, { adapterName: 'toy' });
      const full = await bytes();
      const scaled = await bytes({ crossAttentionKwargs: { scale: 0.5 } });
      await pipe.setAdapters('toy', 0.5);
      const half = await bytes();
      // The same weight of every component is the weight; of the UNet alone it is not.
      await pipe.setAdapters('toy', { textEncoder: 0.5, unet: 0.5 });
      const parted = await bytes();
      await pipe.setAdapters('toy', [{ unet: 0.5 }]);
      const partly = await bytes();
      const wrong = await attempt(pipe.setAdapters('toy', { unet: { down: { block_9: 1 } } }));
      const misspelt = await attempt(pipe.setAdapters('toy', { unett: 1 }));
      await pipe.setAdapters('toy', 0.5);
      await pipe.disableLora();
      const off = await bytes();
      await pipe.enableLora();
      const names = [await pipe.getListAdapters(), await pipe.getActiveAdapters()];
      await pipe.deleteAdapters('toy');
      const { adapterName } = await pipe.loadLoraWeights(await file.arrayBuffer());
      const again = await bytes();
      await pipe.fuseLora();
      await pipe.unfuseLora();
      const saved = await pipe.saveLoraWeights({ adapterName });
      await pipe.unloadLoraWeights();
      await pipe.loadLoraWeights(new File([saved], 'toy.safetensors'));
      const reloaded = await bytes();
      await pipe.unloadLoraWeights();
      const far = (a, b) => a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i])), 0);
      return {
        toy,
        names,
        moved: [full, scaled, half].map((each) => far(each, plain) > 0),
        unlike: far(full, half) > 0 && far(partly, half) > 0,
        parted: far(parted, half),
        wrong,
        misspelt,
        same: [off, await bytes()].map((each) => far(each, plain)),
        again: [far(again, full), far(reloaded, full)],
      };
    });
    assert.deepEqual(found.toy, { adapterName: 'toy', unusedKeys: [] });
    assert.deepEqual(found.names, [{ text_encoder: ['toy'], unet: ['toy'] }, ['toy']]);
    assert.deepEqual([found.moved, found.unlike, found.parted], [[true, true, true], true, 0]);
    assert.equal(found.wrong.code, 'invalid-argument');
    assert.match(found.wrong.message, /adapterWeights.*block_9/);
    assert.match(found.misspelt.message, /adapterWeights.*a number or an object with `textEncoder`/);
    assert.deepEqual([found.same, found.again], [[0, 0], [0, 0]]);
  });

  test('of layers given is written to a folder', async () => {
    const found = await page.evaluate(async () => {
      const saveDirectory = await navigator.storage.getDirectory();
      const tensor = (rows, columns) => ({
        data: new Float32Array(rows * columns).fill(0.25),
        shape: [rows, columns],
      });
      const unetLoraLayers = { 'x.lora_A.weight': tensor(2, 4), 'x.lora_B.weight': tensor(4, 2) };
      const blob = await pipe.saveLoraWeights({ unetLoraLayers, saveDirectory, weightName: 'w' });
      const file = await (await saveDirectory.getFileHandle('w')).getFile();
      const calls = [];
      const saveFunction = (bytes, name) => void calls.push([bytes.length, name]);
      await pipe.saveLoraWeights({ unetLoraLayers, saveFunction });
      const pickled = { unetLoraLayers, safeSerialization: false };
      await pipe.saveLoraWeights({ ...pickled, saveFunction });
      const zip = new Uint8Array(await (await pipe.saveLoraWeights(pickled)).arrayBuffer());
      // It is read, and no layer has such a name.
      const again = await attempt(pipe.loadLoraWeights(zip));
      const header = (await file.slice(8).text()).replace(/\}[^}]*$/, '}');
      const names = calls.map(([, name]) => name);
      return { sizes: [blob.size, file.size, calls[0][0]], names, header, again };
    });
    assert.equal(new Set(found.sizes).size, 1);
    const stem = 'pytorch_lora_weights';
    assert.deepEqual(found.names, [`${stem}.safetensors`, `${stem}.bin`]);
    assert.equal(found.again.code, 'unknown-keys', found.again.message);
    assert.match(found.header, /"unet\.x\.lora_A\.weight"/);
  });

  test('that does not fit is refused', async () => {
    const load = (file, options = '{}') => `pipe.loadLoraWeights('/adapters/${file}', ${options})`;
    await assertRefused('unknown-keys', /./, load('ti_single.safetensors'));
    await assertRefused('not-found', /pytorch_lora_weights/, load(''));
    await assertRefused('invalid-argument', /colour/, load('x.bin', '{ colour: 1 }'));
    await assertRefused('invalid-argument', /source/, 'pipe.loadLoraWeights(7)');
    await assertRefused('invalid-argument', /nobody/, 'pipe.setAdapters("nobody")');
    await assertRefused('invalid-argument', /adapter/, 'pipe.saveLoraWeights()');
    const pickle = '[0x80, 2, ...new TextEncoder().encode("cposix\\nsystem\\n"), 0x2e]';
    await assertRefused('invalid-pickle', /posix/, `pipe.loadLoraWeights(new Uint8Array(${pickle}))`);
  });
});

describe('textual inversion', () => {
  test('teaches words, and forgets them', async () => {
    const found = await page.evaluate(async () => {
      const prompt = 'a photo of <one> and <two>';
      const plain = await bytes({ prompt });
      const sources = ['/adapters/ti_single.safetensors', '/adapters/ti_a1111.pt'];
      const added = await pipe.loadTextualInversion(sources, { token: ['<one>', '<two>'] });
      const taught = await bytes({ prompt });
      const twice = await attempt(pipe.loadTextualInversion(sources[0], { token: '<one>' }));
      await pipe.unloadTextualInversion('<two>');
      await pipe.unloadTextualInversion();
      return {
        added,
        twice,
        moved: difference(plain, taught) !== 'none',
        back: difference(plain, await bytes({ prompt })),
      };
    });
    assert.ok(found.added.includes('<one>') && found.added.includes('<two>'), `${found.added}`);
    assert.equal(found.twice.code, 'invalid-argument');
    assert.deepEqual([found.moved, found.back], [true, 'none']);
  });

  test('takes a state dict', async () => {
    const added = await page.evaluate(async () => {
      const vector = (value) => new Float32Array(16).fill(value);
      const state = { '<dict>': { data: new Float32Array([...vector(1), ...vector(2)]), shape: [2, 16] } };
      const added = await pipe.loadTextualInversion(state);
      await pipe.unloadTextualInversion();
      return added;
    });
    assert.deepEqual(added, ['<dict>', '<dict>_1']);
    await assertRefused('invalid-argument', /source/, 'pipe.loadTextualInversion({ "<dict>": 1 })');
    const short = '{ "<dict>": { data: new Float32Array(3), shape: [16] } }';
    await assertRefused('invalid-argument', /3 numbers/, `pipe.loadTextualInversion(${short})`);
  });

  test('that does not fit is refused', async () => {
    const both = '{ localFilesOnly: true, forceDownload: true }';
    await assertRefused('invalid-argument', /forceDownload/, `pipe.loadTextualInversion("a/b", ${both})`);
    const two = '["/adapters/ti_single.safetensors", "/adapters/ti_multi.safetensors"]';
    await assertRefused('invalid-argument', /token/, `pipe.loadTextualInversion(${two}, { token: '<x>' })`);
    await assertRefused('invalid-argument', /nobody/, 'pipe.unloadTextualInversion("<nobody>")');
    await assertRefused('not-found', /learned_embeds/, 'pipe.loadTextualInversion("/adapters")');
  });
});

test('FreeU changes the result, and goes away', async () => {
  const found = await page.evaluate(async () => {
    const plain = await bytes();
    await pipe.enableFreeU({ s1: 0.9, s2: 0.2, b1: 1.5, b2: 1.6 });
    const freed = await bytes();
    await pipe.disableFreeU();
    return [difference(plain, freed) !== 'none', difference(plain, await bytes())];
  });
  assert.deepEqual(found, [true, 'none']);
  await assertRefused('invalid-argument', /b2/, 'pipe.enableFreeU({ s1: 1, s2: 1, b1: 1 })');
  await assertRefused('invalid-argument', /finite/, 'pipe.enableFreeU({ s1: NaN, s2: 1, b1: 1, b2: 1 })');
});

test('nothing was left uncaught', () => {
  const uncaught = problems.filter((problem) => problem.startsWith('uncaught'));
  assert.deepEqual(uncaught, []);
});
