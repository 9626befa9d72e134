import { SealpodError } from './errors.ts';
import { formatResourceUri, parseResourceUri } from './resource-uri.ts';

/**
 * Pod annotation that says for each persistent volume by what key it is encrypted: a JSON object from the path in the
 * containers (of a `volumeMount` or a `volumeDevice`) to a resource of the key broker, or `none`. `$(name)` and
 * `$(namespace)` in it are those of the pod, so that each replica has a key of its own.
 */
export const volumeKeysAnnotation = 'io.katacontainers.config.volume_keys';

/** What the annotation says of a volume that is not encrypted. */
export const noVolumeKey = 'none';

const maxBytes = 64 * 1024;

/**
 * Reads the annotation: path → key as written there.
 *
 * @throws SealpodError REQUEST_FORMAT for what is no such object; RES_NAME for a key that is no resource
 */
export function parseVolumeKeys(annotation: string | undefined): ReadonlyMap<string, string> {
  if (annotation === undefined) return new Map();
  const refuse = (message: string, cause?: unknown): SealpodError =>
    new SealpodError('REQUEST_FORMAT', `annotation ${volumeKeysAnnotation}: ${message}`, {
      expected: '{"/path": "kbs:///repository/type/tag"}, or "none" for a key',
      cause,
    });
  if (Buffer.byteLength(annotation) > maxBytes) throw refuse(`is longer than ${maxBytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(annotation);
  } catch (cause) {
    throw refuse('is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse('is not a JSON object');
  const keys = new Map<string, string>();
  for (const [path, key] of Object.entries(value)) {
    if (typeof key !== 'string') throw refuse(`the key of ${path} is not a text`);
    if (key !== noVolumeKey) expandVolumeKey(key, { name: 'name', namespace: 'namespace' });
    keys.set(path, key);
  }
  return keys;
}

/** A key of the annotation for one pod, in canonical form. @throws SealpodError RES_NAME */
export function expandVolumeKey(key: string, pod: { readonly name: string; readonly namespace: string }): string {
  const text = key.replaceAll('$(namespace)', pod.namespace).replaceAll('$(name)', pod.name);
  return formatResourceUri(parseResourceUri(text));
}
