import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import {
  type PrivateLayerOptions,
  parseAnnotationPacket,
  parsePrivateLayerOptions,
  unwrapPrivateOptions,
} from '@sealpod/protocol/ocicrypt';

/** Turns an annotation packet into encoded private layer options. */
export type UnwrapKey = (annotationPacket: Uint8Array) => Promise<Uint8Array>;
/** Fetches a resource of the key broker, `kbs:///…`. */
export type GetResource = (uri: string) => Promise<Uint8Array>;

/** The text that Kubernetes tests of Confidential Containers look for. */
const keyFailure = 'Failed to decrypt the image layer, please ensure that the decryption key is placed and correct';

/**
 * Unwraps with keys from the key broker and asks for each key once, however many layers it wraps and however many ask
 * at the same time. Make one for each pull: a key that was revoked is not used again.
 */
export function createKeyUnwrapper(getResource: GetResource): UnwrapKey {
  const keys = new Map<string, Promise<Uint8Array>>();
  return async (annotationPacket) => {
    const packet = parseAnnotationPacket(annotationPacket);
    if (packet.provider !== 'kbs') {
      throw new SealpodError(
        'UNSUPPORTED',
        `key provider ${JSON.stringify(packet.provider.slice(0, 64))} is not supported`,
      );
    }
    const key = keys.get(packet.keyId) ?? getResource(packet.keyId);
    keys.set(packet.keyId, key);
    return unwrapPrivateOptions(packet, await key);
  };
}

/**
 * Private options of one layer: the packets are tried in order until one can be unwrapped.
 *
 * @throws SealpodError as the last attempt: IMG_DECRYPT_KEY where a key is wrong, or why it could not be fetched
 */
export async function unwrapLayerOptions(
  packets: readonly Uint8Array[],
  unwrapKey: UnwrapKey,
): Promise<PrivateLayerOptions> {
  const failures: unknown[] = [];
  for (const packet of packets) {
    try {
      return parsePrivateLayerOptions(await unwrapKey(packet));
    } catch (error) {
      failures.push(error);
    }
  }
  throw decryptionFailure(failures.at(-1), failures);
}

/**
 * A failure to get or use a layer's key, in the words that operators search for. It keeps its reason code: that the key
 * broker is away or refuses is another matter than a wrong key.
 */
export function decryptionFailure(error: unknown, all: readonly unknown[] = [error]): SealpodError {
  const { code, message, detail } = asSealpodError(error, 'IMG_DECRYPT_KEY');
  const cause = all.length > 1 ? new AggregateError(all) : error;
  return new SealpodError(code, `${keyFailure}: ${message}`, { ...detail, cause });
}
