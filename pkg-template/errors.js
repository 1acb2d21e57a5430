/** The one error type of this package. `code` is stable between versions, `message` is not. */
export class InstructPix2PixError extends Error {
  /**
   * @param {import('./index.js').InstructPix2PixErrorCode} code
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = 'InstructPix2PixError';
    this.code = code;
  }
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
    const options = thrown.cause === undefined ? undefined : { cause: thrown.cause };
    return new InstructPix2PixError(thrown.code, thrown.message, options);
  }
  return new InstructPix2PixError('engine', `the engine failed: ${thrown?.message ?? thrown}`, {
    cause: thrown,
  });
}
