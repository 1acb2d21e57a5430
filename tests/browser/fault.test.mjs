/** What the GPU device reports by itself becomes the edit's error, never a wrong picture. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';

endAfterMinutes(15);

let browser, server;

before(async () => {
  server = await serve(`${folder}site`, { '/pkg': pkg, '/models': `${repository}www/models` });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
});

test('a shader that does not compile is an error with the name of its kernel, also on the console', async () => {
  const { page, problems } = await openPage(browser, server.url);
  const result = await page.evaluate(async () => {
    const { createShaderModule } = GPUDevice.prototype;
    GPUDevice.prototype.createShaderModule = function (descriptor) {
      const broken = descriptor.label === 'group_norm';
      const code = broken ? descriptor.code.replace('@compute', 'let @compute') : descriptor.code;
      return createShaderModule.call(this, { ...descriptor, code });
    };
    const { attempt, direct, picture, quick } = await import('/helpers.js');
    const { env } = await import('/pkg/index.js');
    env.logLevel = 'error';
    const pipe = await direct();
    return attempt(pipe.edit({ ...quick, image: picture() }));
  });
  assert.equal(result.code, 'gpu', JSON.stringify(result));
  assert.match(result.message, /group_norm/);
  const said = problems.filter((problem) => problem.includes('instruct-pix2pix-web: '));
  assert.match(said[0], /: the GPU device: .*group_norm/);
  assert.ok(said.every((line) => line.includes(': the GPU device: ')), said.join('\n'));
});
