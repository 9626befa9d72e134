import type { RegoEngineOptions } from '@sealpod/rego';
import type { ReferenceValuesConfig } from './reference-values/config.ts';
import type { VerifiersConfig } from './verifiers/config.ts';
import type { TpmConfig } from './verifiers/tpm/index.ts';

/** Configuration of an attestation service. A TEE without a member here is refused. */
export interface AttestationServiceConfig extends VerifiersConfig {
  /** Enables TEE `tpm`. */
  readonly tpm?: TpmConfig;
  /** Enables TEEs `sample` and `sampledevice`, which prove nothing. For tests of the protocol. */
  readonly sample?: boolean;
  readonly token?: TokenConfig;
  /** Whose reference values are believed, and how they get into use. */
  readonly referenceValues?: ReferenceValuesConfig;
  /** Limits of policy evaluation. */
  readonly rego?: RegoEngineOptions;
  /** The clock; the system's by default. */
  readonly now?: () => Date;
}

/** How long a token is valid where the configuration does not say. */
export const defaultTokenLifetimeSeconds = 300;

/** Upstream's `iss`. */
export const defaultIssuer = 'CoCo-Attestation-Service';

/** What tokens say; the defaults are upstream's. */
export interface TokenConfig {
  /** `CoCo-Attestation-Service` by default. */
  readonly issuer?: string;
  /** `https://confidentialcontainers.org` by default. */
  readonly developer?: string;
  /** `attestation-service 0.1.0` by default. */
  readonly build?: string;
  /** `tag:github.com,2024:confidential-containers/Trustee` by default. */
  readonly profile?: string;
  /** 300 by default. */
  readonly lifetimeSeconds?: number;
  /** `aud` of every token; absent by default, as upstream. */
  readonly audience?: string;
  /**
   * Whether tokens carry the additional evidence that was sent with the runtime data. True by default; evidence of devices
   * makes tokens larger than servers take in a header. The digest that the hardware signed covers it either way.
   */
  readonly verbose?: boolean;
  /** A token key signs for so long, then the next one takes over; by default until it is rotated by hand. */
  readonly rotateKeyAfterSeconds?: number;
}
