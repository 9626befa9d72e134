import { asJsonObject, asJsonText, decodeBase64, optionalMember, parseJson } from '@sealpod/protocol/json';
import type { Credentials } from './authentication.ts';
import type { ImageReference } from './reference.ts';

const code = 'IMG_AUTH';
const maxAuthFileBytes = 1024 * 1024;

/**
 * Finds the credentials for an image in an `auth.json` (containers-auth.json(5), also Docker's `config.json`):
 * `registry/repository`, then its parent namespaces, then the registry; keys with a scheme or path count as their host.
 *
 * @throws SealpodError IMG_AUTH where the file is malformed
 */
export function findCredentials(authFile: Uint8Array, reference: ImageReference): Credentials | undefined {
  const what = 'registry credentials';
  const document = asJsonObject(parseJson(authFile, { maxSize: maxAuthFileBytes, what, code }), what, code);
  const entries = Object.entries(asJsonObject(optionalMember(document, 'auths') ?? {}, 'auths', code));
  const exact = new Map(entries);
  const byHost = new Map(entries.map(([key, value]) => [hostOf(key), value]));
  for (const key of lookupKeys(reference)) {
    const entry = exact.get(key) ?? (key === reference.registry ? byHost.get(hostOf(key)) : undefined);
    if (entry === undefined) continue;
    const auth = optionalMember(asJsonObject(entry, 'auths entry', code), 'auth');
    if (auth === undefined) continue;
    const text = decodeBase64(asJsonText(auth, 'auth', code), { what: 'auth', code })
      .toString('utf8')
      .replace(/\n+$/, '');
    const colon = text.indexOf(':');
    if (colon > 0) return { username: text.slice(0, colon), password: text.slice(colon + 1) };
  }
  return undefined;
}

function lookupKeys({ registry, repository }: ImageReference): string[] {
  const segments = repository.split('/');
  const namespaces = segments.map((_, at) => `${registry}/${segments.slice(0, segments.length - at).join('/')}`);
  return [...namespaces, registry];
}

/** The host a key means; the default registry has three names. */
function hostOf(key: string): string {
  const host = key.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  return host === 'index.docker.io' || host === 'registry-1.docker.io' ? 'docker.io' : host;
}
