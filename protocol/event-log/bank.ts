import { Algorithm, digestBytes, hashName } from '../tpm/index.ts';

/** How a bank of registers is computed. */
export interface Bank {
  /** As node:crypto names it. */
  readonly hash: string;
  /** Bytes of a digest. */
  readonly bytes: number;
}

/** Banks of TPMs, and SM3, whose registers only other machines have. Undefined for any other algorithm (TPM_ALG_ID). */
export function bankOf(algorithm: number): Bank | undefined {
  if (algorithm === Algorithm.sm3) return { hash: 'sm3', bytes: 32 };
  const hash = hashName(algorithm);
  return hash && { hash, bytes: digestBytes[hash] };
}
