/** How long the steps that are still to come will take. Nothing in here knows a browser. */

/** Of so many steps the mean is taken: the latest tell best how busy the machine is. */
const LATEST = 5;

export class Pace {
  #last;
  #times = [];

  /**
   * Notes that a step has ended.
   *
   * @param {number} step from 1; the first of an edit is not counted: encoding and the compilation of shaders are in it
   * @param {number} now milliseconds
   */
  ended(step, now) {
    if (step > 1) this.#times = [...this.#times, now - this.#last].slice(-LATEST);
    this.#last = now;
  }

  /** @param {number} steps still to come @returns {number | undefined} milliseconds, as soon as it can be said */
  left(steps) {
    const { length } = this.#times;
    if (length === 0) return undefined;
    return (steps * this.#times.reduce((sum, time) => sum + time, 0)) / length;
  }
}
