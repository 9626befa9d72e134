export { AgentPolicy, denyAllPolicy } from './agent-policy.ts';
