/**
 * Counts the buffers of all GPU devices of this thread. To be run before any device is asked for;
 * `gpuCount()` tells.
 *
 * A buffer is gone when it is destroyed, when its device is, or when it was collected as garbage;
 * those are counted apart, since nobody knows when that happens.
 */
(() => {
  const created = { buffers: 0, bytes: 0 };
  const gone = { destroyed: 0, withDevice: 0, collected: 0 };
  let liveBytes = 0;
  /** The buffers that are not gone, as their device's set holds them: without the buffer itself. */
  const tokens = new WeakMap();
  const devices = new Set();
  let devicesMade = 0;

  function leave(token, how) {
    if (!token || !token.of.delete(token)) return;
    gone[how]++;
    liveBytes -= token.size;
  }

  const collected = new FinalizationRegistry((token) => leave(token, 'collected'));
  const buffersOf = new WeakMap();

  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    const own = new Set();
    buffersOf.set(device, own);
    devices.add(own);
    devicesMade++;
    return device;
  };

  const { createBuffer, destroy: destroyDevice } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    const of = buffersOf.get(this);
    const token = { size: descriptor.size, of };
    of.add(token);
    tokens.set(buffer, token);
    collected.register(buffer, token);
    created.buffers++;
    created.bytes += descriptor.size;
    liveBytes += descriptor.size;
    return buffer;
  };
  GPUDevice.prototype.destroy = function () {
    const own = buffersOf.get(this);
    for (const token of [...own]) leave(token, 'withDevice');
    devices.delete(own);
    return destroyDevice.call(this);
  };

  const { destroy: destroyBuffer } = GPUBuffer.prototype;
  GPUBuffer.prototype.destroy = function () {
    leave(tokens.get(this), 'destroyed');
    return destroyBuffer.call(this);
  };

  globalThis.gpuCount = () => ({
    liveBytes,
    liveBuffers: [...devices].reduce((sum, own) => sum + own.size, 0),
    devices: devices.size,
    devicesMade,
    created: { ...created },
    gone: { ...gone },
  });
})();
