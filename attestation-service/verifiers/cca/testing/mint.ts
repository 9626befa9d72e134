import { createHash, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { type CborValue, encodeCbor } from '@sealpod/protocol/cose';
import { cborTagged, type MintSign1Options, mintCoseSign1 } from '@sealpod/protocol/cose/testing';
import type { JsonObject } from '@sealpod/protocol/json';
import type { CcaStores } from '../stores.ts';

/** Profiles of minted tokens. */
export type MintedProfile = 'first' | '2023' | '2024';

type Claims = Map<CborValue, CborValue>;

/** How a minted token differs from a genuine one; changes are made before the signatures. */
export interface MintFaults {
  readonly profile?: MintedProfile;
  readonly platform?: (claims: Claims) => void;
  readonly realm?: (claims: Claims) => void;
  /** Signs the platform token instead of the platform's key. */
  readonly platformKey?: KeyObject;
  /** Signs the realm token instead of the realm's key. */
  readonly realmKey?: KeyObject;
  readonly options?: MintSign1Options;
}

const profiles = {
  first: { platform: 'http://arm.com/CCA-SSD/1.0.0' },
  '2023': { platform: 'tag:arm.com,2023:cca_platform#1.0.0', realm: 'tag:arm.com,2023:realm#1.0.0' },
  '2024': { platform: 'tag:arm.com,2024:cca_platform#2.0.0', realm: 'tag:arm.com,2024:realm#2.0.0' },
} as const;

/** A test's Arm platform with one realm. */
export class TestPlatform {
  readonly key = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  readonly realmKey = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  readonly implementationId = randomBytes(32);
  readonly instanceId = Buffer.concat([Buffer.from([1]), randomBytes(32)]);
  readonly configuration = Buffer.from('cfcfcfcf', 'hex');
  readonly components = ['BL', 'RMM'].map((type) => ({ type, measurement: randomBytes(32), signer: randomBytes(32) }));
  readonly initialMeasurement = randomBytes(64);
  readonly extensibleMeasurements = [0, 1, 2, 3].map(() => randomBytes(64));

  /** Stores that know this platform and realm. */
  stores(change: Partial<CcaStores> = {}): CcaStores {
    const { implementationId, instanceId, configuration, components, initialMeasurement, extensibleMeasurements } =
      this;
    return {
      anchors: [{ instanceId, implementationId, key: this.key.publicKey }],
      platforms: [{ implementationId, configuration, components }],
      realms: [{ initialMeasurement, extensibleMeasurements }],
      ...change,
    };
  }

  /** A token for a challenge and a personalization value of 64 bytes each. */
  token(challenge: Buffer, personalization: Buffer, faults: MintFaults = {}): Buffer {
    const { profile = 'first' } = faults;
    const realm = this.#realmClaims(profile, challenge, personalization);
    const keyBytes = realm.get(44237) as Buffer;
    const platform = this.#platformClaims(profile, createHash('sha256').update(keyBytes).digest());
    faults.realm?.(realm);
    faults.platform?.(platform);
    const parts = {
      platform: mintCoseSign1(encodeCbor(platform), faults.platformKey ?? this.key.privateKey, faults.options),
      realm: mintCoseSign1(encodeCbor(realm), faults.realmKey ?? this.realmKey.privateKey, faults.options),
    };
    const wrapped = (part: Buffer): CborValue => (profile === '2024' ? [263, part] : part);
    const collection = encodeCbor(
      new Map<CborValue, CborValue>([
        [44234, wrapped(parts.platform)],
        [44241, wrapped(parts.realm)],
      ]),
    );
    return cborTagged(profile === '2024' ? 907 : 399, collection);
  }

  #platformClaims(profile: MintedProfile, challenge: Buffer): Claims {
    const claims: Claims = new Map<CborValue, CborValue>([
      [10, challenge],
      [256, this.instanceId],
      [265, profiles[profile].platform],
      [2395, 0x3003],
      [2396, this.implementationId],
      [2399, this.components.map(({ type, measurement, signer }) => component(type, measurement, signer))],
      [2400, 'https://veraison.example/'],
      [2401, this.configuration],
      [2402, 'sha-256'],
    ]);
    if (profile === '2024') claims.set(2394, 1);
    return claims;
  }

  #realmClaims(profile: MintedProfile, challenge: Buffer, personalization: Buffer): Claims {
    const { x = '', y = '' } = this.realmKey.publicKey.export({ format: 'jwk' });
    const [bytesX, bytesY] = [Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')];
    const coseKey = new Map<CborValue, CborValue>([
      [1, 2],
      [-1, 2],
      [-2, bytesX],
      [-3, bytesY],
    ]);
    const claims: Claims = new Map<CborValue, CborValue>([
      [10, challenge],
      [44235, personalization],
      [44236, 'sha-512'],
      [44237, profile === 'first' ? Buffer.concat([Buffer.from([4]), bytesX, bytesY]) : encodeCbor(coseKey)],
      [44238, this.initialMeasurement],
      [44239, this.extensibleMeasurements],
      [44240, 'sha-256'],
    ]);
    if (profile !== 'first') claims.set(265, profiles[profile].realm);
    if (profile === '2024') {
      claims.set(44243, 'private');
      claims.set(256, this.instanceId);
    }
    return claims;
  }
}

function component(type: string, measurement: Buffer, signer: Buffer): Claims {
  return new Map<CborValue, CborValue>([
    [1, type],
    [2, measurement],
    [5, signer],
    [6, 'sha-256'],
  ]);
}

/** Evidence as the guest sends it. */
export function ccaEvidence(token: Buffer): JsonObject {
  return { token: [...token] };
}
