import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDaemon } from '@sealpod/processes';
import { accepts, type ServingDaemon } from './containerd.ts';
import type { Layout } from './layout.ts';
import { imagesDirectory, templateImage, tpmAuthorityDirectory } from './pod-vm-image.ts';

const program = fileURLToPath(import.meta.resolve('@sealpod/peer-pods/adaptor'));

/** Where an adaptor of an environment tells how pods started. */
export function statusSocketBeside(adaptorSocket: string): string {
  return join(dirname(adaptorSocket), 'status.sock');
}

function writeConfiguration(layout: Layout, template: boolean): { readonly file: string; readonly socket: string } {
  const socket = join(layout.run, 'hypervisor.sock');
  const configuration = {
    socket,
    statusSocket: statusSocketBeside(socket),
    podsDirectory: join(layout.run, 'pods'),
    stateDirectory: join(layout.home, 'adaptor'),
    provider: {
      name: 'qemu',
      imagesDirectory: imagesDirectory(layout),
      defaultImage: template ? templateImage : 'default',
      tpmAuthorityDirectory: tpmAuthorityDirectory(layout),
      template,
    },
  };
  const file = join(layout.home, 'adaptor.json');
  mkdirSync(configuration.stateDirectory, { recursive: true, mode: 0o700 });
  writeFileSync(file, `${JSON.stringify(configuration, null, 2)}\n`, { mode: 0o600 });
  return { file, socket };
}

/** Starts the adaptor, which boots a machine for each sandbox, or clones it from a template. */
export async function startAdaptor(layout: Layout, template: boolean): Promise<ServingDaemon> {
  const { file, socket } = writeConfiguration(layout, template);
  const daemon = await startDaemon({
    name: 'adaptor',
    command: process.execPath,
    args: [program, '--config', file],
    logDirectory: layout.logs,
    ready: () => accepts(socket),
  });
  return { daemon, socket };
}

/**
 * Ends every machine and removes every template that adaptors of this environment left, and undoes what their journal says.
 * No adaptor may run.
 */
export function removeAllMachines(layout: Layout, template: boolean): void {
  const { file } = writeConfiguration(layout, template);
  execFileSync(process.execPath, [program, '--config', file, '--remove-all'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: 60_000,
  });
}
