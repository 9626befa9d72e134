import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { missing, runNeeds, testNeeds } from '../../cli/setup/needs.mjs';
import { type CommandResult, root, run } from '../e2e/environment.ts';

/** Programs of this machine that the tests hide from the set-up, in a mount namespace of their own. */
const hidden = { test: '/usr/bin/umoci', run: '/usr/bin/xz' };
const obstacle =
  process.getuid?.() !== 0
    ? 'needs root: a mount namespace'
    : Object.values(hidden)
        .find((path) => !existsSync(path))
        ?.concat(' is not installed');

const files = mkdtempSync(join(tmpdir(), 'sealpod-setup-'));
const programs = join(files, 'bin');
const calls = join(files, 'calls');

/** Puts a program before the real one of this name; it notes its arguments. */
function replace(name: string, script: string): void {
  writeFileSync(join(programs, name), `#!/bin/sh\necho "${name} $*" >> ${calls}\n${script}\n`);
  chmodSync(join(programs, name), 0o755);
}

const called = (): string[] => (existsSync(calls) ? readFileSync(calls, 'utf8').trim().split('\n') : []);

/** Runs a command where the programs at `paths` cannot be executed, as if they were not installed. */
function withHidden(paths: readonly string[], ...command: readonly string[]): Promise<CommandResult> {
  const { CI: _, ...environment } = process.env;
  const hide = paths.map((path) => `mount --bind /dev/null ${path}`);
  return run('unshare', ['--mount', 'sh', '-c', [...hide, 'exec "$@"'].join(' && '), 'sh', ...command], {
    ...environment,
    PATH: `${programs}:${process.env['PATH']}`,
  });
}

const setup = (...args: readonly string[]): string[] => [process.execPath, join(root, 'cli/setup/main.mjs'), ...args];
const doctor = [join(root, 'cli/bin/sealpod'), 'doctor'];

beforeAll(() => mkdirSync(programs));
beforeEach(() => {
  rmSync(calls, { force: true });
  replace('apt-get', 'exit 100');
  replace('npm', 'exit 100');
});
afterAll(() => rmSync(files, { recursive: true, force: true }));

describe.skipIf(obstacle !== undefined)(`set-up${obstacle === undefined ? '' : ` (skipped: ${obstacle})`}`, () => {
  it('names what is missing, prints the exact command and exits 2; it installs nothing unasked', async () => {
    const result = await withHidden([hidden.test], ...setup('bench', '--help'));
    expect(result.code, result.stderr).toBe(2);
    expect(result.stderr).toContain('setup: missing umoci (Debian package umoci): a second opinion on unpacked images');
    expect(result.stderr).toMatch(/^ {2}apt-get update && apt-get install -y --no-install-recommends umoci$/m);
    expect(called()).toEqual([]);
  });

  it('installs them with --yes, and then runs what was asked for', async () => {
    replace('apt-get', `[ "$1" = update ] || umount ${hidden.test}`);
    const result = await withHidden([hidden.test], ...setup('bench', '--yes', '--help'));
    expect(result.code, result.stderr).toBe(0);
    expect(called()).toEqual(['apt-get update', 'apt-get install -y --no-install-recommends umoci']);
    expect(result.stdout).toMatch(/^usage: npm run bench/);
  });

  it('says so where the installation fails, and where it does not bring what is missing', async () => {
    const failed = await withHidden([hidden.test], ...setup('bench', '--yes', '--help'));
    expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('the package installation failed') });
    replace('apt-get', 'exit 0');
    const without = await withHidden([hidden.test], ...setup('bench', '--yes', '--help'));
    expect(without).toMatchObject({ code: 1, stderr: expect.stringContaining('still missing') });
  });

  it('does nothing again where everything is there', async () => {
    expect(missing([...runNeeds, ...testNeeds])).toEqual([]);
    const result = await withHidden([], ...setup('bench', '--yes', '--help'));
    expect(result.code, result.stderr).toBe(0);
    expect(result.stderr).not.toContain('setup:');
    expect(called()).toEqual([]);
  });

  it('refuses a script that it does not know', async () => {
    expect(await withHidden([], ...setup('stat'))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('unknown script "stat"; expected one of start, test, check, bench'),
    });
  });

  it('doctor prints the same needs, one line each, with the remedy of what is missing', async () => {
    const all = await withHidden([], ...doctor);
    expect(all.code, all.stderr).toBe(0);
    for (const { name, why } of runNeeds) expect(all.stdout).toMatch(lineWith('ok', `${name} (${why})`));

    const some = await withHidden([hidden.run], ...doctor);
    expect(some.code, some.stderr).toBe(2);
    expect(some.stdout).toMatch(lineWith('MISSING', 'xz ('));
    expect(some.stdout).toMatch(/^MISSING .*apt-get install -y --no-install-recommends xz-utils/m);
    expect(some.stdout.match(/^MISSING/gm)).toHaveLength(1);
    expect(some.stderr).toMatch(/error PREREQUISITE: 1 needs? /);
  });
});

function lineWith(state: string, need: string): RegExp {
  return new RegExp(`^${state} +${need.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}`, 'm');
}
