import { isRunning } from '@sealpod/processes';
import type { PodDescription } from '../pod/list.ts';
import { type OutputFormat, table } from '../terminal/output.ts';
import type { EnvironmentState } from './state.ts';

/** Prints the parts of the environment and its pods; `undefined` where the runtime that knows them has ended. */
export function tellStatus(
  format: OutputFormat,
  state: EnvironmentState,
  pods: readonly PodDescription[] | undefined,
): void {
  const parts = state.daemons.map((daemon) => ({ name: daemon.name, pid: daemon.pid, running: isRunning(daemon) }));
  if (format === 'json') {
    const { kbsUrl, registry, containerdSocket, adaptorSocket } = state;
    process.stdout.write(
      `${JSON.stringify({ kbsUrl, registry, containerdSocket, adaptorSocket, parts, pods }, null, 2)}\n`,
    );
    return;
  }
  const addresses: Readonly<Record<string, string | undefined>> = {
    kbs: state.kbsUrl,
    registry: state.registry,
    containerd: state.containerdSocket,
    adaptor: state.adaptorSocket,
  };
  process.stdout.write(
    table(
      ['part', 'state', 'pid', 'address'],
      parts.map((part) => [part.name, part.running ? 'running' : 'DEAD', String(part.pid), addresses[part.name] ?? '']),
    ),
  );
  if (pods === undefined) {
    process.stdout.write('\nno word of pods: containerd has ended\n');
    return;
  }
  const rows = pods.map((pod) => [
    pod.name,
    pod.state,
    pod.container?.state ?? 'no container',
    pod.sandboxId.slice(0, 12),
    pod.createdAt,
  ]);
  process.stdout.write(
    `\n${rows.length === 0 ? 'no pods\n' : table(['pod', 'machine', 'container', 'sandbox', 'created'], rows)}`,
  );
}
