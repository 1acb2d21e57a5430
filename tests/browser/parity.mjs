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
  num_images_per_prompt: 'numImagesPerPrompt',
  output_type: 'outputType',
  cross_attention_kwargs: 'crossAttentionKwargs',
  prompt_2: 'prompt2',
  negative_prompt_2: 'negativePrompt2',
  height: 'height',
  width: 'width',
  denoising_end: 'denoisingEnd',
  guidance_rescale: 'guidanceRescale',
  original_size: 'originalSize',
  crops_coords_top_left: 'cropsCoordsTopLeft',
  target_size: 'targetSize',
};
/** Arguments of the pipeline's constructor, and the names of the package's options. */
const CONSTRUCTOR = {
  force_zeros_for_empty_prompt: 'forceZerosForEmptyPrompt',
  is_cosxl_edit: 'isCosxlEdit',
  add_watermarker: 'addWatermarker',
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
  'lora',
  'textual_inversion',
  'freeu',
  'vae_tiling',
  'vae_slicing',
  'pipeline_kwargs',
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
const { page, problems } = await openPage(browser, server.url);
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
    const { set, request, golden } = prepare(item);
    const found = await editInPage(set, request);
    if (found.error?.code === 'unsupported') throw new Unsupported(found.error.message);
    if (found.error) {
      // The engine may be broken, and the next case is not to suffer from it.
      await page.reload();
      const text = `${found.error.code}: ${found.error.message}`;
      return { outcome: 'FAIL', text: [text, ...problems.splice(0)].join('\n     ') };
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
  if (!['sd', 'sdxl'].includes(item.pipeline)) throw new Unsupported(`the pipeline ${item.pipeline}`);
  const feature = Object.keys(item).find((key) => !KEYS.includes(key) && item[key]);
  if (feature) throw new Unsupported(feature);
  const { safety_checker: checker = 'safety_checker', ...folders } = item.component_dirs ?? {};
  if (Object.values(folders).some((name) => name)) {
    throw new Unsupported('components from other folders');
  }
  const { call } = item;
  const request = named(call, CALL);
  // Of pictures given as samples, this is what diffusers calls them.
  if (request.outputType === 'pil' || request.outputType === 'np') delete request.outputType;
  if (!item.scheduler_from_model_folder) {
    request.scheduler = { ...item.scheduler_config, _class_name: item.scheduler_class };
  }
  const tensors = readSafetensors(readFileSync(`${directory}/${item.file}`));
  const { latents_steps, image_out_u8 } = tensors;
  const sent = {
    latents: tensors.latents_in,
    noises: tensors.noises,
    promptEmbeds: tensors.prompt_embeds_in,
    negativePromptEmbeds: tensors.negative_prompt_embeds_in,
    pooledPromptEmbeds: tensors.pooled_prompt_embeds_in,
    negativePooledPromptEmbeds: tensors.negative_pooled_prompt_embeds_in,
  };
  for (const [name, tensor] of Object.entries(sent)) if (tensor) request[name] = encode(tensor);
  request.image = imageOf(item.image_kind, tensors);
  pairAsDiffusers(request);
  const latents = latents_steps.data.slice(-latents_steps.data.length / latents_steps.shape[0]);
  // The checker takes longer than the edit here, so it is asked only where it has something to find.
  const flagged = item.nsfw_content_detected?.includes(true);
  const flags = flagged ? item.nsfw_content_detected : undefined;
  return {
    set: {
      model: `/oracle/${item.model}`,
      options: named(item.pipeline_kwargs ?? {}, CONSTRUCTOR),
      checker: flagged ? checker : undefined,
      loras: item.lora ?? [],
      words: item.textual_inversion ?? [],
      freeU: item.freeu ?? undefined,
      tiling: Boolean(item.vae_tiling),
      slicing: Boolean(item.vae_slicing),
    },
    request,
    golden: {
      latents,
      image: image_out_u8,
      flags,
      calls: item.legacy_callback_calls,
    },
  };
}

/**
 * diffusers gives result `r` the picture `r` modulo their number where there are several results for
 * each of several prompts; here each prompt keeps its picture. So every result is asked for as a
 * prompt of its own, with the picture that diffusers gives it.
 */
function pairAsDiffusers(request) {
  const { numImagesPerPrompt: each = 1, prompt, negativePrompt, prompt2, negativePrompt2 } = request;
  const { pictures } = request.image;
  if (each === 1 || !(pictures?.length > 1)) return;
  if (prompt === undefined) throw new Unsupported('several results for each of several embeddings');
  const repeat = (texts) => (Array.isArray(texts) ? texts.flatMap((text) => Array(each).fill(text)) : texts);
  const prompts = repeat([prompt].flat());
  Object.assign(request, {
    prompt: prompts,
    ...(negativePrompt && { negativePrompt: repeat(negativePrompt) }),
    ...(prompt2 && { prompt2: repeat(prompt2) }),
    ...(negativePrompt2 && { negativePrompt2: repeat(negativePrompt2) }),
    numImagesPerPrompt: 1,
    image: { ...request.image, pictures: prompts.map((_, i) => pictures[i % pictures.length]) },
  });
}

/** Python's arguments by the package's names. */
function named(values, names) {
  const entries = Object.entries(values).map(([name, value]) => {
    if (!(name in names)) throw new Unsupported(name);
    return [names[name], value ?? undefined];
  });
  return Object.fromEntries(entries);
}

function encode({ data, shape }) {
  return { data: toBase64(data), shape };
}

/** The case's pictures, in the form in which diffusers was given them. */
function imageOf(kind, { image_u8, image_latents_in }) {
  if (kind === 'latents') return { tensor: encode(image_latents_in) };
  const [count, height, width] = image_u8.shape;
  const picture = (i) => image_u8.data.subarray(i * height * width * 3, (i + 1) * height * width * 3);
  if (kind === 'pil') {
    const pictures = Array.from({ length: count }, (_, i) => toBase64(withAlpha(picture(i))));
    return { pictures, width, height };
  }
  if (kind !== 'tensor') throw new Unsupported(`a picture given as ${kind}`);
  const data = new Float32Array(image_u8.data.length);
  for (let i = 0; i < count; i++) {
    const bytes = picture(i);
    for (let j = 0; j < bytes.length; j++) {
      data[i * bytes.length + (j % 3) * height * width + Math.floor(j / 3)] = bytes[j] / 255;
    }
  }
  return { tensor: encode({ data, shape: [count, 3, height, width] }) };
}

function withAlpha(rgb) {
  const rgba = new Uint8Array((rgb.length / 3) * 4).fill(255);
  for (let i = 0; i < rgb.length; i++) rgba[Math.floor(i / 3) * 4 + (i % 3)] = rgb[i];
  return rgba;
}

/** Loads the model, unless the page has it, sets it up, edits, and undoes what was set up. */
function editInPage(set, request) {
  return page.evaluate(
    async ([set, { image, ...options }]) => {
      const { DirectInstructPix2Pix } = await import('/pkg/index.js');
      const bytes = (text) => Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0));
      const tensor = ({ shape, data }) => ({ shape, data: new Float32Array(bytes(data).buffer) });
      for (const [name, value] of Object.entries(options)) {
        if (value?.shape) options[name] = tensor(value);
      }
      const source = image.tensor
        ? tensor(image.tensor)
        : image.pictures.map(
            (data) =>
              new ImageData(new Uint8ClampedArray(bytes(data)), image.width, image.height),
          );
      try {
        const loaded = JSON.stringify([set.model, set.options]);
        if (window.loaded !== loaded) {
          window.loaded = undefined;
          await window.pipe?.dispose();
          window.pipe = await DirectInstructPix2Pix.fromPretrained(set.model, {
            ...set.options,
            dtype: 'float32',
            weightDtype: 'float32',
          });
          window.loaded = loaded;
          window.checker = undefined;
        }
        const { pipe } = window;
        if (window.checker !== set.checker) {
          await (set.checker
            ? pipe.setSafetyChecker(true, { subfolder: set.checker })
            : pipe.setSafetyChecker(false));
          window.checker = set.checker;
        }
        const adapters = set.loras.map(({ file, weight }, i) => ({ file, weight, name: `a${i}` }));
        for (const { file, name } of adapters) {
          await pipe.loadLoraWeights(`/oracle/adapters/${file}`, { adapterName: name });
        }
        if (adapters.some(({ weight }) => weight != null)) {
          const names = adapters.map(({ name }) => name);
          await pipe.setAdapters(names, adapters.map(({ weight }) => weight ?? 1));
        }
        for (const { file, token, encoder } of set.words) {
          await pipe.loadTextualInversion(`/oracle/adapters/${file}`, {
            token: token ?? undefined,
            textEncoder: encoder === 2 ? 'textEncoder2' : 'textEncoder',
          });
        }
        if (set.freeU) await pipe.enableFreeU(set.freeU);
        if (set.tiling) await pipe.enableVaeTiling();
        if (set.slicing) await pipe.enableVaeSlicing();
        const calls = [];
        const callback = (step, timestep) => calls.push([step, timestep]);
        const result = await pipe.edit({ ...options, callback, image: source });
        await pipe.unloadLoraWeights();
        await pipe.unloadTextualInversion();
        await pipe.disableFreeU();
        await pipe.disableVaeTiling();
        await pipe.disableVaeSlicing();
        const { images, latents, nsfwContentDetected } = result;
        const pictures = Array.isArray(images) ? images : [];
        return {
          latents: [...latents.data],
          calls,
          flags: nsfwContentDetected,
          images: pictures.map(({ width, height, data }) => ({ width, height, data: [...data] })),
        };
      } catch ({ name, code, message }) {
        return { error: { code: code ?? name, message } };
      }
    },
    [set, request],
  );
}

