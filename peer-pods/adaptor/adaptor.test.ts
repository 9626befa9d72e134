import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { findProcesses } from '@sealpod/processes';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health } from '@sealpod/protocol/gen/kata/health_pb';
import { createClient, Status, TtrpcConnection, type TtrpcError } from '@sealpod/protocol/ttrpc';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { configureAdaptor, makePodNamespace, startAdaptor } from './adaptor-for-tests.ts';
import type { TestProviderOptions } from './provider-for-tests.ts';

const root = process.getuid?.() === 0;
const executable = basename(process.execPath);
const id = 'f00dfeed'.repeat(4);

let folder: string;
let socket: string;
let cleanups: (() => unknown)[];
let netns: string | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-'));
  socket = join(folder, 'hypervisor.sock');
  cleanups = [];
  netns = undefined;
});
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  for (const { pid } of findProcesses({ executable, marker: `${folder}/` })) process.kill(pid, 'SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const configure = (provider: TestProviderOptions, more: object = {}) =>
  configureAdaptor(folder, socket, provider, more);
const adaptor = (provider: TestProviderOptions = {}, more: object = {}) =>
  startAdaptor(configure(provider, more), socket, cleanups);

function podNamespace(): string {
  netns = makePodNamespace(cleanups);
  return `/run/netns/${netns}`;
}

const annotations = {
  'io.kubernetes.cri.sandbox-name': 'Web_0',
  'io.kubernetes.cri.sandbox-namespace': 'default',
  'io.katacontainers.config.hypervisor.default_vcpus': '2.5',
  'io.katacontainers.config.hypervisor.default_memory': '0',
  'io.katacontainers.config.hypervisor.machine_type': '',
  'io.katacontainers.config.hypervisor.cc_init_data': 'version = "0.1.0"\nü\n',
};

async function agentAt(path: string) {
  const connection = await TtrpcConnection.connect(path);
  cleanups.push(() => connection.close());
  return { connection, health: createClient(Health, connection), agent: createClient(AgentService, connection) };
}

const machines = () => findProcesses({ executable, marker: join(folder, 'pods', id) });
const journalRecords = () => readFileSync(join(folder, 'state/journal.jsonl'), 'utf8');

/** What an adaptor leaves when no sandbox is left. */
function expectNothingLeft(): void {
  expect(machines()).toEqual([]);
  expect(readdirSync(join(folder, 'pods'))).toEqual([]);
  if (netns) {
    expect(execFileSync('ip', ['-n', netns, 'link'], { encoding: 'utf8' })).not.toMatch(/sealpod/);
    expect(execFileSync('tc', ['-n', netns, 'qdisc', 'show'], { encoding: 'utf8' })).not.toMatch(/ingress/);
  }
}

const failure = (promise: Promise<unknown>): Promise<TtrpcError> =>
  promise.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: TtrpcError) => error,
  );

