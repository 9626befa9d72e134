export type { AttestationServiceConfig, TokenConfig } from './config.ts';
export type { RootConfiguration } from './endorsements/enrolled-roots.ts';
export { connectAttestationService, type GrpcClientOptions } from './grpc/client.ts';
export { createAttestationService } from './local-service.ts';
export { builtInPolicies, simulatedTpmPolicy } from './policy/built-in.ts';
export { type ReferenceValuesConfig, readReferenceValuesConfig } from './reference-values/config.ts';
export {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type EvidenceToEvaluate,
  type StoredPolicy,
  type StoredReferenceValue,
} from './service.ts';
export { type CcaConfig, readCcaConfig } from './verifiers/cca/config.ts';
export { type HygonConfig, readHygonConfig } from './verifiers/hygon/config.ts';
export { type NitroConfig, readNitroConfig } from './verifiers/nitro/config.ts';
export { type NvidiaConfig, readNvidiaConfig } from './verifiers/nvidia/config.ts';
export { type DpuConfig, readDpuConfig } from './verifiers/nvidia-dpu/config.ts';
export { readSeConfig, type SeConfig } from './verifiers/se/config.ts';
export { readSnpConfig, type SnpConfig } from './verifiers/snp/config.ts';
export { readTrustAuthorityConfig, type TrustAuthorityConfig } from './verifiers/trust-authority/config.ts';
