import { cacheIn } from './cache.js';
import { Client } from './client.js';
import { Engine } from './engine.js';
import { logLevel } from './env.js';
import { SD, XL } from './family.js';
import { download, load, loadSingleFile } from './loading.js';
import { RemoteEngine } from './remote.js';
import { isSupported, requirements } from './support.js';

export { Component } from './components.js';
export { env } from './env.js';
export { InstructPix2PixError } from './errors.js';

/** What all classes can do before there is a pipeline. */
class Loader extends Client {
  static family = SD;

  static isSupported = isSupported;

  /** The cache, by engines of the same place. */
  static get cache() {
    return cacheIn(this.place.create);
  }

  static requirements(model, options = {}) {
    return requirements(this, this.place, model, options);
  }

  static fromPretrained(model, options = {}) {
    return load(this, this.place, model, options);
  }

  static fromSingleFile(source, options = {}) {
    return loadSingleFile(this, this.place, source, options);
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
