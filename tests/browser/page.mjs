/** What the tests of the demo page share. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';
import { openPage, pkg, repository, serve } from './harness.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A sample photo, 448 x 296. */
export const CAT = readFileSync(`${repository}www/samples/chelsea.jpg`);

/** The page as `cargo xtask demo` serves it. @param {Record<string, string>} [mounts] */
export function serveDemo(mounts) {
  return serve(`${repository}www`, { '/pkg': pkg, ...mounts }, { policy: true });
}

/**
 * A server in front of another one, whose weights come slowly, and of which some files don't come.
 *
 * @param {string} url
 * @param {number} bytesPerSecond of each connection
 */
export async function slowLine(url, bytesPerSecond) {
  const refused = new Set();
  const held = new Set();
  const proxy = http.createServer((request, response) => {
    const { method, headers } = request;
    const address = new URL(request.url, url);
    if (held.has(address.pathname)) return;
    if (refused.has(address.pathname)) {
      response.writeHead(500).end();
      return;
    }
    const asked = http.request(address, { method, headers, agent: false }, async (found) => {
      response.writeHead(found.statusCode, found.headers);
      const isSlow = address.pathname.endsWith('.safetensors');
      try {
        for await (const piece of found) {
          response.write(piece);
          if (isSlow) await delay((1000 * piece.length) / bytesPerSecond);
        }
        response.end();
      } catch {
        // Whoever asked has left.
      }
    });
    asked.on('error', () => response.destroy());
    response.on('close', () => asked.destroy());
    asked.end();
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${proxy.address().port}/`,
    /** Paths that are answered with an error. */
    refused,
    /** Paths that are not answered. */
    held,
    close() {
      proxy.closeAllConnections();
      proxy.close();
    },
  };
}

/**
 * Opens the page in a context of its own.
 *
 * @param {import('playwright-core').Browser} browser
 * @param {string} url
 * @param {import('playwright-core').BrowserContextOptions} [options]
 * @returns {Promise<{ page: import('playwright-core').Page, context: import('playwright-core').BrowserContext,
 *   problems: string[], strangers: string[], finish: () => Promise<void> }>} `finish` closes it, and fails where
 *   something went wrong on the way, or another server was asked
 */
export async function openDemo(browser, url, options) {
  const context = await browser.newContext(options);
  const strangers = [];
  const { origin } = new URL(url);
  // Those of workers and of the service worker too.
  context.on('request', (request) => {
    const { protocol, origin: asked, href } = new URL(request.url());
    if (/^https?:$/.test(protocol) && asked !== origin) strangers.push(href);
  });
  const { page, problems } = await openPage({ newPage: () => context.newPage() }, url);
  return {
    page,
    context,
    problems,
    strangers,
    async finish() {
      await context.close();
      assert.deepEqual(problems, []);
      assert.deepEqual(strangers, [], 'the page asks no other server');
    },
  };
}

/** What axe finds, as lines; experimental rules are left out. */
export async function violationsOn(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`),
  );
}

/** Lets files fall on the page, or pastes them. */
export function give(page, type, bytes, name) {
  return page.evaluate(
    ([type, base64, name]) => {
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], name));
      const options = { bubbles: true, cancelable: true };
      document.body.dispatchEvent(
        type === 'drop'
          ? new DragEvent(type, { ...options, dataTransfer: data })
          : new ClipboardEvent(type, { ...options, clipboardData: data }),
      );
    },
    [type, Buffer.from(bytes).toString('base64'), name],
  );
}

/** A JPEG that says which way up it is: EXIF's orientation, 1 to 8. */
export function oriented(jpeg, orientation) {
  const tiff = Buffer.alloc(26);
  tiff.write('MM\0*', 'latin1');
  tiff.writeUInt32BE(8, 4); // where the directory is
  tiff.writeUInt16BE(1, 8); // one entry
  tiff.writeUInt16BE(0x0112, 10);
  tiff.writeUInt16BE(3, 12); // 16 bits
  tiff.writeUInt32BE(1, 14);
  tiff.writeUInt16BE(orientation, 18);
  const body = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), tiff]);
  const head = Buffer.from([0xff, 0xe1, 0, 0]);
  head.writeUInt16BE(body.length + 2, 2);
  return Buffer.concat([jpeg.subarray(0, 2), head, body, jpeg.subarray(2)]);
}

/**
 * Mean and colourfulness of a shown picture, 0 to 255: the mean of its samples, and that of the distances
 * between each pixel's largest and smallest. `print` is the same for the same pixels alone.
 */
export function statisticsOf(locator) {
  return locator.evaluate(async (image) => {
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    const context = new OffscreenCanvas(width, height).getContext('2d');
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    let [sum, spread] = [0, 0];
    for (let i = 0; i < data.length; i += 4) {
      const pixel = data.subarray(i, i + 3);
      sum += pixel[0] + pixel[1] + pixel[2];
      spread += Math.max(...pixel) - Math.min(...pixel);
    }
    const pixels = data.length / 4;
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
    return {
      width,
      height,
      mean: sum / (3 * pixels),
      colour: spread / pixels,
      print: digest.join(),
    };
  });
}

/**
 * Milliseconds of the longest task of the page's main thread during `run`, by that thread's own clock: a
 * `longtask` entry also counts the time in which another process had the processor.
 */
export async function longestTask(page, run) {
  const browser = page.context().browser();
  await browser.startTracing(page, { categories: ['disabled-by-default-devtools.timeline'] });
  let events;
  try {
    await run();
  } finally {
    events = JSON.parse(await browser.stopTracing()).traceEvents;
  }
  const { processId } = events
    .find(({ name }) => name === 'TracingStartedInBrowser')
    .args.data.frames.find(({ isOutermostMainFrame }) => isOutermostMainFrame);
  const thread = events.find(
    ({ pid, name, args }) =>
      pid === processId && name === 'thread_name' && args.name === 'CrRendererMain',
  );
  const tasks = events.filter(
    ({ pid, tid, name, tdur }) =>
      pid === thread.pid && tid === thread.tid && name === 'RunTask' && tdur !== undefined,
  );
  if (tasks.length === 0) throw new Error('the trace has no task of the page');
  return tasks.reduce((longest, { tdur }) => Math.max(longest, tdur), 0) / 1000;
}

/** What the page itself measured last under a name, milliseconds. */
export function measured(page, name) {
  return page.evaluate(
    (name) => performance.getEntriesByName(name, 'measure').at(-1)?.duration,
    name,
  );
}

/** Asserts that nothing sticks out to the right, and that what can be pressed is large enough. */
export async function assertFits(page) {
  const { over, small } = await page.evaluate(() => {
    const visible = [...document.querySelectorAll('button, a, input, select, summary')].filter(
      (each) => each.checkVisibility() && each.type !== 'checkbox',
    );
    return {
      over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      small: visible
        .filter((each) => each.getBoundingClientRect().height < 24)
        .map((each) => each.outerHTML.slice(0, 80)),
    };
  });
  assert.ok(over <= 0, `the page is ${over} pixels wider than the screen`);
  assert.deepEqual(small, [], 'what is too small to be touched');
}
