import type { RegoEngineOptions } from '@sealpod/rego';
import type { CcaConfig } from './verifiers/cca/config.ts';
import type { HygonConfig } from './verifiers/hygon/config.ts';
import type { NitroConfig } from './verifiers/nitro/config.ts';
import type { NvidiaConfig } from './verifiers/nvidia/config.ts';
import type { DpuConfig } from './verifiers/nvidia-dpu/config.ts';
import type { SnpConfig } from './verifiers/snp/config.ts';
import type { TpmConfig } from './verifiers/tpm/index.ts';

/** Configuration of an attestation service. A TEE without a member here is refused. */
export interface AttestationServiceConfig {
  /** Enables TEE `tpm`. */
  readonly tpm?: TpmConfig;
  /** Enables TEEs `snp` and `az-snp-vtpm`. */
  readonly snp?: SnpConfig;
  /** Enables TEE `cca`. */
  readonly cca?: CcaConfig;
  /** Enables TEE `csv`. */
  readonly csv?: HygonConfig;
  /** Enables TEE `hygondcu`. */
  readonly hygondcu?: HygonConfig;
  /** Enables TEE `nvidia`: GPUs and switches. */
  readonly nvidia?: NvidiaConfig;
  /** Enables TEE `nvidia-dpu`, and `nvidiadpu`, which is its other name. */
  readonly nvidiaDpu?: DpuConfig;
  /** Enables TEE `aws-nitro`. */
  readonly nitro?: NitroConfig;
  /** Enables TEEs `sample` and `sampledevice`, which prove nothing. For tests of the protocol. */
  readonly sample?: boolean;
  readonly token?: TokenConfig;
  /** Limits of policy evaluation. */
  readonly rego?: RegoEngineOptions;
  /** The clock; the system's by default. */
  readonly now?: () => Date;
}

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
}
