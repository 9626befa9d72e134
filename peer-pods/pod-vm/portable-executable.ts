import { createHash } from 'node:crypto';
import { SealpodError } from '@sealpod/protocol/errors';

/** A section of an EFI program. `content` is as long as the section's virtual size. */
export interface Section {
  readonly name: string;
  readonly content: Buffer;
}

/** Read-only initialised data (IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ). */
const readOnlyData = 0x40000040;
const sectionHeaderSize = 40;

interface Headers {
  readonly fileHeader: number;
  readonly optionalHeader: number;
  readonly sectionTable: number;
  readonly sectionCount: number;
  readonly sectionAlignment: number;
  readonly fileAlignment: number;
  readonly sizeOfHeaders: number;
}

/**
 * Adds sections behind those of an EFI stub (Microsoft PE/COFF specification; what `ukify` and `objcopy` do), with
 * nothing in it that depends on time or machine.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the stub is no PE32+ program or its header has no room.
 */
export function appendSections(stub: Buffer, sections: readonly Section[]): Buffer {
  const headers = readHeaders(stub);
  const { sectionTable, sectionAlignment, fileAlignment } = headers;
  let virtualEnd = 0;
  let rawEnd = 0;
  let firstRaw = stub.length;
  for (let index = 0; index < headers.sectionCount; index += 1) {
    const at = sectionTable + index * sectionHeaderSize;
    virtualEnd = Math.max(virtualEnd, stub.readUInt32LE(at + 12) + stub.readUInt32LE(at + 8));
    rawEnd = Math.max(rawEnd, stub.readUInt32LE(at + 20) + stub.readUInt32LE(at + 16));
    if (stub.readUInt32LE(at + 20) > 0) firstRaw = Math.min(firstRaw, stub.readUInt32LE(at + 20));
  }
  if (sectionTable + (headers.sectionCount + sections.length) * sectionHeaderSize > firstRaw) {
    throw new SealpodError('PROVIDER_IMAGE', 'the EFI stub has no room for more section headers');
  }
  // Whatever follows the last section (a symbol table) is not loaded and not kept.
  const base = Buffer.alloc(alignUp(rawEnd, fileAlignment));
  stub.copy(base, 0, 0, rawEnd);
  const parts: Buffer[] = [base];
  let fileEnd = base.length;
  for (const [index, section] of sections.entries()) {
    const address = alignUp(virtualEnd, Math.max(sectionAlignment, 4096));
    const rawSize = alignUp(section.content.length, fileAlignment);
    const at = sectionTable + (headers.sectionCount + index) * sectionHeaderSize;
    base.fill(0, at, at + sectionHeaderSize);
    base.write(section.name, at, 8, 'latin1');
    base.writeUInt32LE(section.content.length, at + 8);
    base.writeUInt32LE(address, at + 12);
    base.writeUInt32LE(rawSize, at + 16);
    base.writeUInt32LE(fileEnd, at + 20);
    base.writeUInt32LE(readOnlyData, at + 36);
    parts.push(section.content, Buffer.alloc(rawSize - section.content.length));
    virtualEnd = address + section.content.length;
    fileEnd += rawSize;
  }
  base.writeUInt16LE(headers.sectionCount + sections.length, headers.fileHeader + 2);
  // The symbol table is gone, and the checksum is optional and not part of the Authenticode digest.
  base.writeUInt32LE(0, headers.fileHeader + 8);
  base.writeUInt32LE(0, headers.fileHeader + 12);
  base.writeUInt32LE(alignUp(virtualEnd, sectionAlignment), headers.optionalHeader + 56);
  base.writeUInt32LE(0, headers.optionalHeader + 64);
  return Buffer.concat(parts);
}

/**
 * Removes the last sections of a program, the reverse of `appendSections`.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the named sections are not the last ones.
 */
