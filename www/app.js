/**
 * The demo page, on the package's public API. Each file in js/ is about one thing; this one puts them together.
 */

import { initActivity, isRunning, say } from './js/activity.js';
import { initAddress } from './js/address.js';
import { initCamera } from './js/camera.js';
import { MODELS } from './js/catalogue.js';
import { initCrop, setCrop } from './js/crop.js';
import { $ } from './js/dom.js';
import { edit } from './js/edit.js';
import { forgetInstructions, showRecent } from './js/examples.js';
import { initHistory, push, restore } from './js/history.js';
import { initInstall } from './js/install.js';
import { initLoras } from './js/loras.js';
import { initMachine, lookAt } from './js/machine.js';
import { chosenModel, initModels, modelId } from './js/models.js';
import { fromFragment, fromJson } from './js/parameters.js';
import { announce, chooseResult, close, initPicture, isTouched, open } from './js/picture.js';
import { clearResult, initResult, showResults } from './js/result.js';
import { apply, initSettings, remember, remembered, suit } from './js/settings.js';
import { pictureOf } from './js/store.js';

initActivity();
initCrop(remember);
initSettings();
initPicture(showChosen);
initModels(showModel);
initMachine(modelId);
initLoras();
initCamera();
initAddress();
initResult(chooseResult);
initHistory(showView);
initInstall();
$('forget').addEventListener('click', forgetInstructions);
$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  edit();
});
start();

function start() {
  const last = remembered();
  showModel(chosenModel());
  if (last) {
    apply(fromJson(JSON.stringify(last)) ?? {});
    $('random-guidance').checked = last.randomGuidance === true;
  }
  showRecent();
  addEventListener('hashchange', takeLink);
  takeLink();
  restore(isTouched);
}

/** Takes settings over from a link. */
function takeLink() {
  const given = fromFragment(location.hash);
  if (!given || isRunning()) return;
  apply(given);
  say(`Settings were taken from the link.${strangers(given)} Choose a picture and press Edit.`);
}

/** Warns of models and LoRAs that others have chosen, before anything is asked of their servers. */
function strangers({ model, loras = [] }) {
  const named = loras.map(([source]) => `the LoRA ${source}`);
  if (model !== undefined && MODELS.every(({ id }) => id !== model))
    named.unshift(`the model ${model}`);
  return named.length === 0 ? '' : ` They name ${named.join(', ')}, which Edit would load.`;
}

/** @param {import('./js/catalogue.js').Model} model */
function showModel(model) {
  suit(model);
  lookAt(modelId());
}

/** A picture was chosen, perhaps one that says how it was made. */
function showChosen({ key, parameters }) {
  push({ source: key });
  clearResult();
  if (!parameters) return;
  const before = $('prompt').value;
  apply(parameters);
  $('picture-note').hidden = false;
  $('picture-note').textContent =
    `This picture says how it was made; its settings were taken over.${strangers(parameters)}` +
    (before && before !== parameters.prompt ? ` Your instruction was “${before}”.` : '');
}

/** Shows a view of the history, as it was. */
async function showView(view) {
  const isLatest = announce();
  const source = view && (await pictureOf(view.source));
  if (!isLatest()) return;
  if (!source) {
    close();
    clearResult();
    return;
  }
  await open(source, view.source);
  if (!isLatest()) return;
  if (view.crop) setCrop(view.crop);
  if (!view.results) {
    clearResult();
    return;
  }
  const { seed, ...settings } = view.results[view.chosen ?? 0].parameters;
  // Whether the next one is random stays as it is.
  const isRandom = $('random-guidance').checked;
  apply(settings);
  $('random-guidance').checked = isRandom;
  $('seed').value = seed;
  await showResults(view);
}
