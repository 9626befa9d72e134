/**
 * What the owner of a pod lets its guest do, where there is no manifest to derive it from.
 *
 * @module
 */
export { type AgentPolicyInput, agentPolicy, type ContainerPolicy } from './agent-policy.ts';
