import { SealpodError } from '@sealpod/protocol/errors';
import { jsonInNamespace, namespaceExists, runInNamespace } from './namespace.ts';

/** Interface in the pod's namespace to which the VM's card is attached. */
export const tapName = 'tap0_sealpod';

interface Filter {
  protocol?: string;
  options?: { actions?: { kind?: string; mirred_action?: string; to_dev?: string }[] };
}

/**
 * Creates the tap in the pod's namespace and ties it to `interfaceName`: every frame that arrives at one leaves by the
 * other, so the VM stands in the pod's place and the CNI's set-up on the host side keeps working.
 * Does only what is not there yet. Throws NETWORK.
 */
export async function setUpTap(
  netnsPath: string,
  interfaceName: string,
  options: { mtu: number; owner?: number | undefined },
): Promise<void> {
  if (!(await linkExists(netnsPath, tapName))) {
    const owner = options.owner === undefined ? [] : ['user', String(options.owner)];
    await runInNamespace(netnsPath, 'ip', ['tuntap', 'add', 'dev', tapName, 'mode', 'tap', ...owner]);
  }
  await runInNamespace(netnsPath, 'ip', ['link', 'set', 'dev', tapName, 'mtu', String(options.mtu), 'up']);
  await redirect(netnsPath, interfaceName, tapName);
  await redirect(netnsPath, tapName, interfaceName);
}

/**
 * Removes the tap and what ties the pod's interfaces to it; the pod is reachable by its own namespace again.
 * Does nothing where the namespace or the tap is gone. Throws NETWORK.
 */
export async function tearDownTap(netnsPath: string, name: string = tapName): Promise<void> {
  if (!namespaceExists(netnsPath)) return;
  for (const interfaceName of await linkNames(netnsPath)) {
    if (interfaceName === name || !(await redirects(netnsPath, interfaceName, name))) continue;
    // Nothing else hangs on this hook: set-up refuses an interface where it does.
    await runInNamespace(netnsPath, 'tc', ['qdisc', 'delete', 'dev', interfaceName, 'ingress']);
  }
  if (await linkExists(netnsPath, name)) await runInNamespace(netnsPath, 'ip', ['link', 'delete', 'dev', name]);
}

async function redirect(netnsPath: string, from: string, to: string): Promise<void> {
  const filters = await filtersOf(netnsPath, from);
  if (filters.some((filter) => isRedirect(filter, to))) return;
  if (filters.some(({ options }) => options?.actions)) {
    throw new SealpodError('NETWORK', `something else filters what arrives at ${from} in ${netnsPath}`, {
      fix: 'remove the traffic filter from the inside of the pod network',
    });
  }
  const qdiscs = (await jsonInNamespace(netnsPath, 'tc', ['qdisc', 'show', 'dev', from, 'ingress'])) as {
    kind?: string;
  }[];
  if (!qdiscs.some(({ kind }) => kind === 'ingress')) {
    await runInNamespace(netnsPath, 'tc', ['qdisc', 'add', 'dev', from, 'ingress']);
  }
  const match = ['protocol', 'all', 'u32', 'match', 'u8', '0', '0'];
  const action = ['action', 'mirred', 'egress', 'redirect', 'dev', to];
  await runInNamespace(netnsPath, 'tc', ['filter', 'add', 'dev', from, 'parent', 'ffff:', ...match, ...action]);
}

/** Whether frames that arrive at `from` are redirected to `to`. */
async function redirects(netnsPath: string, from: string, to: string): Promise<boolean> {
  return (await filtersOf(netnsPath, from)).some((filter) => isRedirect(filter, to));
}

async function filtersOf(netnsPath: string, interfaceName: string): Promise<Filter[]> {
  return (await jsonInNamespace(netnsPath, 'tc', ['filter', 'show', 'dev', interfaceName, 'ingress'])) as Filter[];
}

function isRedirect({ options }: Filter, to: string): boolean {
  const actions = options?.actions ?? [];
  return actions.some(
    ({ kind, mirred_action, to_dev }) => kind === 'mirred' && mirred_action === 'redirect' && to_dev === to,
  );
}

async function linkExists(netnsPath: string, name: string): Promise<boolean> {
  return (await linkNames(netnsPath)).includes(name);
}

async function linkNames(netnsPath: string): Promise<string[]> {
  const links = (await jsonInNamespace(netnsPath, 'ip', ['link', 'show'])) as { ifname: string }[];
  return links.map(({ ifname }) => ifname);
}
