import { type KeyObject, sign } from 'node:crypto';
import { type CborMap, type CborValue, encodeCbor } from '../cbor.ts';
import { coseHeader, coseSign1Tag, signatureStructure } from '../sign1.ts';

/** How a minted message differs from a plain one. */
export interface MintSign1Options {
  /** Default: of the key's curve. */
  readonly algorithm?: number;
  readonly protectedHeader?: CborMap;
  readonly unprotectedHeader?: CborMap;
  readonly tagged?: boolean;
}

const algorithmOfCurve: Readonly<Record<string, number>> = { prime256v1: -7, secp384r1: -35, secp521r1: -36 };
const hashes: Readonly<Record<number, string>> = { [-7]: 'sha256', [-35]: 'sha384', [-36]: 'sha512' };

/** Puts a CBOR tag before an encoded item. */
export function cborTagged(tag: number, item: Uint8Array): Buffer {
  const head = tag < 24 ? [0xc0 | tag] : tag < 256 ? [0xd8, tag] : [0xd9, tag >> 8, tag & 0xff];
  return Buffer.concat([Buffer.from(head), item]);
}

/** A COSE_Sign1 message signed with an EC key. */
export function mintCoseSign1(payload: Uint8Array, key: KeyObject, options: MintSign1Options = {}): Buffer {
  const algorithm = options.algorithm ?? algorithmOfCurve[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? 0;
  const header = options.protectedHeader ?? new Map<CborValue, CborValue>([[coseHeader.algorithm, algorithm]]);
  const protectedBytes = encodeCbor(header);
  const signed = signatureStructure(protectedBytes, Buffer.alloc(0), payload);
  const signature = sign(hashes[algorithm] ?? 'sha256', signed, { key, dsaEncoding: 'ieee-p1363' });
  const message = encodeCbor([protectedBytes, options.unprotectedHeader ?? new Map(), payload, signature]);
  return options.tagged === false ? message : cborTagged(coseSign1Tag, message);
}
