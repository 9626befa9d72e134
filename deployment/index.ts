/**
 * Every object of an installation, written down once: the Helm chart is made from it, and so is what the controller
 * applies.
 *
 * @module
 */
export { confidentialNamespaceMessage, webhookConfigurationName } from './objects/admission.ts';
export { runtimeManifests, singleNodeManifests } from './objects/manifests.ts';
export { nodeAgentName, podVmImagesFolder } from './objects/node-agent.ts';
export { webhookName, webhookSecretName } from './objects/webhook.ts';
