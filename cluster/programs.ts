import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { DaemonSpecification } from '@sealpod/processes';
import type { ClusterAddresses } from './addresses.ts';
import { nodeName } from './configuration.ts';
import type { ClusterLayout } from './layout.ts';
import type { ClusterPki } from './pki.ts';

/** What the specifications of all programs are made from. */
export interface ProgramContext {
  readonly layout: ClusterLayout;
  readonly addresses: ClusterAddresses;
  readonly pki: ClusterPki;
  /** Folder of the built programs. */
  readonly programs: string;
}

type Name =
  | 'containerd'
  | 'etcd'
  | 'kube-apiserver'
  | 'kube-controller-manager'
  | 'kube-scheduler'
  | 'kubelet'
  | 'kube-proxy'
  | 'coredns'
  | 'network-policy'
  | 'metrics-server'
  | 'registry';

/** How each program of the cluster is started, and how it is known to serve. */
export function programSpecifications(context: ProgramContext): Readonly<Record<Name, DaemonSpecification>> {
  const { layout, addresses, pki } = context;
  const path = (...names: readonly string[]): string => join(layout.directory, ...names);
  const { ports } = addresses;
  const etcd = `http://127.0.0.1:${ports.etcdClient}`;
  const etcdPeer = `http://127.0.0.1:${ports.etcdPeer}`;
  const make = (name: Name, args: readonly string[], ready: DaemonSpecification['ready']): DaemonSpecification => ({
    name,
    command: join(context.programs, name),
    args,
    logDirectory: layout.logs,
    environment: { PATH: `${context.programs}:${process.env['PATH'] ?? ''}` },
    ready,
    readyTimeoutMs: 120_000,
  });
  const started = (): boolean => true;
  return {
    containerd: make('containerd', ['--config', layout.containerdConfiguration], () =>
      accepts({ path: layout.containerdSocket }),
    ),
    etcd: make(
      'etcd',
      [
        '--name=sealpod',
        `--data-dir=${path('etcd')}`,
        '--unsafe-no-fsync',
        `--listen-client-urls=${etcd}`,
        `--advertise-client-urls=${etcd}`,
        `--listen-peer-urls=${etcdPeer}`,
        `--initial-advertise-peer-urls=${etcdPeer}`,
        `--initial-cluster=sealpod=${etcdPeer}`,
      ],
      () => accepts({ host: '127.0.0.1', port: ports.etcdClient }),
    ),
    'kube-apiserver': make(
      'kube-apiserver',
      [
        `--etcd-servers=${etcd}`,
        `--bind-address=${addresses.node}`,
        `--advertise-address=${addresses.node}`,
        `--secure-port=${ports.apiserver}`,
        `--tls-cert-file=${pki.file('apiserver.crt')}`,
        `--tls-private-key-file=${pki.file('apiserver.key')}`,
        `--client-ca-file=${pki.file('ca.crt')}`,
        '--authorization-mode=Node,RBAC',
        '--enable-admission-plugins=NodeRestriction',
        `--service-cluster-ip-range=${addresses.serviceSubnet}`,
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-account-signing-key-file=${pki.file('service-accounts.key')}`,
        `--service-account-key-file=${pki.file('service-accounts.pub')}`,
        `--kubelet-client-certificate=${pki.file('apiserver-kubelet.crt')}`,
        `--kubelet-client-key=${pki.file('apiserver-kubelet.key')}`,
        `--kubelet-certificate-authority=${pki.file('ca.crt')}`,
        '--kubelet-preferred-address-types=InternalIP',
        '--allow-privileged=true',
        `--requestheader-client-ca-file=${pki.file('ca.crt')}`,
        '--requestheader-allowed-names=front-proxy-client',
        '--requestheader-username-headers=X-Remote-User',
        '--requestheader-group-headers=X-Remote-Group',
        '--requestheader-extra-headers-prefix=X-Remote-Extra-',
        `--proxy-client-cert-file=${pki.file('front-proxy.crt')}`,
        `--proxy-client-key-file=${pki.file('front-proxy.key')}`,
      ],
      async () => (await askApiServer(context, '/readyz')) === 200,
    ),
    'kube-controller-manager': make(
      'kube-controller-manager',
      [
        `--kubeconfig=${pki.file('controller-manager.conf')}`,
        '--bind-address=127.0.0.1',
        `--secure-port=${ports.controllerManager}`,
        `--cert-dir=${path('controller-manager')}`,
        `--service-account-private-key-file=${pki.file('service-accounts.key')}`,
        `--root-ca-file=${pki.file('ca.crt')}`,
        `--cluster-signing-cert-file=${pki.file('ca.crt')}`,
        `--cluster-signing-key-file=${pki.file('ca.key')}`,
        '--use-service-account-credentials=true',
        '--leader-elect=false',
        // With the default rate the first ServiceAccount, which every pod needs, takes 5 s to appear.
        '--kube-api-qps=300',
        '--kube-api-burst=600',
        // What was measured a moment ago counts: clusters here live for minutes.
        '--horizontal-pod-autoscaler-sync-period=5s',
        '--horizontal-pod-autoscaler-cpu-initialization-period=10s',
        '--horizontal-pod-autoscaler-initial-readiness-delay=5s',
      ],
      started,
    ),
    'kube-scheduler': make(
      'kube-scheduler',
      [
        `--kubeconfig=${pki.file('scheduler.conf')}`,
        '--bind-address=127.0.0.1',
        `--secure-port=${ports.scheduler}`,
        `--cert-dir=${path('scheduler')}`,
        '--leader-elect=false',
      ],
      started,
    ),
    kubelet: make(
      'kubelet',
      [
        `--config=${path('kubelet.yaml')}`,
        `--kubeconfig=${pki.file('kubelet.conf')}`,
        `--hostname-override=${nodeName}`,
        `--node-ip=${addresses.node}`,
        `--root-dir=${path('kubelet')}`,
      ],
      started,
    ),
    'kube-proxy': make('kube-proxy', [`--config=${path('proxy.yaml')}`], started),
    coredns: make('coredns', ['-conf', path('Corefile')], () => accepts({ host: addresses.node, port: 53 })),
    'network-policy': make(
      'network-policy',
      [`-kubeconfig=${pki.file('admin.conf')}`, `-node=${nodeName}`, `-services=${addresses.serviceSubnet}`],
      started,
    ),
    'metrics-server': make(
      'metrics-server',
      [
        `--kubeconfig=${pki.file('admin.conf')}`,
        `--authentication-kubeconfig=${pki.file('admin.conf')}`,
        `--authorization-kubeconfig=${pki.file('admin.conf')}`,
        `--bind-address=${addresses.node}`,
        `--secure-port=${ports.metrics}`,
        `--tls-cert-file=${pki.file('metrics-server.crt')}`,
        `--tls-private-key-file=${pki.file('metrics-server.key')}`,
        `--kubelet-certificate-authority=${pki.file('ca.crt')}`,
        '--kubelet-preferred-address-types=InternalIP',
        '--kubelet-use-node-status-port',
        // The one must be longer than the other.
        '--metric-resolution=10s',
        '--kubelet-request-timeout=8s',
      ],
      () => accepts({ host: addresses.node, port: ports.metrics }),
    ),
    registry: {
      ...make('registry', ['serve', path('registry.yml')], () =>
        accepts({ host: addresses.node, port: ports.registry }),
      ),
      command: 'docker-registry',
    },
  };
}

/** Status of a GET with the administrator's certificate, or undefined where the API server does not answer. */
export function askApiServer(context: ProgramContext, path: string): Promise<number | undefined> {
  return readApiServer(context, path).then((answer) => answer?.status);
}

/** GET with the administrator's certificate, or undefined where the API server does not answer. */
export function readApiServer(
  context: ProgramContext,
  path: string,
): Promise<{ status: number; body: string } | undefined> {
  const { addresses, pki } = context;
  return new Promise((resolve) => {
    const outgoing = request(
      {
        host: addresses.node,
        port: addresses.ports.apiserver,
        path,
        ca: readFileSync(pki.file('ca.crt')),
        cert: readFileSync(pki.file('admin.crt')),
        key: readFileSync(pki.file('admin.key')),
        agent: false,
        timeout: 5000,
      },
      (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => {
          body += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      },
    );
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.on('error', () => resolve(undefined));
    outgoing.end();
  });
}

function accepts(
  target: { readonly path: string } | { readonly host: string; readonly port: number },
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(target);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