function compare(found, golden) {
  const scale = golden.latents.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const latents = difference(found.latents, golden.latents);
  const peak = latents.peak / scale;
  const text =
    `latents peak ${peak.toExponential(1)} rmse ${(latents.rmse / scale).toExponential(1)} ` +
    `of ${LATENTS_TOLERANCE}`;
  // Written so that NaN fails.
  const outcome = peak <= LATENTS_TOLERANCE ? 'ok' : 'FAIL';
  if (String(found.flags) !== String(golden.flags)) {
    return { outcome: 'FAIL', text: `${text}; unsafe: ${found.flags}, not ${golden.flags}` };
  }
  if (golden.calls && !sameCalls(found.calls, golden.calls)) {
    const [ours, theirs] = [found.calls, golden.calls].map((calls) => JSON.stringify(calls));
    return { outcome: 'FAIL', text: `${text}; callback ${ours}, not ${theirs}` };
  }
  if (!golden.image) return { outcome, text };
  const [count, height, width] = golden.image.shape;
  const sizes = found.images.map((image) => `${image.width} x ${image.height}`);
  if (sizes.length !== count || sizes.some((size) => size !== `${width} x ${height}`)) {
    return { outcome: 'FAIL', text: `pictures of ${sizes}, not ${count} of ${width} x ${height}` };
  }
  const samples = found.images.flatMap(({ data }) => data.filter((_, i) => i % 4 !== 3));
  const image = difference(samples, golden.image.data);
  return {
    outcome: image.peak <= IMAGE_TOLERANCE ? outcome : 'FAIL',
    text: `${text}; image peak ${image.peak} rmse ${image.rmse.toFixed(3)} of ${IMAGE_TOLERANCE}`,
  };
}

/** The same steps, at timesteps that are equal in single precision. */
function sameCalls(found, golden) {
  const [ours, theirs] = [found, golden].map((calls) =>
    JSON.stringify(calls?.map(([step, timestep]) => [step, timestep.toPrecision(6)])),
  );
  return ours === theirs;
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
