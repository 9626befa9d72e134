import { type CcaToken, ccaLifecycle } from '@sealpod/protocol/cca';
import { coseAlgorithmName } from '@sealpod/protocol/cose';
import type { JsonObject } from '@sealpod/protocol/json';

/**
 * The claims of a verified token: upstream's, whose bytes are base64 but for `report_data` and `init_data`, and what upstream
 * does not tell under `sealpod`, whose bytes are hexadecimal.
 *
 * @param appraisal what the store or the service found beyond the verdict
 */
export function ccaClaims(token: CcaToken, appraisal: JsonObject): JsonObject {
  const { platform, realm } = token;
  return {
    platform: {
      'cca-platform-instance-id': platform.instanceId.toString('base64'),
      'cca-platform-implementation-id': platform.implementationId.toString('base64'),
    },
    realm: {
      'cca-realm-challenge': realm.challenge.toString('base64'),
      'cca-realm-personalization-value': realm.personalizationValue.toString('base64'),
      'cca-realm-initial-measurement': realm.initialMeasurement.toString('base64'),
      'cca-realm-extensible-measurements': realm.extensibleMeasurements.map((value) => value.toString('base64')),
      'cca-realm-hash-algo-id': realm.hashAlgorithm,
    },
    report_data: realm.challenge.toString('hex'),
    init_data: realm.personalizationValue.toString('hex'),
    sealpod: {
      ...appraisal,
      platform_profile: platform.profile,
      platform_lifecycle: ccaLifecycle(platform.lifecycle) ?? null,
      platform_lifecycle_value: platform.lifecycle,
      platform_configuration: platform.configuration.toString('hex'),
      platform_hash_algorithm: platform.hashAlgorithm,
      platform_signature_algorithm: coseAlgorithmName(token.platformMessage.algorithm),
      platform_components: platform.components.map(({ measurement, signer, type, version, hashAlgorithm }) => ({
        measurement: measurement.toString('hex'),
        signer: signer.toString('hex'),
        type: type ?? null,
        version: version ?? null,
        hash_algorithm: hashAlgorithm ?? platform.hashAlgorithm,
      })),
      verification_service: platform.verificationService ?? null,
      realm_profile: realm.profile ?? null,
      realm_signature_algorithm: coseAlgorithmName(token.realmMessage.algorithm),
      realm_public_key_hash_algorithm: realm.publicKeyHashAlgorithm,
      realm_memory_encryption_policy: realm.memoryEncryptionPolicy ?? null,
      realm_instance_id: realm.instanceId?.toString('hex') ?? null,
    },
  };
}
