import { SealpodError } from '../errors.ts';
import { asJsonObject, decodeBase64, objectMember, optionalMember, parseJson, stringMember } from '../json/index.ts';

/** The only layer cipher of ocicrypt (github.com/containers/ocicrypt, blockcipher). */
export const layerCipherName = 'AES_256_CTR_HMAC_SHA256';

/** What decrypts one layer; secret. Wire form: the JSON that key providers wrap. */
export interface PrivateLayerOptions {
  /** 32 bytes, key of both cipher and HMAC. */
  readonly symmetricKey: Uint8Array;
  /** 16 bytes, the initial counter block. */
  readonly nonce: Uint8Array;
  /** `sha256:<hex>` of the layer as it was before encryption (still compressed). */
  readonly plaintextDigest: string;
}

/** What the descriptor says of the encryption in the open. Not authenticated by itself. */
export interface PublicLayerOptions {
  readonly cipher: string;
  /** 32 bytes, HMAC-SHA256 over the ciphertext. */
  readonly hmac: Uint8Array;
}

const limits = { maxSize: 64 * 1024, maxDepth: 8 } as const;

/**
 * Parses `{"symkey","digest","cipheroptions":{"nonce"}}`. The plaintext digest is required: without it nothing but the
 * image configuration, which is not authenticated, would say what the layer was.
 *
 * @throws SealpodError IMG_DECRYPT_KEY; its message holds nothing of the document
 */
export function parsePrivateLayerOptions(bytes: Uint8Array): PrivateLayerOptions {
  const code = 'IMG_DECRYPT_KEY';
  const document = asJsonObject(
    parseJson(bytes, { ...limits, what: 'private layer options', code }),
    'private layer options',
    code,
  );
  const symmetricKey = decodeBase64(stringMember(document, 'symkey', code), { what: 'symkey', code });
  if (symmetricKey.length !== 32) throw new SealpodError(code, 'symkey must be of 32 bytes');
  const plaintextDigest = stringMember(document, 'digest', code);
  if (!/^sha256:[0-9a-f]{64}$/.test(plaintextDigest)) {
    throw new SealpodError(code, 'private layer options have no sha256 digest of the plaintext');
  }
  const cipherOptions = objectMember(document, 'cipheroptions', code);
  const nonce = decodeBase64(stringMember(cipherOptions, 'nonce', code), { what: 'nonce', code });
  if (nonce.length !== 16) throw new SealpodError(code, 'nonce must be of 16 bytes');
  return { symmetricKey, nonce, plaintextDigest };
}

/** Encodes with Go's member order. The result is secret. */
export function encodePrivateLayerOptions(options: PrivateLayerOptions): Buffer {
  return Buffer.from(
    JSON.stringify({
      symkey: Buffer.from(options.symmetricKey).toString('base64'),
      digest: options.plaintextDigest,
      cipheroptions: { nonce: Buffer.from(options.nonce).toString('base64') },
    }),
  );
}

/**
 * Parses `{"cipher","hmac","cipheroptions"}`. A nonce among the public cipher options, which upstream would let
 * override the private one, is refused: it would be an unauthenticated part of the key.
 *
 * @throws SealpodError IMG_FORMAT
 */
export function parsePublicLayerOptions(bytes: Uint8Array): PublicLayerOptions {
  const code = 'IMG_FORMAT';
  const document = asJsonObject(
    parseJson(bytes, { ...limits, what: 'public layer options', code }),
    'public layer options',
    code,
  );
  const cipher = stringMember(document, 'cipher', code);
  if (cipher !== layerCipherName) {
    throw new SealpodError(code, 'unsupported layer cipher', { expected: layerCipherName, actual: cipher });
  }
  const hmac = decodeBase64(stringMember(document, 'hmac', code), { what: 'hmac', code });
  if (hmac.length !== 32) throw new SealpodError(code, 'hmac must be of 32 bytes');
  const cipherOptions = optionalMember(document, 'cipheroptions');
  if (cipherOptions !== undefined && cipherOptions !== null) {
    if (optionalMember(asJsonObject(cipherOptions, 'cipheroptions', code), 'nonce') !== undefined) {
      throw new SealpodError(code, 'public layer options must not hold a nonce');
    }
  }
  return { cipher, hmac };
}

/** Encodes with Go's member order, as skopeo writes it. */
export function encodePublicLayerOptions(options: PublicLayerOptions): Buffer {
  const hmac = Buffer.from(options.hmac).toString('base64');
  return Buffer.from(JSON.stringify({ cipher: options.cipher, hmac, cipheroptions: {} }));
}
