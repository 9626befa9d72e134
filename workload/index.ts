/**
 * What a Kubernetes workload says about its pods: how large their machines are, what they cannot have, and what their
 * guests are told to allow.
 *
 * @module
 */
export { type GeneratedPolicy, generatePolicy, type PolicyOptions } from './agent-policy/policy.ts';
export { type ImageResolver, type RegistryAccess, registryImages, type WorkloadImage } from './image/image.ts';
export { type EncodedInitdata, initdataAnnotation, type WorkloadInitdata, workloadInitdata } from './initdata.ts';
export { readContainers } from './kubernetes/manifests.ts';
export type { Container, ObjectMeta, PodSpec } from './kubernetes/types.ts';
export { type PolicyRefusal, policyRefusals } from './policy-refusals.ts';
export { podRefusals, type Refusal } from './refusals.ts';
export { type MachineSize, machineSize, type SizingOptions } from './sizing.ts';
export {
  restoreManifests,
  type Transformed,
  type TransformedWorkload,
  type TransformOptions,
  transformManifests,
} from './transform.ts';
