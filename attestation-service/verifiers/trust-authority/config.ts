import { SealpodError } from '@sealpod/protocol/errors';
import {
  asJsonObject,
  asJsonText,
  type JsonValue,
  optionalMember,
  stringArrayMember,
  stringMember,
} from '@sealpod/protocol/json';
import { optionalFlag, refuseUnknownMembers } from '../../endorsements/config-members.ts';

/** TEEs whose quotes Intel Trust Authority verifies. */
export const trustAuthorityTees = ['tdx', 'sgx'] as const;
export type TrustAuthorityTee = (typeof trustAuthorityTees)[number];

/** Intel Trust Authority as the verifier of quotes. */
export interface TrustAuthorityConfig {
  /** For example `https://api.trustauthority.intel.com`. */
  readonly url: string;
  /** Attestation API key. */
  readonly apiKey: string;
  /** Which TEEs it verifies. */
  readonly tees: readonly TrustAuthorityTee[];
  /** JWK set that its tokens are signed under: pinned text, or where it is published. */
  readonly keys: { readonly text: string } | { readonly url: string };
  /** Policies of the account that the quote must match; none by default. */
  readonly policyIds?: readonly string[];
  /** Whether a quote that a policy does not match is accepted, with claims that say so. False by default. */
  readonly allowUnmatchedPolicy?: boolean;
  /** PEM certificates that its own chains to; the system's by default. */
  readonly authorities?: string;
  /** Of one question; milliseconds, default 10 000. */
  readonly timeoutMs?: number;
}

const code = 'USAGE';

/**
 * Reads `{"url", "apiKeyFile", "tees", "certsFile" | "certsUrl", "policyIds"?, "allowUnmatchedPolicy"?, "authoritiesFile"?}`.
 *
 * @param read gives the text of a file that the configuration names
 * @throws SealpodError USAGE naming the member
 */
export function readTrustAuthorityConfig(value: JsonValue, read: (path: string) => string): TrustAuthorityConfig {
  const what = 'trustAuthority';
  const root = asJsonObject(value, what, code);
  const known = [
    'url',
    'apiKeyFile',
    'tees',
    'certsFile',
    'certsUrl',
    'policyIds',
    'allowUnmatchedPolicy',
    'authoritiesFile',
  ];
  refuseUnknownMembers(root, known, what);
  const file = (name: string): string | undefined => {
    const path = optionalMember(root, name);
    return path === undefined ? undefined : read(asJsonText(path, `${what}.${name}`, code));
  };
  const pinned = file('certsFile');
  const authorities = file('authoritiesFile');
  return {
    url: webAddress(stringMember(root, 'url', code), `${what}.url`),
    apiKey: read(stringMember(root, 'apiKeyFile', code)).trim(),
    tees: stringArrayMember(root, 'tees', code).map(teeName),
    keys:
      pinned === undefined
        ? { url: webAddress(stringMember(root, 'certsUrl', code), `${what}.certsUrl`) }
        : { text: pinned },
    ...(optionalMember(root, 'policyIds') === undefined
      ? {}
      : { policyIds: stringArrayMember(root, 'policyIds', code) }),
    ...optionalFlag(root, 'allowUnmatchedPolicy'),
    ...(authorities === undefined ? {} : { authorities }),
  };
}

function teeName(name: string): TrustAuthorityTee {
  const tee = trustAuthorityTees.find((known) => known === name);
  if (tee !== undefined) return tee;
  throw new SealpodError(code, 'Intel Trust Authority does not verify this TEE', {
    expected: trustAuthorityTees.join(' or '),
    actual: name.slice(0, 32),
  });
}

/** In the clear on loopback only: the answer decides, and its key is asked for on the way. */
function webAddress(url: string, member: string): string {
  const { protocol, hostname } = URL.canParse(url) ? new URL(url) : { protocol: '', hostname: '' };
  const loopback = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(hostname);
  if (protocol === 'https:' || (protocol === 'http:' && loopback)) return url.replace(/\/+$/, '');
  throw new SealpodError(code, `${member} must be a URL`, { expected: 'https://…', actual: url });
}
