import { readFile } from 'node:fs/promises';
import type { Mount } from '@sealpod/protocol/gen/kata/oci_pb';
import type { RunCommand } from './command.ts';
import { realVolumePath } from './confinement.ts';
import { invalidArgument } from './failures.ts';
import { isBindMount } from './oci-spec.ts';

/** File systems of the kernel that a container may mount by itself. */
const kernelFileSystems = new Set(['proc', 'sysfs', 'tmpfs', 'devpts', 'mqueue', 'cgroup', 'cgroup2']);

/**
 * Checks a container's mounts and resolves the sources of its bind mounts: each must exist in a
 * folder of volumes below `root` with every link followed, because the host may have put links there. Throws INVALID_ARGUMENT. Returns real source by written source.
 */
export async function resolveBindSources(root: string, mounts: readonly Mount[]): Promise<Map<string, string>> {
  const resolved = new Map<string, string>();
  for (const mount of mounts) {
    if (isBindMount(mount)) {
      resolved.set(mount.source, await realVolumePath(root, mount.source));
    } else if (!kernelFileSystems.has(mount.type)) {
      throw invalidArgument(`mount of type ${JSON.stringify(mount.type)} at ${mount.destination} is not supported`);
    }
  }
  return resolved;
}

/** Takes off all mounts at and below `folder`, the latest first. */
export async function unmountBelow(folder: string, run: RunCommand): Promise<void> {
  const table = await readFile('/proc/self/mountinfo', 'utf8');
  const points = table
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_all, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .filter((point) => point === folder || point.startsWith(`${folder}/`));
  for (const point of points.reverse()) await run('umount', [point]);
}
