import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto';
import {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type StoredPolicy,
  type StoredReferenceValue,
} from '@sealpod/attestation-service/service';
import type { EarClaims } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, decodeBase64, type JsonObject, type JsonValue, parseJson } from '@sealpod/protocol/json';
import { runtimeDataDigest, type TeePubKey } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { SignJWT } from 'jose';

/** Its signing key; two fakes with one key are replicas of one attestation service. */
export interface FakeSigner {
  readonly privateKey: KeyObject;
  readonly jwk: JsonObject;
}

export function newSigner(kid?: string): FakeSigner {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' });
  const jwk = { alg: 'ES256', kty: 'EC', crv: 'P-256', x, y };
  return { privateKey, jwk: kid === undefined ? jwk : { ...jwk, kid } };
}

/** Payload of a token as the real service writes it. */
export function earPayload(
  teePubKey: JsonValue,
  options: { status?: string; jti?: string; now?: number } = {},
): JsonObject {
  const now = Math.floor((options.now ?? Date.now()) / 1000);
  return {
    eat_profile: 'tag:github.com,2024:confidential-containers/Trustee',
    iat: now,
    'ear.verifier-id': { developer: 'test', build: 'test' },
    submods: {
      cpu0: {
        'ear.status': options.status ?? 'affirming',
        'ear.trustworthiness-vector': { hardware: 2 },
        'ear.appraisal-policy-id': 'default',
        'ear.veraison.annotated-evidence': { sample: { svn: '1' }, runtime_data_claims: { 'tee-pubkey': teePubKey } },
      },
    },
    exp: now + 300,
    iss: 'CoCo-Attestation-Service',
    ...(options.jti === undefined ? {} : { jti: options.jti }),
  };
}

/** Signs any payload under any header; for tokens the real service would never make. */
export function signPayload(
  signer: FakeSigner,
  payload: JsonObject,
  header: Record<string, unknown> = {},
): Promise<string> {
  return new SignJWT(payload as Record<string, unknown>)
    .setProtectedHeader({ typ: 'JWT', alg: 'ES256', jwk: signer.jwk, ...header } as never)
    .sign(signer.privateKey);
}

/**
 * An attestation service for tests of the key broker: it verifies `sample` evidence's binding for real, holds policies
 * and reference values in memory, and appraises everything as the test says.
 */
export class FakeAttestationService implements AttestationService {
  readonly signer: FakeSigner;
  /** `ear.status` of what it appraises next. */
  status = 'affirming';
  /** Waits before each evaluation; lets a test hold one. */
  gate: Promise<void> = Promise.resolve();
  evaluations = 0;
  challenges: Readonly<Record<string, string>>[] = [];
  /** Milliseconds since the epoch. */
  now: () => number = Date.now;
  /** Compiles policies; without it they are stored unread. */
  check: (policy: string) => Promise<void> = async () => undefined;
  /** Keys of other signers that it publishes beside its own. */
  otherKeys: JsonObject[] = [];
  readonly policies = new Map<string, StoredPolicy>();
  readonly values = new Map<string, StoredReferenceValue>();

  constructor(signer: FakeSigner = newSigner()) {
    this.signer = signer;
  }

