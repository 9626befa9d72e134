import { createHash } from 'node:crypto';
import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { EventType, type LogEvent, replay } from '@sealpod/protocol/event-log';
import { findAccelerator } from '../providers/qemu/acceleration.ts';
import { findFirmware } from '../providers/qemu/firmware.ts';
import { type Accelerator, defaultShape, type MachineShape } from '../providers/qemu/machine.ts';
import { calibrationName } from './build.ts';
import { calibrate } from './calibrate.ts';
import { efiPartitionName, fileSha256 } from './disk.ts';
import { readUki } from './file-systems.ts';
import { firmwareVolumeDigests } from './firmware-volumes.ts';
import { readGpt, sectorSize } from './gpt.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { measureComponents, predictBootAggregate, predictImageRegisters, type Registers } from './predict.ts';
import { makeWorkDirectory, temporaryWork } from './work-directory.ts';

export interface MeasureOptions {
  readonly imageDirectory: string;
  /** Keeps what calibration recorded; default: the image's folder. */
  readonly cacheDirectory?: string;
  /** Shapes of machine to accept; default: one processor, 512 MiB. */
  readonly shapes?: readonly MachineShape[];
  /** Default: the firmware of this machine. */
  readonly firmware?: string;
  readonly accelerator?: Accelerator;
  /** Default: `reference-values.json` in the image's folder. */
  readonly outputFile?: string;
  readonly progress?: (step: string) => void;
}

/** Where the values of a shape come from: computed from files, or read from a machine that was booted once. */
export interface ShapeMeasurement extends MachineShape {
  readonly accelerator: Accelerator;
  /** PCR index → hex, of a machine that has booted and whose agent has extended nothing yet. */
  readonly pcrs: Readonly<Record<string, string>>;
  readonly predicted: readonly number[];
  readonly recorded: readonly number[];
}

/** Content of `reference-values.json`. */
export interface ReferenceValues {
  readonly version: 1;
  /** `sha256:<hex>` of the disk. */
  readonly image: string;
  /** Reference value id → accepted values, hex. */
  readonly reference_values: Readonly<Record<string, readonly string[]>>;
  /** PCRs of the first shape. */
  readonly pcrs: Readonly<Record<string, string>>;
  readonly shapes: readonly ShapeMeasurement[];
  /** SHA-256 of the firmware file. */
  readonly firmware: string;
}

export const referenceValuesName = 'reference-values.json';

const sha256Algorithm = 0x000b;
/** What the firmware measures of itself, its settings and its devices. */
const firmwareRegisters = [0, 1, 2, 3, 6, 7];
const configurationRegisters = [1, 2, 3, 5, 6, 7];

/**
 * Computes what a TPM will say of a machine that boots the image, and writes it as reference values.
 *
 * Registers 4, 5, 9, 10 and 11 are predicted from the disk's bytes. Those that the firmware fills on its own are
 * recorded once a shape (see `calibrate`), and the recorded digest of its driver volume is compared with the file's.
 * Returns the path of the file, whose content is `ReferenceValues`.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the disk is not the one of the manifest or the firmware is not the one
 *   that was recorded; `HYPERVISOR`, `PREREQUISITE` from calibration.
 */
export async function measurePodVmImage(options: MeasureOptions): Promise<string> {
  const manifest = await readManifest(options.imageDirectory);
  const disk = join(options.imageDirectory, manifest.disk);
  const { uki, gptEvent } = await readBootPath(disk, manifest);
  const components = measureComponents(uki);
  const firmware = options.firmware ?? (await findFirmware());
  const accelerator = options.accelerator ?? (await findAccelerator());
  const shapes: ShapeMeasurement[] = [];
  for (const shape of options.shapes ?? [defaultShape]) {
    options.progress?.(`recording firmware with ${shape.vcpus} processors and ${shape.memoryMiB} MiB`);
    const program = join(options.imageDirectory, calibrationName);
    const calibration = {
      program,
      firmware,
      shape,
      accelerator,
      cacheDirectory: options.cacheDirectory ?? options.imageDirectory,
    };
    const events = await calibrate(calibration);
    const fromImage = predictImageRegisters(uki, gptEvent, sectionNames(events));
    const fromFirmware = await firmwareMeasurements(events, firmware);
    shapes.push({ ...shape, accelerator, ...combine(fromFirmware, fromImage) });
  }
  const [first] = shapes;
  if (first === undefined) throw new SealpodError('USAGE', 'no machine shape was given');
  const result: ReferenceValues = {
    version: 1,
    image: manifest.image,
    reference_values: {
      tpm_firmware: distinct(shapes.map((shape) => shape.pcrs['0'] ?? '')),
      tpm_firmware_configuration: distinct(shapes.map((shape) => configurationDigest(shape.pcrs))),
      ...Object.fromEntries(Object.entries(components).map(([name, value]) => [`tpm_${name}`, [value]])),
    },
    pcrs: first.pcrs,
    shapes,
    firmware: await fileSha256(firmware),
  };
  const file = options.outputFile ?? join(options.imageDirectory, referenceValuesName);
  await writeFile(file, `${JSON.stringify(result, null, 2)}\n`);
  return file;
}

