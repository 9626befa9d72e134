import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fromJson, type JsonObject } from '@bufbuild/protobuf';
import { ARPNeighborSchema, InterfaceSchema, RouteSchema } from '@sealpod/protocol/gen/kata/types_pb';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { IpProgram } from './ip-program.ts';
import { GuestNetwork } from './network.ts';

const namespace = `sealpod-${randomBytes(4).toString('hex')}`;
const hwAddr = '02:00:00:00:0a:01';

function ip(...arguments_: string[]): string {
  return execFileSync('ip', arguments_, { encoding: 'utf8', stdio: 'pipe' });
}

/** Why network namespaces cannot be made here, or nothing. */
function cannotMakeNamespaces(): string | undefined {
  const probe = `${namespace}-probe`;
  try {
    ip('netns', 'add', probe);
    ip('netns', 'delete', probe);
    return undefined;
  } catch (thrown) {
    return `network namespaces cannot be made: ${String(thrown).split('\n')[0]}`;
  }
}

const reason = cannotMakeNamespaces();

describe.skipIf(reason !== undefined)(`guest network${reason ? ` (skipped: ${reason})` : ''}`, () => {
  let program: IpProgram;
  let inNamespace: GuestNetwork;
  beforeEach(() => {
    program = new IpProgram(['ip', 'netns', 'exec', namespace]);
    inNamespace = new GuestNetwork(program);
    ip('netns', 'add', namespace);
    ip('-n', namespace, 'link', 'add', 'veth0', 'address', hwAddr, 'type', 'veth', 'peer', 'name', 'veth1');
    ip('-n', namespace, 'link', 'set', 'veth1', 'up');
    ip('-n', namespace, 'address', 'add', '192.0.2.7/24', 'dev', 'veth0');
  });
  afterEach(() => {
    program.close();
    ip('netns', 'delete', namespace);
  });

  const wanted = fromJson(InterfaceSchema, {
    name: 'eth0',
    hwAddr: hwAddr.toUpperCase(),
    mtu: '1400',
    IPAddresses: [
      { address: '10.88.0.5', mask: '16' },
      { family: 'v6', address: 'fd00::5', mask: '64' },
    ],
  });
  const route = (fields: JsonObject) => fromJson(RouteSchema, { device: 'eth0', ...fields });

  it('finds the interface by its hardware address, names it and gives it its addresses and no others', async () => {
    for (const _again of [1, 2]) {
      const updated = await inNamespace.updateInterface(wanted);
      expect(updated).toMatchObject({ name: 'eth0', mtu: 1400n, hwAddr });
      const global = updated.IPAddresses.filter(({ address }) => !address.startsWith('fe80'));
      expect(global).toEqual([
        { family: 0, address: '10.88.0.5', mask: '16' },
        { family: 1, address: 'fd00::5', mask: '64' },
      ]);
    }
    expect((await inNamespace.interfaces()).map(({ name }) => name)).toEqual(
      expect.arrayContaining(['lo', 'eth0', 'veth1']),
    );
  });

  it('the loopback interface, where the REST API listens, is not the host’s to rename or to change', async () => {
    const loopback = fromJson(InterfaceSchema, { name: 'lo9', hwAddr: '00:00:00:00:00:00' });
    await expect(inNamespace.updateInterface(loopback)).rejects.toThrow(/no interface has the hardware address/);
    expect((await inNamespace.interfaces()).map(({ name }) => name)).toContain('lo');
  });

  it('puts routes in place, those of networks first, and takes others away', async () => {
    await inNamespace.updateInterface(wanted);
    ip('-n', namespace, 'route', 'add', '198.51.100.0/24', 'dev', 'eth0');
    const routes = [
      route({ gateway: '10.88.0.1' }),
      route({ dest: '10.99.0.0/16', gateway: '10.88.0.2', mtu: 1300 }),
      route({ dest: '203.0.113.0/24', scope: 253 }),
    ];
    for (const _again of [1, 2]) {
      const table = await inNamespace.updateRoutes(routes);
      expect(table).toEqual(
        expect.arrayContaining([
          expect.objectContaining({ dest: '', gateway: '10.88.0.1', device: 'eth0' }),
          expect.objectContaining({ dest: '10.99.0.0/16', gateway: '10.88.0.2', mtu: 1300 }),
          expect.objectContaining({ dest: '203.0.113.0/24', gateway: '', scope: 253 }),
        ]),
      );
      expect(table.map(({ dest }) => dest)).not.toContain('198.51.100.0/24');
    }
  });

  it('keeps the routes of both families apart', async () => {
    await inNamespace.updateInterface(wanted);
    ip('-n', namespace, '-6', 'route', 'add', 'fd09::/64', 'via', 'fd00::9', 'dev', 'eth0');
    const routes = [
      route({ gateway: '10.88.0.1' }),
      route({ gateway: 'fd00::1', family: 'v6' }),
      route({ dest: 'fd01::/64', family: 'v6' }),
    ];
    const global = (await inNamespace.updateRoutes(routes)).filter(({ dest }) => !dest.startsWith('fe80'));
    expect(global.filter(({ family }) => family === 0).map(({ dest }) => dest)).toEqual(['', '10.88.0.0/16']);
    expect(global.filter(({ family }) => family === 1).map(({ dest }) => dest)).toEqual(
      expect.arrayContaining(['', 'fd00::/64', 'fd01::/64']),
    );
    expect(global.map(({ dest }) => dest)).not.toContain('fd09::/64');
  });

  it('names the command that the kernel refuses', async () => {
    await inNamespace.updateInterface(wanted);
    const routes = [
      route({ dest: '203.0.113.0/24', scope: 253 }),
      route({ dest: '198.51.100.0/24', source: '10.1.1.1' }),
    ];
    await expect(inNamespace.updateRoutes(routes)).rejects.toThrow(
      /^ip route replace 198\.51\.100\.0\/24 dev eth0 src 10\.1\.1\.1: .*Invalid/s,
    );
    expect((await inNamespace.updateRoutes(routes.slice(0, 1))).map(({ dest }) => dest)).toContain('203.0.113.0/24');
  });

  it('adds neighbours', async () => {
    await inNamespace.updateInterface(wanted);
    const neighbour = {
      toIPAddress: { address: '10.88.0.1' },
      device: 'eth0',
      lladdr: '02:00:00:00:00:99',
      state: 128,
    };
    await inNamespace.addNeighbours([fromJson(ARPNeighborSchema, neighbour)]);
    expect(ip('-n', namespace, 'neighbour', 'show')).toContain('10.88.0.1 dev eth0 lladdr 02:00:00:00:00:99 PERMANENT');
  });

  it('does not find an interface of another hardware address', async () => {
    const other = fromJson(InterfaceSchema, { name: 'eth0', hwAddr: '02:00:00:00:ff:ff' });
    await expect(inNamespace.updateInterface(other)).rejects.toThrow(/no interface has the hardware address/);
  });
});

