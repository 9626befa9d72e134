import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identityOf } from '@sealpod/processes';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { TpmAuthority } from '../../pod-vm/tpm-authority.ts';
import { createQemuProvider } from './provider.ts';

let folder: string;
let children: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sp-qemu-'));
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  children = [];
  rmSync(folder, { recursive: true, force: true });
});

/** A process of that program's name with these arguments, which waits for its input. */
function processOf(program: string, ...args: readonly string[]): ChildProcess {
  const path = join(folder, program);
  if (!existsSync(path)) copyFileSync('/bin/dash', path);
  const child = spawn(path, ['-c', 'read line', ...args], { stdio: ['pipe', 'ignore', 'ignore'] });
  children.push(child);
  return child;
}

it('finds and ends the machines of its own folder and none that only look like them', async () => {
  const pods = join(folder, 'pods');
  const reference = { sandboxId: 'aa', name: 'podvm-a', directory: join(pods, 'aa') };
  mkdirSync(join(reference.directory, 'vm'), { recursive: true });
  const provider = createQemuProvider({
    imagesDirectory: folder,
    defaultImage: 'default',
    tpmAuthority: {} as TpmAuthority,
    sandboxesDirectory: pods,
  });
  const qemu = 'qemu-system-x86_64';
  const own = [
    processOf(qemu, '-name', `podvm-a@${reference.directory}/vm/`),
    processOf('swtpm', `prefix=${reference.directory}/vm/`),
  ];
  const foreign = [
    // Somebody's machine; another adaptor's; one whose folder's name begins like ours; another program.
    processOf(qemu, '-name', 'podvm-a'),
    processOf(qemu, '-name', `podvm-a@${folder}/other/aa/vm/`),
    processOf(qemu, '-name', `podvm-a@${reference.directory}a/vm/`),
    processOf('qemu-img', '-name', `podvm-a@${reference.directory}/vm/`),
  ];
  // Until each is what it looks like.
  const found = async () => (await provider.listInstances()).map(({ sandboxId }) => sandboxId).sort();
  await expect.poll(found, { timeout: 10_000 }).toEqual(['aa', 'aaa']);
  await expect.poll(async () => (await provider.findInstance(reference))?.id).toBe(String(own[0]?.pid));
  await provider.deleteInstance(reference);
  await provider.deleteInstance(reference);
  expect(own.map(({ pid = 0 }) => identityOf(pid))).toEqual([undefined, undefined]);
  for (const { pid = 0 } of foreign) expect(identityOf(pid)).toBeDefined();
  expect(existsSync(join(reference.directory, 'vm'))).toBe(false);
  expect(existsSync(reference.directory)).toBe(true);
  expect(await found()).toEqual(['aaa']);
});

it('refuses an image whose machines start from a template where templates are not permitted', async () => {
  const image = join(folder, 'images', 'default');
  mkdirSync(image, { recursive: true });
  const manifest = {
    version: 1,
    disk: 'disk.raw',
    rootHash: 'aa',
    commandLine: 'quiet sealpod.template=1',
    image: 'sha256:aa',
  };
  writeFileSync(join(image, 'manifest.json'), JSON.stringify(manifest));
  const directory = join(folder, 'pods', 'aa');
  mkdirSync(directory, { recursive: true });
  const provider = createQemuProvider({
    imagesDirectory: join(folder, 'images'),
    defaultImage: 'default',
    tpmAuthority: {} as TpmAuthority,
    sandboxesDirectory: join(folder, 'pods'),
    firmware: '/nonexistent',
  });
  const effects = { intend: async () => undefined, complete: async () => undefined };
  const shape = { vcpus: 1, memoryMiB: 512 };
  const { signal } = new AbortController();
  const created = provider.createInstance({ sandboxId: 'aa', name: 'podvm-a', directory, effects, signal, ...shape });
  await expect(created).rejects.toMatchObject({ code: 'PROVIDER_IMAGE', message: expect.stringContaining('template') });
  expect(provider.kept).toBeUndefined();
});
