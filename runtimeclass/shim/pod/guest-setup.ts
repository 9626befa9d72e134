import { existsSync, readFileSync } from 'node:fs';
import type { ShimConfiguration } from '../configuration.ts';
import { GuestConnection } from '../guest/connection.ts';
import type { PodMachine } from '../guest/hypervisor.ts';
import type { Logger } from '../log.ts';
import { sharedMemoryStorage } from '../mounts/storage.ts';
import { hypervisorAnnotations } from '../oci/hypervisor-annotations.ts';
import type { Specification } from '../oci/specification.ts';

/** The lines of the pod's resolv.conf, which CreateSandbox carries as DNS configuration. */
export function dnsLines(specification: Specification): string[] {
  const source = (specification.mounts ?? []).find((mount) => mount.destination === '/etc/resolv.conf')?.source;
  if (source === undefined || !existsSync(source)) return [];
  return readFileSync(source, 'utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith(';'));
}

/** The path of the pod's network namespace; empty where the pod uses the host's. */
export function networkNamespace(specification: Specification): string {
  return (specification.linux?.namespaces ?? []).find(({ type }) => type === 'network')?.path ?? '';
}

/**
 * Brings up the machine and the sandbox in it: CreateVM, StartVM, connection, CreateSandbox, GetGuestDetails (the order
 * of upstream's shim for a remote hypervisor, which leaves the guest's network to the adaptor).
 */
export async function startGuest(
  machine: PodMachine,
  sandboxId: string,
  specification: Specification,
  configuration: ShimConfiguration,
  log: Logger,
): Promise<GuestConnection> {
  const timeoutMs = configuration.hypervisorTimeout * 1000;
  const annotations = hypervisorAnnotations(specification, configuration);
  const agentSocket = await machine.create(annotations, networkNamespace(specification), timeoutMs);
  await machine.start(timeoutMs);
  const guest = new GuestConnection(agentSocket, configuration, () => machine.adaptorAnswers(), log);
  try {
    await guest.open();
    const options = { timeoutMs: configuration.agentTimeout * 1000 };
    await guest.call((agent) =>
      agent.createSandbox(
        {
          hostname: specification.hostname ?? '',
          dns: dnsLines(specification),
          storages: [sharedMemoryStorage()],
          sandboxPidns: false,
          sandboxId,
        },
        options,
      ),
    );
    const details = await guest.call((agent) =>
      agent.getGuestDetails({ memBlockSize: true, memHotplugProbe: true }, options),
    );
    guest.use(details.agentDetails?.extraFeatures ?? []);
    log.info('the guest is ready', { agent: details.agentDetails?.version ?? '' });
    return guest;
  } catch (thrown) {
    guest.close();
    throw thrown;
  }
}
