import {
  constants,
  createDecipheriv,
  createHash,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
  sign,
  timingSafeEqual,
} from 'node:crypto';
import {
  Algorithm,
  AttestType,
  attestMagic,
  Curve,
  encodePcrSelection,
  encodePublicArea,
  encodeSignature,
  kdfA,
  kdfE,
  ObjectAttribute,
  objectName,
  parseIdObject,
  sized,
  TpmReader,
  uint8,
  uint16,
  uint32,
  uint64,
} from '../index.ts';

/** What a test may change about a quote before it is signed. */
export interface QuoteOptions {
  readonly magic?: number;
  readonly type?: number;
  readonly registers?: readonly number[];
  readonly bank?: number;
  /** Sign with another key than the attestation key. */
  readonly signer?: KeyObject;
}

/**
 * The few TPM operations that evidence is made of, in software, for tests of parsers and verifiers: it can do what a
 * real TPM refuses. Real TPM behaviour is tested with swtpm.
 */
export class SoftwareTpm {
  readonly endorsementKey: KeyObject;
  readonly attestationKey: KeyObject;
  readonly publicArea: Buffer;
  readonly pcrs: Buffer[] = Array.from({ length: 24 }, (_, index) =>
    Buffer.alloc(32, index >= 17 && index <= 22 ? 0xff : 0),
  );

  constructor(
    options: {
      readonly endorsementKey?: KeyObject;
      readonly attributes?: number;
      readonly attestationKey?: 'ecc' | 'rsa';
    } = {},
  ) {
    this.endorsementKey = options.endorsementKey ?? generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    const attributes = options.attributes ?? attestationKeyAttributes;
    const rsa = options.attestationKey === 'rsa';
    this.attestationKey = rsa
      ? generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
      : generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const jwk = createPublicKey(this.attestationKey).export({ format: 'jwk' });
    const bytes = (text = ''): Buffer => Buffer.from(text, 'base64url');
    this.publicArea = encodePublicArea({
      nameAlgorithm: Algorithm.sha256,
      attributes,
      authPolicy: Buffer.alloc(0),
      scheme: { algorithm: rsa ? Algorithm.rsaSsa : Algorithm.ecDsa, hash: Algorithm.sha256 },
      key: rsa
        ? { kind: 'rsa', keyBits: 2048, exponent: 0, modulus: bytes(jwk.n) }
        : { kind: 'ecc', curve: Curve.p256, x: bytes(jwk.x), y: bytes(jwk.y) },
    });
  }

  /** SubjectPublicKeyInfo of the attestation key. */
  get attestationPublicKey(): Buffer {
    return createPublicKey(this.attestationKey).export({ format: 'der', type: 'spki' });
  }

  extend(register: number, digest: Uint8Array): void {
    this.pcrs[register] = createHash('sha256')
      .update(this.pcrs[register] ?? Buffer.alloc(32))
      .update(digest)
      .digest();
  }

  /** TPM2_ActivateCredential; throws where the integrity check fails, as for another object or another EK. */
  activate(credentialBlob: Uint8Array, encryptedSecret: Uint8Array): Buffer {
    const { integrity, encryptedIdentity } = parseIdObject(credentialBlob);
    const name = objectName(this.publicArea);
    const { hash, bits, digest } =
      this.endorsementKey.asymmetricKeyDetails?.namedCurve === 'secp384r1'
        ? ({ hash: 'sha384', bits: 256, digest: 384 } as const)
        : ({ hash: 'sha256', bits: 128, digest: 256 } as const);
    const seed = this.#seed(new TpmReader(encryptedSecret).sized(), hash, digest);
    const empty = Buffer.alloc(0);
    const expected = createHmac(hash, kdfA(hash, seed, 'INTEGRITY', empty, empty, digest))
      .update(encryptedIdentity)
      .update(name)
      .digest();
    if (integrity.length !== expected.length || !timingSafeEqual(integrity, expected))
      throw new Error('TPM_RC_INTEGRITY');
    const decipher = createDecipheriv(
      `aes-${bits}-cfb`,
      kdfA(hash, seed, 'STORAGE', name, empty, bits),
      Buffer.alloc(16),
    );
    return new TpmReader(Buffer.concat([decipher.update(encryptedIdentity), decipher.final()])).sized();
  }

  #seed(secret: Buffer, hash: 'sha256' | 'sha384', bits: number): Buffer {
    if (this.endorsementKey.asymmetricKeyType === 'rsa') {
      const padding = constants.RSA_PKCS1_OAEP_PADDING;
      return privateDecrypt(
        { key: this.endorsementKey, padding, oaepHash: hash, oaepLabel: Buffer.from('IDENTITY\0') },
        secret,
      );
    }
    const reader = new TpmReader(secret);
    const [x, y] = [reader.sized(), reader.sized()];
    const own = createPublicKey(this.endorsementKey).export({ format: 'jwk' });
    const publicKey = createPublicKey({
      key: { kty: 'EC', crv: own.crv ?? '', x: x.toString('base64url'), y: y.toString('base64url') },
      format: 'jwk',
    });
    const shared = diffieHellman({ privateKey: this.endorsementKey, publicKey });
    return kdfE(hash, shared, 'IDENTITY', x, Buffer.from(own.x ?? '', 'base64url'), bits);
  }

  /** TPM2_Quote. */
  quote(qualifyingData: Uint8Array, options: QuoteOptions = {}): { message: Buffer; signature: Buffer } {
    const registers = options.registers ?? Array.from({ length: 24 }, (_, index) => index);
    const digest = createHash('sha256')
      .update(Buffer.concat(registers.map((register) => this.pcrs[register] ?? Buffer.alloc(0))))
      .digest();
    const message = Buffer.concat([
      uint32(options.magic ?? attestMagic),
      uint16(options.type ?? AttestType.quote),
      sized(objectName(this.publicArea)),
      sized(qualifyingData),
      uint64(12_345n),
      uint32(7),
      uint32(1),
      uint8(1),
      uint64(0x2019_1023_0016_3636n),
      encodePcrSelection([{ hash: options.bank ?? Algorithm.sha256, registers }]),
      sized(digest),
    ]);
    const key = options.signer ?? this.attestationKey;
    if (key.asymmetricKeyType === 'rsa') {
      const signature = sign('sha256', message, key);
      return { message, signature: encodeSignature({ scheme: 'rsassa', hash: Algorithm.sha256, signature }) };
    }
    const raw = sign('sha256', message, { key, dsaEncoding: 'ieee-p1363' });
    return {
      message,
      signature: encodeSignature({
        scheme: 'ecdsa',
        hash: Algorithm.sha256,
        r: raw.subarray(0, 32),
        s: raw.subarray(32),
      }),
    };
  }
}

/** Attributes of an attestation key: restricted, sign, userWithAuth, sensitiveDataOrigin, fixedParent, fixedTPM. */
export const attestationKeyAttributes =
  ObjectAttribute.restricted |
  ObjectAttribute.sign |
  ObjectAttribute.userWithAuth |
  ObjectAttribute.sensitiveDataOrigin |
  ObjectAttribute.fixedParent |
  ObjectAttribute.fixedTpm;
