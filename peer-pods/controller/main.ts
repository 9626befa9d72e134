/**
 * The controller of sealpod's resources: `node peer-pods/controller/main.ts --config FILE`. Logs JSON lines to standard error.
 *
 * `--uninstall --namespace NAMESPACE [--timeout SECONDS]` takes the runtime off the nodes and exits. `--place-image --from DIR
 * --to DIR --digest DIGEST` and `--remove-image --to DIR --digest DIGEST` do that on a node, and stay until they are ended.
 * The API server is that of the pod, or of the environment's KUBECONFIG.
 * Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.
 *
 * @module
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { KubeConfig } from '@kubernetes/client-node';
import { controllerName } from '@sealpod/deployment';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { fixOf } from '@sealpod/protocol/reason-codes';
import { createLog, type Log } from '../adaptor/log.ts';
import { parseControllerConfig } from './config.ts';
import { Controller } from './controller.ts';
import { serveHealth } from './health-server.ts';
import { KubernetesClient } from './kubernetes/client.ts';
import { LeaderElection } from './kubernetes/leader-election.ts';
import { ownedBy } from './kubernetes/objects.ts';
import { placePodVmImage, removePodVmImage } from './pod-vm-image-files.ts';
import { uninstall } from './uninstall.ts';

const options = {
  config: { type: 'string' },
  uninstall: { type: 'boolean', default: false },
  namespace: { type: 'string' },
  timeout: { type: 'string', default: '300' },
  'place-image': { type: 'boolean', default: false },
  'remove-image': { type: 'boolean', default: false },
  from: { type: 'string' },
  to: { type: 'string' },
  digest: { type: 'string' },
} as const;

type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];

function given(values: Values, name: 'config' | 'namespace' | 'from' | 'to' | 'digest'): string {
  const value = values[name];
  if (value !== undefined) return value;
  throw new SealpodError('USAGE', `--${name} is missing`);
}

function connect(): KubernetesClient {
  const config = new KubeConfig();
  config.loadFromDefault();
  return new KubernetesClient(config);
}

/** Aborts when the process is asked to end. */
function asked(log: Log): AbortSignal {
  const abort = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'ending');
      abort.abort();
    });
  }
  return abort.signal;
}

async function control(file: string, text: string): Promise<void> {
  const config = parseControllerConfig(text, file);
  log = createLog(config.logLevel, 'controller');
  const client = connect();
  const controller = new Controller({ client, config, log, now: () => new Date() });
  const health = await serveHealth(config.healthPort, () => controller.isHealthy(), controller.metrics.registry);
  const namespace = config.namespaces.system;
  const election = new LeaderElection(client, {
    namespace,
    name: controllerName,
    identity: `${process.env['POD_NAME'] ?? 'controller'}-${randomUUID().slice(0, 8)}`,
    owner: async () => {
      const reference = { apiVersion: 'apps/v1', kind: 'Deployment', namespace, name: controllerName };
      const deployment = await client.get(reference);
      return deployment === undefined ? undefined : ownedBy(deployment);
    },
    log,
  });
  log.info({ port: health.port, namespaces: config.namespaces }, 'serving');
  await election.run(asked(log), (leading) => controller.run(leading));
  await health.close();
}

/** Does something on the node, says that it is done to the kubelet's probe, and stays: a DaemonSet starts again what ends. */
async function onNode(values: Values): Promise<void> {
  const signal = asked(log);
  const [to, digest] = [given(values, 'to'), given(values, 'digest')];
  if (values['place-image']) await placePodVmImage(given(values, 'from'), to, digest);
  else await removePodVmImage(to, digest);
  writeFileSync('/tmp/ready', '');
  log.info({ digest }, values['place-image'] ? 'the image is in place' : 'the image is removed');
  const alive = setInterval(() => undefined, 1 << 30);
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  clearInterval(alive);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SealpodError('USAGE', `${file} cannot be read`, { cause });
  }
}

let log = createLog('info', 'controller');
try {
  const { values } = parseArgs({ options, strict: true });
  if (values.uninstall) {
    const timeoutMs = Number(values.timeout) * 1000;
    await uninstall(connect(), given(values, 'namespace'), { timeoutMs, log, signal: asked(log) });
  } else if (values['place-image'] || values['remove-image']) {
    await onNode(values);
  } else {
    const file = given(values, 'config');
    await control(file, read(file));
  }
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  const { expected, actual } = error.detail;
  const cause = error.cause === undefined ? undefined : String(error.cause);
  log.error({ code: error.code, expected, actual, fix: fixOf(error), cause }, error.message);
  process.exitCode = error.code === 'USAGE' ? 2 : 1;
}
