/** The packed package, installed into applications as their developers do it. */

import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { folder, output, pkg } from './harness.mjs';

const NPM = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const QUIET = ['--no-audit', '--no-fund', '--ignore-scripts', '--loglevel', 'error'];

/** Runs npm in a folder, quietly unless it fails. */
export function npm(args, cwd) {
  const env = { ...process.env, CI: '1', NEXT_TELEMETRY_DISABLED: '1' };
  try {
    return execFileSync(NPM, args, { cwd, env, encoding: 'utf8', stdio: 'pipe', shell: NPM !== 'npm' });
  } catch (error) {
    throw new Error(`npm ${args.join(' ')} in ${cwd}:\n${error.stdout}\n${error.stderr}`);
  }
}

/** What `npm publish` would upload; made once. */
export function pack() {
  pack.path ??= (() => {
    const place = mkdtempSync(join(tmpdir(), 'packed-'));
    process.once('exit', () => rmSync(place, { recursive: true, force: true }));
    npm(['pack', pkg, '--pack-destination', place, ...QUIET], place);
    const [name] = readdirSync(place);
    return join(place, name);
  })();
  return pack.path;
}

/**
 * A copy of `apps/NAME` with its dependencies, which are kept from one run to the next, and with the
 * package.
 *
 * @param {string} name
 * @returns {string} the folder
 */
export function install(name) {
  const from = join(folder, 'apps', name);
  const app = join(output, 'apps', name);
  mkdirSync(app, { recursive: true });
  const lock = readFileSync(join(from, 'package-lock.json'), 'utf8');
  const stamp = join(app, 'node_modules', '.installed');
  const isFresh = existsSync(stamp) && readFileSync(stamp, 'utf8') === lock;
  for (const entry of readdirSync(app)) {
    if (entry !== 'node_modules' || !isFresh) rmSync(join(app, entry), { recursive: true });
  }
  cpSync(from, app, { recursive: true });
  // Not `ci`, which asks for the binaries of all other platforms too.
  if (!isFresh) npm(['install', ...QUIET], app);
  // Without a trace in package.json, and from the file each time.
  rmSync(join(app, 'node_modules', 'instruct-pix2pix-web'), { recursive: true, force: true });
  npm(['install', '--no-save', '--no-package-lock', ...QUIET, pack()], app);
  writeFileSync(stamp, lock);
  return app;
}
