import { create, type MessageShape } from '@bufbuild/protobuf';
import { SealpodError } from '@sealpod/protocol/errors';
import {
  type AttestationRequestSchema,
  IndividualAttestationRequestSchema,
} from '@sealpod/protocol/gen/coco/attestation_pb';
import { asJsonObject, canonicalJson, decodeBase64Url, parseJson } from '@sealpod/protocol/json';
import { isHashAlgorithm } from '@sealpod/protocol/rcar';
import type { EvidenceToEvaluate } from '../evidence.ts';

type IndividualRequest = MessageShape<typeof IndividualAttestationRequestSchema>;
export type AttestationRequest = MessageShape<typeof AttestationRequestSchema>;

/** Reads one request of `attestation.proto`. @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE */
export function fromWire(request: IndividualRequest): EvidenceToEvaluate {
  const { tee, evidence, runtimeData, initData } = request;
  const algorithm = request.runtimeDataHashAlgorithm || 'sha384';
  if (!isHashAlgorithm(algorithm)) {
    throw new SealpodError('REQUEST_FORMAT', 'unknown hash algorithm', {
      expected: 'sha256, sha384 or sha512',
      actual: algorithm.slice(0, 32),
    });
  }
  return {
    tee,
    evidence: parseJson(decodeBase64Url(evidence, { what: 'evidence', maxBytes: 4 * 1024 * 1024 }), {
      what: 'evidence',
      maxSize: 4 * 1024 * 1024,
    }),
    hashAlgorithm: algorithm,
    ...(runtimeData.case === 'structuredRuntimeData'
      ? {
          runtimeData: {
            structured: asJsonObject(
              parseJson(runtimeData.value, { what: 'runtime data', maxSize: 4 * 1024 * 1024 }),
              'runtime data',
            ),
          },
        }
      : {}),
    ...(runtimeData.case === 'rawRuntimeData'
      ? { runtimeData: { raw: decodeBase64Url(runtimeData.value, { what: 'runtime data' }) } }
      : {}),
    ...(initData.case === 'initDataToml' ? { initData: { toml: initData.value } } : {}),
    ...(initData.case === 'initDataDigest'
      ? { initData: { digest: decodeBase64Url(initData.value, { what: 'init data digest', maxBytes: 64 }) } }
      : {}),
  };
}

/** Writes one request of `attestation.proto`. */
export function toWire({ tee, evidence, runtimeData, initData, hashAlgorithm }: EvidenceToEvaluate): IndividualRequest {
  const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');
  const message = create(IndividualAttestationRequestSchema, {
    tee,
    evidence: base64url(Buffer.from(JSON.stringify(evidence))),
    runtimeDataHashAlgorithm: hashAlgorithm ?? '',
  });
  if (runtimeData !== undefined) {
    message.runtimeData =
      'raw' in runtimeData
        ? { case: 'rawRuntimeData', value: base64url(runtimeData.raw) }
        : { case: 'structuredRuntimeData', value: canonicalJson(runtimeData.structured) };
  }
  if (initData !== undefined) {
    message.initData =
      'toml' in initData
        ? { case: 'initDataToml', value: initData.toml }
        : { case: 'initDataDigest', value: base64url(initData.digest) };
  }
  return message;
}
