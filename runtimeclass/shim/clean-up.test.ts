import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hypervisor } from '@sealpod/protocol/gen/kata/hypervisor_pb';
import { TtrpcServer } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { cleanUpDeadShim, sweepForgottenPods } from './clean-up.ts';
import type { Logger } from './log.ts';
import { type PodState, writeState } from './state-file.ts';

let folder: string;
let server: TtrpcServer;
let stopped: string[];
const log: Logger = { info: () => undefined, debug: () => undefined, close: () => undefined };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealpod-sweep-'));
  stopped = [];
  server = new TtrpcServer().addService(Hypervisor, {
    stopVM: ({ id }) => {
      stopped.push(id);
      return {};
    },
  });
  mkdirSync(join(folder, 's'));
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

const adaptor = () => join(folder, 'hypervisor.sock');
const traces = () => readdirSync(join(folder, 's')).sort();

/** What a killed shim leaves. */
function leave(letter: string, state: Partial<PodState>): string {
  const socketPath = join(folder, 's', letter.repeat(64));
  writeFileSync(socketPath, '');
  const bundle = join(folder, 'gone');
  writeState(socketPath, { version: 1, id: letter, pid: 1, bundle, hypervisorSocket: adaptor(), ...state });
  return socketPath;
}

it('a shim that was killed before it asked for a machine leaves nothing either', async () => {
  const socketPath = leave('a', { hypervisorSocket: '' });
  writeFileSync(`${socketPath}.json.new`, '');
  await cleanUpDeadShim(socketPath);
  expect(traces()).toEqual([]);
  await cleanUpDeadShim(socketPath);
});

it('the machine of a killed shim is stopped, also where the adaptor comes back only meanwhile', async () => {
  const socketPath = leave('a', {});
  const cleaned = cleanUpDeadShim(socketPath);
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(stopped).toEqual([]);
  await server.listen(adaptor());
  await cleaned;
  expect([stopped, traces()]).toEqual([['a'], []]);
});

it('where the adaptor stays away the state stays for the next shim, which sweeps', async () => {
  const socketPath = leave('a', {});
  await expect(cleanUpDeadShim(socketPath)).rejects.toMatchObject({ code: 'HYPERVISOR' });
  expect(traces()).toEqual([`${'a'.repeat(64)}.json`]);
  // One whose bundle is there is containerd's to clean up; the sweeper's own is not looked at.
  leave('b', { bundle: folder });
  const own = leave('c', {});
  leave('d', { hypervisorSocket: '' });
  await server.listen(adaptor());
  await sweepForgottenPods(own, log);
  expect(stopped).toEqual(['a']);
  const names = ['b', 'c'].map((letter) => letter.repeat(64)).flatMap((name) => [name, `${name}.json`]);
  expect(traces()).toEqual(names);
});
