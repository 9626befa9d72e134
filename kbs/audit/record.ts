import type { ReasonCode } from '@sealpod/protocol/reason-codes';
import type { Verdict } from '@sealpod/protocol/verdict';

/** What a decision was about. */
export type DecisionKind = 'auth' | 'attest' | 'resource' | 'admin';

/** Who asked: a guest in a session, or an administrator. */
export interface DecisionSubject {
  readonly tee?: string;
  /** First 16 hex digits of the SHA-256 of the session id: tells sessions apart and opens none. */
  readonly session?: string;
  /** Submodule → `ear.status`. */
  readonly submods?: Readonly<Record<string, string>>;
  readonly administrator?: string;
  readonly role?: string;
  readonly remoteAddress?: string;
}

/** One decision as it is kept. Never holds a secret, a token, a key or evidence; only digests of them. */
export interface Decision {
  readonly correlationId: string;
  /** RFC 3339. */
  readonly time: string;
  readonly kind: DecisionKind;
  /** For administrators what was done, e.g. `PUT resource`. */
  readonly action?: string;
  /** `OK`, or why it was refused. `INTENT`: recorded before a write to the attestation service that follows. */
  readonly outcome: ReasonCode | 'OK' | 'INTENT';
  readonly subject: DecisionSubject;
  readonly evidenceDigest?: string;
  readonly verdict?: Verdict;
  /** The resource policy that decided, and what was written, e.g. `resource/resource-policy`. */
  readonly policy?: { readonly id: string; readonly sha256: string };
  /** Attestation policy id → SHA-256. */
  readonly policyVersions?: Readonly<Record<string, string>>;
  /** Reference value id → version; 0 where none is registered. */
  readonly referenceValueVersions?: Readonly<Record<string, number>>;
  readonly resource?: { readonly path: string; readonly version?: number };
  /** The object of an administrator's write, e.g. a policy id. */
  readonly target?: string;
}
