/** Weights in integers of 8 and 4 bits, through the package, on software WebGPU. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { endAfterMinutes, repository } from './harness.mjs';
import { openSite } from './site.mjs';

endAfterMinutes(30);

let close, page, problems;

before(async () => {
  ({ close, page, problems } = await openSite({
    '/adapters': `${repository}tests/fixtures/oracle/adapters`,
  }));
  await page.evaluate(async () => {
    window.latents = async (pipe) => {
      const { images } = await pipe.edit({ ...quick, image: picture(16, 16), outputType: 'latent' });
      return images.data;
    };
    /** The root of the mean square difference, against that of `b`. */
    window.distance = (a, b) => {
      const square = (values) => values.reduce((sum, x) => sum + x * x, 0);
      return Math.sqrt(square(a.map((x, i) => x - b[i])) / square(b));
    };
    const pipe = await InstructPix2Pix.fromPretrained(tiny);
    window.halves = await latents(pipe);
    await pipe.dispose();
  });
});

after(() => close?.());

// Of a small model with random weights, which integers change more than a trained one: the least and the most.
const CASES = [
  ['int8', 1e-4, 0.1],
  ['int4', 1e-3, 0.7],
];

for (const [weightDtype, least, most] of CASES) {
  test(`${weightDtype}: edits are near those of float16, and those of the model that is saved`, async () => {
    const found = await page.evaluate(async (weightDtype) => {
      const pipe = await InstructPix2Pix.fromPretrained(tiny, { weightDtype });
      const { info } = pipe;
      const plain = await latents(pipe);
      // The weights that the integers stand for.
      const root = await navigator.storage.getDirectory();
      const directory = await root.getDirectoryHandle(weightDtype, { create: true });
      await pipe.savePretrained(directory);
      const saved = await InstructPix2Pix.fromPretrained(directory);
      const again = await latents(saved);
      await saved.dispose();
      // Adapters are fused into floats, and the integers come back as they were.
      await pipe.loadLoraWeights('/adapters/lora_peft.safetensors', { adapterName: 'toy' });
      const beside = await latents(pipe);
      await pipe.fuseLora();
      const fused = await latents(pipe);
      await pipe.unfuseLora();
      await pipe.unloadLoraWeights();
      const back = await latents(pipe);
      await pipe.dispose();
      return {
        info,
        cost: distance(plain, halves),
        saved: distance(again, plain),
        adapted: distance(beside, plain),
        fused: distance(fused, beside),
        back: difference(back, plain),
      };
    }, weightDtype);
    console.log(`${weightDtype}: ${found.cost.toExponential(1)} from float16, ${found.saved.toExponential(1)} when saved`);
    assert.equal(found.info.weightDtype, weightDtype);
    assert.ok(found.cost > least && found.cost < most, `${found.cost} from float16`);
    // Halves round what an integer times its scale is.
    assert.ok(found.saved < 1e-2, `${found.saved} from the model that was saved`);
    assert.ok(found.fused < found.adapted / 5, `${found.fused} by fusing, ${found.adapted} by the adapter`);
    assert.equal(found.back, 'none');
    assert.deepEqual(problems, []);
  });
}

test('they take less of the GPU, and other names are refused', async () => {
  const found = await page.evaluate(async () => {
    const needs = {};
    for (const weightDtype of ['float32', 'float16', 'int8', 'int4']) {
      const { model } = await InstructPix2Pix.requirements('/models/built-in', { weightDtype });
      needs[weightDtype] = model.memoryBytes;
    }
    return { needs, refused: await attempt(InstructPix2Pix.fromPretrained(tiny, { weightDtype: 'int2' })) };
  });
  const { float32, float16, int8, int4 } = found.needs;
  // The token table and the VAE stay in halves.
  assert.ok(float16 < 0.51 * float32 && int8 < 0.75 * float16 && int4 < 0.85 * int8, JSON.stringify(found.needs));
  assert.equal(found.refused.code, 'invalid-argument');
  assert.match(found.refused.message, /weightDtype|int4/);
});
