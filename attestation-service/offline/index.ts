/**
 * Verification of evidence in files, without a service that runs and without network.
 *
 * @module
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeHex, type JsonObject, type JsonValue } from '@sealpod/protocol/json';
import { isTee, teeClassOf } from '@sealpod/protocol/rcar';
import { passed, type Verdict } from '@sealpod/protocol/verdict';
import { openStorage } from '@sealpod/storage';
import type { AttestationServiceConfig } from '../config.ts';
import { createAttestationService } from '../local-service.ts';
import { learnable } from '../reference-values/measured.ts';
import type { AttestationService, EvidenceToEvaluate } from '../service.ts';
import type { SubmoduleClaims } from '../verifiers/verifier.ts';
import type { EvidenceInFile } from './recognise.ts';

export { checkAttestationPolicy, checkPolicySource, type PolicyCheck } from '../policy/check.ts';
export {
  addSignatures,
  readSignableFile,
  referenceValueStatement,
  type SigningKey,
  signStatement,
  statementIn,
} from '../reference-values/sign.ts';
export { offlineConfiguration, withCertificates } from './collateral.ts';
export { type EvidenceInFile, readEvidenceFile } from './recognise.ts';

/** What evidence is held against. */
export interface OfflineExpectations {
  /** What the report data must be. Without it, nor in the file, the evidence is taken as bound to its own: a replay does not show. */
  readonly reportData?: Uint8Array;
  /** Text of the initdata. */
  readonly initDataToml?: string;
}

/** What became of evidence in a file. */
export interface OfflineVerification {
  readonly tee: string;
  readonly verdict: Verdict;
  /** True where the report data were compared with something from outside the evidence. */
  readonly bound: boolean;
  /** Claims by class, one for each submodule of a token. Only where the verdict passed. */
  readonly submodules: readonly SubmoduleClaims[];
}

/** Runs `work` with a service whose storage is gone afterwards. @throws SealpodError USAGE for an unusable configuration */
export async function withOfflineService<Result>(
  config: AttestationServiceConfig,
  work: (service: AttestationService) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'sealpod-offline-'));
  try {
    const storage = await openStorage({ path: join(folder, 'service.sqlite'), sweepIntervalMs: 0 });
    try {
      const service = await createAttestationService(config, { storage });
      try {
        return await work(service);
      } finally {
        await service.close();
      }
    } finally {
      await storage.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Verifies evidence of a file with a service's verifiers.
 *
 * @throws SealpodError UNSUPPORTED for a service that does not verify here; what is wrong with evidence is in the verdict
 */
export async function verifyInFile(
  service: AttestationService,
  file: EvidenceInFile,
  expectations: OfflineExpectations = {},
): Promise<OfflineVerification> {
  if (service.verifyEvidence === undefined)
    throw new SealpodError('UNSUPPORTED', 'this attestation service does not verify without appraising');
  const request = toRequest(file, expectations);
  const bound = request.runtimeData !== undefined;
  let verified = await service.verifyEvidence(request);
  if (!bound) {
    // Several TEEs require report data. Their own, once it is known, shows whether all the rest holds.
    const own = verified.claims?.['report_data'] ?? verified.submodules?.[0]?.claims['report_data'];
    if (typeof own === 'string' && /^([0-9a-f]{2})+$/.test(own))
      verified = await service.verifyEvidence({ ...request, runtimeData: { raw: decodeHex(own) } });
  }
  const { verdict, claims = {}, submodules } = verified;
  const teeClass = isTee(file.tee) ? teeClassOf(file.tee) : 'cpu';
  return {
    tee: file.tee,
    verdict,
    bound,
    submodules: passed(verdict) ? (submodules ?? [{ teeClass, claims }]) : [],
  };
}

/** The reference values that the evidence of a file would match. @throws SealpodError UNSUPPORTED */
export function learnableInFile({ tee, submodules }: OfflineVerification): JsonObject {
  return learnable(tee, submodules[0]?.claims ?? {});
}

/** A file's evidence with what it is held against, as a service takes it. */
export function toRequest(
  { tee, evidence, request = {} }: EvidenceInFile,
  { reportData, initDataToml }: OfflineExpectations = {},
): EvidenceToEvaluate {
  const runtimeData = reportData === undefined ? runtimeDataOf(request['runtime_data']) : { raw: reportData };
  const initData = initDataToml === undefined ? initDataOf(request['init_data']) : { toml: initDataToml };
  const algorithm = request['runtime_data_hash_algorithm'];
  const hash = typeof algorithm === 'string' ? algorithm.toLowerCase() : undefined;
  if (hash !== undefined && hash !== 'sha256' && hash !== 'sha384' && hash !== 'sha512')
    throw new SealpodError('REQUEST_FORMAT', 'unknown hash algorithm', { actual: hash.slice(0, 32) });
  return {
    tee,
    evidence,
    ...(hash === undefined ? {} : { hashAlgorithm: hash }),
    ...(runtimeData === undefined ? {} : { runtimeData }),
    ...(initData === undefined ? {} : { initData }),
  };
}

function runtimeDataOf(value: JsonValue | undefined): EvidenceToEvaluate['runtimeData'] {
  if (value === undefined || value === null) return undefined;
  const member = asJsonObject(value, 'runtime_data');
  const raw = member['raw'];
  if (typeof raw === 'string') return { raw: Buffer.from(raw, 'base64url') };
  return { structured: asJsonObject(member['structured'], 'runtime_data.structured') };
}

function initDataOf(value: JsonValue | undefined): EvidenceToEvaluate['initData'] {
  if (value === undefined || value === null) return undefined;
  const member = asJsonObject(value, 'init_data');
  const toml = member['init_data_toml'];
  if (typeof toml === 'string') return { toml };
  const digest = member['init_data_digest'];
  if (typeof digest === 'string') return { digest: Buffer.from(digest, 'base64url') };
  throw new SealpodError('REQUEST_FORMAT', 'init_data holds neither a text nor a digest');
}
