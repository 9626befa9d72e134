import { createPublicKey, type KeyObject } from 'node:crypto';
import { SealpodError } from '../errors.ts';
import { asCborBytes, asCborInteger, asCborMap, type CborValue } from './cbor.ts';

/** Labels of COSE_Key (RFC 9052 section 7.1, RFC 9053 section 7.1). */
const label = { keyType: 1, curve: -1, x: -2, y: -3 } as const;
const keyType = { octetKeyPair: 1, ec2: 2 } as const;

const ec2Curves: Readonly<Record<number, { readonly name: string; readonly bytes: number }>> = {
  1: { name: 'P-256', bytes: 32 },
  2: { name: 'P-384', bytes: 48 },
  3: { name: 'P-521', bytes: 66 },
};
const ed25519 = 6;

/**
 * Reads a public COSE_Key: EC2 on P-256, P-384 or P-521 with both coordinates, or Ed25519. That the point lies on its curve
 * is checked; `alg` and `key_ops` are not looked at.
 *
 * @throws SealpodError EV_FORMAT
 */
export function parseCoseKey(value: CborValue, what: string): KeyObject {
  const key = asCborMap(value, what);
  const type = asCborInteger(key.get(label.keyType), `key type of ${what}`);
  const curve = asCborInteger(key.get(label.curve), `curve of ${what}`);
  if (type === keyType.octetKeyPair && curve === ed25519) {
    return importKey(what, {
      kty: 'OKP',
      crv: 'Ed25519',
      x: asCborBytes(key.get(label.x), `x of ${what}`, 32).toString('base64url'),
    });
  }
  const known = ec2Curves[curve];
  if (type !== keyType.ec2 || known === undefined) {
    throw new SealpodError('EV_FORMAT', `${what} is of an unknown type`, {
      expected: 'EC2 on P-256, P-384 or P-521, or Ed25519',
      actual: `key type ${type}, curve ${curve}`,
    });
  }
  const coordinate = (name: 'x' | 'y'): string =>
    asCborBytes(key.get(label[name]), `${name} of ${what}`, known.bytes).toString('base64url');
  return importKey(what, { kty: 'EC', crv: known.name, x: coordinate('x'), y: coordinate('y') });
}

function importKey(what: string, jwk: Record<string, string>): KeyObject {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch (cause) {
    throw new SealpodError('EV_FORMAT', `${what} is not a point of its curve`, { cause });
  }
}
