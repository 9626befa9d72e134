import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** Where the certificates of chips come from, asked in this order. */
export type HygonSourceConfig =
  /** Hygon's certificate service, or a mirror at `url`. What it answers is kept in storage. */
  | { readonly type: 'service'; readonly url?: string }
  /** A folder named as upstream names it. */
  | { readonly type: 'offline'; readonly folder: string };

/** Configuration of TEEs `csv` and `hygondcu`. */
export interface HygonConfig {
  readonly sources: readonly HygonSourceConfig[];
}

const code = 'USAGE';

/**
 * Reads `{"sources": [{"type": "service", "url"?} | {"type": "offline", "folder"}]}`.
 *
 * @param what names the member, e.g. `csv`
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readHygonConfig(value: JsonValue, what: string, at: (path: string) => string): HygonConfig {
  const config = asJsonObject(value, what, code);
  refuseUnknownMembers(config, ['sources'], what);
  const sources = optionalMember(config, 'sources') ?? [];
  if (!Array.isArray(sources)) throw new SealpodError(code, `${what}.sources must be an array`);
  return {
    sources: sources.map((source: JsonValue) =>
      readSource(asJsonObject(source, `${what}.sources[]`, code), `${what}.sources[]`, at),
    ),
  };
}

function readSource(source: JsonObject, what: string, at: (path: string) => string): HygonSourceConfig {
  const type = stringMember(source, 'type', code);
  if (type === 'offline') {
    refuseUnknownMembers(source, ['type', 'folder'], what);
    return { type, folder: at(stringMember(source, 'folder', code)) };
  }
  if (type !== 'service')
    throw new SealpodError(code, `unknown ${what}.type`, { expected: 'service or offline', actual: type });
  refuseUnknownMembers(source, ['type', 'url'], what);
  if (optionalMember(source, 'url') === undefined) return { type };
  return { type, url: checkUrl(stringMember(source, 'url', code), `${what}.url`) };
}