  async evaluate({ evidences, correlationId }: EvaluateRequest): Promise<Evaluation> {
    this.evaluations += 1;
    await this.gate;
    const [primary] = evidences;
    if (primary === undefined || primary.runtimeData === undefined || 'raw' in primary.runtimeData)
      throw new Error('no evidence');
    const { structured } = primary.runtimeData;
    const evidenceDigest = createHash('sha256').update(JSON.stringify(primary.evidence)).digest('hex');
    const verdict = (code: Verdict['code'], actual = ''): Verdict => ({
      check: 'evidence',
      code,
      children: [{ check: 'report data', code, expected: 'the nonce', actual }],
    });
    if (primary.tee !== 'sample' && primary.tee !== 'sampledevice')
      throw new AttestationRefused(verdict('EV_TEE_UNSUPPORTED'), evidenceDigest);
    this.#checkSample(
      primary.evidence,
      structured,
      () => new AttestationRefused(verdict('EV_NONCE_MISMATCH', 'another'), evidenceDigest),
    );
    for (const { tee, evidence, runtimeData } of evidences.slice(1)) {
      if (tee !== 'sampledevice') throw new AttestationRefused(verdict('EV_TEE_UNSUPPORTED'), evidenceDigest);
      if (runtimeData === undefined || 'raw' in runtimeData) throw new Error('a device that is bound to nothing');
      this.#checkSample(
        evidence,
        runtimeData.structured,
        () => new AttestationRefused(verdict('EV_NONCE_MISMATCH', 'another'), evidenceDigest),
      );
    }
    const teePubKey = structured['tee-pubkey'] ?? null;
    const claims = earPayload(teePubKey, { status: this.status, jti: correlationId, now: this.now() });
    return {
      token: await signPayload(this.signer, claims),
      claims: claims as unknown as EarClaims,
      verdict: { check: 'evidence', code: 'OK', children: [{ check: 'report data', code: 'OK' }] },
      evidenceDigest,
      policyVersions: { default_cpu: 'f'.repeat(64) },
      referenceValueVersions: { svn: 1 },
    };
  }

  #checkSample(evidence: JsonValue, structured: JsonObject, refusal: () => Error): void {
    let reportData: Buffer;
    try {
      const members = asJsonObject(evidence, 'evidence');
      if (typeof members['svn'] !== 'string' || typeof members['report_data'] !== 'string') throw new Error('members');
      reportData = decodeBase64(members['report_data']);
    } catch {
      throw refusal();
    }
    const additional = structured['additional-evidence'];
    const expected = runtimeDataDigest({
      nonce: String(structured['nonce']),
      teePubKey: structured['tee-pubkey'] as unknown as TeePubKey,
      ...(typeof additional === 'string' ? { additionalEvidence: additional } : {}),
    });
    if (!expected.equals(reportData)) throw refusal();
  }

  async challenge(inner: Readonly<Record<string, string>>): Promise<string> {
    this.challenges.push(inner);
    if (inner['tee'] !== 'tpm') throw new SealpodError('EV_TEE_UNSUPPORTED', 'no verifier is enabled for this TEE');
    return JSON.stringify({ 'credential-blob': 'AAAA', 'encrypted-secret': 'BBBB' });
  }

  async setPolicy(id: string, policy: string): Promise<StoredPolicy> {
    if (!/^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$/.test(id)) throw new SealpodError('REQUEST_FORMAT', 'bad policy id');
    await this.check(policy);
    const sha256 = createHash('sha256').update(policy).digest('hex');
    const stored = { id, policy, sha256, updatedAt: new Date().toISOString() };
    this.policies.set(id, stored);
    return stored;
  }

  async getPolicy(id: string): Promise<StoredPolicy | undefined> {
    return this.policies.get(id);
  }

  async listPolicies(): Promise<StoredPolicy[]> {
    return [...this.policies.values()];
  }

  async deletePolicy(id: string): Promise<boolean> {
    return this.policies.delete(id);
  }

  async setReferenceValue(
    id: string,
    value: JsonValue,
    options: { readonly expiresAt?: string } = {},
  ): Promise<StoredReferenceValue> {
    if (!/^[a-zA-Z0-9_][a-zA-Z0-9_./-]*$/.test(id)) throw new SealpodError('REQUEST_FORMAT', 'bad reference value id');
    const version = (this.values.get(id)?.version ?? 0) + 1;
    const stored = { id, value, version, updatedAt: new Date().toISOString(), ...options };
    this.values.set(id, stored);
    return stored;
  }

  async getReferenceValue(id: string): Promise<StoredReferenceValue | undefined> {
    if (id === '..') throw new SealpodError('REQUEST_FORMAT', 'bad reference value id');
    return this.values.get(id);
  }

  async listReferenceValues(): Promise<StoredReferenceValue[]> {
    return [...this.values.values()];
  }

  async deleteReferenceValue(id: string): Promise<boolean> {
    return this.values.delete(id);
  }

  async registerReferenceValues(message: string): Promise<void> {
    const root = asJsonObject(parseJson(message), 'message');
    if ((root['version'] ?? '0.1.0') !== '0.1.0' || root['type'] !== 'sample')
      throw new SealpodError('UNSUPPORTED', 'message');
    const payload = asJsonObject(parseJson(decodeBase64(String(root['payload'] ?? '!'))), 'payload');
    const before = new Map(this.values);
    try {
      for (const [id, value] of Object.entries(payload)) await this.setReferenceValue(id, value);
    } catch (thrown) {
      this.values.clear();
      for (const [id, value] of before) this.values.set(id, value);
      throw thrown;
    }
  }

  async jwks(): Promise<{ readonly keys: readonly JsonObject[] }> {
    return { keys: [this.signer.jwk, ...this.otherKeys] };
  }

  async close(): Promise<void> {
    this.policies.clear();
  }
}
