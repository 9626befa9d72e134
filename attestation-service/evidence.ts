import type { Initdata } from '@sealpod/protocol/initdata';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { HashAlgorithm } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { Verification } from './verifiers/verifier.ts';

/** Evidence of one TEE and what it must be bound to. Nothing in it is verified yet. */
export interface EvidenceToEvaluate {
  /** TEE name of the wire, e.g. `tpm`. */
  readonly tee: string;
  /** The evidence as the guest sent it. */
  readonly evidence: JsonValue;
  /**
   * What the report data must be: the hash of the canonical JSON of `structured`
   * (`{"nonce", "tee-pubkey"[, "additional-evidence"]}`), or the bytes of `raw` as they are. Absent: the evidence is
   * not bound to anything, which TEEs that need a binding refuse.
   */
  readonly runtimeData?: { readonly structured: JsonObject } | { readonly raw: Uint8Array };
  /** Hash of structured runtime data; `sha384` by default. */
  readonly hashAlgorithm?: HashAlgorithm;
  /** The initdata the guest says it was started with: the text, or its digest only. */
  readonly initData?: { readonly toml: string } | { readonly digest: Uint8Array };
}

/** One piece of evidence after verification. Claims are there where a verifier ran, initData where its text is known. */
export interface VerifiedEvidence extends Partial<Verification> {
  readonly verdict: Verdict;
  readonly initData?: Initdata;
}
