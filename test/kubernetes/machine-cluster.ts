import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { layoutOf } from '@sealpod/cli/layout';
import { readClusterState } from '@sealpod/cluster';
import { type Daemon, stopDaemon } from '@sealpod/processes';
import { stringify } from 'yaml';
import { freePort } from '../../cli/development/network.ts';
import { startRegistry } from '../../cli/development/registry.ts';
import { root } from '../e2e/environment.ts';

/** A cluster on this machine without sealpod. */
export interface MachineCluster {
  readonly kubeconfig: string;
  /** An address of this machine that node and pods reach. */
  readonly address: string;
  /** `host:port` of a registry by plain HTTP, which the node's containerd takes images from. */
  readonly registry: string;
  /** Options of `sealpod install` that this cluster needs. */
  readonly installOptions: readonly string[];
  /** Folders with kubectl and helm, for PATH; empty where they are on it. */
  readonly programs: readonly string[];
  stop(): Promise<void>;
}

/** The development cluster. */
export async function developmentCluster(home: string): Promise<MachineCluster> {
  await sealpod(home, 'cluster', 'up');
  const directory = join(home, 'cluster');
  const state = readClusterState(directory);
  if (state === undefined) throw new Error('sealpod cluster up left no state');
  return {
    kubeconfig: state.kubeconfig,
    address: state.registry.replace(/:\d+$/, ''),
    registry: state.registry,
    installOptions: ['--values', join(directory, 'values.json')],
    programs: [state.programs],
    stop: async () => {
      await sealpod(home, 'cluster', 'down');
    },
  };
}

/** Building a release takes minutes, and the node's first look too. */
const longestMs = 40 * 60_000;
const engines = ['docker', 'podman', 'nerdctl'] as const;

/**
 * A cluster that kind makes (0.27 or newer: containerd reads `certs.d`), in the first container engine that answers. kind, kubectl
 * and helm have to be on the PATH.
 */
export async function kindCluster(home: string): Promise<MachineCluster> {
  const engine = await firstEngine();
  const [name, kubeconfig, hosts] = [`sealpod-${process.pid}`, join(home, 'kubeconfig'), join(home, 'certs.d')];
  mkdirSync(hosts, { recursive: true });
  const extraMounts = [{ hostPath: hosts, containerPath: '/etc/containerd/certs.d' }];
  const configuration = join(home, 'kind.yaml');
  const nodes = [{ role: 'control-plane', extraMounts }];
  writeFileSync(configuration, stringify({ kind: 'Cluster', apiVersion: 'kind.x-k8s.io/v1alpha4', nodes }));
  const kind = (...words: readonly string[]) => {
    const variables = { ...process.env, KIND_EXPERIMENTAL_PROVIDER: engine };
    return execute('kind', [...words, '--name', name], variables);
  };
  let registryDaemon: Daemon | undefined;
  const stop = async (): Promise<void> => {
    if (registryDaemon !== undefined) await stopDaemon(registryDaemon);
    await kind('delete', 'cluster', '--kubeconfig', kubeconfig);
  };
  try {
    await kind('create', 'cluster', '--kubeconfig', kubeconfig, '--config', configuration, '--wait', '240s');
    const [node = ''] = (await kind('get', 'nodes')).trim().split('\n');
    const route = await execute(engine, ['exec', node, 'ip', '-4', 'route', 'show', 'default']);
    const address = /^default via ([\d.]+)/.exec(route)?.[1];
    if (address === undefined) throw new Error(`the node of kind has no default route: ${route}`);
    const port = await freePort(address);
    registryDaemon = await startRegistry(layoutOf(home), address, port);
    const registry = `${address}:${port}`;
    mkdirSync(join(hosts, registry));
    writeFileSync(join(hosts, registry, 'hosts.toml'), `[host."http://${registry}"]\n`);
    return { kubeconfig, address, registry, installOptions: [], programs: [], stop };
  } catch (thrown) {
    await stop();
    throw thrown;
  }
}

async function firstEngine(): Promise<string> {
  for (const engine of engines) {
    const answers = await execute(engine, ['info']).then(
      () => true,
      () => false,
    );
    if (answers) return engine;
  }
  throw new Error(`kind needs a container engine, and none of ${engines.join(', ')} answers`);
}

/** Runs a program to its end, and returns what it printed. @throws Error with what it said where it failed */
export async function execute(program: string, words: readonly string[], env = process.env): Promise<string> {
  const options = { env, cwd: root, timeout: longestMs, maxBuffer: 64 << 20 };
  return (await promisify(execFile)(program, words, options)).stdout;
}

/** Runs a verb of `sealpod` in the environment of that folder. */
export function sealpod(home: string, ...words: readonly string[]): Promise<string> {
  return execute(join(root, 'cli/bin/sealpod'), words, { ...process.env, SEALPOD_HOME: home });
}
