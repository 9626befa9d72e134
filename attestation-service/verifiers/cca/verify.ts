import { createHash, timingSafeEqual } from 'node:crypto';
import { type CcaLifecycle, type CcaToken, ccaLifecycle } from '@sealpod/protocol/cca';
import { type CoseSign1, coseAlgorithmName, verifyCoseSign1 } from '@sealpod/protocol/cose';
import { regularise } from '@sealpod/protocol/rcar';
import type { Verdict } from '@sealpod/protocol/verdict';
import { check } from '../check.ts';
import type { Expectations } from '../verifier.ts';
import type { PlatformAnchor } from './stores.ts';

/** What the operator decided about CCA tokens. */
export interface CcaRules {
  /** Platforms are accepted whose parts outside the CCA root of trust can be debugged. */
  readonly allowNonCcaDebug: boolean;
}

/** Hash algorithms by IANA's names for text; no other may bind or measure anything. */
const hashes: Readonly<Record<string, string>> = { 'sha-256': 'sha256', 'sha-384': 'sha384', 'sha-512': 'sha512' };

/**
 * What a token proves of itself: the realm's key signed the realm token and is the one that the platform token vouches
 * for, the platform is in a state in which its tokens mean something, and the realm is bound to this session.
 */
export function checkToken(token: CcaToken, rules: CcaRules, expectations: Expectations): Verdict[] {
  return [
    checkLifecycle(token, rules),
    checkHashAlgorithms(token),
    checkSignature('realm token signature', token.realmMessage, token.realm.publicKey, 'the realm attestation key'),
    checkRealmKey(token),
    checkChallenge(token, expectations.reportData),
    checkPersonalization(token, expectations.initDataDigest),
  ];
}

/** The platform's key is enrolled, for this implementation, and signed the platform token. */
export function checkPlatformKey(token: CcaToken, anchors: readonly PlatformAnchor[]): Verdict[] {
  const { instanceId, implementationId } = token.platform;
  const anchor = anchors.find((candidate) => candidate.instanceId.equals(instanceId));
  const enrolled = check('platform attestation key', anchor !== undefined, 'EV_CERT_CHAIN', {
    expected: 'an instance in the trust-anchor store',
    actual: instanceId.toString('hex'),
    source: 'trust-anchor store',
  });
  if (anchor === undefined) return [enrolled];
  return [
    enrolled,
    check('platform implementation', anchor.implementationId.equals(implementationId), 'EV_PART_MIX', {
      expected: anchor.implementationId.toString('hex'),
      actual: implementationId.toString('hex'),
      source: 'trust-anchor store',
    }),
    checkSignature('platform token signature', token.platformMessage, anchor.key, 'the enrolled platform key'),
  ];
}

function checkSignature(name: string, message: CoseSign1, key: PlatformAnchor['key'], by: string): Verdict {
  return check(name, verifyCoseSign1(message, key), 'EV_SIGNATURE', {
    expected: `a signature by ${by}`,
    actual: `it does not verify (algorithm ${coseAlgorithmName(message.algorithm)})`,
    source: 'RFC 9052 section 4.4',
  });
}

function checkLifecycle({ platform }: CcaToken, { allowNonCcaDebug }: CcaRules): Verdict {
  const state = ccaLifecycle(platform.lifecycle);
  const accepted: readonly CcaLifecycle[] = allowNonCcaDebug ? ['secured', 'non-cca-platform-rot-debug'] : ['secured'];
  return check('platform lifecycle', state !== undefined && accepted.includes(state), 'EV_DEBUG_ON', {
    expected: accepted.join(' or '),
    actual: `${state ?? 'no state'} (0x${platform.lifecycle.toString(16)})`,
    source: 'draft-ffm-rats-cca-token section 4.4.3',
  });
}

function checkHashAlgorithms({ platform, realm }: CcaToken): Verdict {
  const used = [
    platform.hashAlgorithm,
    ...platform.components.flatMap(({ hashAlgorithm }) => hashAlgorithm ?? []),
    realm.hashAlgorithm,
    realm.publicKeyHashAlgorithm,
  ];
  const other = used.find((name) => !Object.hasOwn(hashes, name));
  return check('hash algorithms', other === undefined, 'EV_FORMAT', {
    expected: Object.keys(hashes).join(', '),
    actual: other?.slice(0, 100) ?? '',
  });
}

/** The platform token vouches for a realm key by its digest, and for no other. */
function checkRealmKey({ platform, realm }: CcaToken): Verdict {
  const algorithm = Object.hasOwn(hashes, realm.publicKeyHashAlgorithm)
    ? hashes[realm.publicKeyHashAlgorithm]
    : undefined;
  const digest =
    algorithm === undefined ? Buffer.alloc(0) : createHash(algorithm).update(realm.publicKeyBytes).digest();
  return check('realm attestation key', equal(digest, platform.challenge), 'EV_PART_MIX', {
    expected: platform.challenge.toString('hex'),
    actual: digest.toString('hex') || realm.publicKeyHashAlgorithm.slice(0, 100),
    source: 'challenge of the platform token',
  });
}

function checkChallenge({ realm }: CcaToken, expected: Buffer | undefined): Verdict {
  const field = expected && regularise(expected, 64);
  // Upstream refuses tokens that are bound to nothing; so does this.
  return check('realm challenge', field !== undefined && equal(field, realm.challenge), 'EV_BINDING_MISMATCH', {
    expected: field?.toString('hex') ?? 'runtime data in the request',
    actual: realm.challenge.toString('hex'),
    source: 'digest of nonce and tee-pubkey',
  });
}

function checkPersonalization({ realm }: CcaToken, expected: Buffer | undefined): Verdict {
  const field = expected && regularise(expected, 64);
  const holds = field === undefined || equal(field, realm.personalizationValue);
  return check('realm personalization value', holds, 'INITDATA_DIGEST', {
    expected: field?.toString('hex') ?? '',
    actual: realm.personalizationValue.toString('hex'),
    source: 'initdata',
  });
}

function equal(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
