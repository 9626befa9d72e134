import { describe, expect, test } from 'vitest';
import { parseNodeAgentConfig } from './config.ts';

const parse = (value: unknown) => parseNodeAgentConfig(JSON.stringify(value), 'node-agent.json');

test('every member has a default', () => {
  expect(parse({})).toMatchObject({
    hostRoot: '/host',
    prefix: '/opt/sealpod',
    containerd: { configuration: '/etc/containerd/config.toml', restart: { systemd: 'containerd' } },
    adaptor: { provider: { name: 'qemu' } },
    capacity: { resource: 'sealpod.io/vm', count: 10 },
    health: { port: 9440 },
  });
});

test('what is given takes the place of the default, and nothing else does', () => {
  const config = parse({
    containerd: { restart: { command: ['/usr/local/bin/restart', 'now'] }, socket: '/run/k3s/containerd.sock' },
    adaptor: { limits: { sandboxes: 3 }, provider: { name: 'qemu', defaultImage: 'tuned' } },
    capacity: { resource: 'kata.peerpods.io/vm', count: 0 },
    shim: { agentTimeout: 30 },
  });
  expect(config.containerd).toMatchObject({
    configuration: '/etc/containerd/config.toml',
    socket: '/run/k3s/containerd.sock',
    restart: { command: ['/usr/local/bin/restart', 'now'] },
  });
  expect(config.adaptor.limits).toEqual({ vcpus: 32, memoryMiB: 65_536, sandboxes: 3 });
  expect(config.adaptor.provider).toEqual({ name: 'qemu', defaultImage: 'tuned' });
  expect(config.capacity).toEqual({ resource: 'kata.peerpods.io/vm', count: 0 });
  expect(config.shim).toEqual({ agentTimeout: 30 });
});

describe('refuses, naming the member', () => {
  test.each([
    ['a member that is not known', { prefixes: '/x' }, /"prefixes" is unknown/],
    ['a nested one', { containerd: { config: '/x' } }, /containerd: "config" is unknown/],
    ['a relative path', { prefix: 'opt' }, /"prefix" must be an absolute path/],
    ['a path that leads elsewhere', { stateDirectory: '/var/../etc' }, /"stateDirectory" must be an absolute path/],
    ['a folder too long for sockets', { runDirectory: `/run/${'x'.repeat(19)}` }, /at most 23 bytes/],
    ['both ways of a restart', { containerd: { restart: { systemd: 'x', command: ['/y'] } } }, /stands alone/],
    ['a unit without a name', { containerd: { restart: { systemd: '' } } }, /"systemd" is empty/],
    ['a program that PATH chooses', { containerd: { restart: { command: ['sh'] } } }, /absolute path/],
    ['a count below its least', { intervalSeconds: 0 }, /at least 1/],
    ['a resource without a domain', { capacity: { resource: 'vm' } }, /qualified name/],
    ['a provider without a name', { adaptor: { provider: {} } }, /provider.name must be a string/],
    ['another choice', { services: 'upstart' }, /one of auto, systemd, agent/],
  ])('%s', (_, value, message) => {
    expect(() => parse(value)).toThrow(message);
  });
});
