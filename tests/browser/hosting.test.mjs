/** Pages as they are really served: under a strict policy, from a CDN, without a network. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { endAfterMinutes, folder, launch, openPage, pkg, repository, serve } from './harness.mjs';
import { exampleOf } from './readme.mjs';

endAfterMinutes(40);

const FULL = process.env.FULL === '1';
const site = join(folder, 'site');
const models = `${repository}www/models`;

let browser, cdn, server;

before(async () => {
  server = await serve(site, { '/pkg': pkg, '/models': models });
  cdn = await serve(pkg);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  server?.close();
  cdn?.close();
});

const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
};

/**
 * A server that sets headers, and that can really be gone.
 *
 * @param {Record<string, string>} roots folders by what their paths begin with, the longer first
 * @param {{ headers?: Record<string, string>, scripts?: Record<string, string> }} [options]
 */
function serveHere(roots, { headers = {}, scripts = {} } = {}) {
  const app = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://x').pathname);
    const [prefix, root] = Object.entries(roots).find(([prefix]) => path.startsWith(prefix));
    const name = normalize(path.slice(prefix.length) || 'index.html');
    let body;
    try {
      body = scripts[path] ? Buffer.from(scripts[path]) : readFileSync(join(root, name));
    } catch {
      response.writeHead(404).end();
      return;
    }
    const all = { ...headers, 'content-type': TYPES[extname(name)] ?? 'application/octet-stream' };
    const range = request.headers.range?.match(/^bytes=(\d+)-(\d*)$/);
    if (!range) {
      response.writeHead(200, { ...all, 'content-length': body.length }).end(body);
      return;
    }
    const [start, end] = [Number(range[1]), Math.min(Number(range[2] || body.length), body.length - 1)];
    const part = body.subarray(start, end + 1);
    const place = `bytes ${start}-${end}/${body.length}`;
    response.writeHead(206, { ...all, 'content-length': part.length, 'content-range': place }).end(part);
  });
  return new Promise((resolve) => {
    app.listen(0, '127.0.0.1', () => {
      const url = `http://127.0.0.1:${app.address().port}/`;
      resolve({
        url,
        async close() {
          app.closeAllConnections();
          await new Promise((done) => app.close(done));
        },
      });
    });
  });
}

const roots = { '/pkg/': pkg, '/models/': models };

/** A page of which every answer of its own server has a policy. */
async function withPolicy(policy, run) {
  const headers = { 'content-security-policy': `default-src 'none'; img-src data:; ${policy}` };
  const server = await serveHere({ ...roots, '/': site }, { headers });
  const context = await browser.newContext();
  try {
    await context.addInitScript(() => {
      window.violations = [];
      document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
        violations.push(`${violatedDirective} ${blockedURI}`),
      );
    });
    const { page } = await openPage({ newPage: () => context.newPage() }, server.url);
    return await run(page);
  } finally {
    await context.close();
    await server.close();
  }
}

/** Loads the tiny model by the package at `url`, and edits with it. */
function edit(page, url, edits = true) {
  return page.evaluate(
    async ([url, edits]) => {
      const { InstructPix2Pix } = await import(url);
      try {
        const pipe = await InstructPix2Pix.fromPretrained('/models/tiny-random', { cache: false });
        if (!edits) return { heap: (await pipe.memory()).wasmHeap };
        const image = new ImageData(new Uint8ClampedArray(4 * 16 * 16).fill(200), 16, 16);
        const { images } = await pipe.edit({ image, prompt: 'p', numInferenceSteps: 1, seed: 1 });
        await pipe.dispose();
        return { size: `${images[0].width} x ${images[0].height}`, violations };
      } catch ({ code, message }) {
        return { code, message, violations };
      }
    },
    [url, edits],
  );
}

describe('a strict Content-Security-Policy', () => {
  const strict = "connect-src 'self'; worker-src 'self'";

  test('needs nothing but wasm-unsafe-eval', async () => {
    const policy = `${strict}; script-src 'self' 'wasm-unsafe-eval'`;
    const { size, violations, message, isolated } = await withPolicy(policy, async (page) => ({
      isolated: await page.evaluate(() => crossOriginIsolated),
      ...(await edit(page, '/pkg/index.js')),
    }));
    assert.equal(size, '16 x 16', message);
    assert.deepEqual(violations, []);
    assert.equal(isolated, false, 'cross-origin isolation is not needed');
  });

  test('without that is an error of the engine', async () => {
    const { code, message } = await withPolicy(`${strict}; script-src 'self'`, (page) =>
      edit(page, '/pkg/index.js'),
    );
    assert.equal(code, 'engine', message);
    assert.match(message, /WebAssembly/);
  });
});

describe('a CDN', () => {
  test('serves the package to pages of other origins', async () => {
    const { page } = await openPage(browser, server.url);
    const { heap, message } = await edit(page, `${cdn.url}index.js`, false);
    await page.close();
    assert.ok(heap > 0, message);
  });

  test('takes a policy that allows its origin, and workers from blobs', async () => {
    const policy = (workers) =>
      `connect-src 'self' ${cdn.url}; worker-src ${workers}; ` +
      `script-src 'self' ${cdn.url} 'wasm-unsafe-eval'`;
    const allowed = await withPolicy(policy(`blob: ${cdn.url}`), (page) =>
      edit(page, `${cdn.url}index.js`, FULL),
    );
    assert.ok(FULL ? allowed.size === '16 x 16' : allowed.heap > 0, allowed.message);
    const refused = await withPolicy(policy(cdn.url), (page) => edit(page, `${cdn.url}index.js`));
    assert.equal(refused.code, 'engine', refused.message);
    assert.ok(refused.violations.some((violation) => violation.startsWith('worker-src blob')));
  });
});

