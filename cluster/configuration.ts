import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterAddresses } from './addresses.ts';
import type { ClusterLayout } from './layout.ts';
import type { ClusterPki } from './pki.ts';
import type { Release } from './releases.ts';

/** Name of the cluster's one node. */
export const nodeName = 'sealpod-node';

/** Writes the configuration files of all programs. JSON where a program reads YAML: every JSON text is YAML. */
export function writeConfiguration(
  layout: ClusterLayout,
  addresses: ClusterAddresses,
  pki: ClusterPki,
  programs: string,
  release: Release,
): void {
  mkdirSync(join(layout.directory, 'cni'), { recursive: true });
  // A runtime of an earlier run is installed anew, or not at all.
  rmSync(layout.containerdFragments, { recursive: true, force: true });
  mkdirSync(layout.containerdFragments, { recursive: true });
  const write = (name: string, content: string | object): void =>
    writeFileSync(
      join(layout.directory, name),
      typeof content === 'string' ? content : `${JSON.stringify(content, null, 2)}\n`,
      { mode: 0o600 },
    );
  write('cni/10-bridge.conflist', networkList(layout, addresses));
  writeFileSync(
    layout.containerdConfiguration,
    containerdConfiguration(layout, programs, release.containerdConfiguration),
    { mode: 0o600 },
  );
  write('resolv.conf', `nameserver ${addresses.node}\n`);
  write('kubelet.yaml', kubeletConfiguration(layout, addresses, pki));
  write('proxy.yaml', proxyConfiguration(addresses, pki));
  write('Corefile', corefile(addresses, pki));
  write('registry.yml', registryConfiguration(layout, addresses));
  trustPlainRegistry(layout, registryAddress(addresses));
}

/** `host:port` of the cluster's registry, the same for the host, for runc pods and for virtual machines. */
export function registryAddress(addresses: ClusterAddresses): string {
  return `${addresses.node}:${addresses.ports.registry}`;
}

function registryConfiguration(layout: ClusterLayout, addresses: ClusterAddresses): object {
  return {
    version: '0.1',
    log: { level: 'warn', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(layout.directory, 'registry') }, delete: { enabled: true } },
    http: { addr: registryAddress(addresses) },
  };
}

/** Lets containerd speak plain HTTP to a registry; it need not be restarted. */
export function trustPlainRegistry(layout: ClusterLayout, host: string): void {
  mkdirSync(join(layout.registryHosts, host), { recursive: true });
  writeFileSync(
    join(layout.registryHosts, host, 'hosts.toml'),
    `server = "http://${host}"\n[host."http://${host}"]\n  capabilities = ["pull", "resolve"]\n`,
  );
}

function networkList(layout: ClusterLayout, addresses: ClusterAddresses): object {
  const ipam = {
    type: 'host-local',
    dataDir: join(layout.directory, 'ipam'),
    ranges: [[{ subnet: addresses.podSubnet }]],
    routes: [{ dst: '0.0.0.0/0' }],
  };
  return {
    cniVersion: '1.0.0',
    name: 'kubernetes',
    plugins: [
      {
        type: 'bridge',
        bridge: addresses.bridge,
        isGateway: true,
        ipMasq: true,
        ipMasqBackend: 'nftables',
        hairpinMode: true,
        ipam,
      },
      // The iptables backend leaves stale rules behind after a hard stop, and then a wrong pod answers.
      { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } },
    ],
  };
}

/** Names of the CRI plugin's parts: since version 3 of the file they are plugins of their own. */
const criPlugins = {
  2: { images: 'io.containerd.grpc.v1.cri', runtime: 'io.containerd.grpc.v1.cri' },
  3: { images: 'io.containerd.cri.v1.images', runtime: 'io.containerd.cri.v1.runtime' },
} as const;

