import type { TomlTableWithoutBigInt } from 'smol-toml';
import { isTable, parseToml, schemaError } from './document.ts';

/** Content of `aa.toml` as far as this guest reads it (attestation-agent's configuration file). */
export interface AttestationAgentConfiguration {
  readonly kbs?: {
    readonly url: string;
    /** PEM certificate whose public key the key broker must hold. */
    readonly cert?: string;
  };
}

/** One registry rule (subset of containers-registries.conf v2). */
export interface RegistryRule {
  readonly prefix?: string;
  readonly location?: string;
  /** Plain HTTP is allowed to `location`. */
  readonly insecure: boolean;
  readonly blocked: boolean;
  readonly mirrors: readonly { readonly location: string; readonly insecure: boolean }[];
}

/** Content of `cdh.toml` as far as this guest reads it (confidential-data-hub's configuration file). */
export interface DataHubConfiguration {
  readonly kbc?: { readonly name: string; readonly url: string; readonly kbsCert?: string };
  readonly image: {
    /** containers-policy.json text; wins over nothing: `imageSecurityPolicyUri` wins over it, as upstream. */
    readonly imageSecurityPolicy?: string;
    readonly imageSecurityPolicyUri?: string;
    readonly authenticatedRegistryCredentialsUri?: string;
    readonly maxConcurrentLayerDownloads?: number;
    readonly extraRootCertificates: readonly string[];
    readonly unqualifiedSearchRegistries: readonly string[];
    readonly registries: readonly RegistryRule[];
  };
  readonly skipSealedSecretVerification: boolean;
}

/**
 * Reads `aa.toml`. Unknown keys are ignored, as upstream does; a known key of the wrong type refuses.
 *
 * @throws SealpodError INITDATA_SCHEMA
 */
export function readAttestationAgentConfiguration(toml: string): AttestationAgentConfiguration {
  const file = new Reader(parseToml(toml, 'aa.toml'), 'aa.toml');
  const kbs = file.table('token_configs')?.table('kbs');
  if (kbs === undefined) return {};
  return { kbs: { url: kbs.requiredString('url'), ...optional('cert', kbs.string('cert')) } };
}

/**
 * Reads `cdh.toml`. Unknown keys are ignored, as upstream does; a known key of the wrong type refuses.
 *
 * @throws SealpodError INITDATA_SCHEMA
 */
export function readDataHubConfiguration(toml: string): DataHubConfiguration {
  const file = new Reader(parseToml(toml, 'cdh.toml'), 'cdh.toml');
  const kbc = file.table('kbc');
  const image = file.table('image');
  const registryConfig = image?.table('registry_config');
  return {
    ...(kbc === undefined
      ? {}
      : {
          kbc: {
            name: kbc.requiredString('name'),
            url: kbc.string('url') ?? '',
            ...optional('kbsCert', kbc.string('kbs_cert')),
          },
        }),
    image: {
      ...optional('imageSecurityPolicy', image?.string('image_security_policy')),
      ...optional('imageSecurityPolicyUri', image?.string('image_security_policy_uri')),
      ...optional('authenticatedRegistryCredentialsUri', image?.string('authenticated_registry_credentials_uri')),
      ...optional('maxConcurrentLayerDownloads', image?.count('max_concurrent_layer_downloads_per_image')),
      extraRootCertificates: image?.strings('extra_root_certificates') ?? [],
      unqualifiedSearchRegistries: registryConfig?.strings('unqualified-search-registries') ?? [],
      registries: (registryConfig?.tables('registry') ?? []).map(readRegistry),
    },
    skipSealedSecretVerification: file.boolean('skip_sealed_secret_verification') ?? false,
  };
}

function readRegistry(rule: Reader): RegistryRule {
  const prefix = rule.string('prefix');
  const location = rule.string('location');
  if ((prefix ?? '') === '' && (location ?? '') === '') throw schemaError(`${rule.path} needs prefix or location`);
  return {
    ...optional('prefix', prefix),
    ...optional('location', location),
    insecure: rule.boolean('insecure') ?? false,
    blocked: rule.boolean('blocked') ?? false,
    mirrors: rule.tables('mirror').map((mirror) => ({
      location: mirror.requiredString('location'),
      insecure: mirror.boolean('insecure') ?? false,
    })),
  };
}

function optional<Name extends string, Value>(name: Name, value: Value | undefined): { [key in Name]?: Value } {
  const member: { [key in Name]?: Value } = {};
  if (value !== undefined) member[name] = value;
  return member;
}

/** Reads members of a TOML table by type, and names the path of a member that has another. */
class Reader {
  readonly path: string;
  readonly #table: TomlTableWithoutBigInt;

  constructor(table: TomlTableWithoutBigInt, path: string) {
    this.#table = table;
    this.path = path;
  }

  string(name: string): string | undefined {
    return this.#member(name, 'a string', (value) => typeof value === 'string');
  }

  requiredString(name: string): string {
    const value = this.string(name);
    if (value === undefined || value === '') throw schemaError(`${this.path}: ${name} is required`);
    return value;
  }

  boolean(name: string): boolean | undefined {
    return this.#member(name, 'true or false', (value) => typeof value === 'boolean');
  }

  count(name: string): number | undefined {
    return this.#member(name, 'an integer from 1 to 64', (value): value is number => {
      return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 64;
    });
  }

  strings(name: string): readonly string[] {
    const isStrings = (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === 'string');
    return this.#member(name, 'a list of strings', isStrings as (value: unknown) => value is string[]) ?? [];
  }

  table(name: string): Reader | undefined {
    const table = this.#member(name, 'a table', isTable);
    return table === undefined ? undefined : new Reader(table, `${this.path}: ${name}`);
  }

  tables(name: string): readonly Reader[] {
    const isTables = (value: unknown) => Array.isArray(value) && value.every(isTable);
    const tables = this.#member(
      name,
      'a list of tables',
      isTables as (value: unknown) => value is TomlTableWithoutBigInt[],
    );
    return (tables ?? []).map((table, index) => new Reader(table, `${this.path}: ${name}[${index}]`));
  }

  #member<Value>(name: string, expected: string, check: (value: unknown) => value is Value): Value | undefined {
    const value: unknown = Object.hasOwn(this.#table, name) ? this.#table[name] : undefined;
    if (value === undefined) return undefined;
    if (!check(value)) throw schemaError(`${this.path}: ${name} must be ${expected}`);
    return value;
  }
}
