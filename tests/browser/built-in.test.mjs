/**
 * The model that the demo ships with, in Chromium on software WebGPU: edits of photographs that training never saw,
 * against those of diffusers in float32. `tests/fixtures/built_in` is made by `tests/training/fixtures.py`.
 *
 * With FULL=1 all of them; one otherwise.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { endAfterMinutes, fromBase64, readSafetensors, repository } from './harness.mjs';
import { openSite } from './site.mjs';

/** Of the latents’ root mean square; on the CPU it is 1.2e-6 at most, here 7.6e-7 was seen. */
const MOST_DISTANCE = 1e-5;
const MOST_LEVELS = 1;

const fixtures = `${repository}tests/fixtures/built_in/`;
const goldens = readSafetensors(readFileSync(`${fixtures}latents.safetensors`));
const all = JSON.parse(readFileSync(`${fixtures}cases.json`, 'utf8'));
const cases = process.env.FULL === '1' ? all : all.slice(0, 1);

endAfterMinutes(20);

let close, page, problems;

before(async () => {
  ({ close, page, problems } = await openSite({ '/fixtures': fixtures }));
  await page.evaluate(async () => {
    window.pipe = await InstructPix2Pix.fromPretrained('/models/built-in', { dtype: 'float32' });
    window.fetchBlob = async (path) => (await fetch(`/fixtures/${path}`)).blob();
    window.toBase64 = (view) => {
      let text = '';
      for (const byte of new Uint8Array(view.buffer, view.byteOffset, view.byteLength)) {
        text += String.fromCharCode(byte);
      }
      return btoa(text);
    };
  });
});

after(() => close?.());

/** The root of the mean square difference, against that of `golden` itself. */
function distance(ours, golden) {
  assert.equal(ours.length, golden.length);
  const square = (values) => values.reduce((sum, x) => sum + x * x, 0);
  return Math.sqrt(square(ours.map((x, i) => x - golden[i])) / square(golden));
}

for (const { name, photo, output, ...settings } of cases) {
  test(`${name}: the latents and the picture are those of diffusers`, async () => {
    const found = await page.evaluate(
      async ({ photo, output, settings }) => {
        const { prompt, seed, numInferenceSteps, guidanceScale, imageGuidanceScale } = settings;
        let last;
        const { images } = await pipe.edit({
          image: await fetchBlob(photo),
          prompt,
          seed,
          numInferenceSteps,
          guidanceScale,
          imageGuidanceScale,
          onStepTensorInputs: ['latents'],
          onStep: ({ latents }) => void (last = latents),
        });
        const bitmap = await createImageBitmap(await fetchBlob(output), {
          colorSpaceConversion: 'none',
        });
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
        context.drawImage(bitmap, 0, 0);
        const expected = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
        const levels = images[0].data.map((value, i) => Math.abs(value - expected[i]));
        return {
          dtype: pipe.info.dtype,
          latents: toBase64(last.data),
          sizes: [images[0].data.length, expected.length],
          levels: Math.max(...levels),
        };
      },
      { photo, output, settings },
    );
    assert.equal(found.dtype, 'float32');
    const latents = new Float32Array(fromBase64(found.latents).buffer);
    const far = distance(latents, goldens[name].data);
    console.log(`${name}: latents ${far.toExponential(1)}, picture ${found.levels} levels`);
    assert.ok(far <= MOST_DISTANCE, `${far} from diffusers' latents`);
    assert.equal(...found.sizes);
    assert.ok(found.levels <= MOST_LEVELS, `${found.levels} levels from diffusers' picture`);
    assert.deepEqual(problems, []);
  });
}
