import type { RegoEngineOptions } from '@sealpod/rego';
import type { ReferenceValuesConfig } from './reference-values/config.ts';
import type { CcaConfig } from './verifiers/cca/config.ts';
import type { HygonConfig } from './verifiers/hygon/config.ts';
import type { NitroConfig } from './verifiers/nitro/config.ts';
import type { NvidiaConfig } from './verifiers/nvidia/config.ts';
import type { DpuConfig } from './verifiers/nvidia-dpu/config.ts';
import type { SeConfig } from './verifiers/se/config.ts';
import type { SnpConfig } from './verifiers/snp/config.ts';
import type { TpmConfig } from './verifiers/tpm/index.ts';
import type { TrustAuthorityConfig } from './verifiers/trust-authority/config.ts';

/** Configuration of an attestation service. A TEE without a member here is refused. */
export interface AttestationServiceConfig {
  /** Enables TEE `tpm`. */
  readonly tpm?: TpmConfig;
  /** Enables TEEs `snp` and `az-snp-vtpm`. */
  readonly snp?: SnpConfig;
  /** Enables TEE `cca`. */
  readonly cca?: CcaConfig;
  /** Enables TEEs that Intel Trust Authority verifies. A TEE that is configured for local verification is refused here. */
  readonly trustAuthority?: TrustAuthorityConfig;
  /** Enables TEE `csv`. */
  readonly csv?: HygonConfig;
  /** Enables TEE `hygondcu`. */
  readonly hygondcu?: HygonConfig;
  /** Enables TEE `se`. */
  readonly se?: SeConfig;
  /** Enables TEE `nvidia`: GPUs and switches. */
  readonly nvidia?: NvidiaConfig;
  /** Enables TEE `nvidia-dpu`, and `nvidiadpu`, which is its other name. */
  readonly nvidiaDpu?: DpuConfig;
  /** Enables TEE `aws-nitro`. */
  readonly nitro?: NitroConfig;
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
