import { writeFileSync } from 'node:fs';
import type { GuestConnection } from '../guest/connection.ts';
import type { Logger } from '../log.ts';
import type { Container } from './container.ts';

/** As much of a termination message as Kubernetes keeps. */
const terminationMessageBytes = 4096;

/** Writes a message where Kubernetes reads why a container ended. Failures are logged. */
export function writeTerminationMessage(container: Container, message: string, log: Logger): void {
  const target = terminationFile(container);
  if (target === undefined) return;
  try {
    writeFileSync(target, message.slice(0, terminationMessageBytes));
  } catch (error) {
    log.info('cannot write the termination message', { container: container.id, error });
  }
}

/** terminationMessagePolicy File: the guest's file is written where kubelet looks for it. Failures are logged. */
export async function saveTerminationMessage(
  container: Container,
  guest: GuestConnection,
  { log, timeoutMs }: { readonly log: Logger; readonly timeoutMs: number },
): Promise<void> {
  const policy = container.specification.annotations?.['io.kubernetes.container.terminationMessagePolicy'];
  const target = terminationFile(container);
  if (target === undefined || policy !== 'File') return;
  try {
    const { data } = await guest.call((agent) =>
      agent.getDiagnosticData({ logType: 'termination_log', containerId: container.id }, { timeoutMs }),
    );
    if (data !== '') writeFileSync(target, data);
  } catch (error) {
    // Denied by default in upstream's policies.
    log.debug('no termination message', { container: container.id, error });
  }
}

/** The host's file from which Kubernetes reads why a container ended. */
function terminationFile({ specification }: Container): string | undefined {
  const path = specification.annotations?.['io.kubernetes.container.terminationMessagePath'];
  if (path === undefined) return undefined;
  return (specification.mounts ?? []).find((mount) => mount.destination === path)?.source;
}