describe('a page with the element', () => {
  test('edits a chosen file, and tells of it', async () => {
    const { page } = await openPage(browser, server.url);
    await page.evaluate(async () => {
      await import('/pkg/element.js');
      document.body.innerHTML =
        '<instruct-pix2pix model="/models/tiny-random" prompt="make it snowy" steps="1" seed="1"></instruct-pix2pix>';
      window.element = document.querySelector('instruct-pix2pix');
      window.told = new Set();
      for (const type of ['progress', 'step', 'result', 'error']) {
        element.addEventListener(type, () => told.add(type));
      }
    });
    const image = { name: 'photo.jpg', mimeType: 'image/jpeg' };
    const buffer = readFileSync(join(repository, 'www', 'samples', 'chelsea.jpg'));
    if (FULL) {
      const small = await page.evaluate(async () => {
        const canvas = new OffscreenCanvas(24, 16);
        canvas.getContext('2d').fillRect(0, 0, 12, 16);
        const blob = await canvas.convertToBlob();
        return [...new Uint8Array(await blob.arrayBuffer())];
      });
      await page.getByLabel('Picture').setInputFiles({ ...image, buffer: Buffer.from(small) });
      await page.getByRole('button', { name: 'Edit' }).click();
      await page.waitForFunction(() => told.has('result') || told.has('error'));
      const found = await page.evaluate(() => {
        const canvas = element.shadowRoot.querySelector('canvas');
        const { status, error } = element.state;
        return {
          size: [canvas.width, canvas.height, canvas.hidden],
          told: [...told].sort(),
          status,
          error: error?.message,
        };
      });
      assert.deepEqual(found, {
        size: [24, 16, false],
        told: ['progress', 'result', 'step'],
        status: 'ready',
        error: undefined,
      });
    } else {
      await page.getByLabel('Picture').setInputFiles({ ...image, buffer });
      await page.evaluate(() => element.load());
      assert.deepEqual(await page.evaluate(() => [...told]), ['progress']);
    }
    // Taken out of the document, it frees the model.
    const pipe = await page.evaluate(async () => {
      const pipe = await element.load();
      element.remove();
      await new Promise((resolve) => setTimeout(resolve, 100));
      return pipe.memory().then(
        () => 'alive',
        ({ code }) => code,
      );
    });
    assert.equal(pipe, 'disposed');
    await page.close();
  });

  test('shows what went wrong, and can be tried again', async () => {
    const { page } = await openPage(browser, server.url);
    const found = await page.evaluate(async () => {
      await import('/pkg/element.js');
      const element = document.createElement('instruct-pix2pix');
      element.model = '/models/none';
      element.src = '/no/such/picture';
      document.body.append(element);
      const errors = [];
      element.addEventListener('error', ({ detail }) => errors.push(detail.code));
      const attempt = () => element.edit({ prompt: 'p' }).catch(({ code }) => code);
      const codes = [await attempt(), await attempt()];
      element.model = '/models/tiny-random';
      await element.load();
      const status = element.shadowRoot.querySelector('[role=status]').textContent;
      return { codes, errors, status, state: element.state.status };
    });
    await page.close();
    assert.deepEqual(found.codes, ['not-found', 'not-found']);
    assert.ok(found.errors.length >= 2 && found.errors.every((code) => code === 'not-found'));
    assert.deepEqual([found.status, found.state], ['', 'ready']);
  });
});

test('an app with the documented service worker edits offline', { skip: !FULL && 'without FULL=1' }, async () => {
  // The README's scripts, with a model of the server's own.
  const scripts = {
    '/sw.js': exampleOf('sw.js'),
    '/app.js': exampleOf('app.js').replace('timbrooks/instruct-pix2pix', '/models/tiny-random'),
  };
  const app = await serveHere({ ...roots, '/': join(site, 'pwa') }, { scripts });
  const context = await browser.newContext();
  try {
    const { page, problems } = await openPage({ newPage: () => context.newPage() }, app.url);
    const edit = async () => {
      const run = page.evaluate(async () => {
        const { pipe } = await import('/app.js');
        const image = new ImageData(new Uint8ClampedArray(4 * 16 * 16).fill(200), 16, 16);
        const options = { image, prompt: 'make it snowy', numInferenceSteps: 1, seed: 1 };
        const { images } = await pipe.edit(options);
        return [...images[0].data];
      });
      return run.catch((error) => {
        throw new Error(problems.join('\n'), { cause: error });
      });
    };
    const online = await edit();
    const session = await context.newCDPSession(page);
    const { installabilityErrors } = await session.send('Page.getInstallabilityErrors');
    const obstacles = installabilityErrors.map(({ errorId }) => errorId);
    // The windows of tests are those that keep nothing.
    assert.deepEqual(obstacles.filter((id) => id !== 'in-incognito'), []);
    await app.close();
    await context.setOffline(true);
    await page.reload();
    assert.deepEqual(await edit(), online);
  } finally {
    await context.close();
    await app.close().catch(() => {});
  }
});
