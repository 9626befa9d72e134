import { crc32 } from 'node:zlib';
import { SealpodError } from '@sealpod/protocol/errors';

export const sectorSize = 512;
const entryCount = 128;
const entrySize = 128;
const headerSize = 92;
const entrySectors = (entryCount * entrySize) / sectorSize;
/** Partitions start on 1 MiB boundaries, as every tool expects. */
const alignmentSectors = 2048;

/** A partition to lay out. `type` and `id` are GUIDs as text, `size` is in bytes. */
export interface Partition {
  readonly name: string;
  readonly type: string;
  readonly id: string;
  readonly size: number;
}

export interface LaidOutPartition extends Partition {
  /** Byte offset in the disk. */
  readonly offset: number;
}

export interface GptLayout {
  readonly diskSize: number;
  /** Protective MBR, primary header and entries: the start of the disk. */
  readonly head: Buffer;
  /** Backup entries and header: the end of the disk. */
  readonly tail: Buffer;
  readonly partitions: readonly LaidOutPartition[];
}

/** Lays out a disk with a GUID partition table (UEFI specification 2.10, section 5.3), the same bytes every time. */
export function layOutGpt(diskId: string, partitions: readonly Partition[]): GptLayout {
  let next = alignmentSectors;
  const placed = partitions.map((partition) => {
    const start = next;
    next = alignUp(start + Math.ceil(partition.size / sectorSize), alignmentSectors);
    return { ...partition, offset: start * sectorSize };
  });
  const totalSectors = next + alignmentSectors;
  const entries = Buffer.alloc(entryCount * entrySize);
  for (const [index, partition] of placed.entries()) writeEntry(entries, index * entrySize, partition);
  const last = totalSectors - 1;
  const header = (own: number, other: number, entriesAt: number): Buffer =>
    writeHeader({ diskId, own, other, entriesAt, last, entries });
  const head = Buffer.alloc((2 + entrySectors) * sectorSize);
  protectiveMbr(totalSectors).copy(head, 0);
  header(1, last, 2).copy(head, sectorSize);
  entries.copy(head, 2 * sectorSize);
  const tail = Buffer.concat([entries, header(last, 1, last - entrySectors)]);
  return { diskSize: totalSectors * sectorSize, head, tail, partitions: placed };
}

/** What the firmware measures of a disk it boots from: the event UEFI_GPT_DATA, and the partitions in it. */
export interface GptMeasurement {
  readonly event: Buffer;
  readonly partitions: readonly LaidOutPartition[];
}

/**
 * Reads the primary table from the first 34 sectors of a disk. The event is the header, the number of used entries
 * (u64) and those entries (TCG PC Client Platform Firmware Profile 1.06, section 10.2.6: UEFI_GPT_DATA).
 *
 * @throws SealpodError `PROVIDER_IMAGE` where signature or checksums are wrong.
 */
export function readGpt(head: Buffer): GptMeasurement {
  if (head.length < (2 + entrySectors) * sectorSize) throw damaged('the partition table is cut off');
  const header = Buffer.from(head.subarray(sectorSize, sectorSize + headerSize));
  const entries = head.subarray(2 * sectorSize, (2 + entrySectors) * sectorSize);
  if (header.toString('latin1', 0, 8) !== 'EFI PART') throw damaged('the disk has no GUID partition table');
  const unsigned = Buffer.from(header);
  unsigned.writeUInt32LE(0, 16);
  if (crc32(unsigned) !== header.readUInt32LE(16) || crc32(entries) !== header.readUInt32LE(88)) {
    throw damaged('the partition table has a wrong checksum');
  }
  const used = Array.from({ length: entryCount }, (_, index) =>
    Buffer.from(entries.subarray(index * entrySize, (index + 1) * entrySize)),
  ).filter((entry) => entry.subarray(0, 16).some((byte) => byte !== 0));
  const count = Buffer.alloc(8);
  count.writeBigUInt64LE(BigInt(used.length));
  return { event: Buffer.concat([header, count, ...used]), partitions: used.map(readEntry) };
}

function damaged(message: string): SealpodError {
  return new SealpodError('PROVIDER_IMAGE', message);
}

interface HeaderFields {
  readonly diskId: string;
  readonly own: number;
  readonly other: number;
  readonly entriesAt: number;
  readonly last: number;
  readonly entries: Buffer;
}

function writeHeader({ diskId, own, other, entriesAt, last, entries }: HeaderFields): Buffer {
  const header = Buffer.alloc(sectorSize);
  header.write('EFI PART', 0, 'latin1');
  header.writeUInt32LE(0x00010000, 8);
  header.writeUInt32LE(headerSize, 12);
  header.writeBigUInt64LE(BigInt(own), 24);
  header.writeBigUInt64LE(BigInt(other), 32);
  header.writeBigUInt64LE(BigInt(2 + entrySectors), 40);
  header.writeBigUInt64LE(BigInt(last - entrySectors - 1), 48);
  guidBytes(diskId).copy(header, 56);
  header.writeBigUInt64LE(BigInt(entriesAt), 72);
  header.writeUInt32LE(entryCount, 80);
  header.writeUInt32LE(entrySize, 84);
  header.writeUInt32LE(crc32(entries), 88);
  header.writeUInt32LE(crc32(header.subarray(0, headerSize)), 16);
  return header;
}

function writeEntry(entries: Buffer, at: number, partition: LaidOutPartition): void {
  const start = partition.offset / sectorSize;
  guidBytes(partition.type).copy(entries, at);
  guidBytes(partition.id).copy(entries, at + 16);
  entries.writeBigUInt64LE(BigInt(start), at + 32);
  entries.writeBigUInt64LE(BigInt(start + Math.ceil(partition.size / sectorSize) - 1), at + 40);
  entries.write(partition.name, at + 56, 72, 'utf16le');
}

function readEntry(entry: Buffer): LaidOutPartition {
  const start = Number(entry.readBigUInt64LE(32));
  const end = Number(entry.readBigUInt64LE(40));
  return {
    name: entry.toString('utf16le', 56, 128).replace(/\0.*$/s, ''),
    type: guidText(entry.subarray(0, 16)),
    id: guidText(entry.subarray(16, 32)),
    offset: start * sectorSize,
    size: (end - start + 1) * sectorSize,
  };
}

function protectiveMbr(totalSectors: number): Buffer {
  const sector = Buffer.alloc(sectorSize);
  const entry = 446;
  sector.set([0x00, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff], entry);
  sector.writeUInt32LE(1, entry + 8);
  sector.writeUInt32LE(Math.min(totalSectors - 1, 0xffffffff), entry + 12);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** GUIDs are stored with their first three groups little-endian (UEFI specification, appendix A). */
function guidBytes(text: string): Buffer {
  const plain = Buffer.from(text.replaceAll('-', ''), 'hex');
  if (plain.length !== 16) throw new SealpodError('INTERNAL', `${text} is not a GUID`);
  return Buffer.concat([
    plain.subarray(0, 4).reverse(),
    plain.subarray(4, 6).reverse(),
    plain.subarray(6, 8).reverse(),
    plain.subarray(8),
  ]);
}

function guidText(bytes: Buffer): string {
  const hex = (start: number, end: number, swap: boolean): string => {
    const part = Buffer.from(bytes.subarray(start, end));
    return (swap ? part.reverse() : part).toString('hex');
  };
  return [hex(0, 4, true), hex(4, 6, true), hex(6, 8, true), hex(8, 10, false), hex(10, 16, false)].join('-');
}

function alignUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
