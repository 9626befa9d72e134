import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Daemon, startDaemon } from '@sealpod/processes';
import type { Layout } from './layout.ts';

/** Starts the image registry of the environment: plain HTTP, on the bridge only. */
export async function startRegistry(layout: Layout, address: string, port: number): Promise<Daemon> {
  const data = join(layout.home, 'registry');
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const file = join(layout.home, 'registry.yml');
  writeFileSync(
    file,
    `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: ${JSON.stringify(data)}}, delete: {enabled: true}}
http: {addr: ${JSON.stringify(`${address}:${port}`)}}
`,
  );
  return startDaemon({
    name: 'registry',
    logDirectory: layout.logs,
    command: 'docker-registry',
    args: ['serve', file],
    ready: () => accepts(address, port),
  });
}

/** Whether something accepts TCP connections there. */
function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
