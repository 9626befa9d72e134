import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Service } from './services.ts';
import { SystemdServices, serviceUnit } from './systemd.ts';

const service: Service = {
  name: 'adaptor',
  description: 'Adaptor',
  command: ['/opt/sealpod/current/lib/node', '/a folder/50%/adaptor.mjs', '--config', '/etc/"x"'],
  socket: '/run/adaptor.sock',
  digest: 'd1',
  logFile: '/var/log/adaptor.log',
};

let root: string;
let server: Server;
let commands: string[];
let active: boolean;
const host = {
  path: (...names: readonly string[]) => join(root, ...names),
  /** A systemd that starts what it is told to. */
  run: async (command: readonly string[]) => {
    commands.push(command.join(' '));
    if (command[1] === 'is-active' && !active) throw new Error('inactive');
    if (command[1] === 'restart') active = true;
    return '';
  },
};

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'sp-'));
  mkdirSync(join(root, 'etc/systemd/system'), { recursive: true });
  mkdirSync(join(root, 'run'));
  server = createServer((socket) => socket.end());
  await new Promise<void>((resolve) => server.listen(join(root, service.socket), resolve));
  commands = [];
  active = false;
});
afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
  rmSync(root, { recursive: true, force: true });
});

const unit = () => join(root, 'etc/systemd/system/sealpod-adaptor.service');

test('a unit leaves what the service started alone, and words are words', () => {
  const text = serviceUnit(service);
  expect(text).toContain(
    'ExecStart="/opt/sealpod/current/lib/node" "/a folder/50%%/adaptor.mjs" "--config" "/etc/\\"x\\""',
  );
  expect(text).toMatch(/^KillMode=process$/m);
  expect(text).toMatch(/^Before=containerd.service$/m);
});

test('a service is started once, again when it is another one or has died, and removed', async () => {
  const services = new SystemdServices(host);
  expect(await services.ensure(service)).toBe(true);
  expect(commands.filter((command) => !command.includes('is-active'))).toEqual([
    'mkdir -p -m 700 /var/log',
    'systemctl daemon-reload',
    'systemctl enable sealpod-adaptor.service',
    'systemctl restart sealpod-adaptor.service',
  ]);
  expect(await services.ensure(service)).toBe(false);
  expect(await services.ensure({ ...service, digest: 'd2' })).toBe(true);
  expect(readFileSync(unit(), 'utf8')).toContain('d2');
  active = false;
  expect(await services.ensure({ ...service, digest: 'd2' })).toBe(true);
  commands = [];
  await services.remove(service);
  expect(commands).toEqual(['systemctl disable --now sealpod-adaptor.service', 'systemctl daemon-reload']);
  expect(existsSync(unit())).toBe(false);
  commands = [];
  await services.remove(service);
  expect(commands).toEqual([]);
});
