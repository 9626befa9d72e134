import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readPayloadRecord, writePayloadRecord } from './payload.ts';
import { Placement, releaseName, removeReleases } from './placement.ts';

let work: string;
beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'sealpod-placement-'));
  mkdirSync(join(work, 'host'));
});
afterEach(() => rmSync(work, { recursive: true, force: true }));

const prefix = '/opt/sealpod';
const below = (...names: string[]): string => join(work, 'host', prefix, ...names);

/** A release with a program and a file in a folder. */
function release(version: string): Placement & { readonly name: string } {
  const payload = join(work, version);
  mkdirSync(join(payload, 'lib'), { recursive: true });
  writeFileSync(join(payload, 'lib/program'), `#!/bin/sh\necho ${version}\n`);
  chmodSync(join(payload, 'lib/program'), 0o755);
  writeFileSync(join(payload, 'data'), version);
  chmodSync(join(payload, 'data'), 0o644);
  const record = writePayloadRecord(payload, version);
  const placement = new Placement(payload, record, { root: join(work, 'host'), prefix });
  return Object.assign(placement, { name: releaseName(record) });
}

test('places a release, complete and current, whatever the umask', () => {
  const umask = process.umask(0o077);
  try {
    const one = release('1.0.0');
    expect(one.ensure()).toEqual({ repaired: [], switched: true });
    expect(readlinkSync(below('current'))).toBe(`versions/${one.name}`);
    expect(readFileSync(below('current/data'), 'utf8')).toBe('1.0.0');
    expect(statSync(below('current/lib/program')).mode & 0o777).toBe(0o755);
    expect(statSync(below('current/lib')).mode & 0o777).toBe(0o755);
    expect(readPayloadRecord(below('current')).version).toBe('1.0.0');
    expect(one.ensure()).toEqual({ repaired: [], switched: false });
  } finally {
    process.umask(umask);
  }
});

describe('repairs', () => {
  test.each<[string, () => void]>([
    ['a deleted file', () => rmSync(below('current/lib/program'))],
    ['changed content of the same size', () => writeFileSync(below('current/lib/program'), '#!/bin/sh\necho 6.6.6\n')],
    ['another mode', () => chmodSync(below('current/lib/program'), 0o644)],
    [
      'a folder in its place',
      () => {
        rmSync(below('current/lib/program'));
        mkdirSync(below('current/lib/program/x'), { recursive: true });
      },
    ],
  ])('%s', (_, damage) => {
    const one = release('1.0.0');
    one.ensure();
    damage();
    expect(one.ensure().repaired).toEqual(['lib/program']);
    expect(readFileSync(below('current/lib/program'), 'utf8')).toContain('echo 1.0.0');
    expect(one.ensure().repaired).toEqual([]);
  });

  test('a link that leads elsewhere, or is no link', () => {
    const one = release('1.0.0');
    one.ensure();
    rmSync(below('current'));
    mkdirSync(below('current'));
    expect(one.ensure().switched).toBe(true);
    expect(readlinkSync(below('current'))).toBe(`versions/${one.name}`);
  });
});

test('keeps a release that is used, and removes it when it is not', () => {
  const one = release('1.0.0');
  const two = release('2.0.0');
  one.ensure();
  expect(two.ensure().switched).toBe(true);
  mkdirSync(below('versions/.new-interrupted'));
  expect(two.removeUnused([`${prefix}/versions/${one.name}/lib/node`])).toEqual(['.new-interrupted']);
  expect(readdirSync(below('versions')).sort()).toEqual([one.name, two.name].sort());
  expect(two.removeUnused(['/usr/bin/node'])).toEqual([one.name]);
  expect(readdirSync(below('versions'))).toEqual([two.name]);
});

test('removes everything but what others put there', () => {
  release('1.0.0').ensure();
  writeFileSync(below('other'), '');
  removeReleases(join(work, 'host'), prefix);
  expect(readdirSync(below())).toEqual(['other']);
  rmSync(below('other'));
  removeReleases(join(work, 'host'), prefix);
  expect(existsSync(below())).toBe(false);
});

test('a prefix that cannot be written to is said', () => {
  writeFileSync(join(work, 'host/opt'), 'a file');
  expect(() => release('1.0.0').ensure()).toThrow(/programs cannot be placed below \/opt\/sealpod/);
});
