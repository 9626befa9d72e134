import type { TpmReader } from './reader.ts';
import { uint8, uint16, uint32 } from './writer.ts';

/** One bank of a TPML_PCR_SELECTION: registers in ascending order. */
export interface PcrSelection {
  /** TPM_ALG_ID of the bank. */
  readonly hash: number;
  readonly registers: readonly number[];
}

/** Reads a TPML_PCR_SELECTION (Part 2 §10.9.7). */
export function parsePcrSelection(reader: TpmReader): PcrSelection[] {
  const count = reader.uint32();
  if (count > 16) throw reader.fail('too many PCR banks');
  return Array.from({ length: count }, () => {
    const hash = reader.uint16();
    const bitmap = reader.bytes(reader.uint8());
    const registers: number[] = [];
    for (let register = 0; register < bitmap.length * 8; register++) {
      if (((bitmap[register >> 3] ?? 0) >> (register & 7)) & 1) registers.push(register);
    }
    return { hash, registers };
  });
}

/** Writes a TPML_PCR_SELECTION of 24 registers a bank. */
export function encodePcrSelection(selection: readonly PcrSelection[]): Buffer {
  const banks = selection.map(({ hash, registers }) => {
    const bitmap = Buffer.alloc(3);
    for (const register of registers) {
      if (!Number.isInteger(register) || register < 0 || register > 23)
        throw new RangeError(`no such PCR: ${register}`);
      bitmap[register >> 3] = (bitmap[register >> 3] ?? 0) | (1 << (register & 7));
    }
    return Buffer.concat([uint16(hash), uint8(bitmap.length), bitmap]);
  });
  return Buffer.concat([uint32(banks.length), ...banks]);
}
