import { p256, p384, p521 } from '@noble/curves/nist.js';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { AlgorithmIdentifier, SubjectPublicKeyInfo } from '@peculiar/asn1-x509';
import { SealpodError } from '@sealpod/protocol/errors';
import { derInteger, derIntegers, derSequence } from './der.ts';
import { hashFunction } from './hash.ts';
import { type RsaPublicKey, rsaPublicKey, verifyPkcs1, verifyPss } from './rsa.ts';

const rsaEncryption = '1.2.840.113549.1.1.1';
const rsassaPss = '1.2.840.113549.1.1.10';
const ecPublicKey = '1.2.840.10045.2.1';

/** The curves of attestation keys, by object identifier: name of node:crypto, name of JWK, bytes of a coordinate. */
const curves = {
  '1.2.840.10045.3.1.7': { curve: p256, name: 'prime256v1', crv: 'P-256', size: 32 },
  '1.3.132.0.34': { curve: p384, name: 'secp384r1', crv: 'P-384', size: 48 },
  '1.3.132.0.35': { curve: p521, name: 'secp521r1', crv: 'P-521', size: 66 },
} as const;
type CurveOid = keyof typeof curves;

type Material =
  | { readonly type: 'ec'; readonly oid: CurveOid; readonly point: Buffer }
  | { readonly type: 'rsa' | 'rsa-pss'; readonly rsa: RsaPublicKey; readonly n: Buffer; readonly e: Buffer };

/** How a signature is encoded, as the options of node:crypto's `verify` say it. */
export interface SignatureOptions {
  readonly dsaEncoding?: 'der' | 'ieee-p1363';
  readonly padding?: number;
  readonly saltLength?: number;
}

/** The values of node:crypto's `constants` that verification uses. */
export const constants = {
  RSA_PKCS1_PADDING: 1,
  RSA_PKCS1_PSS_PADDING: 6,
  RSA_PSS_SALTLEN_DIGEST: -1,
  RSA_PSS_SALTLEN_AUTO: -2,
} as const;

/** The part of node:crypto's `KeyObject` that verifiers use: public keys, RSA and the NIST curves. */
export class KeyObject {
  readonly type = 'public';
  readonly #material: Material;
  readonly #der: Buffer;

  /** @param der SubjectPublicKeyInfo. @throws SealpodError UNSUPPORTED for a kind of key; Error for what is no key */
  constructor(der: Uint8Array) {
    const info = AsnConvert.parse(der, SubjectPublicKeyInfo);
    this.#material = materialOf(info);
    this.#der = Buffer.from(AsnConvert.serialize(info));
  }

  get asymmetricKeyType(): 'ec' | 'rsa' | 'rsa-pss' {
    return this.#material.type;
  }

