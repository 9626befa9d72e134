import { BlockList, isIP } from 'node:net';
import { type ARPNeighbor, type Interface, IPFamily, type Route } from '@sealpod/protocol/gen/kata/types_pb';
import { invalidArgument, notFound } from './failures.ts';
import type { IpProgram } from './ip-program.ts';

const deviceName = /^[a-zA-Z0-9][a-zA-Z0-9_.:-]{0,14}$/;
const hardwareAddress = /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/i;
const maxMtu = 65_536n;
const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');
const ipv6 = IPFamily.v6;
/** `default` by itself says nothing of the family. */
const defaultDestinations = { [IPFamily.v4]: '0.0.0.0/0', [ipv6]: '::/0' };
/** Neighbour states of linux/neighbour.h that make sense to set. */
const neighbourStates: Readonly<Record<number, string>> = { 2: 'reachable', 4: 'stale', 64: 'noarp', 128: 'permanent' };
/** Route scopes of linux/rtnetlink.h by the names that `ip` prints. */
const scopes: Readonly<Record<string, number>> = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 };

/** A plain interface of agent.proto. */
type InterfaceInit = Pick<Interface, 'device' | 'name' | 'mtu' | 'hwAddr' | 'rawFlags' | 'type' | 'devicePath'> & {
  IPAddresses: { family: IPFamily; address: string; mask: string }[];
};
type RouteInit = Pick<Route, 'dest' | 'gateway' | 'device' | 'source' | 'scope' | 'family' | 'flags' | 'mtu'>;

interface LinkJson {
  readonly ifname: string;
  readonly address?: string;
  readonly mtu?: number;
  readonly link_type?: string;
  readonly addr_info?: readonly { readonly family: string; readonly local?: string; readonly prefixlen?: number }[];
}

interface RouteJson {
  readonly dst: string;
  /** Absent for the main table. */
  readonly table?: string;
  readonly type?: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly prefsrc?: string;
  readonly scope?: string;
  readonly protocol?: string;
  /** Router preference, which routes of IPv6 alone have. */
  readonly pref?: string;
  readonly metrics?: readonly { readonly mtu?: number }[];
}

interface ListedRoute {
  readonly route: RouteInit;
  /** Whether the kernel keeps it for an address. */
  readonly kernel: boolean;
}

/** The guest's network, by the `ip` program. Every value of a request is checked before it becomes a word of a command. */
export class GuestNetwork {
  readonly #ip: Pick<IpProgram, 'run'>;

  constructor(ip: Pick<IpProgram, 'run'>) {
    this.#ip = ip;
  }

  async interfaces(): Promise<InterfaceInit[]> {
    return interfacesOf(await this.#ip.run([['address', 'show']]));
  }

  /** Names, addresses and raises the interface that has the request's hardware address. Returns it as it then is. */
  async updateInterface(wanted: Interface): Promise<InterfaceInit> {
    const name = checkedDevice(wanted.name === '' ? wanted.device : wanted.name);
    const hardware = checkedHardwareAddress(wanted.hwAddr);
    const addresses = wanted.IPAddresses.map((item) => checkedPrefix(`${item.address}/${item.mask}`));
    const local = addresses.find(isLoopbackPrefix);
    if (local !== undefined) throw invalidArgument(`${local} belongs to the loopback interface`);
    if (wanted.mtu > maxMtu) throw invalidArgument(`mtu ${wanted.mtu} is out of range`);
    const present = await this.interfaces();
    // The loopback interface has an address too, all zeros; it is the guest's own.
    const found = present.find((item) => item.hwAddr.toLowerCase() === hardware && item.type !== 'loopback');
    if (found === undefined) throw notFound(`no interface has the hardware address ${hardware}`);
    const commands: string[][] = [];
    if (found.name !== name) {
      commands.push(['link', 'set', 'dev', checkedDevice(found.name), 'down']);
      commands.push(['link', 'set', 'dev', found.name, 'name', name]);
    }
    const noArp = (wanted.rawFlags & 128) !== 0 ? ['arp', 'off'] : [];
    const mtu = wanted.mtu === 0n ? [] : ['mtu', String(wanted.mtu)];
    commands.push(['link', 'set', 'dev', name, ...mtu, ...noArp, 'up']);
    for (const stale of found.IPAddresses) {
      const prefix = `${stale.address}/${stale.mask}`;
      const linkLocal = stale.family === ipv6 && stale.address.toLowerCase().startsWith('fe80:');
      if (!addresses.includes(prefix) && !linkLocal)
        commands.push(['address', 'delete', checkedPrefix(prefix), 'dev', name]);
    }
    // The address is the machine's own, given by the pod network: nobody else can have it.
    for (const prefix of addresses)
      commands.push(['address', 'replace', prefix, 'dev', name, ...(prefix.includes(':') ? ['nodad'] : [])]);
    const shown = await this.#ip.run([...commands, ['address', 'show', 'dev', name]]);
    const updated = interfacesOf(shown).find((item) => item.name === name);
    if (updated === undefined) throw notFound(`interface ${name} went away`);
    return { ...updated, device: wanted.device || name };
  }

  async routes(): Promise<RouteInit[]> {
    return (await this.#routeTable()).map(({ route }) => route);
  }

  /** Makes the given routes the only ones beside those the kernel keeps for addresses. */
  async updateRoutes(wanted: readonly Route[]): Promise<RouteInit[]> {
    const checked = wanted.map(routeArguments);
    const before = await this.#routeTable();
    const unwanted = before.filter(({ route, kernel }) => !kernel && !wanted.some((item) => sameRoute(item, route)));
    // A gateway is reachable only once the route to its network is there.
    const ordered = checked.toSorted((a, b) => Number(a.gateway) - Number(b.gateway));
    const after = await this.#routeTable([
      ...unwanted.map(({ route }) => ['route', 'delete', ...routeArguments({ ...route, mtu: 0 }).words]),
      ...ordered.map(({ gateway, words }) => ['route', 'replace', ...words, ...(gateway ? ['onlink'] : [])]),
    ]);
    return after.map(({ route }) => route);
  }

