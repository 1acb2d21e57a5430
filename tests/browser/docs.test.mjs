/** The API's pages: made of the packed types, in which everything has documentation. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { install } from './install.mjs';

const ENTRIES = ['index', 'react', 'element', 'node/index', 'plugins/esbuild', 'plugins/rollup'];

const skip = process.env.FULL !== '1' && 'without FULL=1';

test('typedoc makes pages, and misses nothing', { skip }, () => {
  const app = install('typedoc');
  const types = join(app, 'types');
  // What lies in node_modules counts as somebody else's, and is not looked at.
  cpSync(join(app, 'node_modules', 'instruct-pix2pix-web'), types, { recursive: true });
  const args = [join(app, 'node_modules', 'typedoc', 'bin', 'typedoc')];
  args.push('--entryPoints', ...ENTRIES.map((name) => join(types, `${name}.d.ts`)));
  args.push('--tsconfig', 'tsconfig.json', '--readme', join(types, 'README.md'), '--out', 'docs');
  args.push(...['js', 'jsx', 'ts', 'html', 'sh'].flatMap((name) => ['--highlightLanguages', name]));
  args.push('--name', 'instruct-pix2pix-web', '--validation.notDocumented', '--treatWarningsAsErrors');
  // Links to sources need a remote of git's, which not every checkout has.
  args.push('--disableSources');
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: app, encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}\n${stderr}`);
  const page = join(app, 'docs', 'interfaces', 'index.EditOptions.html');
  assert.ok(existsSync(page));
  assert.match(readFileSync(page, 'utf8'), /imageGuidanceScale/);
});
