import type { JsonValue } from '@sealpod/protocol/json';

/** Who acts on reference values. */
export interface AdministratorIdentity {
  /** The name in the administrator's token or certificate. Whoever holds the key can choose it. */
  readonly subject: string;
  /** What tells one administrator from another: a digest of the key that authenticated the request. */
  readonly key: string;
}

/** One administrator's approval. */
export interface Approval {
  /** RFC 3339. */
  readonly at: string;
  readonly by: AdministratorIdentity;
}

/** Why a reference value is believed. */
export type Provenance =
  /** An authenticated administrator registered it. */
  | { readonly kind: 'administrator'; readonly subject: string; readonly key?: string }
  /** Enrolled keys signed it. */
  | {
      readonly kind: 'signed';
      readonly format: 'dsse' | 'corim';
      /** Names of the signers in the configuration. */
      readonly signers: readonly string[];
      /** RFC 3339; an older statement does not replace a newer one. */
      readonly issuedAt: string;
      /** SHA-256 (hex) of what was signed. */
      readonly digest: string;
    }
  /** It was learned, approved and promoted. */
  | { readonly kind: 'promoted'; readonly candidate: string; readonly approvals: readonly Approval[] }
  /** Nobody stands for it. Not used unless the configuration accepts that. */
  | { readonly kind: 'unsigned' };

/** Reference values of one message with what stands for them. */
export interface AttributedValues {
  readonly values: Readonly<Record<string, JsonValue>>;
  readonly provenance: Provenance;
  /** RFC 3339. */
  readonly expiresAt?: string;
  /** The policy they are for; absent: for every policy. */
  readonly scope?: string;
}
