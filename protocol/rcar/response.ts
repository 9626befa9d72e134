import {
  constants,
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { asJsonObject, decodeBase64Url, type JsonValue, objectMember, parseJson, stringMember } from '../json/index.ts';
import { type TeePubKey, teeKeyObject } from './tee-pubkey.ts';

/** A resource, encrypted to the TEE key: flattened JWE JSON (RFC 7516 §7.2.2); every member is base64url. */
export interface Response {
  readonly protected: string;
  readonly encrypted_key: string;
  readonly iv: string;
  readonly ciphertext: string;
  readonly tag: string;
}

/** @throws SealpodError REQUEST_FORMAT, REQUEST_TOO_LARGE (beyond 16 MiB) */
export function parseResponse(body: string | Uint8Array): Response {
  const root = asJsonObject(parseJson(body, { what: 'response', maxSize: 16 * 1024 * 1024, maxDepth: 2 }), 'response');
  return {
    protected: stringMember(root, 'protected'),
    encrypted_key: stringMember(root, 'encrypted_key'),
    iv: stringMember(root, 'iv'),
    ciphertext: stringMember(root, 'ciphertext'),
    tag: stringMember(root, 'tag'),
  };
}

/**
 * Encrypts `plaintext` so that only the holder of the TEE key can read it: `ECDH-ES+A256KW` (RFC 7518 §4.6) or
 * `RSA-OAEP-256` (§4.3), content in A256GCM.
 *
 * Upstream's client computes the additional data from the header it parsed and serialised again, so the header is
 * compact with members in exactly this order: alg, enc, epk {crv, kty, x, y}.
 *
 * @throws SealpodError REQUEST_FORMAT for an invalid key, UNSUPPORTED for a key type or algorithm we refuse (RSA1_5)
 */
export function encryptResponse(teePubKey: TeePubKey, plaintext: Uint8Array): Response {
  const recipient = teeKeyObject(teePubKey);
  const contentKey = randomBytes(32);
  const { header, encryptedKey } =
    teePubKey.kty === 'EC' ? wrapForCurve(recipient, teePubKey.crv, contentKey) : wrapForRsa(recipient, contentKey);
  const protectedHeader = Buffer.from(JSON.stringify(header)).toString('base64url');
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', contentKey, iv).setAAD(Buffer.from(protectedHeader, 'ascii'));
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  contentKey.fill(0);
  return {
    protected: protectedHeader,
    encrypted_key: encryptedKey.toString('base64url'),
    iv: iv.toString('base64url'),
    ciphertext: ciphertext.toString('base64url'),
    tag: cipher.getAuthTag().toString('base64url'),
  };
}

interface WrappedKey {
  readonly header: JsonValue;
  readonly encryptedKey: Buffer;
}

function wrapForCurve(recipient: KeyObject, crv: string, contentKey: Buffer): WrappedKey {
  const ephemeral = generateKeyPairSync('ec', { namedCurve: crv });
  const { x = '', y = '' } = ephemeral.publicKey.export({ format: 'jwk' });
  const wrappingKey = concatKdf(diffieHellman({ privateKey: ephemeral.privateKey, publicKey: recipient }));
  const cipher = createCipheriv('id-aes256-wrap', wrappingKey, keyWrapIv);
  return {
    header: { alg: curveAlgorithm, enc: 'A256GCM', epk: { crv, kty: 'EC', x, y } },
    encryptedKey: Buffer.concat([cipher.update(contentKey), cipher.final()]),
  };
}

function wrapForRsa(recipient: KeyObject, contentKey: Buffer): WrappedKey {
  return {
    header: { alg: rsaAlgorithm, enc: 'A256GCM' },
    encryptedKey: publicEncrypt(
      { key: recipient, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
      contentKey,
    ),
  };
}

/**
 * Opens a response with the private TEE key.
 *
 * @throws SealpodError REQUEST_FORMAT where it is malformed, of another algorithm, altered, or for another key. One
 * code and one message for all failures of decryption: nothing to learn for whoever altered it.
 */
export function decryptResponse(privateKey: KeyObject, response: Response): Buffer {
  const header = asJsonObject(
    parseJson(decodeBase64Url(response.protected, { what: 'protected', maxBytes: 4096 }), {
      what: 'JWE header',
      maxDepth: 4,
    }),
    'JWE header',
  );
  const algorithm = stringMember(header, 'alg');
  const expected = privateKey.asymmetricKeyType === 'rsa' ? rsaAlgorithm : curveAlgorithm;
  if (
    algorithm !== expected ||
    stringMember(header, 'enc') !== 'A256GCM' ||
    Object.hasOwn(header, 'crit') ||
    Object.hasOwn(header, 'zip')
  ) {
    throw new SealpodError('REQUEST_FORMAT', 'the response is of an unsupported algorithm', {
      expected: `${expected} with A256GCM`,
      actual: `${algorithm}`,
    });
  }
  const encryptedKey = decodeBase64Url(response.encrypted_key, { what: 'encrypted_key', maxBytes: 1024 });
  const iv = decodeBase64Url(response.iv, { what: 'iv', maxBytes: 12 });
  const tag = decodeBase64Url(response.tag, { what: 'tag', maxBytes: 16 });
  const ciphertext = decodeBase64Url(response.ciphertext, { what: 'ciphertext', maxBytes: 16 * 1024 * 1024 });
  if (iv.length !== 12 || tag.length !== 16)
    throw new SealpodError('REQUEST_FORMAT', 'the response has a wrong iv or tag length');
  try {
    const contentKey =
      algorithm === rsaAlgorithm
        ? privateDecrypt(
            { key: privateKey, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256' },
            encryptedKey,
          )
        : unwrapWithCurve(privateKey, objectMember(header, 'epk'), encryptedKey);
    const decipher = createDecipheriv('aes-256-gcm', contentKey, iv, { authTagLength: 16 });
    decipher.setAAD(Buffer.from(response.protected, 'ascii')).setAuthTag(tag);
    return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', 'the response cannot be decrypted with this key', { cause });
  }
}

function unwrapWithCurve(privateKey: KeyObject, epk: ReturnType<typeof asJsonObject>, encryptedKey: Buffer): Buffer {
  // Of another curve than the private key's, diffieHellman refuses; off the curve, createPublicKey does.
  const publicKey = createPublicKey({
    key: { kty: 'EC', crv: stringMember(epk, 'crv'), x: stringMember(epk, 'x'), y: stringMember(epk, 'y') },
    format: 'jwk',
  });
  const decipher = createDecipheriv('id-aes256-wrap', concatKdf(diffieHellman({ privateKey, publicKey })), keyWrapIv);
  return Buffer.concat([decipher.update(encryptedKey), decipher.final()]);
}

const curveAlgorithm = 'ECDH-ES+A256KW';
const rsaAlgorithm = 'RSA-OAEP-256';
/** Initial value of AES key wrap (RFC 3394 §2.2.3.1). */
const keyWrapIv = Buffer.alloc(8, 0xa6);

/** Concat KDF (NIST SP 800-56A §5.8.1 as RFC 7518 §4.6.2 has it) for a 256-bit key: one round of SHA-256. */
export function concatKdf(sharedSecret: Uint8Array): Buffer {
  const uint32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  return createHash('sha256')
    .update(uint32(1))
    .update(sharedSecret)
    .update(uint32(curveAlgorithm.length))
    .update(curveAlgorithm)
    .update(uint32(0)) // apu
    .update(uint32(0)) // apv
    .update(uint32(256))
    .digest();
}
