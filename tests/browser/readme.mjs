/** The examples of the package's README, and those of the repository's in JavaScript. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pkg, repository } from './harness.mjs';

/**
 * @typedef {object} Example
 * @property {string} language as the README marks it
 * @property {string | undefined} file what its first line says that it is called
 * @property {string} code
 */

/** @returns {Example[]} */
export function examples() {
  const ofProject = examplesIn(join(repository, 'README.md')).filter(({ language }) => language === 'js');
  if (ofProject.length === 0) throw new Error('the front page has no example');
  return [...examplesIn(join(pkg, 'README.md')), ...ofProject];
}

/** @returns {Example[]} */
function examplesIn(path) {
  return [...readFileSync(path, 'utf8').matchAll(/^```(\w*)\n(.*?)^```/gms)].map(([, language, code]) => ({
    language,
    file: code.match(/^\/\/ (\S+\.m?js)\n/)?.[1],
    code,
  }));
}

/** The example of a file. */
export function exampleOf(file) {
  const found = examples().filter((example) => example.file === file);
  if (found.length !== 1) throw new Error(`${found.length} examples of ${file} in the README`);
  return found[0].code;
}