describe('values of network requests', () => {
  const commands: string[] = [];
  const network = new GuestNetwork({
    run: async (lines) => {
      commands.push(...lines.map((words) => words.join(' ')));
      return '[]';
    },
  });

  it.each([
    { name: '-s', hwAddr },
    { name: 'a b', hwAddr },
    { name: '../eth0', hwAddr },
    { name: 'eth0', hwAddr: 'x' },
    { name: 'eth0', hwAddr, mtu: '70000' },
    { name: 'eth0', hwAddr, IPAddresses: [{ address: '10.0.0.1', mask: '33' }] },
    { name: 'eth0', hwAddr, IPAddresses: [{ address: 'name', mask: '8' }] },
    { name: 'eth0', hwAddr, IPAddresses: [{ address: '127.0.0.1', mask: '8' }] },
    { name: 'eth0', hwAddr, IPAddresses: [{ family: 'v6', address: '::1', mask: '128' }] },
  ])('refuses interface %j before any command', async (json) => {
    await expect(network.updateInterface(fromJson(InterfaceSchema, json))).rejects.toMatchObject({ status: 3 });
    expect(commands).toEqual([]);
  });

  it.each([
    { dest: '10.0.0.0/8/8', device: 'eth0' },
    { dest: 'default', device: 'eth0' },
    { dest: '10.0.0.0/8', device: '-batch' },
    { gateway: 'evil', device: 'eth0' },
    { gateway: '10.0.0.1', device: 'eth0', source: 'x' },
    { gateway: '10.0.0.1', device: 'eth0', scope: 7 },
  ])('refuses route %j before any command', async (json) => {
    await expect(network.updateRoutes([fromJson(RouteSchema, json)])).rejects.toMatchObject({ status: 3 });
    expect(commands).toEqual([]);
  });

  it.each([
    { device: 'eth0', lladdr: hwAddr, state: 128 },
    { toIPAddress: { address: '10.0.0.1' }, device: 'eth0', lladdr: 'x', state: 128 },
    { toIPAddress: { address: '10.0.0.1' }, device: 'eth0', lladdr: hwAddr, state: 3 },
  ])('refuses neighbour %j before any command', async (json) => {
    await expect(network.addNeighbours([fromJson(ARPNeighborSchema, json)])).rejects.toMatchObject({ status: 3 });
    expect(commands).toEqual([]);
  });
});
