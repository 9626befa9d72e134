import { createPublicKey, type KeyObject } from 'node:crypto';
import { asCborArray, asCborBytes, type CborMap, decodeCbor, parseCoseKey } from '../cose/index.ts';
import { SealpodError } from '../errors.ts';
import { ClaimSet, measurementBytes } from './claim-set.ts';

/** Profiles of realm tokens. The first tokens named none and carried the point of their key instead of a COSE_Key. */
export const realmProfiles = {
  'tag:arm.com,2023:realm#1.0.0': '2023',
  'tag:arm.com,2024:realm#2.0.0': '2024',
} as const;

/** Labels of the claims (draft-ffm-rats-cca-token section 4.8; RMM specification section A7.2). */
const label = {
  challenge: 10,
  instanceId: 256,
  profile: 265,
  personalizationValue: 44235,
  hashAlgorithm: 44236,
  publicKey: 44237,
  initialMeasurement: 44238,
  extensibleMeasurements: 44239,
  publicKeyHashAlgorithm: 44240,
  memoryEncryptionPolicy: 44243,
} as const;

/** Claims of a realm token. */
export interface CcaRealm {
  readonly profile?: keyof typeof realmProfiles;
  /** 64 bytes. */
  readonly challenge: Buffer;
  /** 64 bytes. */
  readonly personalizationValue: Buffer;
  readonly initialMeasurement: Buffer;
  /** Four. */
  readonly extensibleMeasurements: readonly Buffer[];
  readonly hashAlgorithm: string;
  /** The realm attestation key (RAK). */
  readonly publicKey: KeyObject;
  /** The bytes of the claim, whose digest the platform token has for its challenge. */
  readonly publicKeyBytes: Buffer;
  readonly publicKeyHashAlgorithm: string;
  /** A name, or in tokens of earlier drafts a number. */
  readonly memoryEncryptionPolicy?: 'private' | 'shared' | number;
  readonly instanceId?: Buffer;
}

/** Reads the claims of a realm token. Unknown claims are passed over. @throws SealpodError EV_FORMAT */
export function readRealmClaims(map: CborMap): CcaRealm {
  const claims = new ClaimSet(map);
  const profile = claims.optionalText(label.profile, 'realm profile');
  if (profile !== undefined && !isRealmProfile(profile)) {
    throw new SealpodError('EV_FORMAT', 'the realm token is of an unknown profile', {
      expected: `none or ${Object.keys(realmProfiles).join(' or ')}`,
      actual: profile.slice(0, 100),
    });
  }
  const extensible = asCborArray(claims.value(label.extensibleMeasurements), 'realm extensible measurements');
  if (extensible.length !== 4) {
    throw new SealpodError('EV_FORMAT', 'wrong number of realm extensible measurements', {
      expected: '4',
      actual: `${extensible.length}`,
    });
  }
  const publicKeyBytes = claims.bytes(label.publicKey, 'realm public key');
  return {
    ...(profile === undefined ? {} : { profile }),
    challenge: claims.bytes(label.challenge, 'realm challenge', 64),
    personalizationValue: claims.bytes(label.personalizationValue, 'realm personalization value', 64),
    initialMeasurement: claims.bytes(label.initialMeasurement, 'realm initial measurement', ...measurementBytes),
    extensibleMeasurements: extensible.map((value, index) =>
      asCborBytes(value, `realm extensible measurement ${index}`, ...measurementBytes),
    ),
    hashAlgorithm: claims.text(label.hashAlgorithm, 'realm hash algorithm'),
    // The first tokens have the point itself and name no profile; a COSE_Key begins with the head of a map.
    publicKey: isMap(publicKeyBytes)
      ? parseCoseKey(decodeCbor(publicKeyBytes, { what: 'realm public key' }), 'realm public key')
      : pointKey(publicKeyBytes),
    publicKeyBytes,
    publicKeyHashAlgorithm: claims.text(label.publicKeyHashAlgorithm, 'realm public key hash algorithm'),
    ...(profile !== undefined && realmProfiles[profile] === '2024' ? readNewClaims(claims) : {}),
  };
}

function isRealmProfile(profile: string): profile is keyof typeof realmProfiles {
  return Object.hasOwn(realmProfiles, profile);
}

function readNewClaims(claims: ClaimSet): Pick<CcaRealm, 'memoryEncryptionPolicy' | 'instanceId'> {
  return {
    memoryEncryptionPolicy: readMemoryEncryptionPolicy(claims),
    instanceId: claims.bytes(label.instanceId, 'realm instance id', 33),
  };
}

function readMemoryEncryptionPolicy(claims: ClaimSet): 'private' | 'shared' | number {
  const what = 'realm memory encryption policy';
  if (typeof claims.value(label.memoryEncryptionPolicy) === 'number')
    return claims.integer(label.memoryEncryptionPolicy, what);
  const policy = claims.text(label.memoryEncryptionPolicy, what);
  if (policy === 'private' || policy === 'shared') return policy;
  throw new SealpodError('EV_FORMAT', `the ${what} is unknown`, {
    expected: 'private or shared',
    actual: policy.slice(0, 100),
  });
}

function isMap([head = 0]: Buffer): boolean {
  return head >> 5 === 5;
}

/** The point of the key, uncompressed (SEC 1 section 2.3.3), on P-384. */
function pointKey(point: Buffer): KeyObject {
  const wrong = (cause?: unknown): SealpodError =>
    new SealpodError('EV_FORMAT', 'the realm public key is no point of P-384', {
      expected: '97 bytes, uncompressed',
      actual: `${point.length} bytes`,
      ...(cause === undefined ? {} : { cause }),
    });
  if (point.length !== 97 || point[0] !== 4) throw wrong();
  const [x, y] = [point.subarray(1, 49), point.subarray(49)].map((part) => part.toString('base64url'));
  try {
    return createPublicKey({ key: { kty: 'EC', crv: 'P-384', x: x ?? '', y: y ?? '' }, format: 'jwk' });
  } catch (cause) {
    throw wrong(cause);
  }
}
