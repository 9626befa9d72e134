import {
  constants,
  createCipheriv,
  createHmac,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
  randomBytes,
} from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { digestBytes, type TpmHash } from './constants.ts';
import { kdfA, kdfE } from './key-derivation.ts';
import { TpmReader } from './reader.ts';
import { sized } from './writer.ts';

/** Both parameters of TPM2_ActivateCredential, each with its 16-bit size in front, ready to be appended to the command. */
export interface MadeCredential {
  /** TPM2B_ID_OBJECT. */
  readonly credentialBlob: Buffer;
  /** TPM2B_ENCRYPTED_SECRET. */
  readonly encryptedSecret: Buffer;
}

/** What the EK's template fixes (TCG EK Credential Profile, templates L-1, L-2 and the H range), by key. */
interface EkParameters {
  readonly hash: TpmHash;
  readonly symmetricBits: 128 | 256;
}

function ekParameters(key: KeyObject): EkParameters {
  const { modulusLength, namedCurve } = key.asymmetricKeyDetails ?? {};
  if (modulusLength === 2048 || namedCurve === 'prime256v1') return { hash: 'sha256', symmetricBits: 128 };
  if (modulusLength === 3072 || modulusLength === 4096 || namedCurve === 'secp384r1')
    return { hash: 'sha384', symmetricBits: 256 };
  throw new SealpodError('UNSUPPORTED', 'the endorsement key is of an unsupported type', {
    expected: 'RSA 2048, 3072 or 4096, or EC P-256 or P-384',
    actual: `${key.asymmetricKeyType} ${modulusLength ?? namedCurve ?? ''}`,
  });
}

/**
 * Encrypts `secret` so that only the TPM holding the endorsement key can release it, and only for the loaded object of
 * that `name` (Part 1 §24, TPM2_MakeCredential in software).
 *
 * @param secret at most as many bytes as the digest of the EK's name algorithm; 32 fits all
 * @param name of the object, see `objectName`
 * @throws SealpodError UNSUPPORTED for an EK of another type
 */
export function makeCredential(endorsementKey: KeyObject, name: Uint8Array, secret: Uint8Array): MadeCredential {
  const { hash, symmetricBits } = ekParameters(endorsementKey);
  const { seed, encryptedSeed } =
    endorsementKey.asymmetricKeyType === 'rsa' ? rsaSeed(endorsementKey, hash) : eccSeed(endorsementKey, hash);
  const empty = Buffer.alloc(0);
  const symmetricKey = kdfA(hash, seed, 'STORAGE', name, empty, symmetricBits);
  const cipher = createCipheriv(`aes-${symmetricBits}-cfb`, symmetricKey, Buffer.alloc(16));
  const encryptedIdentity = Buffer.concat([cipher.update(sized(secret)), cipher.final()]);
  const integrityKey = kdfA(hash, seed, 'INTEGRITY', empty, empty, digestBytes[hash] * 8);
  const integrity = createHmac(hash, integrityKey).update(encryptedIdentity).update(name).digest();
  return { credentialBlob: sized(sized(integrity), encryptedIdentity), encryptedSecret: sized(encryptedSeed) };
}

interface Seed {
  readonly seed: Buffer;
  readonly encryptedSeed: Buffer;
}

function rsaSeed(key: KeyObject, hash: TpmHash): Seed {
  const seed = randomBytes(digestBytes[hash]);
  const encryptedSeed = publicEncrypt(
    { key, padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: hash, oaepLabel: Buffer.from('IDENTITY\0') },
    seed,
  );
  return { seed, encryptedSeed };
}

function eccSeed(key: KeyObject, hash: TpmHash): Seed {
  const namedCurve = key.asymmetricKeyDetails?.namedCurve ?? '';
  const ephemeral = generateKeyPairSync('ec', { namedCurve });
  const own = coordinates(ephemeral.publicKey);
  const shared = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: key });
  const seed = kdfE(hash, shared, 'IDENTITY', own.x, coordinates(key).x, digestBytes[hash] * 8);
  return { seed, encryptedSeed: Buffer.concat([sized(own.x), sized(own.y)]) };
}

function coordinates(key: KeyObject): { x: Buffer; y: Buffer } {
  const { x = '', y = '' } = key.export({ format: 'jwk' });
  return { x: Buffer.from(x, 'base64url'), y: Buffer.from(y, 'base64url') };
}

/** Splits a TPM2B_ID_OBJECT into the integrity HMAC and the encrypted identity. @throws SealpodError EV_FORMAT */
export function parseIdObject(credentialBlob: Uint8Array): { integrity: Buffer; encryptedIdentity: Buffer } {
  const outer = new TpmReader(credentialBlob, 'TPM2B_ID_OBJECT');
  const inner = new TpmReader(outer.sized(), 'TPMS_ID_OBJECT');
  outer.end();
  return { integrity: inner.sized(), encryptedIdentity: inner.rest() };
}
