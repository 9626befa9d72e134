import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';

/** Addresses of one cluster. The node's is that of the pods' bridge: a loopback address is refused by the API server. */
export interface ClusterAddresses {
  readonly bridge: string;
  readonly node: string;
  readonly podSubnet: string;
  readonly serviceSubnet: string;
  readonly kubernetesService: string;
  readonly dnsService: string;
  /** Free TCP ports by their use. */
  readonly ports: Readonly<Record<PortUse, number>>;
}

const portUses = [
  'apiserver',
  'etcdClient',
  'etcdPeer',
  'controllerManager',
  'scheduler',
  'kubelet',
  'kubeletHealth',
  'proxyHealth',
  'proxyMetrics',
  'registry',
  'metrics',
] as const;
type PortUse = (typeof portUses)[number];

/** Chooses subnets and ports that nothing on this machine uses now. `tag` makes the bridge's name unique. */
export async function chooseAddresses(tag: string): Promise<ClusterAddresses> {
  const used = usedPrefixes();
  const free = (second: number): number => {
    for (let third = 1; third < 255; third += 1) if (!used.has(`10.${second}.${third}`)) return third;
    throw new SealpodError('NETWORK', `no free /24 in 10.${second}.0.0/16`);
  };
  const pods = `10.202.${free(202)}`;
  const services = `10.203.${free(203)}`;
  const ports = await freePorts(portUses.length);
  return {
    bridge: `spk-${tag}`,
    node: `${pods}.1`,
    podSubnet: `${pods}.0/24`,
    serviceSubnet: `${services}.0/24`,
    kubernetesService: `${services}.1`,
    dnsService: `${services}.10`,
    ports: Object.fromEntries(portUses.map((use, index) => [use, ports[index] ?? 0])) as Record<PortUse, number>,
  };
}

/** First three bytes of every IPv4 address and route of this machine. */
function usedPrefixes(): Set<string> {
  const routes = JSON.parse(
    execFileSync('ip', ['-4', '-j', 'route', 'show', 'table', 'all'], { encoding: 'utf8' }),
  ) as readonly {
    readonly dst?: string;
  }[];
  return new Set(routes.map((route) => (route.dst ?? '').split('.').slice(0, 3).join('.')));
}

/** Ports are bound together before any is released, so that none is handed out twice. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject);
          server.listen({ host: '0.0.0.0', port: 0 }, () => {
            const address = server.address();
            resolve(typeof address === 'object' && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
