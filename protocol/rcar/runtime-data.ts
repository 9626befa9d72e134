import { createHash } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { canonicalJson, type JsonObject, type JsonValue } from '../json/index.ts';
import type { TeePubKey } from './tee-pubkey.ts';

/** Hash algorithms of the runtime-data digest. */
export type HashAlgorithm = 'sha256' | 'sha384' | 'sha512';

/** Whether `name` is a hash algorithm we can compute. */
export function isHashAlgorithm(name: string): name is HashAlgorithm {
  return name === 'sha256' || name === 'sha384' || name === 'sha512';
}

/**
 * What evidence is bound to. `additionalEvidence` is the exact string of the attestation, present even when empty,
 * for the primary TEE; it is left out for an additional device.
 */
export interface RuntimeData {
  readonly nonce: string;
  readonly teePubKey: TeePubKey;
  readonly additionalEvidence?: string;
}

/** The canonical JSON (RFC 8785) that is hashed, and that an attestation service receives as structured runtime data. */
export function runtimeDataText({ nonce, teePubKey, additionalEvidence }: RuntimeData): string {
  const key: JsonObject = { ...teePubKey };
  const data: Record<string, JsonValue> = { nonce, 'tee-pubkey': key };
  if (additionalEvidence !== undefined) data['additional-evidence'] = additionalEvidence;
  return canonicalJson(data);
}

/** Digest that evidence must carry: hash of {@link runtimeDataText} (kbs_protocol; SHA-384 unless negotiated). */
export function runtimeDataDigest(data: RuntimeData, algorithm: HashAlgorithm = 'sha384'): Buffer {
  return createHash(algorithm).update(runtimeDataText(data)).digest();
}

/** Fits a digest into a field of `size` bytes as upstream does: cut at the end, or padded with zeros at the end. */
export function regularise(digest: Uint8Array, size: number): Buffer {
  const field = Buffer.alloc(size);
  field.set(digest.subarray(0, size));
  return field;
}

/**
 * The algorithm a challenge selects: `selected-hash-algorithm` of its extra-params where present, else SHA-384.
 * @throws SealpodError UNSUPPORTED for an algorithm we cannot compute
 */
export function negotiatedHashAlgorithm(extraParams: JsonValue): HashAlgorithm {
  if (typeof extraParams !== 'object' || extraParams === null || Array.isArray(extraParams)) return 'sha384';
  const selected = (extraParams as JsonObject)['selected-hash-algorithm'];
  if (selected === undefined) return 'sha384';
  const name = typeof selected === 'string' ? selected.toLowerCase() : '';
  if (!isHashAlgorithm(name)) {
    throw new SealpodError('UNSUPPORTED', 'the challenge selects an unsupported hash algorithm', {
      expected: 'sha256, sha384 or sha512',
      actual: JSON.stringify(selected),
    });
  }
  return name;
}
