import { SealpodError } from '@sealpod/protocol/errors';
import { jsonInNamespace } from './namespace.ts';

export interface PodAddress {
  readonly address: string;
  readonly prefixLength: number;
}

export interface PodRoute {
  /** CIDR; undefined for a default route. */
  readonly destination: string | undefined;
  readonly gateway: string | undefined;
  readonly source: string | undefined;
  /** Scope as in rtnetlink: 0 universe, 253 link, 254 host. */
  readonly scope: number;
  readonly onLink: boolean;
  readonly mtu: number | undefined;
  readonly version: 4 | 6;
}

export interface PodNeighbour {
  readonly address: string;
  readonly macAddress: string;
}

/** What the CNI plugins gave the pod on its one interface. */
export interface PodNetwork {
  readonly interfaceName: string;
  readonly macAddress: string;
  readonly mtu: number;
  readonly addresses: readonly PodAddress[];
  /** Routes over this interface besides those that an address brings with it; routes without gateway first. */
  readonly routes: readonly PodRoute[];
  /** Permanent entries only. */
  readonly neighbours: readonly PodNeighbour[];
}

interface Link {
  ifname: string;
  address?: string;
  mtu: number;
  flags: string[];
  link_type: string;
  addr_info?: { family: string; local: string; prefixlen: number; scope: string }[];
}

interface Route {
  type?: string;
  dst: string;
  gateway?: string;
  dev?: string;
  protocol?: string;
  scope?: string;
  prefsrc?: string;
  flags?: string[];
  metrics?: { mtu?: number }[];
}

interface Neighbour {
  dst: string;
  lladdr?: string;
  state?: string[];
}

/**
 * Reads interface, addresses, routes and neighbours from the pod's namespace.
 * Returns undefined where the pod has no interface besides loopback. Throws NETWORK, also for more than one interface.
 */
export async function inspectPodNetwork(
  netnsPath: string,
  ignore: readonly string[] = [],
): Promise<PodNetwork | undefined> {
  const links = (await jsonInNamespace(netnsPath, 'ip', ['address', 'show'])) as Link[];
  const candidates = links.filter(
    (link) =>
      link.link_type === 'ether' &&
      link.flags.includes('UP') &&
      !ignore.includes(link.ifname) &&
      addressesOf(link).length > 0,
  );
  const [link, ...others] = candidates;
  if (!link) return undefined;
  if (others.length > 0) {
    throw new SealpodError('NETWORK', 'the pod has more than one network interface', {
      expected: 'one interface with addresses',
      actual: candidates.map(({ ifname }) => ifname).join(', '),
      fix: 'attach the pod to one network',
    });
  }
  if (!link.address) throw new SealpodError('NETWORK', `the interface ${link.ifname} has no hardware address`);
  const [routes4, routes6, neighbours] = await Promise.all([
    jsonInNamespace(netnsPath, 'ip', ['-4', 'route', 'show', 'table', 'main']),
    jsonInNamespace(netnsPath, 'ip', ['-6', 'route', 'show', 'table', 'main']),
    jsonInNamespace(netnsPath, 'ip', ['neighbour', 'show', 'dev', link.ifname, 'nud', 'permanent']),
  ]);
  const routes = [...routesOf(routes4 as Route[], link.ifname, 4), ...routesOf(routes6 as Route[], link.ifname, 6)];
  return {
    interfaceName: link.ifname,
    macAddress: link.address,
    mtu: link.mtu,
    addresses: addressesOf(link),
    routes: [...routes.filter(({ gateway }) => !gateway), ...routes.filter(({ gateway }) => gateway)],
    neighbours: (neighbours as Neighbour[]).flatMap(({ dst, lladdr }) =>
      lladdr ? [{ address: dst, macAddress: lladdr }] : [],
    ),
  };
}

/** Link-local IPv6 addresses are left out: the guest makes its own from the same hardware address. */
function addressesOf(link: Link): PodAddress[] {
  return (link.addr_info ?? [])
    .filter(({ family, scope }) => family === 'inet' || (family === 'inet6' && scope !== 'link'))
    .map(({ local, prefixlen }) => ({ address: local, prefixLength: prefixlen }));
}

function routesOf(routes: Route[], interfaceName: string, version: 4 | 6): PodRoute[] {
  return (
    routes
      .filter((route) => route.dev === interfaceName && (route.type ?? 'unicast') === 'unicast')
      // The kernel adds these itself with each address.
      .filter((route) => route.protocol !== 'kernel')
      .map((route) => ({
        destination: route.dst === 'default' ? undefined : withPrefix(route.dst, version),
        gateway: route.gateway,
        source: route.prefsrc,
        scope: route.scope === 'link' ? 253 : route.scope === 'host' ? 254 : 0,
        onLink: route.flags?.includes('onlink') ?? false,
        mtu: route.metrics?.find(({ mtu }) => mtu !== undefined)?.mtu,
        version,
      }))
  );
}

const withPrefix = (destination: string, version: 4 | 6) =>
  destination.includes('/') ? destination : `${destination}/${version === 4 ? 32 : 128}`;
