import { cacheIn } from './cache.js';
import { Client } from './client.js';
import { Engine } from './engine.js';
import { env, logLevel, withDefaults } from './env.js';
import { InstructPix2PixError } from './errors.js';
import { SD, XL } from './family.js';
import { download, load } from './loading.js';
import { check, REQUIREMENTS } from './options.js';
import { checkStore } from './proxy.js';
import { RemoteEngine } from './remote.js';
import { siteOf } from './site.js';
import { task } from './task.js';
import { absoluteUrl, locate, resolveModel } from './urls.js';

export { Component } from './components.js';
export { env, InstructPix2PixError };

/** What the files that are loaded on demand stand on. */
const TOOLS = {
  InstructPix2PixError,
  REQUIREMENTS,
  absoluteUrl,
  check,
  checkStore,
  env,
  locate,
  resolveModel,
  siteOf,
  task,
  withDefaults,
};

/** What all classes can do before there is a pipeline. */
class Loader extends Client {
  static family = SD;

  static async isSupported(options) {
    return (await import('./support.js')).isSupported(TOOLS, options);
  }

  /** The cache, by engines of the same place. */
  static get cache() {
    return cacheIn(this.place.create);
  }

  static async requirements(model, options = {}) {
    options.signal?.throwIfAborted();
    return (await import('./support.js')).requirements(TOOLS, this, model, options);
  }

  static fromPretrained(model, options = {}) {
    return load(this, this.place, model, options);
  }

  static async fromSingleFile(source, given = {}) {
    given.signal?.throwIfAborted();
    const { singleFile } = await import('./single-file.js');
    const { model, options } = singleFile(TOOLS, source, given);
    return load(this, this.place, model, options);
  }

  static download(model, options = {}) {
    return download(this.place, model, options);
  }
}

/** The pipeline in a worker of its own: the page stays responsive. */
export class InstructPix2Pix extends Loader {
  static place = { create: (site) => new RemoteEngine(site), classes: [] };
}

/** That of Stable Diffusion XL. */
export class InstructPix2PixXL extends InstructPix2Pix {
  static family = XL;
}

/** The same on the calling thread: for code that already runs in a worker, and for tests. */
export class DirectInstructPix2Pix extends Loader {
  static place = {
    create({ wasmUrl }) {
      // On demand, so that pages with the worker never fetch it a second time.
      const engine = new Engine(() => import('./instruct_pix2pix.js'));
      engine.site = { wasmUrl, logLevel: logLevel() };
      return engine;
    },
    classes: [],
  };
}

/** That of Stable Diffusion XL. */
export class DirectInstructPix2PixXL extends DirectInstructPix2Pix {
  static family = XL;
}

export const cache = InstructPix2Pix.cache;

// Each place has its own; the names are for consoles, since those in the file are made short.
const all = { InstructPix2Pix, InstructPix2PixXL, DirectInstructPix2Pix, DirectInstructPix2PixXL };
for (const [name, Class] of Object.entries(all)) {
  Class.place.classes.push(Class);
  Object.defineProperty(Class, 'name', { value: name });
}
