import type { EarClaims } from '@sealpod/protocol/ear';
import { SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import { failures, type Verdict } from '@sealpod/protocol/verdict';
import type { SeenClaims } from './appraisal/recent-claims.ts';
import type { EvidenceToEvaluate, VerifiedEvidence } from './evidence.ts';
import type { PolicyCheck } from './policy/check.ts';
import type { StoredPolicy } from './policy/record.ts';
import type { AdministratorIdentity } from './reference-values/provenance.ts';
import type { ReferenceValueOptions, StoredReferenceValue } from './reference-values/record.ts';
import type { ReferenceValueWorkflow } from './reference-values/workflow.ts';
import type { TokenKeyAdministration } from './token/administration.ts';

export type { SeenClaims } from './appraisal/recent-claims.ts';
export type { EvidenceToEvaluate, VerifiedEvidence } from './evidence.ts';
export type { PolicyCheck } from './policy/check.ts';
export type { StoredPolicy } from './policy/record.ts';
export type { AdministratorIdentity } from './reference-values/provenance.ts';
export type { ReferenceValueOptions, StoredReferenceValue } from './reference-values/record.ts';
export type { LearnRequest, ReferenceValueWorkflow } from './reference-values/workflow.ts';
export type { TokenKeyAdministration, TokenKeyDescription } from './token/administration.ts';

export interface EvaluateRequest {
  /** The primary TEE first, then additional devices. */
  readonly evidences: readonly EvidenceToEvaluate[];
  /** Only the first is used, as upstream; empty means `default`. Policy `<id>_<class>` is evaluated, e.g. `default_cpu`. */
  readonly policyIds: readonly string[];
  /** Becomes the token's `jti`. */
  readonly correlationId: string;
}

/** The result of an evaluation that could be carried out. Whether the guest is trusted is `ear.status` of the submodules. */
export interface Evaluation {
  /** EAR as a JWT. */
  readonly token: string;
  /** The token's payload. */
  readonly claims: EarClaims;
  /** Why: every check, every measured component against its reference value. For operators only. */
  readonly verdict: Verdict;
  /** SHA-256 (hex) of the canonical JSON of the evaluated evidences. */
  readonly evidenceDigest: string;
  /** Policy id → SHA-256 (hex) of its text. */
  readonly policyVersions: Readonly<Record<string, string>>;
  /** Id of each reference value that was asked for → its version; 0 where none is registered. */
  readonly referenceValueVersions: Readonly<Record<string, number>>;
}

/** The verifier of the RATS architecture: in process, or behind `attestation.proto`. */
export interface AttestationService {
  /**
   * Verifies and appraises evidence.
   *
   * @throws AttestationRefused with the verdict tree where a check of the evidence fails; SealpodError where a request,
   * a policy or the storage is at fault
   */
  evaluate(request: EvaluateRequest): Promise<Evaluation>;
  /**
   * Verifies evidence without appraising it: no policy, no token. Never throws for what is wrong with evidence. Absent where
   * the service is behind a wire that has no such call.
   */
  verifyEvidence?(evidence: EvidenceToEvaluate, policyId?: string): Promise<VerifiedEvidence>;
  /**
   * The challenge text for a TEE: `inner` holds `tee` and `tee_params`. For `tpm` the JSON text
   * `{"credential-blob", "encrypted-secret"}` where tee_params names an EK certificate and an AK; else empty.
   */
  challenge(inner: Readonly<Record<string, string>>): Promise<string>;

  /** Stores a policy after compiling it. @throws SealpodError POLICY_INVALID, POLICY_TIMEOUT, REQUEST_FORMAT (id) */
  setPolicy(id: string, policy: string): Promise<StoredPolicy>;
  getPolicy(id: string): Promise<StoredPolicy | undefined>;
  listPolicies(): Promise<StoredPolicy[]>;
  /** False where there was none. A deleted policy refuses; it does not fall back to the built-in text. */
  deletePolicy(id: string): Promise<boolean>;

  /** @throws SealpodError REQUEST_FORMAT (id, date), REQUEST_TOO_LARGE; RV_QUARANTINED where several must approve */
  setReferenceValue(id: string, value: JsonValue, options?: ReferenceValueOptions): Promise<StoredReferenceValue>;
  getReferenceValue(id: string, scope?: string): Promise<StoredReferenceValue | undefined>;
  listReferenceValues(): Promise<StoredReferenceValue[]>;
  deleteReferenceValue(id: string, options?: ReferenceValueOptions): Promise<boolean>;
  /**
   * Registers every value of an RVPS message (JSON text `{"version","type","payload"}`), all or none.
   *
   * @param administrator the authenticated sender, who stands for what is not signed
   * @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE, UNSUPPORTED, RV_UNSIGNED, RV_SIGNATURE, RV_SUPERSEDED, RV_EXPIRED
   */
  registerReferenceValues(message: string, administrator?: AdministratorIdentity): Promise<void>;
  /** Learn, approve, promote, retire. Absent where the service is behind a wire that has no such calls. */
  readonly referenceValueWorkflow?: ReferenceValueWorkflow;
  /** Claims of evidence that was verified here lately; absent as above. */
  recentClaims?(): Promise<readonly SeenClaims[]>;
  /** What uploading a policy under this id would check, without storing it; absent as above. */
  checkPolicy?(id: string, policy: string): Promise<PolicyCheck>;

  /** The public keys that verify tokens: of the key that signs, of the next one, and of those whose tokens still live. */
  jwks(): Promise<{ readonly keys: readonly JsonObject[] }>;
  /** List and rotate the keys that sign tokens. Absent where the service is behind a wire that has no such calls. */
  readonly tokenKeys?: TokenKeyAdministration;
  close(): Promise<void>;
}

/** Evidence that a verifier refused. `verdict` holds each check that was made; for the audit and operators, never for the guest. */
export class AttestationRefused extends SealpodError {
  readonly verdict: Verdict;
  /** SHA-256 (hex) of the canonical JSON of the refused evidences. */
  readonly evidenceDigest: string;

  constructor(verdict: Verdict, evidenceDigest: string) {
    const first = failures(verdict)[0];
    const code: ReasonCode = first === undefined || first.code === 'OK' ? 'INTERNAL' : first.code;
    super(code, `evidence refused: ${first?.check ?? verdict.check}`, {
      ...(first?.expected === undefined ? {} : { expected: first.expected }),
      ...(first?.actual === undefined ? {} : { actual: first.actual }),
      ...(first?.source === undefined ? {} : { source: first.source }),
      ...(first?.fix === undefined ? {} : { fix: first.fix }),
    });
    this.verdict = verdict;
    this.evidenceDigest = evidenceDigest;
  }
}
