import type { Initdata } from '@sealpod/protocol/initdata';
import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { TeeName } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';

/** What evidence is verified against. */
export interface Expectations {
  /** The digest evidence must carry, before it is fitted to the TEE's field; undefined: bound to nothing. */
  readonly reportData?: Buffer;
  /** The nonce inside structured runtime data. */
  readonly nonce?: string;
  /** The initdata the guest says it was started with. */
  readonly initDataDigest?: Buffer;
  /** The initdata itself where it is known: its text, and what it says. */
  readonly initData?: { readonly toml: string; readonly document: Initdata };
  /** Attestation keys enrolled by the operator: base64 of SubjectPublicKeyInfo. */
  readonly trustedAttestationKeys: readonly string[];
  readonly now: Date;
}

/** The result of verifying one piece of evidence. Claims are to be used only where the verdict passed. */
export interface Verification {
  readonly verdict: Verdict;
  /** Members of the TEE's claims; `report_data` and `init_data` (hex or as given) are lifted out of them. */
  readonly claims: JsonObject;
  /**
   * Instead of `claims`, where evidence speaks of several devices or of another class than the TEE's own: one for each
   * submodule of the token, in their order.
   */
  readonly submodules?: readonly SubmoduleClaims[];
}

/** The claims of one device. */
export interface SubmoduleClaims {
  /** Class of the submodule and of the policy that appraises it, e.g. `gpu`, `switch`. */
  readonly teeClass: string;
  readonly claims: JsonObject;
}

/** One TEE's verifier. */
export interface Verifier {
  readonly tee: TeeName;
  /**
   * Parses and verifies; asks for collateral between the two, where the TEE has any. Throws EV_FORMAT or
   * REQUEST_TOO_LARGE for what cannot be parsed; all else is in the verdict.
   */
  verify(evidence: JsonValue, expectations: Expectations): Verification | Promise<Verification>;
  /** The answer to a challenge request; absent where the TEE needs none. */
  challenge?(parameters: string): string;
}
