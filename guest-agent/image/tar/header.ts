import { SealpodError } from '@sealpod/protocol/errors';

export const blockSize = 512;

/** Kinds of entry that an image layer may hold. */
export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'character-device' | 'block-device' | 'fifo';

/** A piece of a sparse file, in bytes. */
export interface SparseRegion {
  readonly offset: number;
  readonly length: number;
}

/**
 * An entry of a tar archive. Paths are "binary strings": one character a byte, since file names need not be UTF-8.
 * Nothing of them is validated here.
 */
export interface TarEntry {
  readonly path: string;
  readonly type: TarEntryType;
  /** Target of a symbolic or hard link; empty otherwise. */
  readonly linkTarget: string;
  /** Size of the file once written, in bytes. */
  readonly size: number;
  /** Permission bits with set-uid, set-gid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch, with fraction. */
  readonly modified: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  /** Extended attributes (PAX `SCHILY.xattr.*`), name → value. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  readonly sparse: boolean;
}

/** What the 512 bytes of a header say, before PAX and GNU records override it. */
export interface RawHeader {
  readonly typeFlag: string;
  readonly path: string;
  readonly linkTarget: string;
  /** Bytes that follow in the archive. */
  readonly size: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modified: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/**
 * Parses a header block (POSIX.1-2017 pax, "ustar Interchange Format", and GNU's variant). A block of zeros gives
 * undefined: the end marker.
 *
 * @throws SealpodError IMG_FORMAT
 */
export function parseHeader(block: Buffer): RawHeader | undefined {
  const sum = checksum(block);
  if (sum === zeroBlockChecksum && block.every((byte) => byte === 0)) return undefined;
  if (number(block, 148, 8) !== sum) throw malformed('header checksum is wrong');
  const magic = block.toString('latin1', 257, 263);
  const prefix = magic === 'ustar\0' ? text(block, 345, 155) : '';
  const name = text(block, 0, 100);
  return {
    typeFlag: String.fromCharCode(block[156] ?? 0),
    path: prefix === '' ? name : `${prefix}/${name}`,
    linkTarget: text(block, 157, 100),
    size: nonNegative(number(block, 124, 12), 'size'),
    mode: number(block, 100, 8) & 0o7777,
    uid: nonNegative(number(block, 108, 8), 'uid'),
    gid: nonNegative(number(block, 116, 8), 'gid'),
    modified: number(block, 136, 12),
    deviceMajor: magic.startsWith('ustar') ? number(block, 329, 8) : 0,
    deviceMinor: magic.startsWith('ustar') ? number(block, 337, 8) : 0,
  };
}

/** Regions and real size of an old GNU sparse header (type `S`); `extended` where another block of regions follows. */
export function parseOldSparseHeader(block: Buffer): {
  readonly regions: SparseRegion[];
  readonly size: number;
  readonly extended: boolean;
} {
  return {
    regions: sparseRegions(block, 386, 4),
    extended: block[482] !== 0,
    size: nonNegative(number(block, 483, 12), 'real size'),
  };
}

/** A further block of regions of an old GNU sparse header. */
export function parseSparseExtension(block: Buffer): { readonly regions: SparseRegion[]; readonly extended: boolean } {
  return { regions: sparseRegions(block, 0, 21), extended: block[504] !== 0 };
}

/** A non-negative decimal number that a double holds. @throws SealpodError IMG_FORMAT */
export function parseDecimal(digits: string, what: string): number {
  if (!/^[0-9]{1,16}$/.test(digits)) throw malformed(`${what} is not a number`);
  return nonNegative(Number(digits), what);
}

export function malformed(problem: string): SealpodError {
  return new SealpodError('IMG_FORMAT', `malformed layer archive: ${problem}`);
}

const zeroBlockChecksum = 8 * 0x20;

/** Sum of the bytes, the checksum field itself read as spaces. */
function checksum(block: Buffer): number {
  let sum = zeroBlockChecksum;
  for (let at = 0; at < 148; at++) sum += block[at] ?? 0;
  for (let at = 156; at < blockSize; at++) sum += block[at] ?? 0;
  return sum;
}

function sparseRegions(block: Buffer, start: number, count: number): SparseRegion[] {
  const regions: SparseRegion[] = [];
  for (let at = start; at < start + count * 24; at += 24) {
    if (block[at] === 0) break;
    const offset = nonNegative(number(block, at, 12), 'sparse offset');
    regions.push({ offset, length: nonNegative(number(block, at + 12, 12), 'sparse length') });
  }
  return regions;
}

/** Text up to the first NUL. */
function text(block: Buffer, start: number, length: number): string {
  const end = block.indexOf(0, start);
  return block.toString('latin1', start, end === -1 || end > start + length ? start + length : end);
}

/** Octal text, or GNU's base-256 with the first bit set (big-endian two's complement). */
function number(block: Buffer, start: number, length: number): number {
  const first = block[start] ?? 0;
  if ((first & 0x80) !== 0) {
    let value = (first & 0x40) === 0 ? first & 0x3f : (first & 0x7f) - 0x80;
    for (let at = start + 1; at < start + length; at++) value = value * 256 + (block[at] ?? 0);
    if (!Number.isSafeInteger(value)) throw malformed('a number is too large');
    return value;
  }
  const digits = text(block, start, length).trim();
  if (digits === '') return 0;
  if (!/^[0-7]+$/.test(digits)) throw malformed('a number is not octal');
  return Number.parseInt(digits, 8);
}

function nonNegative(value: number, what: string): number {
  if (value < 0 || !Number.isSafeInteger(value)) throw malformed(`${what} is out of range`);
  return value;
}
