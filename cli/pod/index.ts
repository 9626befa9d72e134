/**
 * What the owner of a pod tells its guest: the policy of the agent, and the initdata document that carries it.
 *
 * @module
 */
export { type AgentPolicyInput, agentPolicy, type ContainerPolicy } from './agent-policy.ts';
export { type PodInitdataInput, podInitdata } from './initdata.ts';