/** Reads what boots out of the disk itself: the manifest is not believed where the bytes can be asked. */
async function readBootPath(disk: string, manifest: Manifest): Promise<{ uki: Buffer; gptEvent: Buffer }> {
  const actual = `sha256:${await fileSha256(disk)}`;
  if (actual !== manifest.image) {
    throw new SealpodError('PROVIDER_IMAGE', 'the disk is not the one its manifest names', {
      expected: manifest.image,
      actual,
      source: disk,
    });
  }
  const head = Buffer.alloc(34 * sectorSize);
  const handle = await open(disk, 'r');
  try {
    await handle.read(head, 0, head.length, 0);
  } finally {
    await handle.close();
  }
  const { event, partitions } = readGpt(head);
  const efi = partitions.find((partition) => partition.name === efiPartitionName);
  if (efi === undefined) throw new SealpodError('PROVIDER_IMAGE', 'the disk has no EFI partition', { source: disk });
  const work = await makeWorkDirectory(temporaryWork.parent(), 'sealpod-measure');
  try {
    return { uki: await readUki(disk, efi.offset, work), gptEvent: event };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function firmwareMeasurements(events: readonly LogEvent[], firmware: string): Promise<Registers> {
  const volumes = await firmwareVolumeDigests(firmware);
  const blobs: number[] = [EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB, EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2];
  const measured = events
    .filter((event) => event.register === 0 && blobs.includes(event.type))
    .flatMap((event) => event.digests.map(({ digest }) => digest.toString('hex')));
  if (!measured.some((value) => volumes.includes(value))) {
    throw new SealpodError('PROVIDER_IMAGE', 'the recorded machine did not run this firmware', {
      expected: volumes.join(' or ') || 'a compressed section with firmware volumes',
      actual: measured.join(' '),
      source: firmware,
    });
  }
  const replayed = replay(events, sha256Algorithm);
  return new Map(firmwareRegisters.map((index) => [index, replayed.get(index) ?? Buffer.alloc(32)]));
}

/** Names of the sections that the stub measured, in order: each is measured as name and content under one description. */
function sectionNames(events: readonly LogEvent[]): string[] {
  const described = events
    .filter((event) => event.register === 11 && event.type === EventType.EV_IPL)
    .map((event) => event.data.toString('utf16le').replace(/\0+$/, ''));
  return [...new Set(described)];
}

function combine(
  fromFirmware: Registers,
  fromImage: Registers,
): Omit<ShapeMeasurement, keyof MachineShape | 'accelerator'> {
  const all = new Map([...fromFirmware, ...fromImage]);
  all.set(10, predictBootAggregate(all));
  const predicted = [...fromImage.keys(), 10].sort((left, right) => left - right);
  const sorted = [...all].sort(([left], [right]) => left - right);
  return {
    pcrs: Object.fromEntries(sorted.map(([index, value]) => [String(index), value.toString('hex')])),
    predicted,
    recorded: [...fromFirmware.keys()],
  };
}

/** One value for all that firmware and platform settings decide: SHA-256 over registers 1, 2, 3, 5, 6, 7. */
function configurationDigest(pcrs: Readonly<Record<string, string>>): string {
  const hash = createHash('sha256');
  for (const index of configurationRegisters) hash.update(Buffer.from(pcrs[String(index)] ?? '', 'hex'));
  return hash.digest('hex');
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)];
}
