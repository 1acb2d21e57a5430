/** A page with the package and `site/helpers.js` among its globals, as many tests begin. */

import assert from 'node:assert/strict';
import { folder, launch, openPage, pkg, repository, serve } from './harness.mjs';

/** @param {Record<string, string>} [mounts] folders by their path, beside `/pkg` and `/models` */
export async function openSite(mounts = {}) {
  const models = `${repository}www/models`;
  const server = await serve(`${folder}site`, { '/pkg': pkg, '/models': models, ...mounts });
  const browser = await launch();
  const close = async () => {
    await browser.close();
    server.close();
  };
  try {
    const { page, problems } = await openPage(browser, server.url);
    await page.evaluate(async () => {
      Object.assign(window, await import('/helpers.js'), await import('/pkg/index.js'));
    });

    /** Asserts that an expression, which may have the name `argument`, is refused. */
    const assertRefused = async (code, message, run, argument) => {
      const error = await page.evaluate(
        ([run, argument]) => attempt((async () => new Function('argument', `return ${run}`)(argument))()),
        [run, argument],
      );
      assert.equal(error.code, code, error.message ?? run);
      assert.ok(error.isPackageError);
      assert.match(error.message, message);
    };
    return { assertRefused, close, page, problems };
  } catch (error) {
    await close();
    throw error;
  }
}
