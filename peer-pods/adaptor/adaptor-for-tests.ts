/**
 * Runs the real program of the adaptor, with the provider for tests. For tests.
 *
 * @module
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Hypervisor } from '@sealpod/protocol/gen/kata/hypervisor_pb';
import { type Client, createClient, TtrpcConnection } from '@sealpod/protocol/ttrpc';
import type { TestProviderOptions } from './provider-for-tests.ts';

/** What a test undoes at its end, last things first. */
export type Cleanups = (() => unknown)[];

export interface RunningAdaptor {
  process: ChildProcess;
  log: Record<string, unknown>[];
  exited: Promise<unknown>;
  hypervisor: Client<typeof Hypervisor>;
}

/** Writes a configuration into the folder, which also holds state and pods. Returns its path. */
export function configureAdaptor(folder: string, socket: string, provider: TestProviderOptions, more: object): string {
  const path = join(folder, 'config.json');
  const module = join(import.meta.dirname, 'provider-for-tests.ts');
  const settings = { socket, podsDirectory: join(folder, 'pods'), stateDirectory: join(folder, 'state') };
  writeFileSync(
    path,
    JSON.stringify({
      ...settings,
      startTimeoutMs: 20_000,
      ...more,
      provider: { name: 'module', path: module, ...provider },
    }),
  );
  return path;
}

/** Starts the program; resolves once it serves. */
export async function startAdaptor(config: string, socket: string, cleanups: Cleanups): Promise<RunningAdaptor> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), '--config', config], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  cleanups.push(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  const log: Record<string, unknown>[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  createInterface({ input: child.stderr }).on('line', (line) => {
    log.push(JSON.parse(line));
    if (log.at(-1)?.['msg'] === 'serving') resolve();
  });
  void exited.then(() => reject(new Error(`the adaptor ended: ${JSON.stringify(log)}`)));
  await promise;
  const connection = await TtrpcConnection.connect(socket);
  cleanups.push(() => connection.close());
  return { process: child, log, exited, hypervisor: createClient(Hypervisor, connection) };
}

/** Makes the network namespace of a pod, as a CNI plugin does. Returns its name. Needs root. */
export function makePodNamespace(cleanups: Cleanups): string {
  const name = `sealpod-t-${process.pid}-${Math.floor(Math.random() * 1e6)}`;
  const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
  ip('netns', 'add', name);
  cleanups.push(() => {
    // A test may have removed it.
    if (existsSync(`/run/netns/${name}`)) ip('netns', 'delete', name);
  });
  ip('-n', name, 'link', 'add', 'eth0', 'address', '02:00:00:00:00:07', 'type', 'veth', 'peer', 'name', 'host0');
  ip('-n', name, 'address', 'add', '10.1.2.3/24', 'dev', 'eth0');
  ip('-n', name, 'link', 'set', 'host0', 'up');
  ip('-n', name, 'link', 'set', 'eth0', 'up');
  ip('-n', name, 'route', 'add', 'default', 'via', '10.1.2.1');
  return name;
}
