import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundleShim } from '@sealpod/runtimeclass/bundle';
import { startupSnapshotName, writeStartupSnapshot } from '@sealpod/runtimeclass/installer';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const obstacle = process.getuid?.() === 0 ? undefined : 'sockets of shims are below /run: needs root';

describe.skipIf(obstacle !== undefined)(`startup snapshot of the shim${obstacle ? ` (${obstacle})` : ''}`, () => {
  let folder: string;
  let shimPath: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sealpod-snapshot-'));
    ({ shimPath } = await bundleShim(join(folder, 'lib')));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  let pods = 0;
  /** What the daemon of a new pod runs: the words of its command line that are files of the library. */
  const started = (): string[] => {
    const id = `pod${pods++}`;
    const bundle = join(folder, id);
    const address = join(folder, 'containerd.sock');
    const socket = `/run/containerd/s/${createHash('sha256').update(`${address}/test/${id}`).digest('hex')}`;
    mkdirSync(bundle);
    writeFileSync(join(bundle, 'config.json'), '{"annotations":{"io.kubernetes.cri.container-type":"sandbox"}}');
    const words = ['-namespace', 'test', '-address', address, '-id', id, 'start'];
    const answer = execFileSync(shimPath, words, { cwd: bundle, encoding: 'utf8' });
    const pid = Number(readFileSync(join(bundle, 'shim.pid'), 'utf8'));
    try {
      expect(answer).toBe(`unix://${socket}`);
      const library = join(folder, 'lib/');
      const commandLine = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return commandLine.filter((word) => /\.(cjs|blob)$/.test(word)).map((word) => word.replace(library, ''));
    } finally {
      process.kill(pid, 'SIGKILL');
      rmSync(socket, { force: true });
      rmSync(`${socket}.json`, { force: true });
    }
  };

  test('shims start from it where there is one, and the shim itself where there is none or Node refuses it', () => {
    const blob = join(folder, 'lib', startupSnapshotName);
    expect(started()).toEqual(['shim.cjs']);
    writeStartupSnapshot(blob);
    expect(started()).toEqual(['shim.blob']);
    truncateSync(blob, 1000);
    expect(started()).toEqual(['shim.cjs']);
    writeFileSync(blob, 'made by another build of Node');
    expect(started()).toEqual(['shim.cjs']);
  });

  test('what cannot be made leaves nothing, and says why', () => {
    const library = join(folder, 'broken');
    execFileSync('cp', ['-a', join(folder, 'lib'), library]);
    writeFileSync(join(library, 'shim.cjs'), 'throw new Error("cannot be loaded")');
    const blob = join(library, startupSnapshotName);
    expect(() => writeStartupSnapshot(blob)).toThrow(/no startup snapshot can be made/);
    expect(execFileSync('ls', [library], { encoding: 'utf8' })).not.toContain(startupSnapshotName);
  });
});
