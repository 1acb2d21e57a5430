import { InstructPix2PixError } from './errors.js';

/**
 * Runs `start` for a caller who may stop it: by one of `signals`, or by a `callback` that returns
 * `false` or throws. The callback always runs on the caller's side; `notify` gives its answer,
 * `false` when the task is stopped.
 *
 * @template Event, Value
 * @param {(AbortSignal | undefined)[]} signals
 * @param {((event: Event) => unknown) | undefined} callback
 * @param {(notify: (event: Event) => Promise<any>, stop: AbortSignal) => Promise<Value>} start
 * @returns {{ result: Promise<Value>, settled: Promise<void> }} `result` rejects as soon as the
 *   task is stopped; `settled` resolves, never rejects, when `start` has really ended.
 */
export function task(signals, callback, start) {
  const own = new AbortController();
  const stop = AbortSignal.any([own.signal, ...signals.filter((signal) => signal !== undefined)]);
  const notify = async (event) => {
    if (stop.aborted) return false;
    try {
      const answer = await callback?.(event);
      if (answer === false) {
        own.abort(new InstructPix2PixError('aborted', 'stopped: the callback returned false'));
      }
      return stop.aborted ? false : answer;
    } catch (error) {
      own.abort(error);
      return false;
    }
  };
  const work = (async () => {
    stop.throwIfAborted();
    return start(notify, stop);
  })();
  const settled = work.then(
    () => {},
    () => {},
  );
  return { result: abortable(work, stop), settled };
}

/**
 * `promise`, or a rejection with the signal's reason as soon as it aborts.
 *
 * @template Value
 * @param {Promise<Value>} promise
 * @param {AbortSignal} signal
 * @returns {Promise<Value>}
 */
export function abortable(promise, signal) {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
