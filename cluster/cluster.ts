import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Daemon, isRunning, startDaemon, stopDaemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { type ClusterAddresses, chooseAddresses } from './addresses.ts';
import { makeControlGroup } from './cgroup.ts';
import { nodeName, registryAddress, trustPlainRegistry, writeConfiguration } from './configuration.ts';
import { importPlainImages } from './images.ts';
import { type ClusterLayout, clusterLayout } from './layout.ts';
import { releaseMachine, takeMachine } from './machine-lock.ts';
import { applyManifests, coreManifests } from './manifests.ts';
import { metricsManifests } from './metrics.ts';
import { policeBridge } from './network-policy.ts';
import { createClusterPki, openClusterPki, writeKubeconfig } from './pki.ts';
import { type ProgramContext, programSpecifications, readApiServer } from './programs.ts';
import { newestRelease, type Release } from './releases.ts';
import { type ClusterState, readState, writeState } from './state.ts';
import { removeTraces } from './traces.ts';

/** One line of `sealpod cluster status`. */
export interface ClusterStatus {
  readonly running: boolean;
  readonly daemons: readonly { readonly name: string; readonly running: boolean }[];
  readonly kubeconfig?: string;
}

type Step = <T>(name: string, run: () => Promise<T> | T) => Promise<T>;

/**
 * Starts a disposable single-node Kubernetes and waits until its node is Ready and pods can be created.
 *
 * @param directory all state; a cluster that runs there is ended first, what it kept of certificates is used again
 * @param programs folder that `buildClusterPrograms` returned
 * @param step runs and reports one step
 * @param release the one that `programs` are of
 * @throws SealpodError where a program does not become ready; what was started is ended again
 */
export async function startCluster(
  directory: string,
  programs: string,
  step: Step,
  release: Release = newestRelease,
): Promise<ClusterState> {
  const layout = clusterLayout(directory);
  await stopCluster(directory);
  takeMachine(layout.directory, (other) => clusterStatus(other).daemons.some(({ running }) => running));
  mkdirSync(layout.directory, { recursive: true, mode: 0o700 });
  const tag = createHash('sha256').update(layout.directory).digest('hex').slice(0, 6);
  const addresses = await chooseAddresses(tag);
  const daemons: Daemon[] = [];
  const kubeconfigOf = (name: string): string => join(layout.pki, `${name}.conf`);
  const record = (): ClusterState => {
    const state: ClusterState = {
      programs,
      addresses,
      kubeconfig: kubeconfigOf('admin'),
      containerdSocket: layout.containerdSocket,
      containerdConfiguration: layout.containerdConfiguration,
      registry: registryAddress(addresses),
      daemons,
    };
    writeState(layout, state);
    return state;
  };
  record();
  try {
    const context = await step('certificates and configuration', () => prepare(layout, addresses, programs, release));
    const specifications = programSpecifications(context);
    const start = async (name: keyof typeof specifications): Promise<void> => {
      daemons.push(await startDaemon(specifications[name]));
      record();
    };
    await step('containerd and etcd', () => Promise.all([start('containerd'), start('etcd'), start('registry')]));
    await step('images of the node', () => importPlainImages(layout, programs));
    await step('API server', () => start('kube-apiserver'));
    await step('controllers, scheduler, kubelet, proxy, DNS', async () => {
      await Promise.all(
        (['kube-controller-manager', 'kube-scheduler', 'kubelet', 'kube-proxy', 'coredns'] as const).map(start),
      );
    });
    await step('node Ready', () => waitForNode(context));
    await step('cluster services', async () => {
      await Promise.all((['network-policy', 'metrics-server'] as const).map(start));
      applyManifests(layout, programs, [...coreManifests(addresses), ...metricsManifests(addresses, context.pki)]);
    });
    return record();
  } catch (error) {
    await stopCluster(directory);
    throw error;
  }
}

async function prepare(
  layout: ClusterLayout,
  addresses: ClusterAddresses,
  programs: string,
  release: Release,
): Promise<ProgramContext> {
  makeControlGroup(addresses.bridge);
  execFileSync('ip', ['link', 'add', addresses.bridge, 'type', 'bridge']);
  execFileSync('ip', ['address', 'add', `${addresses.node}/24`, 'dev', addresses.bridge]);
  execFileSync('ip', ['link', 'set', addresses.bridge, 'up']);
  policeBridge(addresses.bridge);
  const pki = await createClusterPki(layout.pki, nodeName, addresses.node, addresses.kubernetesService);
  const server = `https://${addresses.node}:${addresses.ports.apiserver}`;
  for (const name of ['admin', 'controller-manager', 'scheduler', 'kubelet', 'proxy'])
    writeKubeconfig(pki, name, server);
  writeConfiguration(layout, addresses, pki, programs, release);
  return { layout, addresses, pki, programs };
}

