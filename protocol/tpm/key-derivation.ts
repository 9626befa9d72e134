import { createHash, createHmac } from 'node:crypto';
import { digestBytes, type TpmHash } from './constants.ts';
import { uint32 } from './writer.ts';

/** KDFa (Part 1 §11.4.10.2): SP 800-108 in counter mode over HMAC. `bits` is a multiple of 8. */
export function kdfA(
  hash: TpmHash,
  key: Uint8Array,
  label: string,
  contextU: Uint8Array,
  contextV: Uint8Array,
  bits: number,
): Buffer {
  const rounds = Math.ceil(bits / 8 / digestBytes[hash]);
  const parts = Array.from({ length: rounds }, (_, index) =>
    createHmac(hash, key)
      .update(uint32(index + 1))
      .update(`${label}\0`)
      .update(contextU)
      .update(contextV)
      .update(uint32(bits))
      .digest(),
  );
  return Buffer.concat(parts).subarray(0, bits / 8);
}

/** KDFe (Part 1 §11.4.10.3): SP 800-56A concatenation KDF over a hash. `bits` is a multiple of 8. */
export function kdfE(
  hash: TpmHash,
  sharedX: Uint8Array,
  label: string,
  partyUX: Uint8Array,
  partyVX: Uint8Array,
  bits: number,
): Buffer {
  const rounds = Math.ceil(bits / 8 / digestBytes[hash]);
  const parts = Array.from({ length: rounds }, (_, index) =>
    createHash(hash)
      .update(uint32(index + 1))
      .update(sharedX)
      .update(`${label}\0`)
      .update(partyUX)
      .update(partyVX)
      .digest(),
  );
  return Buffer.concat(parts).subarray(0, bits / 8);
}
