import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProcesses, identityOf } from '@sealpod/processes';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { createClient, Status, TtrpcConnection, type TtrpcError } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type Cleanups,
  configureAdaptor,
  makePodNamespace,
  type RunningAdaptor,
  startAdaptor,
} from './adaptor-for-tests.ts';
import type { TestProviderOptions } from './provider-for-tests.ts';

const root = process.getuid?.() === 0;
const needsRoot = root ? '' : ' (skipped: needs root)';
const executable = basename(process.execPath);
const id = 'beadfeed'.repeat(4);
// Each starts programs, some of them several.
vi.setConfig({ testTimeout: 120_000 });
const eager = { reconcile: { intervalMs: 100, orphanGraceMs: 600 } };

let folder: string;
let cleanups: Cleanups;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-'));
  cleanups = [];
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  for (const { pid } of findProcesses({ executable, marker: `${folder}/` })) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

function adaptor(more: object = eager, provider: TestProviderOptions = {}): Promise<RunningAdaptor> {
  const socket = join(folder, 'hypervisor.sock');
  return startAdaptor(configureAdaptor(folder, socket, provider, more), socket, cleanups);
}

const machines = () => findProcesses({ executable, marker: join(folder, 'pods', id) });
const directories = () => readdirSync(join(folder, 'pods'));

/** A pod VM with its shim's connection. */
async function started(running: RunningAdaptor, networkNamespacePath = '') {
  const { agentSocketPath } = await running.hypervisor.createVM({ id, networkNamespacePath });
  await running.hypervisor.startVM({ id });
  return connected(agentSocketPath);
}

async function connected(path: string) {
  const connection = await TtrpcConnection.connect(path);
  cleanups.push(() => connection.close());
  return { connection, agent: createClient(AgentService, connection), health: createClient(Health, connection) };
}

const failure = (promise: Promise<unknown>): Promise<TtrpcError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: TtrpcError) => error,
  );

describe('a machine that ends while its pod runs', () => {
  it('is noticed at once: calls under way and later ones say so, and how its console ends', async () => {
    const running = await adaptor({ reconcile: { intervalMs: 600_000, orphanGraceMs: 600_000 } });
    const { agent, health } = await started(running);
    const waiting = failure(agent.waitProcess({ containerId: 'a' }));
    expect((await health.check({})).status).toBe(1);
    for (const { pid } of machines()) process.kill(pid, 'SIGKILL');
    expect(await waiting).toMatchObject({ status: Status.unavailable });
    const begun = performance.now();
    const { status, message } = await failure(health.check({}));
    expect(performance.now() - begun).toBeLessThan(3000);
    expect(status).toBe(Status.unavailable);
    expect(message).toMatch(
      /^VM_ENDED: the pod VM podvm-pod-beadfeed has ended; its console ends with: .*panic: no root$/s,
    );
    // Its shim stops it, as always.
    await running.hypervisor.stopVM({ id });
    expect(directories()).toEqual([]);
  });

  it('is removed where nobody is left to stop it', async () => {
    const running = await adaptor();
    const { connection } = await started(running);
    for (const { pid } of machines()) process.kill(pid, 'SIGKILL');
    await sleep(1500);
    // Its shim is there and will.
    expect(directories()).toEqual([id]);
    connection.close();
    await expect.poll(directories, { timeout: 60_000 }).toEqual([]);
  });
});

describe('a sandbox that nobody will ask for again', () => {
  it.skipIf(!root)(`is stopped once its network namespace is gone and no shim is connected${needsRoot}`, async () => {
    const running = await adaptor();
    const netns = makePodNamespace(cleanups);
    const { connection, health } = await started(running, `/run/netns/${netns}`);
    execFileSync('ip', ['netns', 'delete', netns]);
    await sleep(1500);
    // A shim is connected: whatever became of the namespace, somebody uses this machine.
    expect((await health.check({})).status).toBe(1);
    connection.close();
    await expect.poll(directories, { timeout: 60_000 }).toEqual([]);
    expect(machines()).toEqual([]);
    expect(running.log.some(({ msg }) => String(msg).startsWith('nobody uses this sandbox'))).toBe(true);
  });

  it.skipIf(!root)(
    `is not stopped while its network namespace is there, nor where it has none${needsRoot}`,
    async () => {
      const running = await adaptor();
      const { connection } = await started(running, `/run/netns/${makePodNamespace(cleanups)}`);
      connection.close();
      await running.hypervisor.createVM({ id: 'without' });
      await running.hypervisor.startVM({ id: 'without' });
      await sleep(2000);
      expect(directories().sort()).toEqual([id, 'without'].sort());
      expect(machines()).toHaveLength(1);
    },
  );
});

