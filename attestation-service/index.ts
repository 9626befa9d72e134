export type { AttestationServiceConfig, TokenConfig } from './config.ts';
export type { RootConfiguration } from './endorsements/enrolled-roots.ts';
export { connectAttestationService, type GrpcClientOptions } from './grpc/client.ts';
export { createAttestationService } from './local-service.ts';
export { builtInPolicies, simulatedTpmPolicy } from './policy/built-in.ts';
export { readReferenceValuesConfig } from './reference-values/config.ts';
export {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type EvidenceToEvaluate,
  type StoredPolicy,
  type StoredReferenceValue,
} from './service.ts';
export { readVerifiersConfig } from './verifiers/config.ts';
