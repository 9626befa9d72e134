/**
 * The CSI driver of the development cluster: `node peer-pods/volumes/csi/main.ts --config FILE`.
 *
 * Volumes are sparse files behind loop devices. Pods of the node get them mounted, pods in machines of their own get them
 * unmounted, for their guest. One process is node plugin and provisioner. Logs JSON lines to standard error; SIGTERM and
 * SIGINT end it. Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.
 *
 * @module
 */
import { mkdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { CoreV1Api, KubeConfig, NodeV1Api, StorageV1Api } from '@kubernetes/client-node';
import { asSealpodError, SealpodError } from '@sealpod/protocol/errors';
import { createLog } from '../../adaptor/log.ts';
import { Backing } from './backing.ts';
import { parseDriverConfig } from './config.ts';
import { podLookup } from './pod-lookup.ts';
import { Provisioner } from './provisioner.ts';
import { Publisher } from './publish.ts';
import { serveDriver } from './services.ts';

const passMs = 500;
const longestPauseMs = 10_000;
const log = createLog('info', 'volumes');

async function readConfig(path: string | undefined) {
  if (path === undefined) throw new SealpodError('USAGE', 'usage: node peer-pods/volumes/csi/main.ts --config FILE');
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new SealpodError('USAGE', `the configuration ${path} cannot be read`, { cause });
  });
  return parseDriverConfig(text, path);
}

/** Passes one after the other until `signal` aborts; longer apart while the API server does not answer. */
async function provision(provisioner: Provisioner, signal: AbortSignal): Promise<void> {
  let pause = passMs;
  while (!signal.aborted) {
    try {
      await provisioner.reconcile();
      pause = passMs;
    } catch (error) {
      pause = Math.min(pause * 2, longestPauseMs);
      log.warn({ reason: String(error), pause }, 'the API server does not answer; trying again');
    }
    await sleep(pause, undefined, { signal }).catch(() => undefined);
  }
}

try {
  const { values } = parseArgs({ options: { config: { type: 'string' } }, strict: true });
  const config = await readConfig(values.config);
  await mkdir(config.directory, { recursive: true, mode: 0o700 });
  const kubernetes = new KubeConfig();
  kubernetes.loadFromFile(config.kubeconfig);
  const core = kubernetes.makeApiClient(CoreV1Api);
  const backing = new Backing(config.directory);
  const publisher = new Publisher(backing, config.directVolumes);
  const pods = podLookup(core, kubernetes.makeApiClient(NodeV1Api));
  const close = await serveDriver(config, publisher, pods, log);
  const ended = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => ended.abort());
  log.info({ driver: config.driver }, 'serving');
  const api = { core, storage: kubernetes.makeApiClient(StorageV1Api) };
  await provision(new Provisioner(config, api, backing, log), ended.signal);
  close();
  process.exit(0);
} catch (thrown) {
  const isUsage = (thrown as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  const error = asSealpodError(thrown, isUsage ? 'USAGE' : 'INTERNAL');
  log.error({ code: error.code, cause: error.cause === undefined ? undefined : String(error.cause) }, error.message);
  process.exit(error.code === 'USAGE' ? 2 : 1);
}
