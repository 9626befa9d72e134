import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { Metadata } from '@grpc/grpc-js';
import { isReasonCode, type ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Verdict } from '@sealpod/protocol/verdict';

/**
 * What `attestation.proto` has no field for travels as metadata that upstream's programs ignore: the correlation id on
 * the way in; reason code and, for an authenticated caller, the explanation on the way out.
 */
export const correlationIdHeader = 'sealpod-correlation-id';
export const reasonCodeHeader = 'sealpod-reason-code';
const explanationHeader = 'sealpod-explanation-bin';

/** HTTP/2 peers limit headers to 16 KiB or less; a larger explanation stays with the attestation service. */
const maxExplanationBytes = 8 * 1024;
const maxInflatedBytes = 256 * 1024;

/** Why an evaluation ended as it did. */
export interface Explanation {
  readonly verdict: Verdict;
  readonly evidenceDigest: string;
  readonly policyVersions?: Readonly<Record<string, string>>;
  readonly referenceValueVersions?: Readonly<Record<string, number>>;
}

/** Metadata for an answer. */
export function explain(explanation: Explanation | undefined, code?: ReasonCode): Metadata {
  const metadata = new Metadata();
  if (code !== undefined) metadata.set(reasonCodeHeader, code);
  if (explanation !== undefined) {
    const packed = deflateRawSync(JSON.stringify(explanation));
    if (packed.length <= maxExplanationBytes) metadata.set(explanationHeader, packed);
  }
  return metadata;
}

/** The explanation of an answer; undefined where there is none or it is damaged: it explains, it decides nothing. */
export function explanationOf(metadata: Metadata): Explanation | undefined {
  const [packed] = metadata.get(explanationHeader);
  if (!Buffer.isBuffer(packed)) return undefined;
  try {
    return JSON.parse(inflateRawSync(packed, { maxOutputLength: maxInflatedBytes }).toString()) as Explanation;
  } catch {
    return undefined;
  }
}

/** The reason code of a failure; undefined where the peer is not ours. */
export function reasonCodeOf(metadata: Metadata): ReasonCode | undefined {
  const [code] = metadata.get(reasonCodeHeader);
  return typeof code === 'string' && isReasonCode(code) ? code : undefined;
}
