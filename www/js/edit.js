/** The edit itself, from the form to the result. */

import { run, say, unlessCancelled } from './activity.js';
import { COLOURS, previewOf } from './preview.js';
import { currentView, push } from './history.js';
import { rememberInstruction } from './examples.js';
import { applyLoras, shareableLoras } from './loras.js';
import { chosenModel, forgetBroken, load, modelKey } from './models.js';
import { Pace } from './pace.js';
import { prepare } from './picture.js';
import { hidePreview, showPreview, showResults, withParameters } from './result.js';
import { drawn } from './settings.js';
import { keepPicture } from './store.js';
import { bytes, duration } from './units.js';
import { variantsOf } from './variants.js';
import { $ } from './dom.js';

/** The pipelines whose shaders are compiled. */
const compiled = new WeakSet();

const XL = 'StableDiffusionXLInstructPix2PixPipeline';

export async function edit() {
  const error = await run(async (signal) => {
    // Read before the first wait, so that the result belongs to what the button was pressed for.
    const parameters = { ...drawn(), loras: shareableLoras() };
    const kind = $('variants').value;
    const { colours } = chosenModel();
    const model = modelKey();
    rememberInstruction(parameters.prompt);
    const prepared = await unlessCancelled(prepare(), signal);
    const pipe = await load(model, signal);
    await applyLoras(pipe, signal);
    const found = [];
    const all = variantsOf(parameters, kind);
    const timing = { start: performance.now(), pace: new Pace(), done: 0, all };
    try {
      for (const each of all) {
        const result = await editOnce(pipe, prepared, each, { signal, colours, timing });
        found.push({ blob: await withParameters(result, each), parameters: each });
        timing.done++;
      }
    } finally {
      hidePreview();
      // What was there before a cancel is kept.
      if (found.length > 0) await show(prepared, found, kind);
    }
    performance.measure('edit', { start: timing.start });
    const { wasmHeap } = await pipe.memory({ signal });
    const { adapter, dtype } = pipe.info;
    const time = duration(performance.now() - timing.start);
    say(
      `Done in ${time} on ${adapter} (${dtype}), with ${bytes(wasmHeap)} of memory beside the GPU’s.`,
    );
  });
  if (error) await forgetBroken(error);
}

/** One result, as PNG. */
async function editOnce(pipe, prepared, parameters, { signal, colours, timing }) {
  const { prompt, negativePrompt, steps, text, image, seed, scheduler } = parameters;
  const first = compiled.has(pipe)
    ? ''
    : ' The first edit compiles its shaders, which takes longer.';
  say(`Encoding the picture and the instruction…${first}`);
  const { images } = await pipe.edit({
    ...(await sizeFor(pipe, prepared.blob)),
    image: prepared.blob,
    prompt,
    negativePrompt,
    numInferenceSteps: steps,
    guidanceScale: text,
    imageGuidanceScale: image,
    scheduler: scheduler || undefined,
    // Seeds have 64 bits, numbers 53.
    seed: BigInt(seed),
    outputType: 'blob',
    signal,
    onStepTensorInputs: ['latents'],
    onStep: ({ step, steps, latents }) => {
      // A step that was under way when the user cancelled.
      if (signal.aborted) return;
      timing.pace.ended(step + 1, performance.now());
      sayStep(step + 1, steps, timing);
      showPreview(previewOf(latents, colours ?? COLOURS[pipe.info.className]));
    },
  });
  compiled.add(pipe);
  return images[0];
}

/** SDXL is told in which size to work. */
async function sizeFor({ info }, blob) {
  if (info.className !== XL) return {};
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  bitmap.close();
  return { width, height };
}

function sayStep(step, steps, { done, all, pace }) {
  const which = all.length > 1 ? `Picture ${done + 1} of ${all.length}, step` : 'Step';
  const left = pace.left(steps - step + (all.length - done - 1) * steps);
  const time = left === undefined ? '' : `, about ${duration(left)} left`;
  say(
    `${which} ${step} of ${steps}${step < steps ? time : ', decoding…'}`,
    (done * steps + step) / (all.length * steps),
  );
}

async function show(prepared, found, kind) {
  const view = {
    source: prepared.source,
    crop: prepared.crop,
    before: prepared.key ?? keepPicture(prepared.blob),
    results: found.map(({ blob, parameters }) => ({ picture: keepPicture(blob), parameters })),
    chosen: 0,
    kind,
  };
  push(view);
  await showResults(currentView());
}
