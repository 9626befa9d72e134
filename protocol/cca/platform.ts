import { asCborArray, asCborMap, type CborMap } from '../cose/index.ts';
import { SealpodError } from '../errors.ts';
import { ClaimSet, measurementBytes } from './claim-set.ts';

/** Profiles of platform tokens: of the first tokens, and of drafts 00 to 02 and 03 of draft-ffm-rats-cca-token. */
export const platformProfiles = {
  'http://arm.com/CCA-SSD/1.0.0': 'first',
  'tag:arm.com,2023:cca_platform#1.0.0': '2023',
  'tag:arm.com,2024:cca_platform#2.0.0': '2024',
} as const;

/** Labels of the claims (draft-ffm-rats-cca-token section 4.6). */
const label = {
  challenge: 10,
  instanceId: 256,
  profile: 265,
  clientId: 2394,
  lifecycle: 2395,
  implementationId: 2396,
  softwareComponents: 2399,
  verificationService: 2400,
  configuration: 2401,
  hashAlgorithm: 2402,
  manufacturingConfiguration: 2403,
} as const;

const componentLabel = { type: 1, value: 2, version: 4, signer: 5, hashAlgorithm: 6 } as const;
const maxComponents = 256;

/** One measured component of the platform's firmware. */
export interface CcaComponent {
  readonly type?: string;
  readonly measurement: Buffer;
  readonly signer: Buffer;
  readonly version?: string;
  readonly hashAlgorithm?: string;
}

/** Claims of a platform token. */
export interface CcaPlatform {
  readonly profile: keyof typeof platformProfiles;
  /** Digest of the realm attestation key, in tokens of realms. */
  readonly challenge: Buffer;
  /** 32 bytes: the kind of platform. */
  readonly implementationId: Buffer;
  /** 33 bytes: this platform. */
  readonly instanceId: Buffer;
  readonly configuration: Buffer;
  readonly lifecycle: number;
  readonly components: readonly CcaComponent[];
  readonly hashAlgorithm: string;
  readonly verificationService?: string;
  readonly manufacturingConfiguration?: Buffer;
}

/** The states a platform may be in (draft-ffm-rats-cca-token section 4.4.3), by the upper byte of the claim. */
const lifecycles = [
  'unknown',
  'assembly-and-test',
  'cca-platform-rot-provisioning',
  'secured',
  'non-cca-platform-rot-debug',
  'recoverable-cca-platform-rot-debug',
  'decommissioned',
] as const;

/** A state of the platform's life. */
export type CcaLifecycle = (typeof lifecycles)[number];

/** The state that a value of the claim names; undefined for a value that names none. */
export function ccaLifecycle(value: number): CcaLifecycle | undefined {
  return (value & 0x0f00) === 0 && value >= 0 ? lifecycles[value >> 12] : undefined;
}

/** Reads the claims of a platform token. Unknown claims are passed over (RFC 9711 section 1.3). @throws SealpodError EV_FORMAT */
export function readPlatformClaims(map: CborMap): CcaPlatform {
  const claims = new ClaimSet(map);
  const profile = claims.text(label.profile, 'platform profile');
  if (!isPlatformProfile(profile)) {
    throw new SealpodError('EV_FORMAT', 'the platform token is of an unknown profile', {
      expected: Object.keys(platformProfiles).join(' or '),
      actual: profile.slice(0, 100),
    });
  }
  const instanceId = claims.bytes(label.instanceId, 'platform instance id', 33);
  if (instanceId[0] !== 1) {
    throw new SealpodError('EV_FORMAT', 'the platform instance id is of another kind', {
      expected: 'a UEID of type RAND (1)',
      actual: `type ${instanceId[0]}`,
    });
  }
  if (platformProfiles[profile] === '2024' && claims.integer(label.clientId, 'platform client id') !== 1)
    throw new SealpodError('EV_FORMAT', 'the platform client id is another', { expected: '1' });
  const components = asCborArray(claims.value(label.softwareComponents), 'platform software components');
  if (components.length === 0 || components.length > maxComponents) {
    throw new SealpodError('EV_FORMAT', 'wrong number of platform software components', {
      expected: `1 to ${maxComponents}`,
      actual: `${components.length}`,
    });
  }
  const verificationService = claims.optionalText(label.verificationService, 'platform verification service');
  return {
    profile,
    challenge: claims.bytes(label.challenge, 'platform challenge', ...measurementBytes),
    implementationId: claims.bytes(label.implementationId, 'platform implementation id', 32),
    instanceId,
    configuration: claims.bytes(label.configuration, 'platform configuration'),
    lifecycle: claims.integer(label.lifecycle, 'platform lifecycle'),
    components: components.map((component) => readComponent(asCborMap(component, 'platform software component'))),
    hashAlgorithm: claims.text(label.hashAlgorithm, 'platform hash algorithm'),
    ...(verificationService === undefined ? {} : { verificationService }),
    ...(claims.has(label.manufacturingConfiguration)
      ? {
          manufacturingConfiguration: claims.bytes(
            label.manufacturingConfiguration,
            'platform manufacturing configuration',
          ),
        }
      : {}),
  };
}

function isPlatformProfile(profile: string): profile is keyof typeof platformProfiles {
  return Object.hasOwn(platformProfiles, profile);
}

function readComponent(map: CborMap): CcaComponent {
  const claims = new ClaimSet(map);
  const type = claims.optionalText(componentLabel.type, 'type of a component');
  const version = claims.optionalText(componentLabel.version, 'version of a component');
  const hashAlgorithm = claims.optionalText(componentLabel.hashAlgorithm, 'hash algorithm of a component');
  return {
    ...(type === undefined ? {} : { type }),
    measurement: claims.bytes(componentLabel.value, 'measurement of a component', ...measurementBytes),
    signer: claims.bytes(componentLabel.signer, 'signer of a component', ...measurementBytes),
    ...(version === undefined ? {} : { version }),
    ...(hashAlgorithm === undefined ? {} : { hashAlgorithm }),
  };
}
