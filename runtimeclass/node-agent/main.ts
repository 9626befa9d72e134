/**
 * The node agent: `node-agent.mjs --config FILE [--kubeconfig FILE]`.
 *
 * Makes the node able to run pods of the runtime class and keeps it so. SIGTERM and SIGINT end it; what runs on the host
 * goes on. With `--uninstall [--wait SECONDS] [--force]` it takes everything off the node instead, and exits.
 * Logs JSON lines to standard error. Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.
 *
 * @module
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { takeLock } from '@sealpod/processes';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { NodeAgent } from './agent.ts';
import { type NodeAgentConfig, parseNodeAgentConfig } from './config.ts';
import { publishPodEvents } from './events/index.ts';
import { serveHealth } from './health.ts';
import { NodeInstallation } from './installation.ts';
import { createLog, type Log } from './log.ts';
import { NodeAgentMetrics } from './metrics.ts';
import { KubernetesNode, thisNode } from './node.ts';
import { readPayloadRecord } from './payload.ts';
import { uninstall } from './uninstall.ts';

const options = {
  config: { type: 'string' },
  kubeconfig: { type: 'string' },
  uninstall: { type: 'boolean', default: false },
  wait: { type: 'string', default: '0' },
  force: { type: 'boolean', default: false },
} as const;

function readConfig(path: string | undefined): NodeAgentConfig {
  if (path === undefined) throw new SealpodError('USAGE', 'usage: node-agent --config FILE [--uninstall [--force]]');
  try {
    return parseNodeAgentConfig(readFileSync(path, 'utf8'), path);
  } catch (cause) {
    if (cause instanceof SealpodError) throw cause;
    throw new SealpodError('USAGE', `the configuration ${path} cannot be read`, { cause });
  }
}

async function serve(config: NodeAgentConfig, kubeconfig: string | undefined, log: Log): Promise<void> {
  const installation = new NodeInstallation(config);
  const release = readPayloadRecord(config.payload);
  const metrics = new NodeAgentMetrics();
  const { kubeConfig, name: nodeName } = thisNode(process.env, kubeconfig);
  const node = new KubernetesNode({ kubeConfig, name: nodeName }, config);
  const agent = new NodeAgent({ installation, release, node, metrics, log });
  const statusSocket = installation.host.path(installation.layout.adaptorStatusSocket);
  const { containerd, health, intervalSeconds } = config;
  // The longest that one look may take: both services, and containerd restarted twice.
  const longestLookMs = 1000 * (intervalSeconds + 300 + 2 * containerd.readyTimeoutSeconds);
  const server = await serveHealth({
    ...health,
    status: () => agent.status,
    metrics,
    longestLookMs,
    adaptorSocket: statusSocket,
  });
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => ending.abort());
  log.info({ release: release.version, digest: release.digest, ...health }, 'looking after the node');
  const { signal } = ending;
  await Promise.all([agent.run(signal), publishPodEvents({ statusSocket, kubeConfig, nodeName, signal, log })]);
  server.closeAllConnections();
  server.close();
  log.info({}, 'ending; what runs on the node goes on');
}

let log = createLog('info');
try {
  const { values } = parseArgs({ options, strict: true });
  const config = readConfig(values.config);
  log = createLog(config.logLevel);
  const installation = new NodeInstallation(config);
  const lockFile = installation.host.path(installation.layout.lockFile);
  mkdirSync(dirname(lockFile), { recursive: true, mode: 0o755 });
  const lock = await takeLock(lockFile, 'node agent');
  try {
    if (values.uninstall) {
      const node = new KubernetesNode(thisNode(process.env, values.kubeconfig), config);
      const waitMs = 1000 * Number(values.wait);
      if (!Number.isFinite(waitMs) || waitMs < 0) throw new SealpodError('USAGE', '--wait takes a number of seconds');
      await uninstall(installation, node, { force: values.force, waitMs }, log);
    } else await serve(config, values.kubeconfig, log);
  } finally {
    await lock.release();
  }
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  log.error({ code: error.code, ...error.detail, fix: fixOf(error) }, error.message);
  process.exitCode = error.code === 'USAGE' ? 2 : 1;
}
process.exit();
