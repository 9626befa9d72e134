/**
 * The node agent: places the runtime on a node, keeps it there, and takes it away.
 *
 * @module
 */
export { NodeAgent } from './agent.ts';
export { type NodeAgentConfig, parseNodeAgentConfig } from './config.ts';
export { NodeInstallation } from './installation.ts';
export { createLog } from './log.ts';
export { NodeAgentMetrics } from './metrics.ts';
export { readPayloadRecord, writePayloadRecord } from './payload.ts';
export { type AgentStatus, describeStatus } from './status.ts';
export { removeFromHost, uninstall } from './uninstall.ts';
