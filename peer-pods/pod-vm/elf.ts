import { SealpodError } from '@sealpod/protocol/errors';

/** What the dynamic linker would need for a program or library. */
export interface ElfNeeds {
  /** Path of the dynamic linker, absent for libraries and static programs. */
  readonly interpreter?: string;
  /** Sonames of the libraries named in DT_NEEDED, in order. */
  readonly libraries: readonly string[];
}

const programTypeLoad = 1;
const programTypeDynamic = 2;
const programTypeInterpreter = 3;
const dynamicNull = 0n;
const dynamicNeeded = 1n;
const dynamicStringTable = 5n;

/** Whether a file starts as an ELF object does. */
export function isElf(content: Uint8Array): boolean {
  return (
    content.length >= 64 && content[0] === 0x7f && content[1] === 0x45 && content[2] === 0x4c && content[3] === 0x46
  );
}

/**
 * Reads the needs of a 64-bit little-endian ELF object (System V ABI, chapters 4 and 5), without running it.
 * Nothing else of the file is verified.
 *
 * @throws SealpodError `PROVIDER_IMAGE` where the object is of another class or cut off.
 */
export function elfNeeds(content: Buffer, name: string): ElfNeeds {
  if (!isElf(content) || content[4] !== 2 || content[5] !== 1) {
    throw new SealpodError('PROVIDER_IMAGE', `${name} is not a 64-bit little-endian ELF object`);
  }
  try {
    return readNeeds(content);
  } catch (error) {
    if (error instanceof RangeError) throw new SealpodError('PROVIDER_IMAGE', `${name} is cut off`, { cause: error });
    throw error;
  }
}

function readNeeds(content: Buffer): ElfNeeds {
  const segments = programHeaders(content);
  const interpreter = segments.find((segment) => segment.type === programTypeInterpreter);
  const dynamic = segments.find((segment) => segment.type === programTypeDynamic);
  const libraries: string[] = [];
  if (dynamic !== undefined) {
    const needed: number[] = [];
    let strings = 0;
    for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
      const tag = content.readBigInt64LE(at);
      const value = Number(content.readBigUInt64LE(at + 8));
      if (tag === dynamicNull) break;
      if (tag === dynamicNeeded) needed.push(value);
      if (tag === dynamicStringTable) strings = value;
    }
    const load = segments.find(
      ({ type, address, size }) => type === programTypeLoad && strings >= address && strings < address + size,
    );
    if (load === undefined) throw new RangeError('the string table lies in no segment');
    const table = load.offset + strings - load.address;
    for (const offset of needed) libraries.push(text(content, table + offset));
  }
  return { ...(interpreter === undefined ? {} : { interpreter: text(content, interpreter.offset) }), libraries };
}

function programHeaders(content: Buffer): { type: number; offset: number; address: number; size: number }[] {
  const start = Number(content.readBigUInt64LE(32));
  const entrySize = content.readUInt16LE(54);
  return Array.from({ length: content.readUInt16LE(56) }, (_, index) => {
    const at = start + index * entrySize;
    return {
      type: content.readUInt32LE(at),
      offset: Number(content.readBigUInt64LE(at + 8)),
      address: Number(content.readBigUInt64LE(at + 16)),
      size: Number(content.readBigUInt64LE(at + 32)),
    };
  });
}

function text(content: Buffer, start: number): string {
  const end = content.indexOf(0, start);
  if (start < 0 || end < 0) throw new RangeError('a text does not end');
  return content.toString('latin1', start, end);
}
