import type { Device } from '@sealpod/protocol/gen/kata/agent_pb';
import type { Spec } from '@sealpod/protocol/gen/kata/oci_pb';
import { invalidArgument } from '../failures.ts';
import { type PersistentVolumes, type VolumeDevice, volumeDrivers } from './persistent-volumes.ts';

/**
 * Opens the disks that a container gets as devices. The specification names each by its path in the container, with the
 * numbers of the host, which are replaced by those of this guest.
 *
 * @throws TtrpcError INVALID_ARGUMENT for another kind of device, or one whose place in the container is not said; what
 *   opening the disk throws
 */
export async function openVolumeDevices(
  devices: readonly Device[],
  spec: Spec,
  volumes: PersistentVolumes,
): Promise<VolumeDevice[]> {
  const opened: VolumeDevice[] = [];
  for (const device of devices) {
    if (!(volumeDrivers as readonly string[]).includes(device.type))
      throw invalidArgument(`devices of type ${JSON.stringify(device.type)} are not supported`);
    const [named, second] = (spec.Linux?.Devices ?? []).filter(({ Path }) => Path === device.containerPath);
    if (named === undefined || second !== undefined || named.Type !== 'b')
      throw invalidArgument(`the specification does not name a block device at ${device.containerPath}`);
    const numbers = await volumes.device(device);
    named.Major = BigInt(numbers.major);
    named.Minor = BigInt(numbers.minor);
    opened.push(numbers);
  }
  return opened;
}
