import { InstructPix2PixError } from './errors.js';

/**
 * An edit as a stream of its steps and its result. A step waits until it is asked for, and the next
 * one is computed while the caller looks at it.
 *
 * @param {(options: any) => Promise<any>} edit
 * @param {any} options those of `edit`
 */
export async function* stream(edit, { onStep, signal, ...options }) {
  const left = new AbortController();
  let take;
  let given;
  /** The next step, with what lets the edit go on. */
  const next = () =>
    new Promise((resolve) => {
      take = resolve;
      given?.();
    });
  const result = edit({
    ...options,
    signal: AbortSignal.any([left.signal, ...(signal ? [signal] : [])]),
    async onStep(event) {
      if (!take) await new Promise((resolve) => (given = resolve));
      take({ type: 'step', ...event });
      take = given = undefined;
      return onStep?.(event);
    },
  });
  const end = result.then((value) => ({ type: 'result', ...value }));
  // Somebody who left does not hear of it.
  end.catch(() => {});
  try {
    for (;;) {
      const event = await Promise.race([end, next()]);
      yield event;
      if (event.type === 'result') return;
    }
  } finally {
    left.abort(new InstructPix2PixError('aborted', 'stopped: the loop over the stream was left'));
  }
}
