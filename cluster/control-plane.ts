import { mkdirSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { type Daemon, startDaemon, stopDaemon } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { chooseAddresses } from './addresses.ts';
import { nodeName } from './configuration.ts';
import { clusterLayout } from './layout.ts';
import { createClusterPki, writeKubeconfig } from './pki.ts';
import { programSpecifications } from './programs.ts';

/** API server, etcd, controllers and scheduler, without any node. */
export interface ControlPlane {
  /** Of an administrator. */
  readonly kubeconfig: string;
  /** E.g. `https://192.0.2.1:6443`. */
  readonly server: string;
  /** PEM file of the authority that has signed the server's certificate. */
  readonly authorityFile: string;
  stop(): Promise<void>;
}

/**
 * Starts a control plane below `directory`, on free ports of this machine's own address. It takes neither bridge nor kernel
 * tables, so that several may run beside each other and beside a whole cluster; pods that are scheduled run nowhere.
 *
 * @param programs folder that `buildClusterPrograms` returned
 * @throws SealpodError PREREQUISITE where the machine has only loopback addresses, which the API server refuses
 */
export async function startControlPlane(directory: string, programs: string): Promise<ControlPlane> {
  const layout = clusterLayout(directory);
  mkdirSync(layout.logs, { recursive: true, mode: 0o700 });
  const node = ownAddress();
  const addresses = { ...(await chooseAddresses('none')), node };
  const pki = await createClusterPki(layout.pki, nodeName, node, addresses.kubernetesService);
  const server = `https://${node}:${addresses.ports.apiserver}`;
  for (const name of ['admin', 'controller-manager', 'scheduler']) writeKubeconfig(pki, name, server);
  const specifications = programSpecifications({ layout, addresses, pki, programs });
  const daemons: Daemon[] = [];
  const stop = async (): Promise<void> => {
    for (const daemon of daemons.splice(0).reverse()) await stopDaemon(daemon);
  };
  try {
    for (const name of ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler'] as const) {
      const specification = specifications[name];
      const more = name === 'kube-controller-manager' ? [withoutNodeControllers] : [];
      daemons.push(await startDaemon({ ...specification, args: [...specification.args, ...more] }));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { kubeconfig: join(layout.pki, 'admin.conf'), server, authorityFile: pki.file('ca.crt'), stop };
}

/** No kubelet tells that a node lives; these would take it for dead. */
const withoutNodeControllers = '--controllers=*,-node-lifecycle-controller,-taint-eviction-controller';

function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const found = all.find(({ family, internal }) => family === 'IPv4' && !internal);
  if (found !== undefined) return found.address;
  throw new SealpodError('PREREQUISITE', 'this machine has no address besides its loopback', {
    expected: 'an IPv4 address of its own',
    fix: 'connect it to a network, or add a dummy interface with an address',
  });
}