  get asymmetricKeyDetails(): object {
    return this.#material.type === 'ec'
      ? { namedCurve: curves[this.#material.oid].name }
      : { modulusLength: this.#material.rsa.modulusBits, publicExponent: this.#material.rsa.exponent };
  }

  export({ format }: { readonly format: 'der' | 'pem' | 'jwk' }): Buffer | string | Record<string, string> {
    if (format === 'der') return Buffer.from(this.#der);
    if (format === 'jwk') return this.#jwk();
    const lines = this.#der.toString('base64').replace(/.{1,64}/g, '$&\n');
    return `-----BEGIN PUBLIC KEY-----\n${lines}-----END PUBLIC KEY-----\n`;
  }

  #jwk(): Record<string, string> {
    if (this.#material.type !== 'ec') {
      const { n, e } = this.#material;
      return { kty: 'RSA', n: withoutZeros(n).toString('base64url'), e: withoutZeros(e).toString('base64url') };
    }
    const { curve, crv, size } = curves[this.#material.oid];
    const point = Buffer.from(curve.Point.fromBytes(this.#material.point).toBytes(false));
    return {
      kty: 'EC',
      x: point.subarray(1, 1 + size).toString('base64url'),
      y: point.subarray(1 + size).toString('base64url'),
      crv,
    };
  }

  /** Of one kind and one value, however it was encoded. */
  equals(other: KeyObject): boolean {
    return JSON.stringify([this.type, this.#jwk()]) === JSON.stringify([other.type, other.#jwk()]);
  }

  verify(hash: string, message: Uint8Array, signature: Uint8Array, options: SignatureOptions): boolean {
    const material = this.#material;
    if (material.type === 'ec') {
      const format = options.dsaEncoding === 'ieee-p1363' ? 'compact' : 'der';
      const digest = hashFunction(hash)(message);
      try {
        return curves[material.oid].curve.verify(signature, digest, material.point, {
          prehash: false,
          lowS: false,
          format,
        });
      } catch {
        return false; // A malformed signature is one that does not verify.
      }
    }
    const isPss = material.type === 'rsa-pss' || options.padding === constants.RSA_PKCS1_PSS_PADDING;
    if (!isPss) return verifyPkcs1(material.rsa, hash, message, signature);
    const { saltLength = constants.RSA_PSS_SALTLEN_AUTO } = options;
    const digestBytes = hashFunction(hash)(new Uint8Array()).length;
    return verifyPss(
      material.rsa,
      {
        hash,
        ...(saltLength === constants.RSA_PSS_SALTLEN_AUTO
          ? {}
          : { saltLength: saltLength === constants.RSA_PSS_SALTLEN_DIGEST ? digestBytes : saltLength }),
      },
      message,
      signature,
    );
  }
}

function materialOf({ algorithm, subjectPublicKey }: SubjectPublicKeyInfo): Material {
  const bits = Buffer.from(subjectPublicKey);
  if (algorithm.algorithm === ecPublicKey) {
    const oid = curveOf(algorithm);
    const point = curves[oid].curve.Point.fromBytes(bits);
    point.assertValidity();
    return { type: 'ec', oid, point: bits };
  }
  if (algorithm.algorithm !== rsaEncryption && algorithm.algorithm !== rsassaPss)
    throw new SealpodError('UNSUPPORTED', 'keys of this kind cannot be read outside Node', {
      expected: 'RSA, P-256, P-384 or P-521',
      actual: algorithm.algorithm,
    });
  const [n, e, ...more] = derIntegers(bits);
  if (n === undefined || e === undefined || more.length > 0) throw new RangeError('malformed RSA key');
  return { type: algorithm.algorithm === rsaEncryption ? 'rsa' : 'rsa-pss', rsa: rsaPublicKey(n, e), n, e };
}

function curveOf({ parameters }: AlgorithmIdentifier): CurveOid {
  const found = Object.keys(curves).find(
    (oid) => parameters !== undefined && parameters !== null && Buffer.from(parameters).equals(encodedOid(oid)),
  );
  if (found === undefined)
    throw new SealpodError('UNSUPPORTED', 'keys on this curve cannot be read outside Node', {
      expected: 'P-256, P-384 or P-521',
    });
  return found as CurveOid;
}

/** DER of an object identifier: the first member of an algorithm identifier. */
function encodedOid(oid: string): Buffer {
  return Buffer.from(AsnConvert.serialize(new AlgorithmIdentifier({ algorithm: oid }))).subarray(2);
}

type KeyInput = string | Uint8Array | { readonly key: unknown; readonly format?: string; readonly type?: string };

/** Reads SubjectPublicKeyInfo (DER or PEM) or a JWK, as node:crypto's function of that name. */
export function createPublicKey(input: KeyInput | KeyObject): KeyObject {
  if (input instanceof KeyObject) return input;
  if (typeof input === 'string') return new KeyObject(pem(input));
  if (input instanceof Uint8Array) return new KeyObject(pem(Buffer.from(input).toString('latin1')));
  if (input.format === 'jwk') return new KeyObject(jwkInfo(input.key as Readonly<Record<string, string>>));
  if (input.format === 'der' && input.type === 'spki') return new KeyObject(input.key as Uint8Array);
  return createPublicKey(input.key as string | Uint8Array);
}

function pem(text: string): Buffer {
  const [, base64] = /-----BEGIN PUBLIC KEY-----([^-]+)-----END PUBLIC KEY-----/.exec(text) ?? [];
  if (base64 === undefined) throw new RangeError('no public key in the PEM text');
  return Buffer.from(base64, 'base64');
}

function jwkInfo(jwk: Readonly<Record<string, string>>): Buffer {
  const member = (name: string): Buffer => Buffer.from(jwk[name] ?? '', 'base64url');
  const info = (algorithm: string, parameters: Buffer, key: Buffer): Buffer =>
    Buffer.from(
      AsnConvert.serialize(
        new SubjectPublicKeyInfo({
          algorithm: new AlgorithmIdentifier({ algorithm, parameters: arrayBuffer(parameters) }),
          subjectPublicKey: arrayBuffer(key),
        }),
      ),
    );
  if (jwk['kty'] === 'RSA') {
    const key = derSequence(derInteger(member('n')), derInteger(member('e')));
    return info(rsaEncryption, Buffer.from([5, 0]), key);
  }
  const [oid] = Object.entries(curves).find(([, { crv }]) => crv === jwk['crv']) ?? [];
  if (jwk['kty'] !== 'EC' || oid === undefined)
    throw new SealpodError('UNSUPPORTED', 'keys of this kind cannot be read outside Node', {
      expected: 'RSA, P-256, P-384 or P-521',
    });
  const { size } = curves[oid as CurveOid];
  const [x, y] = [member('x'), member('y')];
  if (x.length !== size || y.length !== size) throw new RangeError('a coordinate is of a wrong length');
  return info(ecPublicKey, encodedOid(oid), Buffer.concat([Buffer.from([4]), x, y]));
}

/** Verifies a signature as node:crypto's function of that name. False for a malformed one. */
export function verify(
  hash: string,
  message: Uint8Array,
  key: KeyObject | (SignatureOptions & { readonly key: KeyObject }),
  signature: Uint8Array,
): boolean {
  return key instanceof KeyObject
    ? key.verify(hash, message, signature, {})
    : createPublicKey(key.key).verify(hash, message, signature, key);
}

function withoutZeros(bytes: Buffer): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first < 0 ? Buffer.alloc(1) : bytes.subarray(first);
}

/** The library takes array buffers, and a buffer's may be larger than it. */
function arrayBuffer(bytes: Uint8Array): ArrayBuffer {
  return new OctetString(Uint8Array.from(bytes)).buffer;
}
