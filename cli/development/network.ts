import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Layout } from './layout.ts';

/** The bridge that the pods of one environment share with its key broker and registry. */
export interface BridgeNetwork {
  readonly bridge: string;
  readonly address: string;
  readonly subnet: string;
}

interface LinkAddress {
  readonly ifname: string;
  readonly addr_info?: readonly { readonly local?: string; readonly prefixlen?: number; readonly family?: string }[];
}

function ip(...args: readonly string[]): string {
  try {
    return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (cause) {
    throw new SealpodError('NETWORK', `ip ${args.join(' ')} failed`, { cause, fix: 'root and iproute2 are needed' });
  }
}

/** Chooses a /24 of 10.201.0.0/16 that no address or route of this machine uses; keeps `previous` where it still can. */
export function chooseNetwork(layout: Layout, previous: BridgeNetwork | undefined): BridgeNetwork {
  const bridge = `spd-${layout.tag}`;
  const used = new Set<string>();
  for (const link of JSON.parse(ip('-j', 'address', 'show')) as readonly LinkAddress[]) {
    if (link.ifname === bridge) continue;
    for (const { local = '' } of link.addr_info ?? []) used.add(local.split('.').slice(0, 3).join('.'));
  }
  if (previous !== undefined && !used.has(previous.address.split('.').slice(0, 3).join('.'))) return previous;
  for (let third = 1; third < 255; third += 1) {
    const prefix = `10.201.${third}`;
    if (!used.has(prefix)) return { bridge, address: `${prefix}.1`, subnet: `${prefix}.0/24` };
  }
  throw new SealpodError('NETWORK', 'no free /24 network', {
    expected: 'one of 10.201.1.0/24 to 10.201.254.0/24 unused',
  });
}

/** Makes the bridge with its address (again), and writes the CNI configuration that connects pods to it. */
export function createBridge(layout: Layout, network: BridgeNetwork): { readonly configurationDirectory: string } {
  removeBridge(network.bridge);
  ip('link', 'add', network.bridge, 'type', 'bridge');
  ip('address', 'add', `${network.address}/24`, 'dev', network.bridge);
  ip('link', 'set', network.bridge, 'up');
  const configurationDirectory = join(layout.home, 'cni', 'net.d');
  mkdirSync(configurationDirectory, { recursive: true, mode: 0o700 });
  const bridge = {
    type: 'bridge',
    bridge: network.bridge,
    isGateway: true,
    ipMasq: false,
    ipam: {
      type: 'host-local',
      dataDir: join(layout.run, 'cni'),
      ranges: [[{ subnet: network.subnet }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  };
  const list = { cniVersion: '0.4.0', name: `sealpod-${layout.tag}`, plugins: [bridge] };
  writeFileSync(join(configurationDirectory, '10-sealpod.conflist'), JSON.stringify(list, null, 2));
  return { configurationDirectory };
}

/** Removes the bridge where it exists. */
export function removeBridge(bridge: string): void {
  const links = JSON.parse(ip('-j', 'link', 'show', 'type', 'bridge')) as readonly LinkAddress[];
  if (links.some((link) => link.ifname === bridge)) ip('link', 'delete', bridge);
}

/** A TCP port that nothing uses on `address` now; `preferred` where it is free. */
export async function freePort(address: string, preferred?: number): Promise<number> {
  for (const port of preferred === undefined ? [0] : [preferred, 0]) {
    const found = await new Promise<number | undefined>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(undefined));
      server.listen({ host: address, port }, () => {
        const bound = server.address();
        server.close(() => resolve(typeof bound === 'object' && bound !== null ? bound.port : undefined));
      });
    });
    if (found !== undefined) return found;
  }
  throw new SealpodError('NETWORK', `no free port on ${address}`);
}
