import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { Call } from '../portable/testing/drive.ts';

/** What a target mints for itself: valid inputs, and what they are valid under. Both go into the file of a failure. */
export interface Minted {
  readonly seeds: readonly JsonValue[];
  readonly under: JsonObject;
}

/** One thing that takes hostile input. */
export interface Target {
  /** Makes valid inputs of the calls that the tests of the portable entry point make. */
  seeds(calls: readonly Call[]): readonly JsonValue[];
  /** Mints further ones. */
  mint?(): Promise<Minted>;
  /** Bytes are given as base64. Throws SealpodError or returns; @returns a code that has to be one of the shared ones */
  run(input: JsonValue, calls: readonly Call[], under: JsonObject): Promise<string> | string;
  /** Whether inputs are bytes (base64) and not structures. */
  readonly bytes: boolean;
}

/** A target that lives of what it mints. */
export function minted<Under extends JsonObject>(
  mint: () => Promise<{ readonly seeds: readonly JsonValue[]; readonly under: Under }>,
  run: (input: JsonValue, under: Under) => Promise<string> | string,
): Target {
  return { bytes: false, seeds: () => [], mint, run: (input, _calls, under) => run(input, under as Under) };
}

/** A parser of bytes whose valid inputs are minted: returns, or throws a typed error. */
export function mintedParser(
  parse: (bytes: Buffer, under: JsonObject) => unknown,
  mint: () => Promise<readonly Buffer[] | { readonly seeds: readonly Buffer[]; readonly under: JsonObject }>,
): Target {
  return {
    bytes: true,
    seeds: () => [],
    mint: async () => {
      const made = await mint();
      const { seeds, under } = 'under' in made ? made : { seeds: made, under: {} };
      return { seeds: seeds.map((bytes) => bytes.toString('base64')), under };
    },
    run: (input, _calls, under) => {
      parse(bytesOf(input), under);
      return 'OK';
    },
  };
}

/** Bytes of base64; of anything else none. */
export function bytesOf(value: JsonValue | undefined): Buffer {
  return Buffer.from(typeof value === 'string' ? value : '', 'base64');
}
