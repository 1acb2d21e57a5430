/** The one error type of this package. `code` is stable between versions, `message` is not. */
export class InstructPix2PixError extends Error {
  /**
   * @param {import('./index.js').InstructPix2PixErrorCode} code
   * @param {string} message
   * @param {{ cause?: unknown, retryable?: boolean }} [options]
   */
  constructor(code, message, { cause, retryable = false } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'InstructPix2PixError';
    this.code = code;
    this.retryable = retryable;
  }
}

/**
 * @param {string} message
 * @param {unknown} [cause]
 */
export function invalid(message, cause) {
  return new InstructPix2PixError('invalid-argument', message, { cause });
}

/**
 * Gives what wasm threw the package's own type: the glue throws plain `Error`s that only carry the
 * name and the code, and a defect of the engine (a panic, a borrow error) carries neither.
 *
 * @param {any} thrown
 * @returns {InstructPix2PixError}
 */
export function fromEngine(thrown) {
  if (thrown instanceof InstructPix2PixError) return thrown;
  if (thrown?.name === 'InstructPix2PixError') {
    return new InstructPix2PixError(thrown.code, thrown.message, thrown);
  }
  return new InstructPix2PixError('engine', `the engine failed: ${thrown?.message ?? thrown}`, {
    cause: thrown,
  });
}
