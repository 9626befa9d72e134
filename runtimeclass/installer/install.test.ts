import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { containerdRelease, installRuntime, uninstallRuntime } from './index.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sealpod-install-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Every path below a folder with its kind, mode and content. */
function tree(directory: string): string[] {
  return readdirSync(directory, { recursive: true })
    .map(String)
    .sort()
    .map((name) => {
      const path = join(directory, name);
      const found = lstatSync(path);
      const content = found.isFile() ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
      return `${name} ${found.mode.toString(8)} ${content}`;
    });
}

const options = (containerdVersion: string) => ({
  containerdVersion,
  prefix: join(root, 'opt/sealpod'),
  containerdConfigPath: join(root, 'etc/containerd/config.toml'),
  configDirectory: join(root, 'etc/sealpod'),
});

const debian = readFileSync(new URL('testdata/debian-config.toml', import.meta.url), 'utf8');

describe.each([
  ['1.6.20~ds1', '1.6'],
  ['1.7.24', '1.7'],
  ['v2.4.2', '2'],
])('containerd %s', (version, release) => {
  test.each([
    ["Debian's configuration", debian],
    ['none', undefined],
    ['a configuration without version', 'oom_score = 0\n[grpc]\n  address = "/run/x.sock"'],
  ])('installs, again without change, and removes without residue: %s', async (_, configuration) => {
    if (configuration !== undefined) {
      mkdirSync(join(root, 'etc/containerd'), { recursive: true });
      writeFileSync(join(root, 'etc/containerd/config.toml'), configuration);
    }
    const before = tree(root);
    const installed = await installRuntime(options(version));
    expect(installed).toMatchObject({ release, changed: true });
    const during = tree(root);
    expect((await installRuntime(options(version))).changed).toBe(false);
    expect(tree(root)).toEqual(during);
    // The program that was put there runs.
    expect(execFileSync(installed.shimPath, ['-v']).toString()).toMatch(/^containerd-shim-sealpod-v2 \d/);
    const fragment = parse(readFileSync(installed.fragmentPath, 'utf8'));
    expect(fragment['version']).toBe(release === '2' ? 3 : 2);
    expect(JSON.stringify(fragment)).toContain(installed.shimPath);
    // Before 2.0 an imported plugin table replaces the node's, so it has to repeat it.
    if (configuration === debian && release !== '2') {
      expect(fragment).toMatchObject({
        plugins: {
          'io.containerd.grpc.v1.cri': { cni: { bin_dir: '/usr/lib/cni' }, containerd: { runtimes: { runc: {} } } },
        },
      });
    }
    expect(JSON.stringify(fragment).includes('proxy_plugins')).toBe(release !== '1.6');
    const config = parse(readFileSync(join(root, 'etc/containerd/config.toml'), 'utf8'));
    expect(config['imports']).toEqual([join(root, 'etc/containerd/conf.d/*.toml')]);
    uninstallRuntime(options(version));
    expect(tree(root)).toEqual(before);
    uninstallRuntime(options(version));
    expect(tree(root)).toEqual(before);
  });
});

test('what others put into the same folders stays', async () => {
  await installRuntime(options('1.7.24'));
  writeFileSync(join(root, 'etc/containerd/conf.d/other.toml'), 'version = 2\n');
  uninstallRuntime(options('1.7.24'));
  expect(existsSync(join(root, 'etc/containerd/conf.d/other.toml'))).toBe(true);
  expect(existsSync(join(root, 'opt'))).toBe(false);
});

test.each(['1.5.9', '3.0.0', 'unknown', ''])('version %j is refused before anything is written', async (version) => {
  expect(() => containerdRelease(version)).toThrow(/is not supported/);
  await expect(installRuntime(options(version))).rejects.toThrow(/is not supported/);
  expect(tree(root)).toEqual([]);
});

test.each([
  ['imports of its own', 'version = 2\nimports = ["/etc/other/*.toml"]\n', /has imports of its own/],
  ['version 1', 'version = 1\n', /configuration version 1/],
  ['no TOML', '= nothing', /is no TOML/],
])('a configuration with %s is refused and left as it is', async (_, configuration, message) => {
  mkdirSync(join(root, 'etc/containerd'), { recursive: true });
  writeFileSync(join(root, 'etc/containerd/config.toml'), configuration);
  const before = tree(root);
  await expect(installRuntime(options('1.7.24'))).rejects.toThrow(message);
  expect(tree(root)).toEqual(before);
});

test('paths must be absolute', async () => {
  await expect(installRuntime({ ...options('1.7.24'), prefix: 'opt/../x' })).rejects.toThrow(
    /prefix must be an absolute path/,
  );
});
