/**
 * Every WGSL kernel in headless Chromium, against the numbers that its reference computes on the CPU
 * (`tests/fixtures/kernels.json`, which the native tests keep right). Prints a line per kernel and
 * the sum; exits with 1 on a failure.
 */

import { readFileSync } from 'node:fs';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';

/** Of the largest value, with arithmetic in floats and in halves. */
const TOLERANCE = { float: 2e-5, half: 1e-2 };
/** Whose kernels: whether many invocations run together, and whether they have subgroups. */
const DEVICES = [
  ['as here', false, true],
  ['as on a large GPU', true, true],
  ['as on one without subgroups', true, false],
];

endAfterMinutes(20);
const golden = JSON.parse(readFileSync(`${repository}tests/fixtures/kernels.json`, 'utf8'));
const server = await serve(`${folder}site`, { '/pkg': pkg });
const browser = await launch();
const { page, problems } = await openPage(browser, server.url);
const { names, half } = await page.evaluate(async () => {
  const { default: init, Kernels } = await import('/pkg/instruct_pix2pix.js');
  await init();
  globalThis.kernels = await Kernels.request();
  return { names: globalThis.kernels.names, half: globalThis.kernels.half };
});

const count = { ok: 0, FAIL: 0 };
function report(name, said) {
  const outcome = said.ok ? 'ok' : 'FAIL';
  count[outcome]++;
  console.log(`${outcome.padEnd(4)} ${name}: ${said.text}`);
}

for (const name of Object.keys(golden)) {
  if (!names.includes(name)) report(name, { ok: false, text: 'this build has no such kernel' });
}
for (const [index, name] of names.entries()) {
  for (const kind of half ? ['float', 'half'] : ['float']) {
    for (const [as, ...device] of DEVICES) {
      const values = await page
        .evaluate(async (all) => Array.from(await globalThis.kernels.run(...all)), [
          index,
          kind === 'half',
          ...device,
        ])
        .catch((error) => ({ error }));
      report(`${name}, ${kind}, ${as}`, compare(golden[name], values, TOLERANCE[kind]));
    }
  }
}
for (const problem of problems) report('page', { ok: false, text: problem });
await browser.close();
server.close();
console.log(`${count.ok} passed, ${count.FAIL} failed`);
process.exitCode = count.FAIL > 0 || count.ok === 0 ? 1 : 0;

function compare(expected, actual, tolerance) {
  if (!expected) return { ok: false, text: 'no numbers to compare with' };
  if (actual.error) return { ok: false, text: String(actual.error) };
  if (actual.length !== expected.count) {
    return { ok: false, text: `${actual.length} values, not ${expected.count}` };
  }
  let largest = Number.MIN_VALUE;
  let difference = 0;
  expected.values.forEach((value, i) => {
    const other = actual[i * expected.every];
    largest = Math.max(largest, Math.abs(value));
    difference = Math.max(difference, Number.isFinite(other) ? Math.abs(value - other) : Infinity);
  });
  const error = difference / largest;
  return { ok: error <= tolerance, text: `error ${error.toExponential(1)}` };
}
