/** Columns of the bar. */
const WIDTH = 24;

/** Without a terminal, a line is written whenever so much more is done. */
const PART = 0.25;

/** A progress bar on a terminal, and a line now and then elsewhere. */
export class Progress {
  #stream;
  #last = '';
  #told = new Map();

  /** @param {import('node:tty').WriteStream | undefined} stream nothing is shown without one */
  constructor(stream) {
    this.#stream = stream;
  }

  /** @param {import('../index.js').LoadProgress} event */
  loading(event) {
    if (event.type === 'warning') this.#line(`warning: ${event.message}`);
    if (event.type === 'waiting') this.#line('another process downloads the model; waiting for it');
    if (event.type !== 'download') return;
    const { component, loaded, total, bytesPerSecond, secondsLeft } = event;
    const speed = bytesPerSecond > 0 ? `, ${bytes(bytesPerSecond)}/s` : '';
    const left = secondsLeft === undefined ? '' : `, ${duration(secondsLeft)} left`;
    this.#show('model', loaded / total, `${component} ${bytes(loaded)} of ${bytes(total)}${speed}${left}`);
  }

  /** @param {import('../index.js').EditStep} event */
  step({ step, steps, elapsed }) {
    const left = (elapsed / (step + 1)) * (steps - step - 1);
    this.#show('edit', (step + 1) / steps, `step ${step + 1} of ${steps}, ${duration(left / 1e3)} left`);
  }

  /** Lets go of the line. */
  end() {
    if (this.#last && this.#stream?.isTTY) this.#stream.write('\n');
    this.#last = '';
  }

  #show(task, share, text) {
    if (!this.#stream) return;
    if (this.#stream.isTTY) {
      if (this.#last && this.#last !== task) this.end();
      this.#last = task;
      const full = Math.round(share * WIDTH);
      const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full);
      const line = `${bar} ${String(Math.floor(share * 100)).padStart(3)} % ${text}`;
      // To the beginning of the line, which is cut to the window and cleared behind.
      this.#stream.write(`\r${line.slice(0, (this.#stream.columns ?? 80) - 1)}\x1b[K`);
      return;
    }
    const told = this.#told.get(task) ?? 0;
    if (share < told && share < 1) return;
    if (share >= 1 && told > 1) return;
    this.#told.set(task, share >= 1 ? 2 : (Math.floor(share / PART) + 1) * PART);
    this.#stream.write(`${String(Math.floor(share * 100)).padStart(3)} % ${text}\n`);
  }

  #line(text) {
    this.end();
    this.#stream?.write(`${text}\n`);
  }
}

function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB'];
  const unit = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return `${(count / 1e3 ** unit).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

function duration(seconds) {
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
