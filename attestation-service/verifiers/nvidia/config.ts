import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, type JsonObject, type JsonValue, optionalMember, stringMember } from '@sealpod/protocol/json';
import { checkUrl, optionalFlag, optionalText, refuseUnknownMembers } from '../../endorsements/config-members.ts';
import type { RemoteServiceOptions } from '../../endorsements/nvidia/remote.ts';

/** Where reference manifests come from, asked in this order. */
export type ManifestSourceConfig =
  /** NVIDIA's RIM service, or a mirror at `url`. What it answers is kept in storage. */
  | { readonly type: 'service'; readonly url?: string }
  /** A folder with `<id>.swidtag`. */
  | { readonly type: 'folder'; readonly folder: string };

/** Configuration of TEE `nvidia`. */
export interface NvidiaConfig {
  /**
   * `local` verifies here; `remote` lets NVIDIA's service verify, and believes its signed tokens. Using that service needs an
   * agreement with NVIDIA.
   */
  readonly verifier: 'local' | 'remote';
  /** Local: measurements are held against manifests of these sources. Without a source they are told and not compared. */
  readonly manifests?: readonly ManifestSourceConfig[];
  /** Local: a manifest whose signer's certificate has ended is used, and claims say `expired`. Default false. */
  readonly acceptExpiredManifests?: boolean;
  /** Local: an OCSP responder that every certificate is asked for at; none by default. NVIDIA's is `https://ocsp.ndis.nvidia.com`. */
  readonly ocspUrl?: string;
  /** Remote: the service; NVIDIA's own by default. */
  readonly remote?: RemoteServiceOptions;
}

const code = 'USAGE';

/**
 * Reads `{"verifier": "local" | "remote", "manifests"?: [{"type": "service", "url"?} | {"type": "folder", "folder"}],
 * "acceptExpiredManifests"?, "ocspUrl"?, "remote"?: {"url"?, "jwksUrl"?, "issuer"?, "serviceKey"?}}`.
 *
 * @param at makes a path of the configuration absolute
 * @throws SealpodError USAGE naming the member
 */
export function readNvidiaConfig(value: JsonValue, at: (path: string) => string): NvidiaConfig {
  const nvidia = asJsonObject(value, 'nvidia', code);
  refuseUnknownMembers(nvidia, ['verifier', 'manifests', 'acceptExpiredManifests', 'ocspUrl', 'remote'], 'nvidia');
  const verifier = stringMember(nvidia, 'verifier', code);
  if (verifier !== 'local' && verifier !== 'remote')
    throw new SealpodError(code, 'unknown nvidia.verifier', { expected: 'local or remote', actual: verifier });
  const { ocspUrl } = optionalText(nvidia, 'ocspUrl');
  const manifests = optionalMember(nvidia, 'manifests');
  const remote = optionalMember(nvidia, 'remote');
  if (manifests !== undefined && !Array.isArray(manifests))
    throw new SealpodError(code, 'nvidia.manifests must be an array');
  return {
    verifier,
    ...(manifests === undefined
      ? {}
      : {
          manifests: manifests.map((source: JsonValue) =>
            readSource(asJsonObject(source, 'nvidia.manifests[]', code), at),
          ),
        }),
    ...optionalFlag(nvidia, 'acceptExpiredManifests'),
    ...(ocspUrl === undefined ? {} : { ocspUrl: checkUrl(ocspUrl, 'nvidia.ocspUrl') }),
    ...(remote === undefined ? {} : { remote: readRemote(asJsonObject(remote, 'nvidia.remote', code)) }),
  };
}

function readSource(source: JsonObject, at: (path: string) => string): ManifestSourceConfig {
  const type = stringMember(source, 'type', code);
  if (type === 'folder') {
    refuseUnknownMembers(source, ['type', 'folder'], 'nvidia.manifests[]');
    return { type, folder: at(stringMember(source, 'folder', code)) };
  }
  if (type !== 'service')
    throw new SealpodError(code, 'unknown nvidia.manifests[].type', { expected: 'service or folder', actual: type });
  refuseUnknownMembers(source, ['type', 'url'], 'nvidia.manifests[]');
  const { url } = optionalText(source, 'url');
  return url === undefined ? { type } : { type, url: checkUrl(url, 'nvidia.manifests[].url') };
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
