/**
 * A provider whose machines are processes that speak the agent protocol. For tests: it also fails, lingers, or kills
 * the adaptor at the n-th write to its journal.
 *
 * @module
 */
import { spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endProcess, findProcesses, identityOf } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Effect, Instance, InstanceReference, ProviderFactory } from '../providers/provider.ts';

export interface TestProviderOptions {
  /** The adaptor dies (SIGKILL) when its journal has been made durable so many times. */
  readonly killAtWrite?: number;
  readonly failCreation?: boolean;
  /** The machine runs, but no agent ever answers in it. */
  readonly silent?: boolean;
  /** The machine ends by itself at once. */
  readonly dies?: boolean;
  readonly deletionMs?: number;
  /** So many deletions fail before one succeeds. */
  readonly failingDeletions?: number;
}

const guest = join(import.meta.dirname, '../agent-proxy/guest-for-tests.ts');
const executable = basename(process.execPath);

export const createProvider: ProviderFactory = async (given) => {
  const options = given as TestProviderOptions;
  if (options.killAtWrite) await dieAtWrite(options.killAtWrite);
  let failures = options.failingDeletions ?? 0;
  const socketOf = ({ directory }: InstanceReference) => join(directory, 'guest.sock');
  const patternOf = (reference: InstanceReference) => ({ executable, marker: socketOf(reference) });
  const instanceOf = (reference: InstanceReference, pid: number): Instance => ({
    sandboxId: reference.sandboxId,
    name: reference.name,
    directory: reference.directory,
    id: String(pid),
    agentSocketPath: socketOf(reference),
    consoleLogPath: join(reference.directory, 'console.log'),
  });
  return {
    name: 'test',
    async createInstance(request) {
      if (options.failCreation) throw new SealpodError('PROVIDER_IMAGE', 'there is no image');
      const { directory, effects } = request;
      writeFileSync(join(directory, 'console.log'), 'kernel starts\n\u001b[31mpanic: no root\u001b[0m\n');
      const { vcpus, memoryMiB, network, initdata } = request;
      writeFileSync(
        join(directory, 'request.json'),
        JSON.stringify({ vcpus, memoryMiB, network, initdata: initdata && Buffer.from(initdata).toString() }),
      );
      const effect: Effect = { kind: 'process', role: 'vm', ...patternOf(request) };
      await effects.intend(effect);
      const program = options.silent ? ['-e', 'setInterval(() => {}, 1000)'] : options.dies ? ['-e', ''] : [guest];
      const child = spawn(process.execPath, [...program, socketOf(request), join(directory, 'requests.jsonl')], {
        detached: true,
        stdio: 'ignore',
      });
      child.unref();
      const identity = child.pid === undefined ? undefined : identityOf(child.pid);
      if (!identity) throw new SealpodError('HYPERVISOR', 'the process did not start');
      await effects.complete(effect, identity);
      return instanceOf(request, identity.pid);
    },
    async findInstance(reference) {
      const [identity] = findProcesses(patternOf(reference));
      return identity && instanceOf(reference, identity.pid);
    },
    async deleteInstance(reference) {
      await sleep(options.deletionMs ?? 0);
      if (failures-- > 0) throw new SealpodError('HYPERVISOR', 'the deletion failed');
      for (const identity of findProcesses(patternOf(reference)))
        await endProcess(identity, patternOf(reference), 1000);
      rmSync(socketOf(reference), { force: true });
    },
    listInstances: async () => [],
    // A machine of processes has no disks: a file in its folder stands for each.
    volumes: {
      addressOf: ({ slot }) => ({ driver: 'scsi', source: `0:${slot}` }),
      async attach({ directory }, { slot, device }) {
        writeFileSync(join(directory, `volume-${slot}`), device);
      },
      async detach({ directory }, { slot }) {
        rmSync(join(directory, `volume-${slot}`), { force: true });
      },
    },
  };
};

/** Every write to the journal ends with `datasync` on a file handle. */
async function dieAtWrite(count: number): Promise<void> {
  const handle = await open(import.meta.filename);
  const prototype = Object.getPrototypeOf(handle) as { datasync: () => Promise<void> };
  await handle.close();
  const { datasync } = prototype;
  let left = count;
  prototype.datasync = async function (this: typeof prototype) {
    await datasync.call(this);
    if (--left === 0) process.kill(process.pid, 'SIGKILL');
  };
}
