import { createHash } from 'node:crypto';
import { initdataDigest, parseInitdata } from '@sealpod/protocol/initdata';
import { canonicalJson } from '@sealpod/protocol/json';
import type { EvidenceToEvaluate } from '../evidence.ts';
import type { Expectations } from '../verifiers/verifier.ts';

/** @throws SealpodError INITDATA_SCHEMA */
export function initDataOf({ initData }: EvidenceToEvaluate): Pick<Expectations, 'initDataDigest' | 'initData'> {
  if (initData === undefined) return {};
  if ('digest' in initData) return { initDataDigest: Buffer.from(initData.digest) };
  const { toml } = initData;
  const document = parseInitdata(toml);
  return { initDataDigest: initdataDigest(toml, document.algorithm), initData: { toml, document } };
}

/** Structured runtime data is hashed over its canonical JSON; raw is the report data itself. */
export function reportDataOf({ runtimeData, hashAlgorithm = 'sha384' }: EvidenceToEvaluate): Buffer | undefined {
  if (runtimeData === undefined) return undefined;
  if ('raw' in runtimeData) return Buffer.from(runtimeData.raw);
  return createHash(hashAlgorithm).update(canonicalJson(runtimeData.structured)).digest();
}

export function nonceOf({ runtimeData }: EvidenceToEvaluate): string | undefined {
  const nonce = runtimeData !== undefined && 'structured' in runtimeData ? runtimeData.structured['nonce'] : undefined;
  return typeof nonce === 'string' ? nonce : undefined;
}
