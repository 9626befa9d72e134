import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { TeeName } from '@sealpod/protocol/rcar';

/** A credential for this machine's TPM: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, each with its length. */
export interface Credential {
  readonly credentialBlob: Uint8Array;
  readonly encryptedSecret: Uint8Array;
}

/** What shows that something of the guest belongs to its machine. */
export interface MachineProof {
  /** The secret that the credential held. */
  readonly secret: Uint8Array;
  /** TPMS_ATTEST and TPMT_SIGNATURE. */
  readonly quote: Uint8Array;
  readonly signature: Uint8Array;
}

/** Makes evidence of one kind of TEE. */
export interface Attester {
  /** Name on the wire. */
  readonly tee: TeeName;
  /** What this TEE adds to the `extra-params` of an RCAR Request, so that the challenge can be made for this machine. */
  prepare(): Promise<JsonObject>;
  /**
   * Evidence bound to `reportData`.
   *
   * @param reportData bytes to bind, used verbatim; a TEE whose field has another width cuts or pads with zeros at the end
   * @param challenge `extra-params` of the RCAR Challenge, `""` where there is none
   */
  evidence(reportData: Uint8Array, challenge: JsonValue): Promise<JsonObject>;
  /** TPMT_PUBLIC of the key that signs; absent where the TEE has no such key. */
  identify?(): Promise<Uint8Array>;
  /** A quote qualified by 32 bytes, and the secret of a credential; absent where the TEE has no such key. */
  prove?(qualifyingData: Uint8Array, credential: Credential): Promise<MachineProof>;
  /** Releases what `prepare` took. A later call prepares again. */
  close(): Promise<void>;
}
