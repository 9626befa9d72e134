import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { invalidArgument } from './failures.ts';

/** Kernel settings that belong to an IPC or network namespace: Kubernetes lets a pod set these and no others. */
const namespaced = /^(?:kernel\.(?:shm[a-z_]+|msg[a-z_]+|sem)|fs\.mqueue\.[a-z_]+|net\.[a-zA-Z0-9_.-]+)$/;

/** Would lead packets from the network to servers on the loopback interface, where the REST API gives secrets away. */
const opensLoopback = /^net\.ipv4\.conf\..*\.route_localnet$/;

/**
 * Sets a container's sysctls in the guest, whose namespaces are the pod's. Throws INVALID_ARGUMENT, and sets none, where a
 * name is not one of an IPC or network namespace.
 *
 * @param folder `/proc/sys`
 */
export async function applySysctls(folder: string, settings: Readonly<Record<string, string>>): Promise<void> {
  for (const name of Object.keys(settings)) {
    if (!namespaced.test(name) || name.includes('..'))
      throw invalidArgument(`sysctl ${JSON.stringify(name)} is not of a pod's namespaces`);
    if (opensLoopback.test(name))
      throw invalidArgument(`sysctl ${name} would open the loopback interface to the network`);
  }
  for (const [name, value] of Object.entries(settings)) await writeFile(join(folder, ...name.split('.')), value);
}
