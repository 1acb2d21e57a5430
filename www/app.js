import { InstructPix2Pix, InstructPix2PixError } from './pkg/index.js';

const $ = (id) => document.getElementById(id);

/** The chosen picture: `{ blob, width, height }`. */
let picture;
/** Resolves when the picture chosen last has been read. */
let choosing;
/** The loaded model: `{ model, pipe }`. */
let loaded;
/** Stops what is running, if anything is. */
let running;

$('choose').addEventListener('click', () => $('file').click());
$('file').addEventListener('change', () => choose($('file').files[0]));
$('sample').addEventListener('click', () => {
  choosing = attempt(chooseSample);
});
$('model').addEventListener('change', showModel);
$('cancel').addEventListener('click', () => running?.abort());
$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  edit();
});

document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dropping');
});
document.addEventListener('dragleave', (event) => {
  // Leaving an element for another one inside the page is no leaving.
  if (!event.relatedTarget) document.body.classList.remove('dropping');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dropping');
  choose(event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => {
  const [file] = event.clipboardData.files;
  if (file) {
    event.preventDefault();
    choose(file);
  }
});

showModel();

/** @param {Blob | undefined} blob */
function choose(blob) {
  if (blob) choosing = attempt(() => choosePicture(blob));
}

async function chooseSample() {
  const response = await fetch('./samples/chelsea.jpg');
  if (!response.ok)
    throw new Error(`the sample photo answered with HTTP status ${response.status}`);
  await choosePicture(await response.blob());
}

async function choosePicture(blob) {
  const { width, height } = await decode(blob);
  picture = { blob, width, height };
  showImage('before', blob, 'The picture before the edit');
  showSize();
  say($('prompt').value ? 'Ready.' : 'Now say what to change.');
}

async function decode(blob) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: 'none' });
  } catch (cause) {
    throw new InstructPix2PixError('image-decode', 'This file could not be read as a picture.', {
      cause,
    });
  }
}

/** @param {string} name 'before' or 'after' @param {Blob} blob @param {string} alt */
function showImage(name, blob, alt) {
  const image = $(`${name}-image`);
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  image.alt = alt;
  image.hidden = false;
  $(`${name}-empty`).hidden = true;
}

function showModel() {
  const { note } = $('model').selectedOptions[0].dataset;
  const isOther = $('model').value === '';
  $('model-note').textContent = note;
  $('other-field').hidden = !isOther;
  $('other').required = isOther;
  showSize();
}

function showSize() {
  if (!picture) return;
  const { width, height } = picture;
  const size = scaledSize();
  const scaled = size.width === width ? '' : `, scaled to ${size.width} × ${size.height}`;
  $('before-size').textContent = `${width} × ${height}${scaled}`;
}

/** The picture's size, made to fit what the chosen model works well with. */
function scaledSize() {
  const { width, height } = picture;
  const scale = Math.min(1, $('model').selectedOptions[0].dataset.size / Math.max(width, height));
  return { width: Math.round(width * scale), height: Math.round(height * scale) };
}

/** The chosen picture as the model gets it: the file itself, unless it is too large. */
async function scaledPicture() {
  const { width, height } = scaledSize();
  if (width === picture.width) return picture.blob;
  const canvas = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(await decode(picture.blob), 0, 0, canvas.width, canvas.height);
  return canvas;
}

async function edit() {
  if (running) return;
  running = new AbortController();
  const { signal } = running;
  $('edit').disabled = true;
  $('cancel').hidden = false;
  await choosing;
  await attempt(async () => {
    if (!picture) throw new InstructPix2PixError('invalid-argument', 'Choose a picture first.');
    const prompt = $('prompt').value;
    // Read before the first wait, so that the result belongs to what the button was pressed for.
    const options = settings();
    const image = await scaledPicture();
    const pipe = await load($('model').value || $('other').value.trim(), signal);
    say('Encoding the picture and the instruction…');
    // Without tensors to look at, steps need not wait for the GPU.
    const steps = { onStep: showStep, onStepTensorInputs: [] };
    const result = await pipe.edit({ ...options, image, prompt, signal, ...steps });
    await showResult(result, prompt, pipe);
  }, signal);
  $('progress').hidden = true;
  $('edit').disabled = false;
  $('cancel').hidden = true;
  running = undefined;
}

