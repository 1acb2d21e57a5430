import { Client } from './client.js';
import { Engine } from './engine.js';
import { download, load, loadSingleFile } from './loading.js';
import { RemoteEngine } from './remote.js';

export { cache } from './cache.js';
export { Component } from './components.js';
export { InstructPix2PixError } from './errors.js';

const remote = () => new RemoteEngine();

// Imported on demand, so that pages with the worker never fetch the engine a second time.
const direct = () => new Engine(() => import('./instruct_pix2pix.js'));

/** The pipeline in a worker of its own: the page stays responsive. */
export class InstructPix2Pix extends Client {
  static fromPretrained(model, options = {}) {
    return load(this, remote, model, options);
  }

  static fromSingleFile(source, options = {}) {
    return loadSingleFile(this, remote, source, options);
  }

  static download(model, options = {}) {
    return download(remote, model, options);
  }
}

/** The same on the calling thread: for code that already runs in a worker, and for tests. */
export class DirectInstructPix2Pix extends Client {
  static fromPretrained(model, options = {}) {
    return load(this, direct, model, options);
  }

  static fromSingleFile(source, options = {}) {
    return loadSingleFile(this, direct, source, options);
  }

  static download(model, options = {}) {
    return download(direct, model, options);
  }
}
