/**
 * Applications that install the packed package: each is built for production, opened, and makes the
 * tiny edit. Two of them in the gate, all of them with FULL=1.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, repository, serve } from './harness.mjs';
import { install, npm } from './install.mjs';
import { exampleOf } from './readme.mjs';

endAfterMinutes(60);

const FULL = process.env.FULL === '1';

/**
 * Where an app keeps the file that its own code imports as `./run.js`, and what it builds. Some take
 * their bundler's settings from the README.
 */
const APPS = {
  vite: { page: 'dist', seen: 'component download editing loading ready step' },
  esbuild: { run: '.', page: 'dist', copies: true, readme: 'build.mjs' },
  html: { run: '.', page: '.', full: true },
  webpack: { run: 'src', page: 'dist', copies: true, full: true },
  parcel: { run: '.', page: 'dist', full: true },
  rollup: { run: '.', page: 'dist', copies: true, readme: 'rollup.config.js', full: true },
  next: { run: 'app', start: (port) => ['start', '--', '--port', port], full: true },
  sveltekit: { run: 'src/routes', start: () => ['start'], full: true },
};

let browser, models;

before(async () => {
  // Another origin than the apps', as the Hub is.
  models = await serve(`${repository}www/models`);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  models?.close();
});

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return String(port);
}

/** The framework's own server. */
async function start(app, { start }) {
  const port = await freePort();
  const env = { ...process.env, PORT: port, HOST: '127.0.0.1', NEXT_TELEMETRY_DISABLED: '1' };
  const windows = process.platform === 'win32';
  const args = ['run', '--silent', ...start(port)];
  const server = spawn(windows ? 'npm.cmd' : 'npm', args, {
    cwd: app,
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
    shell: windows,
    detached: !windows,
  });
  // npm passes no signal on to what it runs.
  const close = () => (windows ? server.kill() : process.kill(-server.pid));
  const url = `http://127.0.0.1:${port}/`;
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return { url, close };
    if (attempt === 60) {
      close();
      throw new Error(`no answer from ${url}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

for (const [name, settings] of Object.entries(APPS)) {
  const skip = settings.full && !FULL && 'without FULL=1';
  test(`an app of ${name}`, { skip }, async () => {
    const app = install(name);
    if (settings.run) {
      copyFileSync(join(folder, 'apps', 'shared', 'run.js'), join(app, settings.run, 'run.js'));
    }
    if (settings.readme) writeFileSync(join(app, settings.readme), exampleOf(settings.readme));
    if (name !== 'html') npm(['run', '--silent', 'build'], app);
    if (settings.copies) copyFileSync(join(app, 'index.html'), join(app, settings.page, 'index.html'));
    const site = settings.start ? await start(app, settings) : await serve(join(app, settings.page));
    try {
      if (settings.start) {
        const html = await (await fetch(site.url)).text();
        assert.match(html, /<p id="from-the-server"[^>]*>/, 'it was rendered on the server');
      }
      const { page, problems } = await openPage(browser, `${site.url}?model=${models.url}tiny-random`);
      await page.waitForFunction(() => document.body.dataset.outcome);
      const { outcome, seen } = await page.evaluate(() => ({ ...document.body.dataset }));
      await page.close();
      assert.equal(outcome, '16 x 16', problems.join('\n'));
      if (settings.seen) {
        for (const what of settings.seen.split(' ')) assert.ok(seen.split(' ').includes(what), seen);
      }
      // A folder of a model lacks files that it may lack, and these apps an icon.
      assert.deepEqual(problems.filter((problem) => !/404/.test(problem)), []);
    } finally {
      site.close();
    }
  });
}
