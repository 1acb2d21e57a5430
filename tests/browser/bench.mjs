/**
 * Runs the benchmarks of a build with them in Chromium, on this machine's GPU, and prints the table.
 *
 *   node bench.mjs [--f16] [--weights TYPE] [--only NAME] [--json FILE] [--software]
 */

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { folder, launch, pkg, serve } from './harness.mjs';

const { values } = parseArgs({
  options: {
    f16: { type: 'boolean' },
    weights: { type: 'string' },
    only: { type: 'string' },
    json: { type: 'string' },
    software: { type: 'boolean' },
  },
});
const query = new URLSearchParams();
if (values.f16) query.set('half', '');
if (values.weights) query.set('weights', values.weights);
if (values.only) query.set('only', values.only);

const server = await serve(`${folder}site`, { '/pkg': pkg });
const browser = await launch({ webgpu: values.software ? true : 'hardware' });
const page = await browser.newPage();
page.on('console', (message) => console.log(message.text()));
await page.goto(`${server.url}bench.html?${query}`);
try {
  const report = await page.evaluate(() =>
    globalThis.outcome.catch((error) => ({ error: String(error?.stack ?? error) })),
  );
  if (report.error) throw new Error(report.error);
  if (values.json) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
await browser.close();
server.close();
