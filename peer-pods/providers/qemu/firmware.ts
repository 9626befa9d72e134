import { access } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';

/**
 * Builds of OVMF with code and variables in one file, best first. The 2 MiB build starts in half the time of the
 * 4 MiB one; later Debian releases carry the latter only.
 */
const candidates = ['/usr/share/ovmf/OVMF.fd', '/usr/share/OVMF/OVMF.fd', '/usr/share/qemu/OVMF.fd'];

/**
 * Finds the firmware of this machine.
 *
 * @throws SealpodError `PREREQUISITE` where none is installed.
 */
export async function findFirmware(): Promise<string> {
  for (const candidate of candidates) {
    const present = await access(candidate).then(
      () => true,
      () => false,
    );
    if (present) return candidate;
  }
  throw new SealpodError('PREREQUISITE', 'no UEFI firmware is installed', {
    expected: candidates.join(' or '),
    fix: 'install the Debian package ovmf',
  });
}
