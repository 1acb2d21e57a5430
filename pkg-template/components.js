import { log, withDefaults } from './env.js';
import { invalid } from './errors.js';
import * as known from './options.js';

/** Lets the package's own code make pipelines of what was loaded. */
export const LOADED = Symbol('loaded');

/** A part of a loaded pipeline, which lives where its pipeline does. */
export class Component {
  /** @internal */
  constructor(name, host, pipeline, info) {
    this.name = name;
    this.model = info.model;
    Object.defineProperty(this, LOADED, { value: { host, pipeline, info } });
  }
}

export async function assemble(engine, parts, options, scheduler) {
  const { pipeline } = await engine.assemble({ components: await numbersOf(parts), ...options });
  if (scheduler) {
    try {
      await engine.invoke({ pipeline, method: 'setScheduler', args: [scheduler, undefined] });
    } catch (error) {
      await engine.release(pipeline);
      throw error;
    }
  }
  return pipeline;
}

/** The numbers of pipelines that may still be on their way. */
export async function numbersOf(parts) {
  const entries = Object.entries(parts).map(async ([name, pipeline]) => [name, await pipeline]);
  return Object.fromEntries(await Promise.all(entries));
}

/** The engine that another pipeline lives in. */
export function hostOf(pipeline, classes) {
  if (classes.some((Class) => pipeline instanceof Class)) {
    return pipeline.components.unet[LOADED].host;
  }
  const names = classes.map((Class) => Class.name).join(' or ');
  throw invalid(`shareWith: expected another ${names}`);
}

/** Checks the constructor's argument, and says what to build of it. */
export function assembly(components, family) {
  known.check(components ?? {}, family.constructs);
  const { scheduler, safetyChecker, featureExtractor, requiresSafetyChecker = true } = components ?? {};
  const { forceZerosForEmptyPrompt, isCosxlEdit, addWatermarker } = components ?? {};
  const { busyPolicy } = withDefaults({ busyPolicy: components?.busyPolicy }, { busyPolicy: ['string'] });
  known.oneOf('busyPolicy', busyPolicy, known.BUSY_POLICIES);
  const refuse = (name, message) => {
    throw invalid(`${name}: ${message}`);
  };
  const judge = typeof safetyChecker === 'function' ? safetyChecker : undefined;
  const hasChecker = safetyChecker instanceof Component;
  if (safetyChecker && !hasChecker && !judge) refuse('safetyChecker', 'a component or a function');
  if (hasChecker && !featureExtractor) {
    refuse('featureExtractor', 'a safety checker needs one; pass that of the same pipeline');
  }
  if (!safetyChecker && requiresSafetyChecker && !family.wanted) warnUnchecked();
  const parts = {};
  let host;
  for (const name of Object.keys(family.files)) {
    const component = components?.[name];
    const isOptional = family.optional.includes(name) || (name === 'scheduler' && component != null);
    if (component instanceof Component) {
      host = sameHost(host, component, name);
      // The feature extractor comes with the checker.
      if (name !== 'featureExtractor') parts[family.files[name]] = component[LOADED].pipeline;
    } else if (!isOptional) {
      refuse(name, 'a component of a loaded pipeline is needed');
    }
  }
  const { info } = components.unet[LOADED];
  const isOwn = scheduler instanceof Component;
  // Until the scheduler is set, any will do.
  if (!isOwn) parts.scheduler = parts.unet;
  const className = isOwn
    ? scheduler[LOADED].info.scheduler
    : (scheduler._class_name ?? scheduler);
  return {
    host,
    parts,
    options: { className: family.className, forceZerosForEmptyPrompt, isCosxlEdit, addWatermarker },
    scheduler: isOwn ? undefined : scheduler,
    info: { ...info, className: family.className, scheduler: className },
    judge,
    hasChecker,
    busyPolicy,
  };
}

/** What diffusers warns of where the checker is left out. */
export function warnUnchecked() {
  log(
    'warn',
    'pictures are not checked for unsafe content, because the safety checker was left ' +
      'out. The licence of Stable Diffusion asks you not to show unfiltered results to the public. Pass ' +
      'requiresSafetyChecker: false if that is meant.',
  );
}

/** Tells the components of any of `classes` among a load's options from the rest. */
export function givenComponents({ shareWith, ...options }, classes) {
  const rest = { ...options };
  const given = {};
  let host;
  const files = Object.assign({}, ...classes.map(({ family }) => family.files));
  for (const name of Object.keys(files)) {
    const component = options[name];
    if (!(component instanceof Component)) {
      // The engine knows what to make of a sampler, and of `true` and `false`.
      if (component != null && !['scheduler', 'safetyChecker'].includes(name)) {
        throw new InstructPix2PixError(
          'invalid-argument',
          `${name}: expected a component of a loaded pipeline`,
        );
      }
      continue;
    }
    delete rest[name];
    host = sameHost(host, component, name);
    // The feature extractor comes with the checker.
    if (name !== 'featureExtractor') given[files[name]] = component[LOADED].pipeline;
  }
  return { shareWith, rest, given, host };
}

/** The host of a component, which must be that of the others. */
function sameHost(host, component, name) {
  if (component.name !== name) {
    throw invalid(`${name}: this is a component \`${component.name}\``);
  }
  const from = component[LOADED].host;
  if (host && from !== host) {
    throw invalid(`${name}: it lives in another worker; load both models with \`shareWith\``);
  }
  return from;
}