describe('what the journal does not know', () => {
  it.skipIf(!root)(`is removed where it is this adaptor's own, with its machine and its tap${needsRoot}`, async () => {
    const first = await adaptor();
    const netns = makePodNamespace(cleanups);
    await started(first, `/run/netns/${netns}`);
    first.process.kill('SIGKILL');
    await first.exited;
    // As after a damaged journal, which an operator is told to move away.
    rmSync(join(folder, 'state/journal.jsonl'));
    const second = await adaptor();
    expect(machines()).toEqual([]);
    expect(directories()).toEqual([]);
    expect(execFileSync('ip', ['-n', netns, 'link'], { encoding: 'utf8' })).not.toContain('sealpod');
    await started(second, `/run/netns/${netns}`);
  });

  it.skipIf(!root)(`stays where it only looks like it, and is reported once${needsRoot}`, async () => {
    const running = await adaptor();
    const netns = makePodNamespace(cleanups);
    await started(running, `/run/netns/${netns}`);
    const pods = join(folder, 'pods');
    const owner = JSON.parse(readFileSync(join(pods, id, 'owner.json'), 'utf8'));
    const lookAlike = (name: string, record: object | undefined): void => {
      mkdirSync(join(pods, name));
      writeFileSync(join(pods, name, 'file'), 'mine');
      if (record) writeFileSync(join(pods, name, 'owner.json'), JSON.stringify(record));
    };
    lookAlike('nobody', undefined);
    lookAlike('other-adaptor', {
      adaptor: '00000000-0000-4000-8000-000000000000',
      spec: { ...owner.spec, id: 'other-adaptor', directory: join(pods, 'other-adaptor') },
    });
    // A copy of a sandbox of ours, and one that points at it.
    lookAlike('copy', owner);
    lookAlike('pointing', { ...owner, spec: { ...owner.spec, id: 'pointing' } });
    lookAlike('damaged', {});
    writeFileSync(join(pods, 'file'), 'a file');
    // A machine of somebody else in a directory of a similar name, and taps of similar names.
    const foreign = spawn(process.execPath, [
      '-e',
      'setInterval(() => {}, 1000)',
      join(`${pods}-other`, id, 'guest.sock'),
    ]);
    cleanups.push(() => foreign.kill('SIGKILL'));
    const other = makePodNamespace(cleanups);
    const taps = [
      [other, 'tap0_sealpod'],
      [netns, 'tap0_sealpod2'],
    ] as const;
    for (const [where, tap] of taps) execFileSync('ip', ['-n', where, 'tuntap', 'add', 'dev', tap, 'mode', 'tap']);
    await sleep(1500);

    await running.hypervisor.stopVM({ id });
    await sleep(500);
    const names = ['copy', 'damaged', 'file', 'nobody', 'other-adaptor', 'pointing'];
    expect(directories().sort()).toEqual(names);
    for (const name of names.filter((one) => one !== 'file'))
      expect(readFileSync(join(pods, name, 'file'), 'utf8')).toBe('mine');
    expect(identityOf(foreign.pid ?? 0)).toBeDefined();
    for (const [where, tap] of taps)
      expect(execFileSync('ip', ['-n', where, 'link'], { encoding: 'utf8' })).toContain(`${tap}:`);
    const reports = running.log.filter(({ msg }) => msg === 'a directory that nobody here made');
    expect(reports.map(({ directory }) => basename(String(directory))).sort()).toEqual(names);
    expect(existsSync(join(pods, id))).toBe(false);
  });
});
