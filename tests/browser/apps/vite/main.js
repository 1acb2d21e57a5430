import { createElement, StrictMode, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { useInstructPix2Pix } from 'instruct-pix2pix-web/react';

const model = new URL(location.href).searchParams.get('model');
const image = new ImageData(new Uint8ClampedArray(4 * 16 * 16).fill(200), 16, 16);
const seen = new Set();

/** Edits once it is there, and says how that went. */
function App() {
  const { status, progress, step, result, error, edit } = useInstructPix2Pix(model, { cache: false });
  seen.add(status);
  if (progress) seen.add(progress.type);
  if (step) seen.add('step');
  useEffect(() => {
    edit({ image, prompt: 'make it snowy', numInferenceSteps: 1, seed: 1 });
  }, [edit]);
  useEffect(() => {
    document.body.dataset.seen = [...seen].sort().join(' ');
    if (result) document.body.dataset.outcome = `${result.images[0].width} x ${result.images[0].height}`;
    if (error) document.body.dataset.outcome = `${error.code}: ${error.message}`;
  }, [result, error]);
  return createElement('p', null, status);
}

const root = document.body.appendChild(document.createElement('main'));
// React mounts everything twice here, as it does while an app is developed.
createRoot(root).render(createElement(StrictMode, null, createElement(App)));
