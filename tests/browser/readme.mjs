/** The examples of the package's README. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pkg } from './harness.mjs';

/**
 * @typedef {object} Example
 * @property {string} language as the README marks it
 * @property {string | undefined} file what its first line says that it is called
 * @property {string} code
 */

/** @returns {Example[]} */
export function examples() {
  const readme = readFileSync(join(pkg, 'README.md'), 'utf8');
  return [...readme.matchAll(/^```(\w*)\n(.*?)^```/gms)].map(([, language, code]) => ({
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