function containerdConfiguration(layout: ClusterLayout, programs: string, version: 2 | 3): string {
  const path = (...names: readonly string[]): string => JSON.stringify(join(layout.directory, ...names));
  const { images, runtime } = criPlugins[version];
  const [sandboxImage, cniPrograms] =
    version === 3
      ? [`[plugins.'${images}'.pinned_images]\n  sandbox = "localhost/pause:1"`, 'bin_dirs = [%]']
      : [`[plugins.'${images}']\n  sandbox_image = "localhost/pause:1"`, 'bin_dir = %'];
  const streaming = `stream_server_address = "127.0.0.1"
  stream_server_port = "0"`;
  const behaviour = `# Raising a score back is refused where CAP_SYS_RESOURCE is missing, and every sandbox would fail.
  restrict_oom_score_adj = true
  # Else an \`ip netns add\` by anybody shadows these mounts and sandboxes can never be removed.
  netns_mounts_under_state_dir = true`;
  const tables =
    version === 3
      ? `${sandboxImage}
[plugins.'io.containerd.grpc.v1.cri']
  ${streaming}
[plugins.'${runtime}']
  ${behaviour}`
      : `${sandboxImage}
  ${streaming}
  ${behaviour}`;
  return `version = ${version}
root = ${path('containerd', 'root')}
state = ${path('containerd', 'state')}
oom_score = 0
imports = [${JSON.stringify(join(layout.containerdFragments, '*.toml'))}]
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri"]
[grpc]
  address = ${JSON.stringify(layout.containerdSocket)}
[ttrpc]
  address = ${JSON.stringify(`${layout.containerdSocket}.ttrpc`)}
[plugins.'io.containerd.internal.v1.opt']
  path = ${path('opt')}
${tables}
[plugins.'${images}'.registry]
  config_path = ${JSON.stringify(layout.registryHosts)}
[plugins.'${runtime}'.cni]
  ${cniPrograms.replace('%', JSON.stringify(join(programs, 'cni')))}
  conf_dir = ${path('cni')}
[plugins.'${runtime}'.containerd]
  default_runtime_name = "runc"
[plugins.'${runtime}'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`;
}

function kubeletConfiguration(layout: ClusterLayout, addresses: ClusterAddresses, pki: ClusterPki): object {
  return {
    kind: 'KubeletConfiguration',
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    failCgroupV1: false,
    cgroupDriver: 'cgroupfs',
    cgroupRoot: `/${addresses.bridge}`,
    enforceNodeAllocatable: [],
    oomScoreAdj: 0,
    failSwapOn: false,
    address: addresses.node,
    port: addresses.ports.kubelet,
    readOnlyPort: 0,
    healthzBindAddress: '127.0.0.1',
    healthzPort: addresses.ports.kubeletHealth,
    containerRuntimeEndpoint: `unix://${layout.containerdSocket}`,
    podLogsDir: join(layout.directory, 'pods'),
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: pki.file('ca.crt') },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: pki.file('kubelet.crt'),
    tlsPrivateKeyFile: pki.file('kubelet.key'),
    clusterDomain: 'cluster.local',
    clusterDNS: [addresses.dnsService],
    resolvConf: join(layout.directory, 'resolv.conf'),
    // An encrypted image is pulled and unpacked in a virtual machine before the call returns.
    runtimeRequestTimeout: '20m',
    evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1Gi', 'imagefs.available': '1Gi' },
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    makeIPTablesUtilChains: false,
    nodeStatusUpdateFrequency: '4s',
    featureGates: { RuntimeClassInImageCriApi: true },
  };
}

function proxyConfiguration(addresses: ClusterAddresses, pki: ClusterPki): object {
  return {
    kind: 'KubeProxyConfiguration',
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    mode: 'nftables',
    bindAddress: addresses.node,
    clientConnection: { kubeconfig: pki.file('proxy.conf') },
    hostnameOverride: nodeName,
    clusterCIDR: addresses.podSubnet,
    // Pods on one bridge reach each other without passing the node's routing, so replies need the node's address.
    nftables: { masqueradeAll: true },
    healthzBindAddress: `127.0.0.1:${addresses.ports.proxyHealth}`,
    metricsBindAddress: `127.0.0.1:${addresses.ports.proxyMetrics}`,
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  };
}

function corefile(addresses: ClusterAddresses, pki: ClusterPki): string {
  return `.:53 {
  bind ${addresses.node}
  errors
  ready 127.0.0.1:0
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig ${pki.file('admin.conf')} sealpod
    pods verified
  }
  forward . /etc/resolv.conf
  cache 5
}
`;
}
