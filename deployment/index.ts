/**
 * Every object of an installation, written down once: the Helm chart is made from it, and so is what the controller
 * applies.
 *
 * @module
 */
export { webhookConfigurationName } from './objects/admission.ts';
export { controllerHealthPort, controllerName } from './objects/controller.ts';
export {
  type KeyBrokerDefaults,
  keyBrokerHosts,
  keyBrokerManifests,
  keyBrokerNames,
  keyBrokerUrl,
} from './objects/key-broker.ts';
export { chartManifests, runtimeManifests, singleNodeManifests, standardValues } from './objects/manifests.ts';
export { nodeAgentName } from './objects/node-agent.ts';
export { podVmImageLabel, podVmImageManifest, podVmImageName } from './objects/pod-vm-image.ts';
export { removalAnnotation, removalPatch } from './objects/removal.ts';
export { webhookName, webhookSecretName } from './objects/webhook.ts';
export { apiGroup, apiVersion, customResourceDefinition, resourceDefinitions } from './resources/definitions.ts';
export type { PodVmImageSpec, ReferenceValuesSpec, TrustServiceSpec } from './resources/settings.ts';
export type { ChartValues } from './values/chart.ts';
export type { RuntimeValues } from './values/runtime.ts';
