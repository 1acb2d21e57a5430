import { Client } from './client.js';
import { Engine } from './engine.js';
import { SD, XL } from './family.js';
import { download, load, loadSingleFile } from './loading.js';
import { RemoteEngine } from './remote.js';

export { cache } from './cache.js';
export { Component } from './components.js';
export { InstructPix2PixError } from './errors.js';

/** In a worker. */
const remote = { create: () => new RemoteEngine(), classes: [] };

/** On the calling thread. The engine is imported on demand, so that pages with the worker never fetch it a second time. */
const direct = { create: () => new Engine(() => import('./instruct_pix2pix.js')), classes: [] };

/** The pipeline in a worker of its own: the page stays responsive. */
export class InstructPix2Pix extends Client {
  static family = SD;

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

/** That of Stable Diffusion XL. */
export class InstructPix2PixXL extends InstructPix2Pix {
  static family = XL;
}

remote.classes.push(InstructPix2Pix, InstructPix2PixXL);

/** The same on the calling thread: for code that already runs in a worker, and for tests. */
export class DirectInstructPix2Pix extends Client {
  static family = SD;

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

/** That of Stable Diffusion XL. */
export class DirectInstructPix2PixXL extends DirectInstructPix2Pix {
  static family = XL;
}

direct.classes.push(DirectInstructPix2Pix, DirectInstructPix2PixXL);
