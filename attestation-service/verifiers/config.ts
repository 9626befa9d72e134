import type { JsonValue } from '@sealpod/protocol/json';
import { readConfiguredText } from '../endorsements/config-members.ts';
import { type CcaConfig, readCcaConfig } from './cca/config.ts';
import { type DcapConfig, readDcapConfig } from './dcap/config.ts';
import { type HygonConfig, readHygonConfig } from './hygon/config.ts';
import { type NitroConfig, readNitroConfig } from './nitro/config.ts';
import { type NvidiaConfig, readNvidiaConfig } from './nvidia/config.ts';
import { type DpuConfig, readDpuConfig } from './nvidia-dpu/config.ts';
import { readSeConfig, type SeConfig } from './se/config.ts';
import { readSnpConfig, type SnpConfig } from './snp/config.ts';
import { readTrustAuthorityConfig, type TrustAuthorityConfig } from './trust-authority/config.ts';

/** Which TEEs are verified, and by what. A TEE without a member here is refused. */
export interface VerifiersConfig {
  /** Enables TEEs `snp` and `az-snp-vtpm`. */
  readonly snp?: SnpConfig;
  /** Enables TEEs `tdx`, `sgx` and `az-tdx-vtpm`. */
  readonly dcap?: DcapConfig;
  /** Enables TEE `cca`. */
  readonly cca?: CcaConfig;
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
  /** Enables TEEs that Intel Trust Authority verifies. A TEE that is verified here too is refused. */
  readonly trustAuthority?: TrustAuthorityConfig;
}

/** Makes a path of the configuration absolute. */
type At = (path: string) => string;

const readers: {
  readonly [Name in keyof VerifiersConfig]-?: (value: JsonValue, at: At) => NonNullable<VerifiersConfig[Name]>;
} = {
  snp: readSnpConfig,
  dcap: readDcapConfig,
  cca: readCcaConfig,
  csv: (value, at) => readHygonConfig(value, 'csv', at),
  hygondcu: (value, at) => readHygonConfig(value, 'hygondcu', at),
  se: readSeConfig,
  nvidia: readNvidiaConfig,
  nvidiaDpu: readDpuConfig,
  nitro: readNitroConfig,
  trustAuthority: (value, at) => readTrustAuthorityConfig(value, (file) => readConfiguredText(at(file))),
};

/** Members of a configuration that `readVerifiersConfig` reads. */
export const verifierMembers: readonly string[] = Object.keys(readers);

/**
 * Reads the TEEs of a configuration, each as the `config.ts` of its verifier has it.
 *
 * @param member the value of a member, undefined where it is absent
 * @throws SealpodError USAGE naming the member
 */
export function readVerifiersConfig(member: (name: string) => JsonValue | undefined, at: At): VerifiersConfig {
  const read = Object.entries(readers).flatMap(([name, reader]) => {
    const value = member(name);
    return value === undefined ? [] : [[name, reader(value, at)] as const];
  });
  return Object.fromEntries(read);
}
