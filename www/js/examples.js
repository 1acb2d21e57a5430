/** Instructions to try, and those that were used. */

import { $, element, memory, option } from './dom.js';

const NAME = 'instruct-pix2pix-instructions';
const MOST = 30;

/** @returns {string[]} the latest first */
function recent() {
  const found = memory.get(NAME);
  return Array.isArray(found) ? found.filter((each) => typeof each === 'string') : [];
}

/** @param {string} instruction */
export function rememberInstruction(instruction) {
  const others = recent().filter((each) => each !== instruction);
  memory.set(NAME, [instruction, ...others].slice(0, MOST));
  showRecent();
}

export function forgetInstructions() {
  memory.set(NAME, []);
  showRecent();
}

/** The browser offers them while one types. */
export function showRecent() {
  $('recent').replaceChildren(...recent().map((each) => option(each, each)));
}

/** @param {string[]} examples */
export function showExamples(examples) {
  $('examples').replaceChildren(
    ...examples.map((example) => {
      const button = element('button', { type: 'button' }, example);
      button.addEventListener('click', () => {
        $('prompt').value = example;
        $('prompt').dispatchEvent(new Event('change'));
        $('prompt').focus();
      });
      return button;
    }),
  );
}
