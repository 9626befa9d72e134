import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ClusterState, directVolumesFolder, nodeName, recordDaemon } from '@sealpod/cluster';
import { startDaemon } from '@sealpod/processes';
import type { Layout } from '../development/layout.ts';
import { clusterDirectory } from './layout.ts';
import { kubectl } from './runtime.ts';

const driver = 'volumes.sealpod.io';

/** Volumes of the development cluster, by a driver of its own: its objects, and the default StorageClass. */
const manifests = [
  {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'CSIDriver',
    metadata: { name: driver },
    spec: { attachRequired: false, podInfoOnMount: true, volumeLifecycleModes: ['Persistent'] },
  },
  {
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: { name: 'standard', annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
    provisioner: driver,
    volumeBindingMode: 'WaitForFirstConsumer',
    reclaimPolicy: 'Delete',
  },
];

/** Starts the storage driver in a running cluster and waits until the kubelet knows it. It ends with the cluster. */
export async function installStorage(layout: Layout, cluster: ClusterState): Promise<void> {
  const directory = clusterDirectory(layout);
  const kubeletDirectory = join(directory, 'kubelet');
  const configFile = join(directory, 'volumes.json');
  mkdirSync(join(directory, 'volumes'), { recursive: true, mode: 0o700 });
  const config = {
    driver,
    node: nodeName,
    directory: join(directory, 'volumes'),
    kubeletDirectory,
    kubeconfig: cluster.kubeconfig,
    directVolumes: directVolumesFolder,
  };
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 });
  kubectl(cluster, ['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests }));
  const program = fileURLToPath(import.meta.resolve('@sealpod/peer-pods/csi'));
  const daemon = await startDaemon({
    name: 'volumes',
    command: process.execPath,
    args: ['--no-warnings', program, '--config', configFile],
    logDirectory: join(directory, 'logs'),
    readyTimeoutMs: 180_000,
    ready: () => existsSync(join(kubeletDirectory, 'plugins_registry', `${driver}-reg.sock`)) && isRegistered(cluster),
  });
  recordDaemon(directory, daemon);
}

function isRegistered(cluster: ClusterState): boolean {
  const drivers = kubectl(cluster, [
    'get',
    'csinode',
    nodeName,
    '--ignore-not-found',
    '-o',
    'jsonpath={.spec.drivers[*].name}',
  ]);
  return drivers.split(' ').includes(driver);
}
