import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, optionalFlag, refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** Who knows platforms. */
export type CcaPlatformsConfig =
  /** Upstream's stores in two files. */
  | { readonly type: 'local'; readonly trustAnchorFile: string; readonly referenceValueFile: string }
  /** A Veraison service. */
  | {
      readonly type: 'veraison';
      readonly url: string;
      /** PEM certificates of the authorities of the service's own certificate; the system's by default. */
      readonly authoritiesFile?: string;
      /** The keys that sign its results, JWKS or one JWK. Without it the key is the one that the service itself publishes. */
      readonly keysFile?: string;
    };

/** Configuration of TEE `cca`. */
export interface CcaConfig {
  readonly platforms: CcaPlatformsConfig;
  /** Default false: see `CcaRules`. */
  readonly allowNonCcaDebug?: boolean;
}

const code = 'USAGE';

/**
 * Reads `{"platforms": {"type": "local", "trustAnchorFile", "referenceValueFile"} | {"type": "veraison", "url",
 * "authoritiesFile"?, "keysFile"?}, "allowNonCcaDebug"?}`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readCcaConfig(value: JsonValue, at: (path: string) => string): CcaConfig {
  const cca = asJsonObject(value, 'cca', code);
  refuseUnknownMembers(cca, ['platforms', 'allowNonCcaDebug'], 'cca');
  return {
    platforms: readPlatforms(optionalMember(cca, 'platforms'), at),
    ...optionalFlag(cca, 'allowNonCcaDebug'),
  };
}

function readPlatforms(value: JsonValue | undefined, at: (path: string) => string): CcaPlatformsConfig {
  const what = 'cca.platforms';
  const platforms = asJsonObject(value, what, code);
  const type = stringMember(platforms, 'type', code);
  if (type === 'local') {
    refuseUnknownMembers(platforms, ['type', 'trustAnchorFile', 'referenceValueFile'], what);
    return {
      type,
      trustAnchorFile: at(stringMember(platforms, 'trustAnchorFile', code)),
      referenceValueFile: at(stringMember(platforms, 'referenceValueFile', code)),
    };
  }
  if (type !== 'veraison')
    throw new SealpodError(code, `unknown ${what}.type`, { expected: 'local or veraison', actual: type });
  refuseUnknownMembers(platforms, ['type', 'url', 'authoritiesFile', 'keysFile'], what);
  const file = (name: string): object =>
    optionalMember(platforms, name) === undefined ? {} : { [name]: at(stringMember(platforms, name, code)) };
  return {
    type,
    url: checkUrl(stringMember(platforms, 'url', code), `${what}.url`),
    ...file('authoritiesFile'),
    ...file('keysFile'),
  };
}
