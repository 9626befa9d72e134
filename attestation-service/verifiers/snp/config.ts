import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, optionalFlag, refuseUnknownMembers as refuseUnknown } from '../../endorsements/config-members.ts';

/** Where certificates and revocation lists come from, asked in this order. */
export type SnpSourceConfig =
  /** AMD's key distribution service, or a mirror at `url`. What it answers is kept in storage. */
  | { readonly type: 'kds'; readonly url?: string }
  /** A folder as upstream's offline store. */
  | { readonly type: 'offline'; readonly folder: string };

/** Configuration of TEE `snp`. */
export interface SnpConfig {
  readonly sources: readonly SnpSourceConfig[];
  /** Refuses everything without a current revocation list. Default false: a list is used where a source has one. */
  readonly requireRevocationList?: boolean;
  /** Accepts reports of version 2, which do not name their processor. Default false. */
  readonly allowVersion2?: boolean;
}

const code = 'USAGE';

/**
 * Reads `{"sources": [{"type": "kds", "url"?} | {"type": "offline", "folder"}], "requireRevocationList"?, "allowVersion2"?}`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readSnpConfig(value: JsonValue, at: (path: string) => string): SnpConfig {
  const snp = asJsonObject(value, 'snp', code);
  refuseUnknown(snp, ['sources', 'requireRevocationList', 'allowVersion2'], 'snp');
  const sources = optionalMember(snp, 'sources') ?? [];
  if (!Array.isArray(sources)) throw new SealpodError(code, 'snp.sources must be an array');
  return {
    sources: sources.map((source: JsonValue) => readSource(asJsonObject(source, 'snp.sources[]', code), at)),
    ...optionalFlag(snp, 'requireRevocationList'),
    ...optionalFlag(snp, 'allowVersion2'),
  };
}

function readSource(source: JsonObject, at: (path: string) => string): SnpSourceConfig {
  const type = stringMember(source, 'type', code);
  if (type === 'offline') {
    refuseUnknown(source, ['type', 'folder'], 'snp.sources[]');
    return { type, folder: at(stringMember(source, 'folder', code)) };
  }
  if (type !== 'kds')
    throw new SealpodError(code, 'unknown snp.sources[].type', { expected: 'kds or offline', actual: type });
  refuseUnknown(source, ['type', 'url'], 'snp.sources[]');
  if (optionalMember(source, 'url') === undefined) return { type };
  return { type, url: checkUrl(stringMember(source, 'url', code), 'snp.sources[].url') };
}