describe('adaptor', () => {
  it.skipIf(!root)(
    `starts, serves and ends a pod VM for a Kata shim${root ? '' : ' (skipped: needs root)'}`,
    async () => {
      const { hypervisor, process: child, exited } = await adaptor();
      expect((await hypervisor.version({ version: '1' })).version).toBe('0.0.0');
      const request = { id, annotations, networkNamespacePath: podNamespace() };
      const { agentSocketPath } = await hypervisor.createVM(request);
      expect(agentSocketPath).toBe(join(folder, 'pods', id, 'agent.ttrpc'));
      expect(statSync(join(folder, 'pods', id)).mode & 0o777).toBe(0o700);
      expect(existsSync(agentSocketPath)).toBe(false);
      // The same request again, as after a lost answer; another one of this name is refused.
      expect((await hypervisor.createVM(request)).agentSocketPath).toBe(agentSocketPath);
      expect(await failure(hypervisor.createVM({ ...request, annotations: {} }))).toMatchObject({
        status: Status.invalidArgument,
      });

      // Two calls at the same time are one start.
      await Promise.all([hypervisor.startVM({ id }), hypervisor.startVM({ id })]);
      await hypervisor.startVM({ id });
      expect(machines()).toHaveLength(1);
      expect(statSync(agentSocketPath).mode & 0o777).toBe(0o600);
      expect(JSON.parse(readFileSync(join(folder, 'pods', id, 'request.json'), 'utf8'))).toEqual({
        vcpus: 3,
        memoryMiB: 512,
        network: {
          netnsPath: request.networkNamespacePath,
          tapName: 'tap0_sealpod',
          macAddress: '02:00:00:00:00:07',
          mtu: 1500,
        },
        initdata: annotations['io.katacontainers.config.hypervisor.cc_init_data'],
      });
      const told = readFileSync(join(folder, 'pods', id, 'requests.jsonl'), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(told.map(({ method }) => method)).toEqual(['UpdateInterface', 'AddARPNeighbors', 'UpdateRoutes']);
      expect(told[0].request).toMatchObject({
        hwAddr: '02:00:00:00:00:07',
        // The second is the link by which `kubectl port-forward` comes.
        IPAddresses: [
          { address: '10.1.2.3', mask: '24' },
          { address: '169.254.83.2', mask: '30' },
        ],
      });
      expect(told[2].request.Routes).toMatchObject([{ dest: '', gateway: '10.1.2.1', device: 'eth0' }]);

      // Two shims side by side, as the Go shim's several connections.
      const [one, two] = [await agentAt(agentSocketPath), await agentAt(agentSocketPath)];
      const waiting = failure(one.agent.waitProcess({ containerId: 'a' }, { timeoutMs: 300 }));
      const reads = Array.from({ length: 40 }, (_, index) =>
        (index % 2 ? one : two).agent.readStdout({ containerId: 'x', len: index }),
      );
      expect((await Promise.all(reads)).map(({ data }) => data.length)).toEqual(
        Array.from({ length: 40 }, (_, index) => index),
      );
      expect((await two.health.check({})).status).toBe(1);
      expect(await waiting).toMatchObject({ status: Status.deadlineExceeded });

      await hypervisor.stopVM({ id });
      await one.connection.closed;
      expectNothingLeft();
      // Idempotent, and for a sandbox that never was.
      await hypervisor.stopVM({ id });
      await hypervisor.stopVM({ id: 'never' });
      child.kill('SIGTERM');
      expect(await exited).toEqual([0, null]);
      expect(existsSync(socket)).toBe(false);
    },
  );

  it('keeps VMs over its own end, and serves them again', async () => {
    const first = await adaptor();
    const { agentSocketPath } = await first.hypervisor.createVM({ id, annotations });
    await first.hypervisor.startVM({ id });
    const before = await (await agentAt(agentSocketPath)).health.version({});
    first.process.kill('SIGTERM');
    expect(await first.exited).toEqual([0, null]);
    expect(machines()).toHaveLength(1);

    const second = await adaptor();
    expect((await (await agentAt(agentSocketPath)).health.version({})).agentVersion).toBe(before.agentVersion);
    second.process.kill('SIGKILL');
    await second.exited;

    const third = await adaptor();
    expect((await (await agentAt(agentSocketPath)).health.version({})).agentVersion).toBe(before.agentVersion);
    expect(third.log.some(({ msg }) => msg === 'adopted a running pod VM')).toBe(true);
    await third.hypervisor.stopVM({ id });
    expectNothingLeft();
  });

  it('cleans up after a VM that ended while no adaptor was there', async () => {
    const first = await adaptor();
    await first.hypervisor.createVM({ id, annotations });
    await first.hypervisor.startVM({ id });
    first.process.kill('SIGKILL');
    await first.exited;
    for (const { pid } of machines()) process.kill(pid, 'SIGKILL');
    await adaptor();
    expectNothingLeft();
    expect(journalRecords().trim().split('\n').at(-1)).toContain('forget');
  });

  it('one at a time uses the same state', async () => {
    await adaptor();
    socket = join(folder, 'other.sock');
    const error = await adaptor().catch((thrown: unknown) => String(thrown));
    expect(error).toMatch(/another adaptor \(process \d+\) holds/);
  });
});

describe('adaptor, killed at each write of its journal', () => {
  // Create 1–3, start 4–11 (4–9 without network), stop 12–13; the last one never comes.
  for (let write = 1; write <= 14; write++) {
    it.skipIf(!root)(
      `write ${write}: the next one leaves nothing behind and loses nothing${root ? '' : ' (skipped: needs root)'}`,
      async () => {
        const first = await adaptor({ killAtWrite: write });
        const calls = async () => {
          await first.hypervisor.createVM({ id, annotations, networkNamespacePath: podNamespace() });
          await first.hypervisor.startVM({ id });
          await first.hypervisor.stopVM({ id });
        };
        const outcome = await calls().then(
          () => 'all done',
          (error: TtrpcError) => error.message,
        );
        if (write <= 13) {
          expect(outcome).toBe('ttrpc: closed');
          expect(await first.exited).toEqual([null, 'SIGKILL']);
        } else {
          expect(outcome).toBe('all done');
          first.process.kill('SIGKILL');
          await first.exited;
        }
        const wasRunning = /"phase":"running"/.test(journalRecords()) && !/"phase":"stopping"/.test(journalRecords());
        expect(wasRunning).toBe(write === 11);

        const second = await adaptor();
        if (wasRunning) {
          const { health } = await agentAt(join(folder, 'pods', id, 'agent.ttrpc'));
          expect((await health.check({})).status).toBe(1);
        } else expect(machines()).toEqual([]);
        await second.hypervisor.stopVM({ id });
        expectNothingLeft();
      },
    );
  }
});

describe('adaptor, when things fail', () => {
  it('undoes a start whose instance cannot be made', async () => {
    const { hypervisor } = await adaptor({ failCreation: true });
    await hypervisor.createVM({ id, annotations });
    expect(await failure(hypervisor.startVM({ id }))).toMatchObject({
      status: Status.internal,
      message: 'PROVIDER_IMAGE: there is no image',
    });
    expectNothingLeft();
    expect(await failure(hypervisor.startVM({ id }))).toMatchObject({ status: Status.notFound });
    await hypervisor.stopVM({ id });
  });

  it('says how far a silent guest came and how its console ends, and undoes it', async () => {
    const { hypervisor } = await adaptor({ silent: true }, { startTimeoutMs: 700 });
    await hypervisor.createVM({ id, annotations });
    const { message, status } = await failure(hypervisor.startVM({ id }));
    expect(status).toBe(Status.unavailable);
    expect(message).toMatch(
      /^AGENT_UNREACHABLE: the agent in podvm-web-0-f00dfeed did not answer: the machine runs, its agent channel could not be connected/,
    );
    expect(message).toMatch(/its console ends with:\nkernel starts\npanic: no root$/);
    expectNothingLeft();
  });

  it('does not wait for a machine that has ended', async () => {
    const { hypervisor } = await adaptor({ dies: true }, { startTimeoutMs: 60_000 });
    await hypervisor.createVM({ id, annotations });
    const { message } = await failure(hypervisor.startVM({ id }));
    expect(message).toMatch(/AGENT_UNREACHABLE|HYPERVISOR/);
    expectNothingLeft();
  });

  it('gives a start up when the shim does', async () => {
    const { hypervisor } = await adaptor({ silent: true });
    await hypervisor.createVM({ id, annotations });
    expect((await failure(hypervisor.startVM({ id }, { timeoutMs: 500 }))).status).toBe(Status.deadlineExceeded);
    await expect.poll(() => readdirSync(join(folder, 'pods')), { timeout: 10_000 }).toEqual([]);
    expectNothingLeft();
  });

  it('ends a VM although the shim waits no longer than a moment, also one that is starting', async () => {
    const { hypervisor } = await adaptor({ silent: true, deletionMs: 300 });
    await hypervisor.createVM({ id, annotations });
    const starting = failure(hypervisor.startVM({ id }));
    await expect.poll(() => machines().length).toBe(1);
    expect((await failure(hypervisor.stopVM({ id }, { timeoutMs: 20 }))).status).toBe(Status.deadlineExceeded);
    expect((await starting).message).toMatch(/AGENT_UNREACHABLE|HYPERVISOR/);
    await expect.poll(() => readdirSync(join(folder, 'pods')), { timeout: 10_000 }).toEqual([]);
    expectNothingLeft();
  });

  it('tries a deletion that failed again', async () => {
    const { hypervisor } = await adaptor({ failingDeletions: 2 });
    await hypervisor.createVM({ id, annotations });
    await hypervisor.startVM({ id });
    expect(await failure(hypervisor.stopVM({ id }))).toMatchObject({ message: 'HYPERVISOR: the deletion failed' });
    await expect.poll(() => readdirSync(join(folder, 'pods')), { timeout: 10_000 }).toEqual([]);
    expectNothingLeft();
  });

  it("G-24: a sandbox id that is a path is refused, and an existing directory is nobody's to remove", async () => {
    const { hypervisor } = await adaptor();
    for (const bad of ['', '.', '..', '../x', 'a/b', '/etc', 'a\0b', 'a%2fb/..', `${'x'.repeat(129)}`, 'ü']) {
      expect(await failure(hypervisor.createVM({ id: bad, annotations }))).toMatchObject({
        status: Status.invalidArgument,
      });
    }
    const foreign = join(folder, 'pods', id);
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'file'), 'mine');
    expect(await failure(hypervisor.createVM({ id, annotations }))).toMatchObject({
      status: Status.internal,
      message: expect.stringContaining('exists already'),
    });
    await hypervisor.stopVM({ id });
    expect(readFileSync(join(foreign, 'file'), 'utf8')).toBe('mine');
  });

  it('refuses what is beyond its limits', async () => {
    const { hypervisor } = await adaptor({}, { limits: { vcpus: 2, sandboxes: 1 } });
    expect(await failure(hypervisor.createVM({ id, annotations }))).toMatchObject({ status: Status.invalidArgument });
    await hypervisor.createVM({ id: 'one' });
    expect(await failure(hypervisor.createVM({ id: 'two' }))).toMatchObject({ status: Status.resourceExhausted });
  });

  it.skipIf(!root)(`refuses the network namespace of the host${root ? '' : ' (skipped: needs root)'}`, async () => {
    const { hypervisor } = await adaptor();
    await hypervisor.createVM({ id, annotations, networkNamespacePath: '/proc/self/ns/net' });
    expect(await failure(hypervisor.startVM({ id }))).toMatchObject({
      message: expect.stringMatching(/^NETWORK: .* is the network namespace of the host$/),
    });
    expectNothingLeft();
  });
});

