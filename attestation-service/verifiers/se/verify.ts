import { createHmac, timingSafeEqual } from 'node:crypto';
import { regularise } from '@sealpod/protocol/rcar';
import { parseSeRequest, type SeAttestationRequest, type SeAttestationResponse } from '@sealpod/protocol/se';
import type { Verdict } from '@sealpod/protocol/verdict';
import type { HostKey } from '../../endorsements/ibm/host-keys.ts';
import { allOf, check } from '../check.ts';
import { checkUnboundInitdata } from '../unbound-initdata.ts';
import type { Expectations } from '../verifier.ts';
import { additionalBytes, type RequestSecrets } from './request.ts';
import type { SecretSeal } from './seal.ts';

const hashBytes = 32;
const reportDataBytes = 64;

/** The hashes that the Ultravisor put into the additional data. */
export interface HostKeyHashes {
  /** Of the host key that opened the image. */
  readonly image: Buffer;
  /** Of the host key that opened the request. */
  readonly attestation: Buffer;
}

/** Undefined where the additional data hold less. What follows is for later versions. */
export function hostKeyHashes({ additionalData }: SeAttestationResponse): HostKeyHashes | undefined {
  if (additionalData.length < additionalBytes) return undefined;
  return {
    image: additionalData.subarray(0, hashBytes),
    attestation: additionalData.subarray(hashBytes, 2 * hashBytes),
  };
}

/** Verifies evidence: a checklist. */
export function verifySeEvidence(
  evidence: SeAttestationResponse,
  seal: SecretSeal,
  imageHeaderTags: readonly Buffer[],
  hostKeys: readonly HostKey[],
  expectations: Expectations,
): Verdict {
  const secrets = seal.open({ measurementKey: evidence.sealedMeasurementKey, nonce: evidence.sealedRequestNonce });
  return allOf('se evidence', [
    check('sealed measurement key', secrets !== undefined, 'EV_NONCE_MISMATCH', {
      expected: 'the values of a challenge of this service',
      actual: 'values that do not open',
    }),
    checkChallenge(evidence, expectations.nonce),
    checkImage(evidence, imageHeaderTags),
    ...(secrets === undefined ? [] : [checkMeasurement(evidence, secrets)]),
    checkHostKey(evidence, hostKeys),
    checkUserData(evidence, expectations.reportData),
    checkUnboundInitdata(expectations.initDataDigest),
  ]);
}

/** The nonce of the session is the whole challenge, whose values must be those that came back. */
function checkChallenge(evidence: SeAttestationResponse, nonce: string | undefined): Verdict {
  const name = 'challenge of the session';
  if (nonce === undefined) return check(name, true, 'EV_NONCE_MISMATCH');
  const asked = challengeOf(nonce);
  const same =
    asked?.sealedMeasurementKey.equals(evidence.sealedMeasurementKey) === true &&
    asked.sealedRequestNonce.equals(evidence.sealedRequestNonce);
  return check(name, same, 'EV_NONCE_MISMATCH', {
    expected: 'the values that this session was asked with',
    actual: 'those of another challenge',
  });
}

/** Undefined for a nonce that is no challenge of this TEE: there is nothing then that the evidence could answer. */
function challengeOf(nonce: string): SeAttestationRequest | undefined {
  try {
    return parseSeRequest(nonce);
  } catch {
    return undefined;
  }
}

/** The guest says which image it runs, and the measurement proves it: so it has to be one of ours. */
function checkImage({ imageHeaderTags }: SeAttestationResponse, accepted: readonly Buffer[]): Verdict {
  const shown = (tags: Buffer): string => tags.subarray(-16).toString('hex');
  return check(
    'image header',
    accepted.some((tags) => tags.equals(imageHeaderTags)),
    'RV_MISMATCH',
    {
      expected: `a header with tag ${accepted.map(shown).join(' or ')}`,
      actual: `one with tag ${shown(imageHeaderTags)}`,
      source: 'configured image headers',
    },
  );
}

function checkMeasurement(evidence: SeAttestationResponse, { measurementKey, nonce }: RequestSecrets): Verdict {
  const actual = measure(evidence, measurementKey, nonce);
  return check('measurement', timingSafeEqual(actual, evidence.measurement), 'EV_SIGNATURE', {
    expected: 'HMAC of header, guest, user data, nonce and additional data, by the key of the request',
    actual: 'another value',
    source: 's390-tools: pvattest, attestation measurement',
  });
}

/** What the Ultravisor measures (s390-tools: rust/pv, `AttestationItems`). */
export function measure(
  { imageHeaderTags, configurationId, userData, additionalData }: Omit<SeAttestationResponse, 'measurement'>,
  measurementKey: Buffer,
  nonce: Buffer,
): Buffer {
  const lengths = Buffer.alloc(8);
  lengths.writeUInt16BE(userData.length, 0);
  lengths.writeUInt32BE(additionalData.length, 4);
  return createHmac('sha512', measurementKey)
    .update(Buffer.concat([imageHeaderTags, configurationId, lengths, userData, nonce, additionalData]))
    .digest();
}

function checkHostKey(evidence: SeAttestationResponse, hostKeys: readonly HostKey[]): Verdict {
  const attestation = hostKeyHashes(evidence)?.attestation;
  const known = attestation !== undefined && hostKeys.some(({ hash }) => hash.equals(attestation));
  return check('host key of the machine', known, 'EV_CERT_CHAIN', {
    expected: 'a verified host key document',
    actual: attestation?.toString('hex') ?? 'no hash in the additional data',
    source: 'host key documents',
  });
}

function checkUserData({ userData }: SeAttestationResponse, reportData: Buffer | undefined): Verdict {
  const field = reportData && regularise(reportData, reportDataBytes);
  const actual = userData.subarray(0, reportDataBytes);
  return check('report data', field === undefined || field.equals(actual), 'EV_BINDING_MISMATCH', {
    expected: field?.toString('hex') ?? '',
    actual: actual.toString('hex'),
    source: 'digest of nonce and tee-pubkey, in SHA-512',
  });
}
