import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  type Hash,
  type Hmac,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import { Transform, type TransformCallback } from 'node:stream';
import { SealpodError } from '../errors.ts';
import { layerCipherName, type PrivateLayerOptions, type PublicLayerOptions } from './options.ts';

/**
 * Decrypts a layer: AES-256-CTR, HMAC-SHA256 over the ciphertext, then the digest of the plaintext. The stream puts out
 * plaintext before either is checked and fails at its end where one is wrong: whoever reads must not let the plaintext
 * take effect before the stream has ended well.
 *
 * @throws (as stream error) SealpodError IMG_DECRYPT_KEY where the HMAC or the plaintext digest differ
 */
export function createLayerDecryptor(
  privateOptions: PrivateLayerOptions,
  publicOptions: PublicLayerOptions,
): Transform {
  if (publicOptions.cipher !== layerCipherName) throw new SealpodError('IMG_FORMAT', 'unsupported layer cipher');
  const decipher = createDecipheriv('aes-256-ctr', privateOptions.symmetricKey, privateOptions.nonce);
  const hmac = createHmac('sha256', privateOptions.symmetricKey);
  const plaintextHash = createHash('sha256');
  return new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      hmac.update(chunk);
      const plaintext = decipher.update(chunk);
      plaintextHash.update(plaintext);
      done(null, plaintext);
    },
    flush(done: TransformCallback) {
      const failure =
        checkHmac(hmac, publicOptions.hmac) ?? checkPlaintextDigest(plaintextHash, privateOptions.plaintextDigest);
      done(failure ?? null);
    },
  });
}

/** An encrypting stream; what it used and found is readable once it has ended. */
export interface LayerEncryptor {
  readonly stream: Transform;
  /**
   * Key, nonce and digests of the finished layer. `privateOptions` is secret.
   *
   * @throws SealpodError INTERNAL before the stream has ended
   */
  result(): {
    readonly privateOptions: PrivateLayerOptions;
    readonly publicOptions: PublicLayerOptions;
    /** `sha256:<hex>` of the ciphertext, its descriptor's digest. */
    readonly ciphertextDigest: string;
    /** Bytes, the same before and after encryption. */
    readonly size: number;
  };
}

/**
 * Encrypts a layer under a fresh key and nonce.
 *
 * @param key given only to reproduce a known vector; using one twice for different layers breaks both
 */
export function createLayerEncryptor(
  key: { readonly symmetricKey: Uint8Array; readonly nonce: Uint8Array } = {
    symmetricKey: randomBytes(32),
    nonce: randomBytes(16),
  },
): LayerEncryptor {
  const cipher = createCipheriv('aes-256-ctr', key.symmetricKey, key.nonce);
  const hmac = createHmac('sha256', key.symmetricKey);
  const plaintextHash = createHash('sha256');
  const ciphertextHash = createHash('sha256');
  let size = 0;
  let finished: ReturnType<LayerEncryptor['result']> | undefined;
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done: TransformCallback) {
      size += chunk.length;
      plaintextHash.update(chunk);
      const ciphertext = cipher.update(chunk);
      hmac.update(ciphertext);
      ciphertextHash.update(ciphertext);
      done(null, ciphertext);
    },
    flush(done: TransformCallback) {
      finished = {
        privateOptions: { ...key, plaintextDigest: `sha256:${plaintextHash.digest('hex')}` },
        publicOptions: { cipher: layerCipherName, hmac: hmac.digest() },
        ciphertextDigest: `sha256:${ciphertextHash.digest('hex')}`,
        size,
      };
      done();
    },
  });
  return {
    stream,
    result() {
      if (finished === undefined) throw new SealpodError('INTERNAL', 'the layer is not yet encrypted');
      return finished;
    },
  };
}

function checkHmac(hmac: Hmac, expected: Uint8Array): SealpodError | undefined {
  return timingSafeEqual(hmac.digest(), expected)
    ? undefined
    : new SealpodError('IMG_DECRYPT_KEY', 'the layer does not authenticate under its key');
}

function checkPlaintextDigest(hash: Hash, expected: string): SealpodError | undefined {
  const actual = `sha256:${hash.digest('hex')}`;
  return actual === expected
    ? undefined
    : new SealpodError('IMG_DECRYPT_KEY', 'the decrypted layer is not the one that was encrypted', {
        expected,
        actual,
      });
}
