import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { guestNetworkRequests } from './guest-requests.ts';
import { inspectPodNetwork } from './inspect.ts';
import { connectLocalhost } from './localhost.ts';
import { checkNamespace, jsonInNamespace, namespaceExists, runInNamespace } from './namespace.ts';
import { setUpTap, tapName, tearDownTap } from './tap.ts';

const unprivileged = process.getuid?.() !== 0;
const why = unprivileged ? ' (skipped: network namespaces need root)' : '';

describe.skipIf(unprivileged)(`pod network${why}`, () => {
  const suffix = `${process.pid}-${Math.floor(Math.random() * 1e6)}`;
  const [pod, peer, vm] = [`sealpod-a-${suffix}`, `sealpod-b-${suffix}`, `sealpod-c-${suffix}`];
  const path = `/run/netns/${pod}`;
  const ip = (...args: string[]) => execFileSync('ip', args, { encoding: 'utf8' });

  beforeEach(() => {
    ip('netns', 'add', pod);
    ip('netns', 'add', peer);
    ip(
      'link',
      'add',
      'eth0',
      'netns',
      pod,
      'address',
      '02:00:00:00:00:01',
      'mtu',
      '1430',
      'type',
      'veth',
      'peer',
      'name',
      'veth0',
      'netns',
      peer,
    );
    ip('-n', peer, 'address', 'add', '10.88.0.1/24', 'dev', 'veth0');
    ip('-n', peer, 'link', 'set', 'veth0', 'up');
    ip('-n', pod, 'link', 'set', 'lo', 'up');
  });
  afterEach(() => {
    for (const name of [pod, peer, vm]) {
      try {
        execFileSync('ip', ['netns', 'delete', name], { stdio: 'pipe' });
      } catch (error) {
        if (!/No such file/.test(String(error))) throw error;
      }
    }
  });

  const addresses = () => {
    ip('-n', pod, 'address', 'add', '10.88.0.2/24', 'dev', 'eth0');
    ip('-n', pod, '-6', 'address', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad');
    ip('-n', pod, 'link', 'set', 'eth0', 'up');
    ip('-n', pod, 'route', 'add', 'default', 'via', '10.88.0.1', 'src', '10.88.0.2');
    ip('-n', pod, 'route', 'add', '169.254.1.1', 'dev', 'eth0', 'scope', 'link', 'mtu', '1400');
    ip('-n', pod, 'route', 'add', '10.96.0.0/12', 'via', '169.254.1.2', 'dev', 'eth0', 'onlink');
    ip('-n', pod, '-6', 'route', 'add', 'default', 'via', 'fd00::1', 'dev', 'eth0');
    ip('-n', pod, 'neighbour', 'add', '169.254.1.1', 'lladdr', 'ee:ee:ee:ee:ee:ee', 'dev', 'eth0', 'nud', 'permanent');
  };

  it('is read as the CNI plugins left it', async () => {
    addresses();
    const network = await inspectPodNetwork(path);
    expect(network).toEqual({
      interfaceName: 'eth0',
      macAddress: '02:00:00:00:00:01',
      mtu: 1430,
      addresses: [
        { address: '10.88.0.2', prefixLength: 24 },
        { address: 'fd00::2', prefixLength: 64 },
      ],
      routes: [
        {
          destination: '169.254.1.1/32',
          gateway: undefined,
          source: undefined,
          scope: 253,
          onLink: false,
          mtu: 1400,
          version: 4,
        },
        {
          destination: undefined,
          gateway: '10.88.0.1',
          source: '10.88.0.2',
          scope: 0,
          onLink: false,
          mtu: undefined,
          version: 4,
        },
        {
          destination: '10.96.0.0/12',
          gateway: '169.254.1.2',
          source: undefined,
          scope: 0,
          onLink: true,
          mtu: undefined,
          version: 4,
        },
        {
          destination: undefined,
          gateway: 'fd00::1',
          source: undefined,
          scope: 0,
          onLink: false,
          mtu: undefined,
          version: 6,
        },
      ],
      neighbours: [{ address: '169.254.1.1', macAddress: 'ee:ee:ee:ee:ee:ee' }],
    });
    if (!network) throw new Error('no network');
    const requests = guestNetworkRequests(network);
    expect(requests.updateInterface.interface).toMatchObject({
      device: 'eth0',
      name: 'eth0',
      mtu: 1430n,
      IPAddresses: [
        { family: 0, mask: '24' },
        { family: 1, mask: '64' },
      ],
    });
    expect(
      requests.updateRoutes.routes?.Routes?.map(
        (route) => `${route.dest}|${route.gateway}|${route.family}|${route.flags}`,
      ),
    ).toEqual(['169.254.1.1/32||0|0', '|10.88.0.1|0|0', '10.96.0.0/12|169.254.1.2|0|4', '|fd00::1|1|0']);
    expect(requests.addNeighbours.neighbors?.ARPNeighbors).toMatchObject([
      { lladdr: 'ee:ee:ee:ee:ee:ee', state: 128, device: 'eth0' },
    ]);
  });

  it('may be loopback alone, but not two interfaces', async () => {
    expect(await inspectPodNetwork(path)).toBeUndefined();
    addresses();
    ip('-n', pod, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'veth1', 'netns', peer);
    ip('-n', pod, 'address', 'add', '10.99.0.2/24', 'dev', 'eth1');
    ip('-n', pod, 'link', 'set', 'eth1', 'up');
    await expect(inspectPodNetwork(path)).rejects.toMatchObject({
      code: 'NETWORK',
      detail: { actual: expect.stringMatching(/eth1/) },
    });
  });

  it('puts the VM in the place of the pod: traffic passes both ways between the tap and the outside', async () => {
    addresses();
    // One end of a veth pair stands in for the tap, so that a namespace can stand in for the VM behind it.
    ip('netns', 'add', vm);
    ip(
      'link',
      'add',
      tapName,
      'netns',
      pod,
      'type',
      'veth',
      'peer',
      'name',
      'eth0',
      'address',
      '02:00:00:00:00:01',
      'netns',
      vm,
    );
    ip('-n', vm, 'address', 'add', '10.88.0.2/24', 'dev', 'eth0');
    ip('-n', vm, 'link', 'set', 'eth0', 'mtu', '1430', 'up');
    await setUpTap(path, 'eth0', { mtu: 1430 });
    const serve = "require('net').createServer((s) => s.pipe(s)).listen(7, () => console.log('up'))";
    const server = spawn('ip', ['netns', 'exec', vm, process.execPath, '-e', serve], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await once(server.stdout, 'data');
      const ask =
        "let n=0;const s=require('net').connect(7,'10.88.0.2',()=>s.end(Buffer.alloc(1e6)));s.on('data',(d)=>n+=d.length).on('end',()=>console.log(n))";
      const answered = () =>
        execFileSync('ip', ['netns', 'exec', peer, process.execPath, '-e', ask], {
          encoding: 'utf8',
          timeout: 10_000,
          stdio: 'pipe',
        });
      expect(answered().trim()).toBe('1000000');
      await tearDownTap(path);
      expect(answered).toThrow(/ECONNREFUSED/); // the namespace's own stack answers again
    } finally {
      server.kill('SIGKILL');
    }
  });

  it("leads the namespace's localhost to the VM, again and again to the same effect", async () => {
    addresses();
    ip('netns', 'add', vm);
    const card = ['name', 'eth0', 'address', '02:00:00:00:00:01', 'netns', vm];
    ip('link', 'add', tapName, 'netns', pod, 'type', 'veth', 'peer', ...card);
    ip('-n', vm, 'link', 'set', 'eth0', 'up');
    await setUpTap(path, 'eth0', { mtu: 1430 });
    const network = await inspectPodNetwork(path, [tapName]);
    if (!network) throw new Error('no network');
    const connected = await connectLocalhost(path, tapName, network);
    expect(await connectLocalhost(path, tapName, network)).toEqual(connected);
    // What the guest agent does with it.
    for (const { address, prefixLength } of connected.addresses.filter((item) => !item.address.includes(':')))
      ip('-n', vm, 'address', 'add', `${address}/${prefixLength}`, 'dev', 'eth0');
    for (const { address, macAddress } of connected.neighbours)
      ip('-n', vm, 'neighbour', 'replace', address, 'lladdr', macAddress, 'dev', 'eth0', 'nud', 'permanent');
    const serve = "require('net').createServer((s) => s.end('in the VM')).listen(7, () => console.log('up'))";
    const server = spawn('ip', ['netns', 'exec', vm, process.execPath, '-e', serve], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await once(server.stdout, 'data');
      const ask = "require('net').connect(7,'127.0.0.1').on('data',(d)=>console.log(String(d)))";
      const answer = execFileSync('ip', ['netns', 'exec', pod, process.execPath, '-e', ask], {
        encoding: 'utf8',
        timeout: 10_000,
      });
      expect(answer).toBe('in the VM\n');
    } finally {
      server.kill('SIGKILL');
    }
  });

  it('does not touch an interface that something else filters', async () => {
    addresses();
    ip('netns', 'exec', pod, 'tc', 'qdisc', 'add', 'dev', 'eth0', 'ingress');
    const other = ['u32', 'match', 'u8', '0', '0', 'action', 'mirred', 'egress', 'redirect', 'dev', 'lo'];
    ip('netns', 'exec', pod, 'tc', 'filter', 'add', 'dev', 'eth0', 'parent', 'ffff:', 'protocol', 'all', ...other);
    await expect(setUpTap(path, 'eth0', { mtu: 1430 })).rejects.toMatchObject({ code: 'NETWORK' });
    await tearDownTap(path);
    expect(await runInNamespace(path, 'tc', ['filter', 'show', 'dev', 'eth0', 'ingress'])).toMatch(/device lo/);
  });

  it('set-up and tear-down may be repeated, and leave nothing', async () => {
    addresses();
    const state = async () => [
      await runInNamespace(path, 'tc', ['qdisc', 'show', 'dev', 'eth0']),
      await runInNamespace(path, 'tc', ['filter', 'show', 'dev', 'eth0', 'ingress']),
      ((await jsonInNamespace(path, 'ip', ['link', 'show'])) as { ifname: string }[]).map(({ ifname }) => ifname),
    ];
    const before = await state();
    await setUpTap(path, 'eth0', { mtu: 1430, owner: 64321 });
    const once = await state();
    await setUpTap(path, 'eth0', { mtu: 1430, owner: 64321 });
    expect(await state()).toEqual(once);
    expect(once).not.toEqual(before);
    expect(await jsonInNamespace(path, 'ip', ['-d', 'link', 'show', 'dev', tapName])).toMatchObject([
      { mtu: 1430, linkinfo: { info_kind: 'tun', info_data: { type: 'tap', user: 64321 } } },
    ]);
    // The network is read the same with the tap in place.
    expect(await inspectPodNetwork(path, [tapName])).toMatchObject({ interfaceName: 'eth0' });
    await tearDownTap(path);
    await tearDownTap(path);
    expect(await state()).toEqual(before);
    ip('netns', 'delete', pod);
    expect(namespaceExists(path)).toBe(false);
    await tearDownTap(path);
  });

  it("a namespace that is none, or the host's, is refused", async () => {
    checkNamespace(path);
    expect(() => checkNamespace('/proc/self/ns/net')).toThrow(/network namespace of the host/);
    expect(() => checkNamespace('/etc/passwd')).toThrow(/is not a network namespace/);
    expect(() => checkNamespace('/run/netns/absent')).toThrow(/cannot be opened/);
    await expect(inspectPodNetwork('/proc/self/ns/uts')).rejects.toMatchObject({ code: 'NETWORK' });
  });

  it('says what a tool said', async () => {
    await expect(runInNamespace(path, 'ip', ['link', 'show', 'dev', 'nothing'])).rejects.toMatchObject({
      code: 'NETWORK',
      message: 'ip link show dev nothing: Device "nothing" does not exist.',
    });
  });
});