describe('the program', () => {
  it('--remove-all ends every VM that an earlier one left, and exits', async () => {
    const first = await adaptor();
    await first.hypervisor.createVM({ id, annotations });
    await first.hypervisor.startVM({ id });
    const config = join(folder, 'config.json');
    // Not beside one that runs.
    expect(await run(['--config', config, '--remove-all'])).toMatchObject({
      code: 1,
      text: expect.stringContaining('another adaptor'),
    });
    expect(machines()).toHaveLength(1);
    first.process.kill('SIGKILL');
    await first.exited;
    expect(await run(['--config', config, '--remove-all'])).toMatchObject({ code: 0 });
    expectNothingLeft();
    expect(existsSync(join(folder, 'state/lock'))).toBe(false);
  });

  const run = (args: string[]) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.on('data', (chunk: Buffer) => {
      text += chunk;
    });
    return once(child, 'close').then(([code]) => ({ code: code as number, text }));
  };

  it('ends with 2 and a reason where it is used wrongly', async () => {
    expect(await run([])).toMatchObject({ code: 2, text: expect.stringContaining('usage:') });
    expect(await run(['--nonsense'])).toMatchObject({ code: 2, text: expect.stringContaining('nonsense') });
    expect(await run(['--config', join(folder, 'absent')])).toMatchObject({
      code: 2,
      text: expect.stringContaining('cannot be read'),
    });
    writeFileSync(join(folder, 'c'), '{"provider":{"name":"cloud9"}}');
    expect(await run(['--config', join(folder, 'c')])).toMatchObject({
      code: 2,
      text: expect.stringContaining('unknown provider'),
    });
  });
});