  async addNeighbours(neighbours: readonly ARPNeighbor[]): Promise<void> {
    const commands = neighbours.map((neighbour) => {
      const address = checkedAddress(neighbour.toIPAddress?.address ?? '');
      const state = neighbourStates[neighbour.state === 0 ? 128 : neighbour.state];
      if (state === undefined) throw invalidArgument(`neighbour state ${neighbour.state} cannot be set`);
      const device = checkedDevice(neighbour.device);
      return [
        'neighbour',
        'replace',
        address,
        'lladdr',
        checkedHardwareAddress(neighbour.lladdr),
        'dev',
        device,
        'nud',
        state,
      ];
    });
    await this.#ip.run([...commands, ['link', 'show', 'dev', 'lo']]);
  }

  /** The main table of both families, which only a listing of all tables has in one, after `commands`. */
  async #routeTable(commands: readonly (readonly string[])[] = []): Promise<ListedRoute[]> {
    return listedRoutes(await this.#ip.run([...commands, ['route', 'show', 'table', 'all']]));
  }
}

function interfacesOf(text: string): InterfaceInit[] {
  return (JSON.parse(text) as LinkJson[]).map(interfaceOf);
}

function interfaceOf(link: LinkJson): InterfaceInit {
  return {
    device: link.ifname,
    name: link.ifname,
    IPAddresses: (link.addr_info ?? []).map((address) => ({
      family: address.family === 'inet6' ? ipv6 : IPFamily.v4,
      address: address.local ?? '',
      mask: String(address.prefixlen ?? ''),
    })),
    mtu: BigInt(link.mtu ?? 0),
    hwAddr: link.address ?? '',
    devicePath: '',
    type: link.link_type ?? '',
    rawFlags: 0,
  };
}

/** The routes of the main table in what `ip -json route show table all` prints. */
function listedRoutes(text: string): ListedRoute[] {
  return (JSON.parse(text) as RouteJson[]).filter(isMain).map((json) => ({
    route: routeOf(json),
    kernel: json.protocol === 'kernel' || json.protocol === 'ra',
  }));
}

/** Whether a route leads somewhere, by the main table. */
function isMain({ table, type }: RouteJson): boolean {
  return table === undefined && (type === undefined || type === 'unicast');
}

function routeOf(json: RouteJson): RouteInit {
  return {
    dest: json.dst === 'default' ? '' : json.dst,
    gateway: json.gateway ?? '',
    device: json.dev ?? '',
    source: json.prefsrc ?? '',
    scope: scopes[json.scope ?? 'global'] ?? 0,
    family: isOfIpv6(json) ? ipv6 : IPFamily.v4,
    flags: 0,
    mtu: json.metrics?.[0]?.mtu ?? 0,
  };
}

function isOfIpv6({ dst, gateway, pref }: RouteJson): boolean {
  return pref !== undefined || dst.includes(':') || (gateway ?? '').includes(':');
}

function sameRoute(a: RouteInit, b: RouteInit): boolean {
  return a.dest === b.dest && a.gateway === b.gateway && a.device === b.device && a.family === b.family;
}

function routeArguments(route: RouteInit): { gateway: boolean; words: string[] } {
  const words = [route.dest === '' ? defaultDestinations[route.family] : checkedPrefix(route.dest)];
  if (route.gateway !== '') words.push('via', checkedAddress(route.gateway));
  words.push('dev', checkedDevice(route.device));
  if (route.source !== '') words.push('src', checkedAddress(route.source));
  const scope = Object.keys(scopes).find((name) => scopes[name] === route.scope);
  if (scope === undefined) throw invalidArgument(`route scope ${route.scope} is unknown`);
  if (route.gateway === '' && scope !== 'global') words.push('scope', scope);
  if (route.mtu > 0) words.push('mtu', String(route.mtu));
  return { gateway: route.gateway !== '', words };
}

/** Whether a prefix reaches into 127.0.0.0/8 or is ::1, where the guest's own services listen. */
function isLoopbackPrefix(prefix: string): boolean {
  const [address = ''] = prefix.split('/');
  return loopback.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

function checkedDevice(name: string): string {
  if (!deviceName.test(name)) throw invalidArgument(`${JSON.stringify(name)} is not an interface name`);
  return name;
}

function checkedHardwareAddress(address: string): string {
  if (!hardwareAddress.test(address)) throw invalidArgument(`${JSON.stringify(address)} is not a hardware address`);
  return address.toLowerCase();
}

function checkedAddress(address: string): string {
  if (isIP(address) === 0) throw invalidArgument(`${JSON.stringify(address)} is not an IP address`);
  return address;
}

/** An address with a prefix length; a bare address as `ip` prints host routes. */
function checkedPrefix(prefix: string): string {
  const [address = '', length, ...rest] = prefix.split('/');
  const bits = isIP(address) === 6 ? 128 : 32;
  const lengthIsFine = length === undefined || (/^\d{1,3}$/.test(length) && Number(length) <= bits);
  if (isIP(address) === 0 || !lengthIsFine || rest.length > 0)
    throw invalidArgument(`${JSON.stringify(prefix)} is not an address prefix`);
  return prefix;
}
