/**
 * Applications that install the packed package: each is built for production, opened, and makes the
 * tiny edit. Two of them in the gate, all of them with FULL=1.
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { install, npm } from './install.mjs';
import { exampleOf, examples } from './readme.mjs';

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
  sveltekit: { run: 'src/routes', start: () => ['start'], element: true, full: true },
};

/** What any tool can do that puts modules together and knows nothing of this package. */
const PLAIN_BUILD = `
  import { build } from 'esbuild';
  await build({ entryPoints: ['main.js'], bundle: true, format: 'esm', minify: true, outdir: 'dist' });
`;

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

/** Opens the app at an address; what its page says beside that the edit went well. */
async function edited(url) {
  const { page, problems } = await openPage(browser, `${url}?model=${models.url}tiny-random`);
  try {
    await page.waitForFunction(() => document.body.dataset.outcome);
    const { outcome, ...found } = await page.evaluate(() => ({
      ...document.body.dataset,
      hasElement: customElements.get('instruct-pix2pix') !== undefined,
    }));
    assert.equal(outcome, '16 x 16', problems.join('\n'));
    // A folder of a model lacks files that it may lack, and these apps an icon.
    assert.deepEqual(problems.filter((problem) => !/404/.test(problem)), []);
    return found;
  } finally {
    await page.close();
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
      const { seen, hasElement } = await edited(site.url);
      if (settings.element) assert.ok(hasElement, 'what is imported for its effect alone is there');
      if (settings.seen) {
        for (const what of settings.seen.split(' ')) assert.ok(seen.split(' ').includes(what), seen);
      }
    } finally {
      site.close();
    }
  });
}

test('an app with copies of the files that the README names', { skip: !FULL && 'without FULL=1' }, async () => {
  const app = install('esbuild');
  copyFileSync(join(folder, 'apps', 'shared', 'run.js'), join(app, 'run.js'));
  writeFileSync(join(app, 'build.mjs'), PLAIN_BUILD);
  const [{ code }] = examples().filter(({ code }) => code.includes('env.workerUrl ='));
  writeFileSync(join(app, 'main.js'), `${code}\n${readFileSync(join(app, 'main.js'), 'utf8')}`);
  npm(['run', '--silent', 'build'], app);
  copyFileSync(join(app, 'index.html'), join(app, 'dist', 'index.html'));
  const readme = readFileSync(join(pkg, 'README.md'), 'utf8');
  const [, list] = readme.match(/copy (`[^:]*?)into one folder/);
  const names = [...list.matchAll(/`(.+?)`/g)].map(([, name]) => name);
  assert.ok(names.includes('worker.js'), `${names}`);
  mkdirSync(join(app, 'dist', 'vendor'));
  for (const name of names) {
    copyFileSync(join(app, 'node_modules', 'instruct-pix2pix-web', name), join(app, 'dist', 'vendor', name));
  }
  const site = await serve(join(app, 'dist'));
  try {
    await edited(site.url);
  } finally {
    site.close();
  }
});
