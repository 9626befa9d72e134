export {
  AttestationRefused,
  type AttestationService,
  type EvaluateRequest,
  type Evaluation,
  type EvidenceToEvaluate,
  type StoredPolicy,
  type StoredReferenceValue,
} from './service.ts';
