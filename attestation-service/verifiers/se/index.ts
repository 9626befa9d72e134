import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import type { JsonObject } from '@sealpod/protocol/json';
import { parseSeEvidence, type SeAttestationResponse, serializeSeRequest } from '@sealpod/protocol/se';
import { type HostKey, verifyHostKeyDocument } from '../../endorsements/ibm/host-keys.ts';
import type { Verifier } from '../verifier.ts';
import { additionalBytes, buildRequest, measurementBytes, newRequestSecrets } from './request.ts';
import { rsaSeal, secretSeal } from './seal.ts';
import type { SeTrust } from './trust.ts';
import { hostKeyHashes, verifySeEvidence } from './verify.ts';

/** Version of the attestation request, as upstream claims it. */
const requestVersion = 0x100;

/**
 * The verifier of TEE `se`. Its challenges carry an attestation request for the Ultravisors of the machines whose host key
 * documents verify at that time.
 *
 * @param challengeKey 32 random bytes shared by all replicas
 */
export function seVerifier(trust: SeTrust, challengeKey: Uint8Array, now: () => Date): Verifier {
  const seal = trust.measurementKey === undefined ? secretSeal(challengeKey) : rsaSeal(trust.measurementKey);
  const verified = keptHostKeys(trust);
  return {
    tee: 'se',
    verify: (value, expectations) => {
      const evidence = parseSeEvidence(value);
      const { keys: known } = verified(expectations.now);
      return {
        verdict: verifySeEvidence(evidence, seal, trust.imageHeaderTags, known, expectations),
        claims: seClaims(evidence, known),
      };
    },
    challenge: () => {
      const { keys, problems } = verified(now());
      if (keys.length === 0)
        throw problems[0] ?? new SealpodError('EV_COLLATERAL_UNAVAILABLE', 'there is no host key document');
      const secrets = newRequestSecrets();
      const { measurementKey, nonce } = seal.seal(secrets);
      return serializeSeRequest({
        requestBlob: buildRequest(secrets, keys),
        measurementSize: measurementBytes,
        additionalSize: additionalBytes,
        sealedMeasurementKey: measurementKey,
        sealedRequestNonce: nonce,
        imageHeaderTags: trust.imageHeaderTags[0] ?? Buffer.alloc(0),
      });
    },
  };
}

interface VerifiedHostKeys {
  readonly keys: readonly HostKey[];
  readonly problems: readonly SealpodError[];
}

const keptMs = 60_000;

/** Documents cost several verifications each, so that what was found is kept for a minute. */
function keptHostKeys(trust: SeTrust): (at: Date) => VerifiedHostKeys {
  let kept: { readonly from: number; readonly found: VerifiedHostKeys } | undefined;
  return (at) => {
    const age = kept === undefined ? Number.NaN : at.getTime() - kept.from;
    if (kept === undefined || !(age >= 0 && age < keptMs))
      kept = { from: at.getTime(), found: verifiedHostKeys(trust, at) };
    return kept.found;
  };
}

/** A document that does not verify is left out, so that one machine's does not stop all others. */
function verifiedHostKeys(trust: SeTrust, at: Date): VerifiedHostKeys {
  const keys: HostKey[] = [];
  const problems: SealpodError[] = [];
  for (const document of trust.hostKeyDocuments) {
    try {
      keys.push(verifyHostKeyDocument(document, trust, at));
    } catch (thrown) {
      problems.push(asSealpodError(thrown));
    }
  }
  return { keys, problems };
}

/** Upstream's claims, and under `sealpod` what it does not tell. */
function seClaims(evidence: SeAttestationResponse, hostKeys: readonly HostKey[]): JsonObject {
  const hashes = hostKeyHashes(evidence);
  const image = hashes?.image;
  return {
    cuid: evidence.configurationId.toString('hex'),
    report_data: evidence.userData.subarray(0, 64).toString('hex'),
    version: requestVersion,
    image_phkh: image?.toString('hex') ?? '',
    attestation_phkh: hashes?.attestation.toString('hex') ?? '',
    tag: evidence.imageHeaderTags.subarray(-16).toString('hex'),
    sealpod: {
      image_header_tags: evidence.imageHeaderTags.toString('hex'),
      image_host_key_known: image !== undefined && hostKeys.some(({ hash }) => hash.equals(image)),
      additional_data: evidence.additionalData.toString('hex'),
      user_data: evidence.userData.toString('hex'),
    },
  };
}