function settings() {
  const seed = $('seed').value;
  return {
    numInferenceSteps: $('steps').valueAsNumber,
    guidanceScale: $('guidance').valueAsNumber,
    imageGuidanceScale: $('image-guidance').valueAsNumber,
    scheduler: $('scheduler').value || undefined,
    // Seeds have 64 bits, numbers 53.
    seed: seed === '' ? undefined : BigInt(seed),
  };
}

async function load(model, signal) {
  if (loaded?.model === model) return loaded.pipe;
  await unload();
  say('Starting…');
  const pipe = await InstructPix2Pix.fromPretrained(model, { signal, onProgress: showDownload });
  loaded = { model, pipe };
  return pipe;
}

async function unload() {
  const { pipe } = loaded ?? {};
  loaded = undefined;
  await pipe?.dispose();
}

function showDownload(event) {
  if (event.type === 'download') {
    const { component, loaded, total } = event;
    const share = `${bytes(loaded)} of ${bytes(total)} (${component})`;
    say(`Loading the model: ${share}${speed(event)}`, loaded / total);
  } else if (event.type === 'component') {
    say(`Loading the model: ${event.component} is on the GPU`, $('progress').value);
  } else if (event.type === 'waiting') {
    say('Another tab is downloading this model; waiting for it…');
  } else if (event.type === 'warning') {
    $('warning').textContent = event.message;
    $('warning').hidden = false;
  }
}

function speed({ loaded, cached, bytesPerSecond, secondsLeft }) {
  if (cached === loaded) return ', from this browser’s cache';
  if (!bytesPerSecond) return '';
  const left = secondsLeft === undefined ? '' : `, about ${seconds(secondsLeft * 1000)} left`;
  return `, ${bytes(bytesPerSecond)} a second${left}`;
}

function showStep({ step, steps, elapsed }) {
  const done = step + 1;
  const left = (elapsed / done) * (steps - done);
  const time = done < steps ? `about ${seconds(left)} left` : 'decoding…';
  say(`Step ${done} of ${steps}, ${time}`, done / steps);
}

async function showResult({ images: [image], seed, timings }, prompt, pipe) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext('2d').putImageData(image, 0, 0);
  showImage('after', await canvas.convertToBlob({ type: 'image/png' }), `After “${prompt}”`);
  $('after-size').textContent = `${image.width} × ${image.height}`;
  const link = $('download');
  link.href = $('after-image').src;
  link.download = `instruct-pix2pix-${seed}.png`;
  link.hidden = false;
  const { wasmHeap } = await pipe.memory();
  const { adapter, dtype } = pipe.info;
  $('after-detail').textContent = `seed ${seed}`;
  const time = seconds(timings.total);
  say(
    `Done in ${time} on ${adapter} (${dtype}), with ${bytes(wasmHeap)} of memory beside the GPU’s.`,
  );
}

/** @param {string} text @param {number} [share] of the work, 0 to 1; left out, it is unknown */
function say(text, share) {
  $('status').textContent = text;
  const progress = $('progress');
  progress.hidden = !running;
  if (share === undefined) progress.removeAttribute('value');
  else progress.value = share;
}

/**
 * Runs something whose failure the user should see.
 *
 * @param {() => Promise<void>} action
 * @param {AbortSignal} [signal] when it has aborted, failing is what the user wanted
 */
async function attempt(action, signal) {
  $('error').hidden = true;
  $('warning').hidden = true;
  try {
    await action();
  } catch (error) {
    if (signal?.aborted) {
      say('Cancelled.');
      return;
    }
    say('That did not work.');
    $('error-message').textContent = error.message;
    $('error-code').textContent = error.code ?? error.name;
    $('error').hidden = false;
    // Neither survives; the next edit loads the model again.
    if (error.code === 'engine' || error.code === 'gpu') await unload();
  }
}

function bytes(count) {
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}

function seconds(milliseconds) {
  const value = milliseconds / 1000;
  return value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`;
}
