import { Client, load } from './client.js';
import { Engine } from './engine.js';
import { RemoteEngine } from './remote.js';

export { cache } from './cache.js';
export { Component } from './client.js';
export { InstructPix2PixError } from './errors.js';

/** The pipeline in a worker of its own: the page stays responsive. */
export class InstructPix2Pix extends Client {
  static fromPretrained(model, options = {}) {
    return load(this, () => new RemoteEngine(), model, options);
  }
}

/** The same on the calling thread: for code that already runs in a worker, and for tests. */
export class DirectInstructPix2Pix extends Client {
  static fromPretrained(model, options = {}) {
    // Imported on demand, so that pages with the worker never fetch the engine a second time.
    return load(this, () => new Engine(() => import('./instruct_pix2pix.js')), model, options);
  }
}