async function waitForNode(context: ProgramContext): Promise<void> {
  const deadline = Date.now() + 120_000;
  let last = 'no answer';
  while (Date.now() < deadline) {
    const node = await readApiServer(context, `/api/v1/nodes/${nodeName}`);
    const account = await readApiServer(context, '/api/v1/namespaces/default/serviceaccounts/default');
    if (node?.status === 200) {
      const { status } = JSON.parse(node.body) as {
        status: { conditions?: readonly { type: string; status: string; message: string }[] };
      };
      const ready = status.conditions?.find((condition) => condition.type === 'Ready');
      if (ready?.status === 'True' && account?.status === 200) return;
      last = ready?.message ?? 'the node has no Ready condition yet';
    }
    await delay(100);
  }
  throw new SealpodError('INTERNAL', 'the node did not become Ready', {
    expected: 'Ready within 120 s',
    actual: last,
    fix: `see ${context.layout.logs}`,
  });
}

/** Ends the cluster that runs below `directory` and removes everything of it but its certificates. Does nothing where none runs. */
export async function stopCluster(directory: string): Promise<void> {
  const layout = clusterLayout(directory);
  const state = readState(layout);
  if (state === undefined) return;
  await removeTraces(layout, await withContainerd(layout, state));
  rmSync(layout.stateFile, { force: true });
  releaseMachine(layout.directory);
}

/** containerd again where it died: it knows the pods that still run, and takes them down in order. */
async function withContainerd(layout: ClusterLayout, state: ClusterState): Promise<ClusterState> {
  const dead = state.daemons.some((daemon) => daemon.name === 'containerd' && !isRunning(daemon));
  if (!dead || !existsSync(join(layout.directory, 'containerd'))) return state;
  try {
    return await startAgain(layout, state, 'containerd');
  } catch (error) {
    process.stderr.write(`containerd does not start any more: ${error instanceof Error ? error.message : error}\n`);
    return state;
  }
}

/** Starts a program of the cluster in the place of one that has ended. */
async function startAgain(layout: ClusterLayout, state: ClusterState, name: 'containerd'): Promise<ClusterState> {
  const { addresses, programs } = state;
  const context = { layout, addresses, pki: openClusterPki(layout.pki), programs };
  const daemon = await startDaemon(programSpecifications(context)[name]);
  const daemons = [...state.daemons.filter((other) => other.name !== name), daemon];
  const next = { ...state, daemons };
  writeState(layout, next);
  return next;
}

/**
 * Restarts containerd so that it reads its configuration again. Pods keep running: their shims outlive it.
 *
 * @throws SealpodError where it does not start with the new configuration
 */
export async function restartContainerd(directory: string): Promise<void> {
  const layout = clusterLayout(directory);
  const state = requireState(layout);
  await Promise.all(state.daemons.filter(({ name }) => name === 'containerd').map((daemon) => stopDaemon(daemon)));
  await startAgain(layout, state, 'containerd');
}

/** Adds a daemon to those that end with the cluster; one of the same name is taken to be replaced by it. */
export function recordDaemon(directory: string, daemon: Daemon): void {
  const layout = clusterLayout(directory);
  const state = requireState(layout);
  writeState(layout, { ...state, daemons: [...state.daemons.filter(({ name }) => name !== daemon.name), daemon] });
}

/** Lets the cluster's containerd pull from a registry that speaks plain HTTP. */
export function allowPlainRegistry(directory: string, host: string): void {
  trustPlainRegistry(clusterLayout(directory), host);
}

function requireState(layout: ClusterLayout): ClusterState {
  const state = readState(layout);
  if (state !== undefined) return state;
  throw new SealpodError('NOT_FOUND', 'no cluster is running', {
    expected: `a state file ${layout.stateFile}`,
    fix: 'start one with `sealpod cluster up`',
  });
}

/** What runs below `directory`. */
export function clusterStatus(directory: string): ClusterStatus {
  const state = readState(clusterLayout(directory));
  if (state === undefined) return { running: false, daemons: [] };
  const daemons = state.daemons.map((daemon) => ({ name: daemon.name, running: isRunning(daemon) }));
  return {
    running: daemons.length > 0 && daemons.every((daemon) => daemon.running),
    daemons,
    kubeconfig: state.kubeconfig,
  };
}
