import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, optionalFlag, optionalText, refuseUnknownMembers } from '../../endorsements/config-members.ts';
import type { RemoteServiceOptions } from '../../endorsements/nvidia/remote.ts';

/** Where reference manifests or revocation lists come from. */
export type NvidiaSourceConfig =
  /** NVIDIA's service, or a mirror of it at `url`. What it answers is kept in storage. */
  | { readonly type: 'service'; readonly url?: string }
  /** A folder: with `<id>.swidtag` of each manifest, or with the lists under the names of their addresses, as `l2-gh100.crl`. */
  | { readonly type: 'folder'; readonly folder: string };

/** Configuration of TEE `nvidia`. */
export interface NvidiaConfig {
  /**
   * `local` verifies here; `remote` lets NVIDIA's service verify, and believes its signed tokens. Using that service needs an
   * agreement with NVIDIA.
   */
  readonly verifier: 'local' | 'remote';
  /** Local: measurements are held against manifests of these sources, asked in this order. Without a source they are told and not compared. */
  readonly manifests?: readonly NvidiaSourceConfig[];
  /** Local: a manifest whose signer's certificate has ended is used, and claims say `expired`. Default false. */
  readonly acceptExpiredManifests?: boolean;
  /** Local: an OCSP responder that every certificate is asked for at; none by default. NVIDIA's is `https://ocsp.ndis.nvidia.com`. */
  readonly ocspUrl?: string;
  /**
   * Local: where the revocation lists come from that NVIDIA's certificates name, asked in this order; none by default, and then
   * they are not looked at. NVIDIA's verifiers ask by OCSP; lists serve where the network does not lead there.
   */
  readonly revocationLists?: readonly NvidiaSourceConfig[];
  /** Remote: the service; NVIDIA's own by default. */
  readonly remote?: RemoteServiceOptions;
}

const code = 'USAGE';

/**
 * Reads `{"verifier": "local" | "remote", "manifests"?: [{"type": "service", "url"?} | {"type": "folder", "folder"}],
 * "acceptExpiredManifests"?, "ocspUrl"?, "revocationLists"?: [as manifests], "remote"?: {"url"?, "jwksUrl"?, "issuer"?, "serviceKey"?}}`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readNvidiaConfig(value: JsonValue, at: (path: string) => string): NvidiaConfig {
  const nvidia = asJsonObject(value, 'nvidia', code);
  refuseUnknownMembers(
    nvidia,
    ['verifier', 'manifests', 'acceptExpiredManifests', 'ocspUrl', 'revocationLists', 'remote'],
    'nvidia',
  );
  const verifier = stringMember(nvidia, 'verifier', code);
  if (verifier !== 'local' && verifier !== 'remote')
    throw new SealpodError(code, 'unknown nvidia.verifier', { expected: 'local or remote', actual: verifier });
  const { ocspUrl } = optionalText(nvidia, 'ocspUrl');
  const [manifests, revocationLists] = ['manifests', 'revocationLists'].map((name) => readSources(nvidia, name, at));
  const remote = optionalMember(nvidia, 'remote');
  return {
    verifier,
    ...(manifests === undefined ? {} : { manifests }),
    ...(revocationLists === undefined ? {} : { revocationLists }),
    ...optionalFlag(nvidia, 'acceptExpiredManifests'),
    ...(ocspUrl === undefined ? {} : { ocspUrl: checkUrl(ocspUrl, 'nvidia.ocspUrl') }),
    ...(remote === undefined ? {} : { remote: readRemote(asJsonObject(remote, 'nvidia.remote', code)) }),
  };
}

function readSources(
  nvidia: JsonObject,
  name: string,
  at: (path: string) => string,
): readonly NvidiaSourceConfig[] | undefined {
  const sources = optionalMember(nvidia, name);
  if (sources === undefined) return undefined;
  const what = `nvidia.${name}`;
  if (!Array.isArray(sources)) throw new SealpodError(code, `${what} must be an array`);
  return sources.map((source: JsonValue) => readSource(asJsonObject(source, `${what}[]`, code), `${what}[]`, at));
}

function readSource(source: JsonObject, what: string, at: (path: string) => string): NvidiaSourceConfig {
  const type = stringMember(source, 'type', code);
  if (type === 'folder') {
    refuseUnknownMembers(source, ['type', 'folder'], what);
    return { type, folder: at(stringMember(source, 'folder', code)) };
  }
  if (type !== 'service')
    throw new SealpodError(code, `unknown ${what}.type`, { expected: 'service or folder', actual: type });
  refuseUnknownMembers(source, ['type', 'url'], what);
  const { url } = optionalText(source, 'url');
  return url === undefined ? { type } : { type, url: checkUrl(url, `${what}.url`) };
}

function readRemote(remote: JsonObject): RemoteServiceOptions {
  refuseUnknownMembers(remote, ['url', 'jwksUrl', 'issuer', 'serviceKey'], 'nvidia.remote');
  const { url } = optionalText(remote, 'url');
  const { jwksUrl } = optionalText(remote, 'jwksUrl');
  return {
    ...(url === undefined ? {} : { url: checkUrl(url, 'nvidia.remote.url') }),
    ...(jwksUrl === undefined ? {} : { jwksUrl: checkUrl(jwksUrl, 'nvidia.remote.jwksUrl') }),
    ...optionalText(remote, 'issuer'),
    ...optionalText(remote, 'serviceKey'),
  };
}
