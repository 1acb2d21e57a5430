/** What callers give for an edit, as the engine takes it. */

import { invalid } from './errors.js';
import * as known from './options.js';

export function listOf(value) {
  return Array.isArray(value) ? value : [value];
}

/** The engine takes lists of texts. */
export function promptsOf({ prompt, negativePrompt, prompt2, negativePrompt2, ...options }) {
  const { seed: _, generator: __, ...rest } = options;
  const texts = (value) => (value == null ? undefined : listOf(value));
  return {
    ...rest,
    prompts: texts(prompt),
    negativePrompts: texts(negativePrompt),
    // As Python's `or` reads it: an empty text is none.
    prompts2: texts(prompt2 || undefined),
    negativePrompts2: texts(negativePrompt2 || undefined),
  };
}

/** What is called after each model call: `onStep`, and diffusers' legacy `callback` in its time. */
export function follower(onStep, callback, callbackSteps = 1) {
  if (!Number.isInteger(callbackSteps) || callbackSteps < 1) {
    throw invalid(`callbackSteps: ${callbackSteps} is no whole number of 1 or more`);
  }
  if (!callback) return onStep && (async (event) => known.stepTensors(await onStep(event)));
  return async (event) => {
    const { step, inferenceStep, timestep, latents } = event;
    if (inferenceStep !== undefined && step % callbackSteps === 0) {
      await callback(inferenceStep, timestep, latents);
    }
    return known.stepTensors(await onStep?.(event));
  };
}

/** serde has no big integers: they travel as text. */
export function seedsOf({ seed, generator = seed }) {
  return generator == null ? undefined : listOf(generator).map(String);
}
