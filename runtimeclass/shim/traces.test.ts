import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeState } from './state-file.ts';
import { removeShimTraces } from './traces.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'sealpod-traces-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function leave(name: string, bundle: string): void {
  const socketPath = join(directory, name.repeat(64));
  writeFileSync(socketPath, '');
  writeState(socketPath, { version: 1, id: name, pid: 1, bundle, hypervisorSocket: '/nowhere' });
}

describe('what killed shims leave', () => {
  it("is removed for one containerd and stays for another's", () => {
    leave('a', '/run/one/containerd/task/k8s.io/a');
    leave('b', '/run/one-more/containerd/task/k8s.io/b');
    writeFileSync(join(directory, 'c'.repeat(64)), '');
    removeShimTraces('/run/one', directory);
    const others = [`${'b'.repeat(64)}`, `${'b'.repeat(64)}.json`, 'c'.repeat(64)];
    expect(readdirSync(directory).sort()).toEqual(others);
    removeShimTraces('/run/one', join(directory, 'absent'));
  });
});
