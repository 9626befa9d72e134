import { isIPv4 } from 'node:net';
import { SealpodError } from '@sealpod/protocol/errors';
import type { PodNetwork } from './inspect.ts';
import { jsonInNamespace, runInNamespace } from './namespace.ts';

/**
 * A link of two addresses between the pod's namespace and the machine. `kubectl port-forward` dials localhost in the
 * namespace, where nothing listens: the machine does. Both are link-local (RFC 3927) and never leave the namespace.
 */
const namespaceAddress = '169.254.83.1';
const machineAddress = '169.254.83.2';
const prefixLength = 30;

/**
 * Leads TCP connections to 127.0.0.1 in the pod's namespace to the machine behind `tap`. A server in the machine answers
 * them where it listens on all its addresses; one on the machine's localhost alone is not reached. Goes away with the tap
 * and the namespace. Does only what is not there yet.
 *
 * @returns the network that the guest is to be given: with its end of the link
 * @throws SealpodError NETWORK
 */
export async function connectLocalhost(netnsPath: string, tap: string, network: PodNetwork): Promise<PodNetwork> {
  if (!network.addresses.some(({ address }) => isIPv4(address))) return network;
  const run = (tool: 'ip' | 'tc' | 'iptables' | 'sysctl', ...args: readonly string[]) =>
    runInNamespace(netnsPath, tool, args);
  const links = (await jsonInNamespace(netnsPath, 'ip', ['link', 'show', 'dev', tap])) as { address?: string }[];
  const tapAddress = links[0]?.address;
  if (tapAddress === undefined) throw new SealpodError('NETWORK', `the interface ${tap} has no hardware address`);
  await run('ip', 'address', 'replace', `${namespaceAddress}/${prefixLength}`, 'dev', tap);
  const neighbour = ['lladdr', network.macAddress, 'dev', tap, 'nud', 'permanent'];
  await run('ip', 'neighbour', 'replace', machineAddress, ...neighbour);
  // Answers to the namespace stay here: this match without an action comes before the one that redirects everything.
  const filter = ['dev', tap, 'parent', 'ffff:', 'protocol', 'ip', 'prio', '1'];
  const filters = (await jsonInNamespace(netnsPath, 'tc', ['filter', 'show', 'dev', tap, 'ingress'])) as {
    pref?: number;
  }[];
  if (!filters.some(({ pref }) => pref === 1)) {
    await run('tc', 'filter', 'add', ...filter, 'u32', 'match', 'ip', 'dst', `${namespaceAddress}/32`, 'flowid', '1:1');
  }
  // A packet from 127.0.0.1 may leave by this interface alone.
  await run('sysctl', '-q', '-w', `net.ipv4.conf.${tap}.route_localnet=1`);
  await ensureRule(netnsPath, [
    'OUTPUT',
    '-p',
    'tcp',
    '-d',
    '127.0.0.0/8',
    '-j',
    'DNAT',
    '--to-destination',
    machineAddress,
  ]);
  await ensureRule(netnsPath, ['POSTROUTING', '-o', tap, '-j', 'SNAT', '--to-source', namespaceAddress]);
  return {
    ...network,
    addresses: [...network.addresses, { address: machineAddress, prefixLength }],
    neighbours: [...network.neighbours, { address: namespaceAddress, macAddress: tapAddress }],
  };
}

async function ensureRule(netnsPath: string, rule: readonly string[]): Promise<void> {
  const iptables = (action: string) => runInNamespace(netnsPath, 'iptables', ['-w', '-t', 'nat', action, ...rule]);
  const present = await iptables('-C').then(
    () => true,
    () => false,
  );
  if (!present) await iptables('-A');
}
