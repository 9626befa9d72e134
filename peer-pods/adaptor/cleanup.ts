import { lstat, rm, unlink } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { endProcess, findProcesses } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { tearDownTap } from '../network/tap.ts';
import type { Effect, InstanceReference, Provider } from '../providers/provider.ts';
import type { EffectRecord, SandboxRecord } from './journal.ts';

/** How long a process may take to end by itself. */
const graceMs = 3000;

/**
 * Undoes everything that a sandbox did or only meant to do, last things first. May be repeated: what is gone already is
 * passed over. Throws where something could not be undone; the sandbox then stays in the journal.
 */
export async function undoSandbox(record: SandboxRecord, provider: Provider): Promise<void> {
  const { id: sandboxId, name, directory } = record.spec;
  const reference = { sandboxId, name, directory };
  await provider.deleteInstance(reference);
  for (const { effect, identity } of record.effects.toReversed())
    await undoEffect(effect, identity, reference, provider);
}

async function undoEffect(
  effect: Effect,
  identity: EffectRecord['identity'],
  reference: InstanceReference,
  provider: Provider,
): Promise<void> {
  const { directory } = reference;
  switch (effect.kind) {
    case 'volume':
      await provider.volumes?.detach(reference, effect);
      return;
    case 'process': {
      // An intent without identity: the process may have been started in the moment before the adaptor died.
      const processes = identity ? [identity] : findProcesses(effect);
      for (const found of processes) await endProcess(found, effect, graceMs);
      return;
    }
    case 'tap':
      await tearDownTap(effect.netnsPath, effect.name);
      return;
    case 'socket':
      await removeSocket(within(effect.path, directory));
      return;
    case 'directory':
      await removeDirectory(within(effect.path, directory));
  }
}

/** The journal lies outside the sandboxes' reach, and still: nothing outside the sandbox's own directory is removed. */
function within(path: string, directory: string): string {
  const resolved = join(path, '.');
  if (resolved === directory || resolved.startsWith(directory + sep)) return resolved;
  throw new SealpodError('STORAGE', `${path} does not belong to the sandbox in ${directory}`);
}

async function removeSocket(path: string): Promise<void> {
  if ((await kindOf(path)) === 'socket') await unlink(path);
}

async function removeDirectory(path: string): Promise<void> {
  // A link in its place would lead elsewhere.
  if ((await kindOf(path)) === 'directory') await rm(path, { recursive: true });
}

async function kindOf(path: string): Promise<'socket' | 'directory' | 'other' | undefined> {
  try {
    const stat = await lstat(path);
    if (stat.isSocket()) return 'socket';
    return stat.isDirectory() && (await lstat(dirname(path))).isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
