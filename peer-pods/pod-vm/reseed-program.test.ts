import { spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { reseedProgram } from './reseed-program.ts';

const directory = mkdtempSync(join(tmpdir(), 'sealpod-reseed-'));
const program = join(directory, 'reseed');
const notTypewriter = 25;

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const runOn = (path: string): number | null => {
  writeFileSync(program, reseedProgram(), { mode: 0o700 });
  return spawnSync(program, { stdio: [openSync(path, 'r'), 'ignore', 'ignore'] }).status;
};

it.skipIf(process.platform !== 'linux' || process.arch !== 'x64' || process.getuid?.() !== 0)(
  'makes the kernel reseed, and fails where its input is no random device',
  () => {
    expect(runOn('/dev/urandom')).toBe(0);
    expect(runOn('/dev/null')).toBe(256 - notTypewriter);
  },
);
