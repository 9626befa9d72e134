import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import {
  asJsonObject,
  asJsonText,
  decodeBase64,
  type JsonObject,
  optionalMember,
  parseJson,
  stringMember,
} from '../json/index.ts';

/** How the key encryption key (KEK) wraps the private layer options. */
export type WrapType = 'A256GCM' | 'A256CTR';

/**
 * The annotation of a layer that a key provider wrote: who holds the key encryption key, and the wrapped private layer
 * options (guest-components, `hub/src/image/annotation_packet`). Version 1 has `kid wrapped_data iv wrap_type` only;
 * version 2 adds the rest.
 */
export interface AnnotationPacket {
  /** Resource URI of the key, e.g. `kbs:///default/key/1`. Not validated here. */
  readonly keyId: string;
  readonly wrappedData: Uint8Array;
  readonly iv?: Uint8Array;
  readonly wrapType?: WrapType;
  /** `kbs` where absent. */
  readonly provider: string;
  readonly providerSettings: JsonObject;
  readonly annotations: JsonObject;
}

const packetVersion = '0.1.0';

/**
 * Parses versions 1 and 2. For provider `kbs` the wrap type and an IV of the right length are required.
 *
 * @throws SealpodError IMG_DECRYPT_KEY
 */
export function parseAnnotationPacket(bytes: Uint8Array): AnnotationPacket {
  const code = 'IMG_DECRYPT_KEY';
  const what = 'annotation packet';
  const document = asJsonObject(parseJson(bytes, { maxSize: 64 * 1024, maxDepth: 16, what, code }), what, code);
  const version = optionalMember(document, 'version');
  if (version !== undefined && version !== packetVersion) {
    throw new SealpodError(code, 'unsupported annotation packet version', {
      expected: packetVersion,
      actual: JSON.stringify(version).slice(0, 64),
    });
  }
  const text = (name: string): string | undefined => {
    const value = optionalMember(document, name);
    return value === undefined || value === null ? undefined : asJsonText(value, name, code);
  };
  const object = (name: string): JsonObject => {
    const value = optionalMember(document, name);
    return value === undefined || value === null ? {} : asJsonObject(value, name, code);
  };
  const ivText = text('iv');
  const wrapType = text('wrap_type');
  if (wrapType !== undefined && wrapType !== 'A256GCM' && wrapType !== 'A256CTR') {
    throw new SealpodError(code, 'unsupported wrap type', {
      expected: 'A256GCM or A256CTR',
      actual: wrapType.slice(0, 64),
    });
  }
  const packet: AnnotationPacket = {
    keyId: stringMember(document, 'kid', code),
    wrappedData: decodeBase64(stringMember(document, 'wrapped_data', code), { what: 'wrapped_data', code }),
    ...(ivText === undefined ? {} : { iv: decodeBase64(ivText, { what: 'iv', code }) }),
    ...(wrapType === undefined ? {} : { wrapType }),
    provider: text('provider') ?? 'kbs',
    providerSettings: object('provider_settings'),
    annotations: object('annotations'),
  };
  if (packet.provider === 'kbs') requireWrapping(packet);
  return packet;
}

/** Encodes version 1, which every release of guest-components reads, with skopeo's provider's member order. */
export function encodeAnnotationPacket(packet: {
  readonly keyId: string;
  readonly wrappedData: Uint8Array;
  readonly iv: Uint8Array;
  readonly wrapType: WrapType;
}): Buffer {
  return Buffer.from(
    JSON.stringify({
      kid: packet.keyId,
      wrapped_data: Buffer.from(packet.wrappedData).toString('base64'),
      iv: Buffer.from(packet.iv).toString('base64'),
      wrap_type: packet.wrapType,
    }),
  );
}

/**
 * Wraps encoded private layer options under a 32-byte key with AES-256-GCM; the tag follows the ciphertext.
 *
 * @param iv 12 bytes; random where absent. Given only to reproduce a known vector.
 * @throws SealpodError IMG_DECRYPT_KEY where the key has not 32 bytes
 */
export function wrapPrivateOptions(
  privateOptions: Uint8Array,
  keyEncryptionKey: Uint8Array,
  iv: Uint8Array = randomBytes(12),
): { readonly wrappedData: Buffer; readonly iv: Uint8Array; readonly wrapType: 'A256GCM' } {
  requireKeyLength(keyEncryptionKey);
  const cipher = createCipheriv('aes-256-gcm', keyEncryptionKey, iv);
  const wrappedData = Buffer.concat([cipher.update(privateOptions), cipher.final(), cipher.getAuthTag()]);
  return { wrappedData, iv, wrapType: 'A256GCM' };
}

/**
 * Unwraps to encoded private layer options. `A256CTR` has no authentication: a wrong key gives garbage there, which
 * {@link parsePrivateLayerOptions} refuses.
 *
 * @throws SealpodError IMG_DECRYPT_KEY where key or packet are not right for each other
 */
export function unwrapPrivateOptions(packet: AnnotationPacket, keyEncryptionKey: Uint8Array): Buffer {
  requireKeyLength(keyEncryptionKey);
  const { iv, wrapType } = requireWrapping(packet);
  if (wrapType === 'A256CTR') {
    const decipher = createDecipheriv('aes-256-ctr', keyEncryptionKey, iv);
    return Buffer.concat([decipher.update(packet.wrappedData), decipher.final()]);
  }
  const tagAt = packet.wrappedData.length - 16;
  if (tagAt < 0) throw new SealpodError('IMG_DECRYPT_KEY', 'wrapped layer options are shorter than their tag');
  const decipher = createDecipheriv('aes-256-gcm', keyEncryptionKey, iv, { authTagLength: 16 });
  decipher.setAuthTag(packet.wrappedData.subarray(tagAt));
  try {
    return Buffer.concat([decipher.update(packet.wrappedData.subarray(0, tagAt)), decipher.final()]);
  } catch (cause) {
    throw new SealpodError('IMG_DECRYPT_KEY', 'the key does not unwrap the layer options', { cause });
  }
}

function requireWrapping(packet: AnnotationPacket): { readonly iv: Uint8Array; readonly wrapType: WrapType } {
  const { iv, wrapType } = packet;
  if (iv === undefined || wrapType === undefined) {
    throw new SealpodError('IMG_DECRYPT_KEY', 'annotation packet has no iv or wrap_type');
  }
  const length = wrapType === 'A256GCM' ? 12 : 16;
  if (iv.length !== length) {
    throw new SealpodError('IMG_DECRYPT_KEY', `iv of ${wrapType} must be of ${length} bytes`);
  }
  return { iv, wrapType };
}

function requireKeyLength(key: Uint8Array): void {
  if (key.length !== 32) {
    throw new SealpodError('IMG_DECRYPT_KEY', 'key encryption key must be of 32 bytes', {
      expected: '32 bytes',
      actual: `${key.length} bytes`,
    });
  }
}
