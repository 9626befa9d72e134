import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, optionalFlag, refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** Where Intel's collateral comes from, asked in this order. */
export type IntelSourceConfig =
  /** Intel's service (`pcs`), or a cache of it (`pccs`). What it answers is kept in storage. */
  | { readonly type: 'pcs' | 'pccs'; readonly url?: string; readonly update?: 'early' | 'standard' }
  /** A file, or a folder of files, that hold it. */
  | { readonly type: 'bundle'; readonly path: string; readonly update?: 'early' | 'standard' };

/** Configuration of TEEs `tdx`, `sgx` and `az-tdx-vtpm`. */
export interface DcapConfig {
  readonly sources: readonly IntelSourceConfig[];
  /** Collateral past its date is used, and the claim `collateral_expiration_status` says so. Default false: it refuses. */
  readonly acceptExpiredCollateral?: boolean;
}

const code = 'USAGE';

/**
 * Reads `{"sources": [{"type": "pcs" | "pccs", "url"?, "update"?} | {"type": "bundle", "path", "update"?}],
 * "acceptExpiredCollateral"?}`; `update` is `early` (default) or `standard`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readDcapConfig(value: JsonValue, at: (path: string) => string): DcapConfig {
  const what = 'dcap';
  const dcap = asJsonObject(value, what, code);
  refuseUnknownMembers(dcap, ['sources', 'acceptExpiredCollateral'], what);
  const sources = optionalMember(dcap, 'sources') ?? [];
  if (!Array.isArray(sources)) throw new SealpodError(code, `${what}.sources must be an array`);
  return {
    sources: sources.map((source: JsonValue) => readSource(asJsonObject(source, `${what}.sources[]`, code), at)),
    ...optionalFlag(dcap, 'acceptExpiredCollateral'),
  };
}

function readSource(source: JsonObject, at: (path: string) => string): IntelSourceConfig {
  const what = 'dcap.sources[]';
  const type = stringMember(source, 'type', code);
  const update = readUpdate(source, what);
  if (type === 'bundle') {
    refuseUnknownMembers(source, ['type', 'path', 'update'], what);
    return { type, path: at(stringMember(source, 'path', code)), ...update };
  }
  if (type !== 'pcs' && type !== 'pccs')
    throw new SealpodError(code, `unknown ${what}.type`, { expected: 'pcs, pccs or bundle', actual: type });
  refuseUnknownMembers(source, ['type', 'url', 'update'], what);
  if (optionalMember(source, 'url') === undefined) return { type, ...update };
  return { type, url: checkUrl(stringMember(source, 'url', code), `${what}.url`), ...update };
}

function readUpdate(source: JsonObject, what: string): { readonly update?: 'early' | 'standard' } {
  if (optionalMember(source, 'update') === undefined) return {};
  const update = stringMember(source, 'update', code);
  if (update !== 'early' && update !== 'standard')
    throw new SealpodError(code, `unknown ${what}.update`, { expected: 'early or standard', actual: update });
  return { update };
}
