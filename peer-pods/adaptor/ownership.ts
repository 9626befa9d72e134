import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { namespaceExists } from '../network/namespace.ts';
import { tapName } from '../network/tap.ts';
import type { Provider } from '../providers/provider.ts';
import { undoSandbox } from './cleanup.ts';
import type { EffectRecord, SandboxSpec } from './journal.ts';

/** In the directory of each sandbox: whose it is and what it is. Beyond the reach of its hypervisor. */
const ownerFile = 'owner.json';
const maxOwnerFileBytes = 64 * 1024;

interface OwnerRecord {
  /** Identity of the adaptor that made the sandbox. */
  readonly adaptor: string;
  readonly spec: SandboxSpec;
}

/** The name by which an adaptor knows its own sandboxes, made once and kept with its state. Throws the system's error. */
export async function adaptorIdentity(stateDirectory: string): Promise<string> {
  const path = join(stateDirectory, 'identity');
  try {
    await writeFile(path, randomUUID(), { flag: 'wx', mode: 0o600, flush: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const identity = await readFile(path, 'utf8');
  if (/^[0-9a-f-]{36}$/.test(identity)) return identity;
  // It was cut off by a crash at its first writing, before any sandbox was made.
  await writeFile(path, randomUUID(), { mode: 0o600, flush: true });
  return readFile(path, 'utf8');
}

/** Marks the directory of a sandbox as this adaptor's. */
export async function markOwned(spec: SandboxSpec, adaptor: string): Promise<void> {
  const record: OwnerRecord = { adaptor, spec };
  await writeFile(join(spec.directory, ownerFile), JSON.stringify(record), { flag: 'wx', mode: 0o600 });
}

export interface Strays {
  /** Made by this adaptor, and unknown to its journal: nothing can reach them any more. */
  readonly own: readonly SandboxSpec[];
  /** Directories of whom nobody knows; an operator has to decide. */
  readonly foreign: readonly string[];
}

/** The directories below `podsDirectory` whose names `known` does not have. */
export async function findStrays(
  podsDirectory: string,
  adaptor: string,
  known: (sandboxId: string) => boolean,
): Promise<Strays> {
  const own: SandboxSpec[] = [];
  const foreign: string[] = [];
  for (const name of await readdir(podsDirectory)) {
    if (known(name)) continue;
    const directory = join(podsDirectory, name);
    const record = await readOwner(directory);
    const ours = record?.adaptor === adaptor && record.spec.id === name && record.spec.directory === directory;
    // Its own adaptor may have removed it meanwhile.
    if (known(name)) continue;
    if (ours) own.push(record.spec);
    else foreign.push(directory);
  }
  return { own, foreign };
}

/** Ends and removes a stray of this adaptor's. `networksInUse`: namespaces of sandboxes that are known. Throws where it fails. */
export async function removeStray(
  spec: SandboxSpec,
  provider: Provider,
  networksInUse: ReadonlySet<string>,
): Promise<void> {
  const effects: EffectRecord[] = [{ effect: { kind: 'directory', path: spec.directory }, completed: true }];
  const { netnsPath } = spec;
  if (netnsPath !== undefined && namespaceExists(netnsPath) && !networksInUse.has(netnsPath)) {
    effects.push({ effect: { kind: 'tap', netnsPath, name: tapName }, completed: true });
  }
  await undoSandbox({ spec, phase: 'stopping', effects }, provider);
}

async function readOwner(directory: string): Promise<OwnerRecord | undefined> {
  let file: FileHandle;
  try {
    file = await open(join(directory, ownerFile), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    // No such file, no directory, a link: in any case not what this adaptor makes.
    return undefined;
  }
  try {
    const status = await file.stat();
    if (!status.isFile() || status.size > maxOwnerFileBytes || status.uid !== process.getuid?.()) return undefined;
    const record = JSON.parse(await file.readFile('utf8')) as Partial<OwnerRecord> | null;
    return typeof record?.adaptor === 'string' && typeof record.spec?.name === 'string'
      ? (record as OwnerRecord)
      : undefined;
  } catch {
    // Not JSON.
    return undefined;
  } finally {
    await file.close();
  }
}
