import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bundleGuestAgent } from '@sealpod/guest-agent/bundle';
import { buildPodVmImage, createTpmAuthority, type TpmAuthority } from '@sealpod/peer-pods/pod-vm';
import type { Instance, Provider } from '@sealpod/peer-pods/provider';
import { createQemuProvider, defaultShape } from '@sealpod/peer-pods/providers/qemu';
import { AgentService } from '@sealpod/protocol/gen/kata/agent_pb';
import { Health, HealthCheckResponse_ServingStatus } from '@sealpod/protocol/gen/kata/health_pb';
import { createClient, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import { missingPrograms, needsRoot } from '../machine.ts';

/** What pod VMs need on this machine; undefined where all of it is there. */
export function podVmObstacle(): string | undefined {
  return needsRoot() ?? missingPrograms('qemu-system-x86_64', 'swtpm', 'swtpm_setup', 'mkfs.erofs', 'veritysetup');
}

/** Lets the measured guest tell its memory, and nothing else. */
const initdata = `version = "0.1.0"
algorithm = "sha256"
[data]
"policy.rego" = '''
package agent_policy
default GetMetricsRequest := true
'''
`;

const firstLineOfInit = 'sealpod: init after';
const timeoutMs = 120_000;

/** Boots machines of the image of this source tree. */
export interface PodVms {
  /** Milliseconds from the request of a machine (its TPM made before) until the kernel has handed over to init. */
  bootToInit(): Promise<number>;
  /** Milliseconds from the request until the agent answers that it serves, and the memory of both sides in MiB. */
  bootToAgent(): Promise<{ readonly milliseconds: number; readonly agentMiB: number; readonly hostMiB: number }>;
}

/** Builds the image (packages come from the machine's cache) and prepares a TPM authority. */
export async function preparePodVms(scratch: string): Promise<PodVms> {
  const agent = join(scratch, 'guest-agent');
  const image = join(scratch, 'images', 'bench');
  const sandboxes = join(scratch, 'pods');
  await mkdir(sandboxes, { recursive: true });
  await bundleGuestAgent(agent);
  const cacheDirectory = join(process.env['SEALPOD_CACHE'] ?? '/var/cache/sealpod', 'debian');
  await buildPodVmImage({ outputDirectory: image, cacheDirectory, guestAgentDirectory: agent });
  const authority = await createTpmAuthority(join(scratch, 'tpm-authority'));
  const provider = createQemuProvider({
    imagesDirectory: join(scratch, 'images'),
    defaultImage: 'bench',
    tpmAuthority: authority,
    sandboxesDirectory: sandboxes,
  });
  let count = 0;
  const boot = <Result>(use: (instance: Instance, began: number) => Promise<Result>): Promise<Result> =>
    withMachine({ provider, authority, directory: join(sandboxes, `bench-${count++}`) }, use);
  return {
    bootToInit: () =>
      boot(async (instance, began) => {
        await waitForConsole(instance, firstLineOfInit);
        return performance.now() - began;
      }),
    bootToAgent: () =>
      boot(async (instance, began) => {
        await waitForAgent(instance);
        const milliseconds = performance.now() - began;
        return { milliseconds, agentMiB: await agentMemory(instance), hostMiB: await residentMiB(Number(instance.id)) };
      }),
  };
}

interface MachineParts {
  readonly provider: Provider;
  readonly authority: TpmAuthority;
  readonly directory: string;
}

async function withMachine<Result>(
  { provider, authority, directory }: MachineParts,
  use: (instance: Instance, began: number) => Promise<Result>,
): Promise<Result> {
  const sandboxId = directory.slice(directory.lastIndexOf('/') + 1);
  const reference = { sandboxId, name: `podvm-${sandboxId}`, directory };
  await mkdir(directory, { mode: 0o700 });
  // The next machine's TPM is made in advance by the adaptor, too.
  await authority.prepare();
  const began = performance.now();
  try {
    const instance = await provider.createInstance({
      ...reference,
      ...defaultShape,
      initdata: Buffer.from(initdata),
      effects: { intend: async () => undefined, complete: async () => undefined },
      signal: AbortSignal.timeout(timeoutMs),
    });
    return await use(instance, began);
  } finally {
    await provider.deleteInstance(reference);
  }
}

async function waitForConsole({ consoleLogPath = '' }: Instance, text: string): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  let seen = '';
  while (!seen.includes(text)) {
    if (performance.now() > deadline) throw new Error(`the console never said "${text}": ${seen.slice(-1000)}`);
    await sleep(5);
    seen = await readFile(consoleLogPath, 'latin1');
  }
}

async function waitForAgent({ agentSocketPath }: Instance): Promise<void> {
  // What is asked before the agent reads waits in the port.
  const connection = await TtrpcConnection.connect(agentSocketPath, { timeoutMs });
  try {
    const { status } = await createClient(Health, connection).check({}, { timeoutMs });
    if (status !== HealthCheckResponse_ServingStatus.SERVING) throw new Error(`the agent says ${status}, not SERVING`);
  } finally {
    connection.close();
  }
}

async function agentMemory({ agentSocketPath }: Instance): Promise<number> {
  const connection = await TtrpcConnection.connect(agentSocketPath, { timeoutMs });
  try {
    const { metrics } = await createClient(AgentService, connection).getMetrics({}, { timeoutMs });
    return Number(/^kata_agent_total_rss (\d+)$/m.exec(metrics)?.[1] ?? Number.NaN) / 2 ** 20;
  } finally {
    connection.close();
  }
}

async function residentMiB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) / 1024;
}
