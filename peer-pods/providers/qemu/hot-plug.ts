import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { volumeBus } from './machine.ts';
import { QmpRefusal, QmpSession } from './qmp-session.ts';

/** A volume in its slot of a machine. */
export interface PluggedVolume {
  /** Logical unit on the machine's bus for volumes. */
  readonly lun: number;
  /** What the guest sees as the disk's serial number. */
  readonly serial: string;
  /** Block device of this host. */
  readonly device: string;
  readonly readOnly: boolean;
}

const firstFileSet = 16;
const nodeOf = (lun: number): string => `volume-${lun}`;

/**
 * Plugs a block device into a running machine. The device is opened here and its descriptor handed over: the unprivileged
 * hypervisor never gets to any other. It is claimed as a mount claims it, so what the host has mounted, or another machine
 * has, is refused; the claim ends with the machine.
 *
 * @throws SealpodError HYPERVISOR; NOT_FOUND, UNSUPPORTED or STORAGE_CONFLICT for the device. Nothing is left then.
 */
export async function plugVolume(controlSocket: string, volume: PluggedVolume): Promise<void> {
  const { lun, serial, readOnly } = volume;
  await QmpSession.use(controlSocket, async (session) => {
    // A part of an earlier attempt that this process did not live to undo.
    await unplug(session, lun);
    await using file = await openClaimed(volume);
    try {
      const set = firstFileSet + lun;
      await session.executeWithFile('add-fd', { 'fdset-id': set }, file.fd);
      await session.execute('blockdev-add', {
        driver: 'host_device',
        'node-name': nodeOf(lun),
        filename: `/dev/fdset/${set}`,
        'read-only': readOnly,
        discard: 'unmap',
      });
      const place = { bus: `${volumeBus}.0`, channel: 0, 'scsi-id': 0, lun };
      await session.execute('device_add', { driver: 'scsi-hd', id: nodeOf(lun), drive: nodeOf(lun), serial, ...place });
    } catch (error) {
      await unplug(session, lun);
      throw error;
    }
  });
}

/** Takes a volume out of a running machine; does nothing where there is none. @throws SealpodError HYPERVISOR */
export async function unplugVolume(controlSocket: string, lun: number): Promise<void> {
  await QmpSession.use(controlSocket, (session) => unplug(session, lun));
}

async function unplug(session: QmpSession, lun: number): Promise<void> {
  const id = nodeOf(lun);
  if (await succeeds(session.execute('device_del', { id }), (refusal) => refusal.errorClass === 'DeviceNotFound'))
    await session.event('DEVICE_DELETED', ({ device }) => device === id);
  await succeeds(session.execute('blockdev-del', { 'node-name': id }), isAbsent);
  await succeeds(session.execute('remove-fd', { 'fdset-id': firstFileSet + lun }), isAbsent);
}

/** False where QEMU refuses because there is no such thing. */
async function succeeds(command: Promise<unknown>, isExpected: (refusal: QmpRefusal) => boolean): Promise<boolean> {
  try {
    await command;
    return true;
  } catch (error) {
    if (error instanceof QmpRefusal && isExpected(error)) return false;
    throw error;
  }
}

function isAbsent({ message }: QmpRefusal): boolean {
  return /Failed to find|not found/i.test(message);
}

async function openClaimed({ device, readOnly }: PluggedVolume) {
  const mode = readOnly ? constants.O_RDONLY : constants.O_RDWR;
  // With a block device O_EXCL claims it (open(2)); a pipe in its place is not waited for.
  const file = await open(device, mode | constants.O_EXCL | constants.O_NONBLOCK).catch((cause: unknown) => {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'EBUSY') {
      throw new SealpodError('STORAGE_CONFLICT', `the volume ${device} is in use`, {
        expected: 'a device that is not mounted on the node and that no other pod VM has',
        actual: code,
        fix: 'end the other pod; ReadWriteOncePod keeps two pods from one volume',
        cause,
      });
    }
    throw new SealpodError('NOT_FOUND', `the volume ${device} cannot be opened (${code})`, { cause });
  });
  if ((await file.stat()).isBlockDevice()) return file;
  await file.close();
  throw new SealpodError('UNSUPPORTED', `the volume ${device} is not a block device`, {
    fix: 'put a loop device before a file (losetup)',
  });
}
