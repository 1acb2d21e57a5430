#!/usr/bin/env node
/** `npx instruct-pix2pix-web photo.jpg "make it snowy" -o out.png` */

import { readFile, writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { Progress } from './progress.js';

const USAGE = `usage: instruct-pix2pix-web PICTURE INSTRUCTION [-o OUT.png] [options]

Edits a picture as an instruction says, on this machine's GPU. The first run downloads
the model (2.1 GB).

  -o, --output FILE             a PNG file (out.png); of several results, a number stands before .png
  -m, --model MODEL             a Hub id, a URL or a folder (timbrooks/instruct-pix2pix)
      --steps N                 denoising steps (20)
      --guidance-scale X        how strongly to follow the instruction (7.5)
      --image-guidance-scale X  how closely to stay with the picture (1.5)
      --negative-prompt TEXT    what the result should not look like
      --seed N                  the same seed gives the same picture
      --scheduler NAME          a class name of diffusers, e.g. DPMSolverMultistepScheduler
      --count N                 how many results (1)
      --dtype TYPE              auto, float16 or float32 (auto)
      --weight-dtype TYPE       float16, float32, int8 or int4, of the weights (float16)
      --memory-budget BYTES     of GPU memory for weights
      --revision NAME           branch, tag or commit of the model
      --endpoint URL            a mirror of the Hub
      --cache FOLDER            where to keep models
      --local-files-only        send no request
  -q, --quiet                   no progress
  -h, --help
  -v, --version

A token for gated models is taken from HF_TOKEN. Node needs the npm package webgpu.
`;

const OPTIONS = {
  output: { type: 'string', short: 'o', default: 'out.png' },
  model: { type: 'string', short: 'm', default: 'timbrooks/instruct-pix2pix' },
  steps: { type: 'string', default: '20' },
  'guidance-scale': { type: 'string' },
  'image-guidance-scale': { type: 'string' },
  'negative-prompt': { type: 'string' },
  seed: { type: 'string' },
  scheduler: { type: 'string' },
  count: { type: 'string', default: '1' },
  dtype: { type: 'string' },
  'weight-dtype': { type: 'string' },
  'memory-budget': { type: 'string' },
  revision: { type: 'string' },
  endpoint: { type: 'string' },
  cache: { type: 'string' },
  'local-files-only': { type: 'boolean' },
  quiet: { type: 'boolean', short: 'q' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'v' },
};

/** The exit codes of a command that was called wrongly, and of one that Ctrl+C stopped. */
const [MISUSED, INTERRUPTED] = [2, 130];

class Misuse extends Error {}

function numberOf(values, name) {
  const value = values[name];
  if (value === undefined) return undefined;
  const number = Number(value);
  if (value.trim() === '' || Number.isNaN(number)) throw new Misuse(`--${name}: ${value} is no number`);
  return number;
}

function seedOf({ seed }) {
  if (seed === undefined) return undefined;
  if (!/^\d+$/.test(seed)) throw new Misuse(`--seed: ${seed} is no whole number`);
  return BigInt(seed);
}

function read(args) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new Misuse(error.message);
  }
}

async function main() {
  const { values, positionals } = read(process.argv.slice(2));
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (values.version) {
    const manifest = await readFile(new URL('../package.json', import.meta.url), 'utf8');
    console.log(JSON.parse(manifest).version);
    return;
  }
  const [image, prompt, ...more] = positionals;
  if (prompt === undefined || more.length > 0) {
    throw new Misuse('a picture and an instruction are needed, the instruction in quotes');
  }
  if (!values.output.endsWith('.png')) throw new Misuse(`--output: ${values.output} does not end in .png`);
  const edit = {
    image,
    prompt,
    negativePrompt: values['negative-prompt'],
    numInferenceSteps: numberOf(values, 'steps'),
    guidanceScale: numberOf(values, 'guidance-scale'),
    imageGuidanceScale: numberOf(values, 'image-guidance-scale'),
    numImagesPerPrompt: numberOf(values, 'count'),
    seed: seedOf(values),
    scheduler: values.scheduler,
    outputType: 'blob',
  };
  const load = {
    dtype: values.dtype,
    weightDtype: values['weight-dtype'],
    memoryBudget: numberOf(values, 'memory-budget'),
    revision: values.revision,
    endpoint: values.endpoint,
    cache: values.cache,
    localFilesOnly: values['local-files-only'],
    token: process.env.HF_TOKEN,
  };
  // Not before the arguments are right, because it looks for a GPU.
  const { InstructPix2Pix } = await import('./index.js');
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new Error('interrupted')));
  const progress = new Progress(values.quiet ? undefined : process.stderr);
  try {
    const { signal } = stop;
    const onProgress = (event) => progress.loading(event);
    const { negativePrompt } = edit;
    const all = { ...load, prompt, negativePrompt, onProgress, signal };
    const pipe = await InstructPix2Pix.fromPretrained(values.model, all);
    const onStep = (event) => progress.step(event);
    const { images, seed, timings } = await pipe.edit({
      ...edit,
      onStep,
      onStepTensorInputs: [],
      signal,
    });
    progress.end();
    for (const [i, file] of images.entries()) {
      const path = i === 0 ? values.output : values.output.replace(/\.png$/, `.${i + 1}.png`);
      await writeFile(path, Buffer.from(await file.arrayBuffer()));
      console.log(path);
    }
    if (!values.quiet) {
      console.error(`seed ${seed}, ${(timings.total / 1e3).toFixed(1)} s on ${pipe.device}`);
    }
    await pipe.dispose();
  } catch (error) {
    progress.end();
    if (!stop.signal.aborted) throw error;
    process.exitCode = INTERRUPTED;
  }
}

try {
  await main();
} catch (error) {
  const code = error.code ? ` (${error.code})` : '';
  process.stderr.write(`instruct-pix2pix-web: ${error.message}${code}\n`);
  if (error instanceof Misuse) process.stderr.write('--help tells how it is used\n');
  process.exitCode = error instanceof Misuse ? MISUSED : 1;
}
// A GPU's driver may keep threads of its own.
process.exit();
