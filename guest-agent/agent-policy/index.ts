export { AgentPolicy, type AgentPolicyOptions, denyAllPolicy, type PolicyDecision } from './agent-policy.ts';