export function dropSections(program: Buffer, names: readonly string[]): Buffer {
  const headers = readHeaders(program);
  const kept = readSections(program).filter((section) => !names.includes(section.name)).length;
  const firstDropped = headers.sectionTable + kept * sectionHeaderSize;
  const rest = readSections(program).slice(kept);
  if (rest.length !== names.length || rest.some((section) => !names.includes(section.name))) {
    throw new SealpodError('PROVIDER_IMAGE', 'the sections to drop are not the last ones', {
      expected: names.join(' '),
    });
  }
  const stub = Buffer.from(program.subarray(0, program.readUInt32LE(firstDropped + 20)));
  stub.fill(0, firstDropped, firstDropped + names.length * sectionHeaderSize);
  stub.writeUInt16LE(kept, headers.fileHeader + 2);
  return stub;
}

/** The sections of a PE32+ program, in table order. */
export function readSections(program: Buffer): Section[] {
  const { sectionTable, sectionCount } = readHeaders(program);
  return Array.from({ length: sectionCount }, (_, index) => {
    const at = sectionTable + index * sectionHeaderSize;
    const start = program.readUInt32LE(at + 20);
    const size = Math.min(program.readUInt32LE(at + 8), program.readUInt32LE(at + 16));
    if (start + size > program.length) throw new SealpodError('PROVIDER_IMAGE', 'an EFI program is cut off');
    return {
      name: program.toString('latin1', at, at + 8).replace(/\0+$/, ''),
      content: program.subarray(start, start + size),
    };
  });
}

/**
 * The SHA-256 Authenticode digest of a PE32+ program ("Windows Authenticode Portable Executable Signature Format",
 * "Calculating the PE Image Hash"): what firmware measures of a program it starts.
 */
export function authenticodeDigest(program: Buffer): Buffer {
  const headers = readHeaders(program);
  const checksum = headers.optionalHeader + 64;
  const certificateEntry = headers.optionalHeader + 112 + 4 * 8;
  const hasCertificateEntry = program.readUInt32LE(headers.optionalHeader + 108) > 4;
  const hash = createHash('sha256').update(program.subarray(0, checksum));
  let certificateSize = 0;
  if (hasCertificateEntry) {
    certificateSize = program.readUInt32LE(certificateEntry + 4);
    hash.update(program.subarray(checksum + 4, certificateEntry));
    hash.update(program.subarray(certificateEntry + 8, headers.sizeOfHeaders));
  } else {
    hash.update(program.subarray(checksum + 4, headers.sizeOfHeaders));
  }
  let hashed = headers.sizeOfHeaders;
  const raw = Array.from({ length: headers.sectionCount }, (_, index) => {
    const at = headers.sectionTable + index * sectionHeaderSize;
    return { size: program.readUInt32LE(at + 16), start: program.readUInt32LE(at + 20) };
  }).filter((section) => section.size > 0);
  for (const { start, size } of raw.sort((left, right) => left.start - right.start)) {
    hash.update(program.subarray(start, start + size));
    hashed += size;
  }
  if (program.length > hashed + certificateSize)
    hash.update(program.subarray(hashed, program.length - certificateSize));
  return hash.digest();
}

function readHeaders(program: Buffer): Headers {
  if (program.length < 0x40 || program.toString('latin1', 0, 2) !== 'MZ') throw notExecutable();
  const signature = program.readUInt32LE(0x3c);
  if (signature + 4 + 20 + 112 > program.length) throw notExecutable();
  if (program.toString('latin1', signature, signature + 4) !== 'PE\0\0') throw notExecutable();
  const fileHeader = signature + 4;
  const optionalHeader = fileHeader + 20;
  if (program.readUInt16LE(optionalHeader) !== 0x20b) throw notExecutable();
  const sectionTable = optionalHeader + program.readUInt16LE(fileHeader + 16);
  const sectionCount = program.readUInt16LE(fileHeader + 2);
  if (sectionTable + sectionCount * sectionHeaderSize > program.length) throw notExecutable();
  return {
    fileHeader,
    optionalHeader,
    sectionTable,
    sectionCount,
    sectionAlignment: program.readUInt32LE(optionalHeader + 32),
    fileAlignment: program.readUInt32LE(optionalHeader + 36),
    sizeOfHeaders: program.readUInt32LE(optionalHeader + 60),
  };
}

function notExecutable(): SealpodError {
  return new SealpodError('PROVIDER_IMAGE', 'not a PE32+ program');
}

function alignUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
