/**
 * A stand-in for the Hugging Face Hub, for the tests of downloads: `cargo xtask hub` on loopback.
 *
 * It has two origins: the Hub's own (`url`), with the API and the small files, and a CDN's (`cdn`),
 * to which the Hub redirects for files in LFS, by addresses that are signed and expire.
 *
 * A file `NAME.generated.json` stands for a file `NAME` of weights that are made on the fly, however many: see
 * `xtask/src/server/hub/generated.rs`.
 *
 * What is to go wrong is told by rules. A rule has a fault and says which requests meet it:
 *
 *     { path: '*unet*.safetensors', origin: 'cdn', fault: { kind: 'cut', after: 1000 } }
 *
 *     origin   'hub' or 'cdn'; both where absent
 *     method   all but OPTIONS where absent
 *     path     with * for anything: the request's path, or the file's in its repository
 *     covers   only requests whose range has this byte of the file
 *     nth      the first request to meet it, of those that it could be; 1 where absent
 *     times    how many requests meet it; 1 where absent, 0 for all
 *
 * The first rule that is due wins. The faults:
 *
 *     cut { after }                  the connection ends after so many bytes of the body
 *     status { status, retryAfter?, expose? }   429, 500, 503, ...; expose lets pages see Retry-After
 *     length { delta }               the file is so much longer or shorter than the tree says
 *     bytes { at?, count? }          bits turned, from byte `at` of the file on (or the answer's first)
 *     html {}                        a page, with status 200
 *     slow { bytesPerSecond }
 *     stall { after, ms? }           nothing more after so many bytes of the body
 *     hang { ms? }                   no answer
 *     redirect-loop {}
 *     expired {}                     the CDN's 403 for a signature whose time is over
 *     ignore-range {}                the whole file with status 200
 *     gzip {}                        compressed, of unknown length, ranges ignored
 *     no-cors {}                     not to be read by pages
 *     restart { ms }                 all connections end, and none can be made for so long
 *
 * Faults of bodies (cut, length, bytes, slow, stall, ignore-range, gzip) meet only answers to GET
 * that have what was asked for.
 */

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { once } from 'node:events';

/**
 * @typedef {object} LogEntry
 * @property {number} n
 * @property {number} at milliseconds since the server started
 * @property {'hub' | 'cdn'} origin
 * @property {string} method
 * @property {string} path
 * @property {string} query
 * @property {string | null} file `owner/name/path`
 * @property {string | null} range the header
 * @property {boolean} authorization whether a token came along
 * @property {string | null} asks what a preflight asks for
 * @property {number} status 0 while there is none
 * @property {number} sent bytes of the body that the socket has taken
 * @property {boolean} done whether the answer was sent to its end
 * @property {string | null} fault
 */

/**
 * Serves folders as models.
 *
 * @param {Record<string, string>} models folders by `owner/name` or `owner/name@revision`
 */
export async function serveHub(models) {
  const args = Object.entries(models).flatMap(([id, folder]) => ['--repo', `${id}=${folder}`]);
  const server = spawn(process.env.XTASK, ['hub', '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const close = () => server.kill();
  process.once('exit', close);
  const line = await Promise.race([
    once(createInterface(server.stdout), 'line').then(([first]) => first),
    once(server, 'exit').then(([code]) => {
      throw new Error(`the hub ended with ${code}`);
    }),
  ]);
  const { hub: url, cdn, models: published } = JSON.parse(line);

  async function control(body) {
    const answer = await fetch(`${url}/_control`, { method: 'POST', body: JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) throw new Error(`the hub does not understand: ${said.error}`);
    return said;
  }

  return {
    /** Without a slash at its end: the `endpoint` option. */
    url,
    cdn,
    /** The commits of the branches: `models['a/b'].main`. */
    models: published,
    /**
     * Changes how the server behaves, in this order; all may be absent:
     * `publish: [{ repo, revision?, folder }]` moves a branch (the old commit stays to be had),
     * `reset: true` forgets rules, log, gates and settings, `rules` adds some, `signatureMs` is the
     * life of signed addresses, `pageSize` the longest page of the tree, `gate: { id: token | null }`
     * asks for a token, `restartMs` drops all connections and refuses others for so long.
     */
    control,
    /** Away with rules, log, gates and settings; then these rules. */
    reset: (...rules) => control({ reset: true, rules }),
    /** @returns {Promise<LogEntry[]>} */
    log: async () => (await (await fetch(`${url}/_log`)).json()).requests,
    close,
  };
}
