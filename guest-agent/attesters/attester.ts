import type { JsonObject, JsonValue } from '@sealpod/protocol/json';
import type { TeeName } from '@sealpod/protocol/rcar';

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
  /** Releases what `prepare` took. A later call prepares again. */
  close(): Promise<void>;
}
