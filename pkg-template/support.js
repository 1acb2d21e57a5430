/**
 * Whether a machine can do it, and what a model takes, before it is loaded.
 *
 * A file of its own, which is loaded when it is asked for: so it imports nothing, and what it stands on
 * comes with the call.
 *
 * @typedef {Record<string, any>} Tools
 */

/** As the engine does: a browser's first answer may come before its GPU process is there. */
const ATTEMPTS = 10;
const PAUSE = 500;

const BROWSERS = 'Chrome and Edge 113, Safari 26 and Firefox 141 or later have it';

/** The adapter that the engine would get, or throws what it would say. */
async function findAdapter({ InstructPix2PixError }, signal) {
  if (globalThis.isSecureContext === false) {
    const message = 'WebGPU needs a secure context: serve the page over https, or from localhost';
    throw new InstructPix2PixError('insecure-context', message);
  }
  const gpu = globalThis.navigator?.gpu;
  if (!gpu) {
    const message = `there is no WebGPU here; ${BROWSERS}; in Node, the npm package webgpu brings it`;
    throw new InstructPix2PixError('no-webgpu', message);
  }
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
    if (adapter) return adapter;
    if (attempt === ATTEMPTS) {
      const message =
        `no WebGPU adapter; ${BROWSERS}; hardware acceleration must be on in the browser's settings, ` +
        'and chrome://gpu tells why an adapter is blocked';
      throw new InstructPix2PixError('no-adapter', message);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/**
 * @param {Tools} tools
 * @param {{ signal?: AbortSignal }} [options]
 */
export async function isSupported(tools, { signal, ...options } = {}) {
  tools.check(options, {});
  signal?.throwIfAborted();
  try {
    await findAdapter(tools, signal);
    return true;
  } catch (error) {
    if (error instanceof tools.InstructPix2PixError) return false;
    throw error;
  }
}

/**
 * What would stand in the way of loading a model.
 *
 * @param {Tools} tools
 * @param {any} Class
 */
export async function requirements(tools, Class, model, { signal, ...given }) {
  const { InstructPix2PixError, REQUIREMENTS, check, checkStore, locate, siteOf, task, withDefaults } = tools;
  signal?.throwIfAborted();
  const { site, options } = siteOf(withDefaults(given, REQUIREMENTS));
  check(options, REQUIREMENTS);
  checkStore(options.cache);
  const request = { ...locate({ ...options, model }), className: Class.family.wanted };
  const problems = [];
  /** What an engine or a browser refuses becomes a problem; what is wrong with the call does not. */
  const attempt = async (promise) => {
    try {
      return await promise;
    } catch (error) {
      if (!(error instanceof InstructPix2PixError) || signal?.aborted) throw error;
      const { code, message, retryable } = error;
      problems.push({ code, message, retryable, fatal: true });
    }
  };
  const adapter = await attempt(findAdapter(tools, signal));
  if (adapter) {
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    request.largestBuffer = Math.min(maxBufferSize, maxStorageBufferBindingSize);
  }
  const engine = Class.place.create(site);
  let found;
  try {
    const { result } = task([signal], undefined, (notify, stop) =>
      engine.requirements(request, notify, stop),
    );
    found = await attempt(result);
  } finally {
    await engine.dispose();
  }
  const f16 = adapter?.features.has('shader-f16') ?? false;
  if (adapter && options.dtype === 'float16' && !f16) {
    const message = 'dtype: float16 needs `shader-f16`, which this adapter lacks';
    problems.push({ code: 'invalid-argument', message, retryable: false, fatal: true });
  }
  const room = await globalThis.navigator?.storage?.estimate?.().catch(() => {});
  const free = room && room.quota - room.usage;
  const isKept = options.cache !== false && typeof options.cache !== 'object';
  if (isKept && found?.storageBytes > free) {
    const message = `the model needs ${found.storageBytes} bytes, ${free} can be stored: it will not be kept`;
    problems.push({ code: 'storage', message, retryable: false, fatal: false });
  }
  return {
    ok: !problems.some(({ fatal }) => fatal),
    problems,
    adapter: adapter && describe(adapter, f16),
    dtype: options.dtype === 'float32' || !f16 ? 'float32' : 'float16',
    model: found,
    storage: { needed: isKept ? (found?.storageBytes ?? 0) : 0, free },
  };
}

function describe({ info, limits, isFallbackAdapter }, f16) {
  const { vendor = '', architecture = '', description = '' } = info ?? {};
  const { maxBufferSize, maxStorageBufferBindingSize } = limits;
  return {
    vendor,
    architecture,
    description,
    software: info?.isFallbackAdapter ?? isFallbackAdapter ?? false,
    f16,
    maxBufferSize,
    maxStorageBufferBindingSize,
  };
}
