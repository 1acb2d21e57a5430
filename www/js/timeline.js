/**
 * Undo and redo, as a list of views and a place in it. Nothing in here knows a browser.
 *
 * @typedef {object} View
 * @property {string} source the picture that is edited: its key in the store
 * @property {object} [crop]
 * @property {string} [before] what of it the model saw
 * @property {{ picture: string, parameters: import('./parameters.js').Parameters }[]} [results]
 * @property {number} [chosen] among the results
 */

/** More would fill the disk. */
const MOST = 40;

export class Timeline {
  /** @type {View[]} */
  views = [];
  /** The view shown; -1 while there is none. */
  at = -1;

  /** @param {{ views?: View[], at?: number }} [saved] */
  constructor({ views = [], at = views.length - 1 } = {}) {
    this.views = views;
    this.at = Math.min(at, views.length - 1);
  }

  get current() {
    return this.views[this.at];
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.views.length - 1;
  }

  /** Adds a view behind the current one; those that were undone are gone. */
  push(view) {
    this.views.splice(this.at + 1, Infinity, view);
    this.views.splice(0, this.views.length - MOST);
    this.at = this.views.length - 1;
  }

  /** @param {number} by -1 undoes, 1 does it again */
  move(by) {
    return this.jump(this.at + by);
  }

  /** @param {number} to @returns {boolean} whether there is such a view */
  jump(to) {
    if (!this.views[to]) return false;
    this.at = to;
    return true;
  }

  clear() {
    this.views = [];
    this.at = -1;
  }

  /** The keys of all pictures that a view shows. */
  get pictures() {
    const keys = this.views.flatMap(({ source, before, results = [] }) => [
      source,
      before,
      ...results.map(({ picture }) => picture),
    ]);
    return new Set(keys.filter(Boolean));
  }
}
