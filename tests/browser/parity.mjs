/**
 * Compares edits made by the built package, in headless Chromium, with those of diffusers.
 *
 *   node parity.mjs DIR [--only NAME]...
 *
 * DIR holds `cases.json` and what it names (`tests/fixtures/oracle` is such a folder); NAME is a
 * case, or the beginning of several. Prints a line per case and the sum; exits with 1 on a failure.
 */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { parse, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { folder, launch, openPage, pkg, readSafetensors, serve, toBase64 } from './harness.mjs';

/** Of the largest absolute value of the golden latents. */
const LATENTS_TOLERANCE = 1e-4;
/** Levels of 0 to 255. */
const IMAGE_TOLERANCE = 1;

/** Arguments of the pipeline's call, and the names of the package's options. */
const CALL = {
  prompt: 'prompt',
  negative_prompt: 'negativePrompt',
  num_inference_steps: 'numInferenceSteps',
  guidance_scale: 'guidanceScale',
  image_guidance_scale: 'imageGuidanceScale',
  eta: 'eta',
};
/** What describes every case. Anything else is a feature of its own. */
const KEYS = [
  'name',
  'pipeline',
  'model',
  'file',
  'scheduler_class',
  'scheduler_config',
  'scheduler_from_model_folder',
  'init_noise_sigma',
  'call',
  'image_kind',
  'nsfw_content_detected',
  'callback_on_step_end_calls',
  'legacy_callback_calls',
  'component_dirs',
  'tensors',
];

class Unsupported extends Error {}

const { values, positionals } = parseArgs({
  options: { only: { type: 'string', multiple: true, default: [''] } },
  allowPositionals: true,
});
if (positionals.length !== 1) fail('usage: parity.mjs DIR [--only NAME]...');
const [directory] = positionals.map((path) => resolve(path));

const { cases } = readPythonJson(`${directory}/cases.json`);
const chosen = [...cases, ...withoutEdit()].filter(({ name }) =>
  values.only.some((beginning) => name.startsWith(beginning)),
);
if (chosen.length === 0) fail(`no case begins with ${values.only.join(' or ')}`);

const server = await serve(`${folder}site`, { '/pkg': pkg, '/oracle': directory });
const browser = await launch();
const { page } = await openPage(browser, server.url);
const count = { ok: 0, FAIL: 0, skip: 0 };
for (const item of chosen) {
  const start = performance.now();
  const { outcome, text } = await run(item);
  count[outcome]++;
  const time = ((performance.now() - start) / 1000).toFixed(1);
  const after = outcome === 'skip' ? '' : ` [${time} s]`;
  console.log(`${outcome.padEnd(4)} ${item.name}: ${text}${after}`);
}
await browser.close();
server.close();
console.log(`${count.ok} passed, ${count.FAIL} failed, ${count.skip} skipped`);
process.exitCode = count.FAIL > 0 ? 1 : 0;

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** Python's JSON has infinities, which stand for "no bound", as null does. */
function readPythonJson(path) {
  return JSON.parse(readFileSync(path, 'utf8').replace(/: -?Infinity\b/g, ': null'));
}

/** The parts of the folder that are compared natively only, a case each. */
function withoutEdit() {
  const names = [];
  for (const sub of ['components', 'schedulers']) {
    if (!existsSync(`${directory}/${sub}`)) continue;
    for (const { name, ext } of readdirSync(`${directory}/${sub}`).map(parse)) {
      if (ext === '.safetensors') names.push(`${sub}.${name}`);
    }
  }
  if (existsSync(`${directory}/tokenization.json`)) names.push('tokenization');
  if (existsSync(`${directory}/random.safetensors`)) names.push('random');
  return names.map((name) => ({ name, noEdit: true }));
}

/** @returns {Promise<{ outcome: 'ok' | 'FAIL' | 'skip', text: string }>} */
async function run(item) {
  try {
    const { load, request, golden } = prepare(item);
    const found = await editInPage(load, request);
    if (found.error?.code === 'unsupported') throw new Unsupported(found.error.message);
    if (found.error) {
      // The engine may be broken, and the next case is not to suffer from it.
      await page.reload();
      return { outcome: 'FAIL', text: `${found.error.code}: ${found.error.message}` };
    }
    return compare(found, golden);
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    return { outcome: 'skip', text: `unsupported: ${error.message}` };
  }
}

/** What the case asks of the package, and what must come out. */
function prepare(item) {
  if (item.noEdit) throw new Unsupported('no edit, compared natively');
  if (item.pipeline !== 'sd') throw new Unsupported(`the pipeline ${item.pipeline}`);
  const feature = Object.keys(item).find((key) => !KEYS.includes(key) && item[key]);
  if (feature) throw new Unsupported(feature);
  if (item.image_kind !== 'pil') throw new Unsupported(`a picture given as ${item.image_kind}`);
  const { safety_checker: safetyChecker, ...folders } = item.component_dirs ?? {};
  const otherFolders = Object.values({ ...folders, safetyChecker }).some((name) => name);
  if (otherFolders) throw new Unsupported('components from other folders');

  const request = {};
  for (const [name, value] of Object.entries(item.call)) {
    if (!(name in CALL)) throw new Unsupported(name);
    if (name.endsWith('prompt') && typeof value !== 'string')
      throw new Unsupported(`${name} that is no text`);
    request[CALL[name]] = value;
  }
  if (!item.scheduler_from_model_folder) {
    request.scheduler = { ...item.scheduler_config, _class_name: item.scheduler_class };
  }
  const tensors = readSafetensors(readFileSync(`${directory}/${item.file}`));
  const { image_u8, latents_in, noises, latents_steps, image_out_u8 } = tensors;
  const [pictures, height, width] = image_u8.shape;
  if (pictures !== 1) throw new Unsupported('several pictures');
  request.image = { width, height, data: toBase64(withAlpha(image_u8.data)) };
  for (const [name, tensor] of Object.entries({ latents: latents_in, noises })) {
    if (tensor) request[name] = { shape: tensor.shape, data: toBase64(tensor.data) };
  }
  const latents = latents_steps.data.slice(-latents_steps.data.length / latents_steps.shape[0]);
  return {
    load: {
      model: `/oracle/${item.model}`,
      safetyChecker: safetyChecker === null ? false : undefined,
    },
    request,
    golden: { latents, image: image_out_u8 },
  };
}

function withAlpha(rgb) {
  const rgba = new Uint8Array((rgb.length / 3) * 4).fill(255);
  for (let i = 0; i < rgb.length; i++) rgba[Math.floor(i / 3) * 4 + (i % 3)] = rgb[i];
  return rgba;
}

/** Loads the model, unless the page has it, and edits. */
function editInPage(load, request) {
  return page.evaluate(
    async ([{ model, safetyChecker }, { image, latents, noises, ...options }]) => {
      const { DirectInstructPix2Pix } = await import('/pkg/index.js');
      const bytes = (text) => Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
      const tensor = ({ shape, data }) => ({ shape, data: new Float32Array(bytes(data).buffer) });
      try {
        const key = `${model} ${safetyChecker}`;
        if (window.key !== key) {
          window.key = undefined;
          await window.pipe?.dispose();
          window.pipe = await DirectInstructPix2Pix.fromPretrained(model, {
            dtype: 'float32',
            weightDtype: 'float32',
            safetyChecker,
          });
          window.key = key;
        }
        const { images, latents: found } = await window.pipe.edit({
          ...options,
          image: new ImageData(new Uint8ClampedArray(bytes(image.data)), image.width, image.height),
          latents: latents && tensor(latents),
          noises: noises && tensor(noises),
        });
        const { width, height, data } = images[0];
        return { latents: [...found.data], image: { width, height, data: [...data] } };
      } catch ({ name, code, message }) {
        return { error: { code: code ?? name, message } };
      }
    },
    [load, request],
  );
}

function compare(found, golden) {
  const [, height, width] = golden.image.shape;
  if (found.image.width !== width || found.image.height !== height) {
    const size = `${found.image.width} x ${found.image.height}`;
    return { outcome: 'FAIL', text: `the picture is ${size}, not ${width} x ${height}` };
  }
  const latents = difference(found.latents, golden.latents);
  const scale = golden.latents.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const image = difference(
    found.image.data.filter((_, i) => i % 4 !== 3),
    golden.image.data,
  );
  const peak = latents.peak / scale;
  const text =
    `latents peak ${peak.toExponential(1)} rmse ${(latents.rmse / scale).toExponential(1)} ` +
    `of ${LATENTS_TOLERANCE}; image peak ${image.peak} rmse ${image.rmse.toFixed(3)} ` +
    `of ${IMAGE_TOLERANCE}`;
  // Written so that NaN fails.
  const passed = peak <= LATENTS_TOLERANCE && image.peak <= IMAGE_TOLERANCE;
  return { outcome: passed ? 'ok' : 'FAIL', text };
}

function difference(found, golden) {
  if (found.length !== golden.length) return { peak: NaN, rmse: NaN };
  const differences = Array.from(golden, (value, i) => Math.abs(value - found[i]));
  const squares = differences.reduce((sum, value) => sum + value * value, 0);
  return {
    peak: differences.reduce((a, b) => Math.max(a, b)),
    rmse: Math.sqrt(squares / found.length),
  };
}
