import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import {
  alterPodVmImage,
  buildPodVmImage,
  createTpmAuthority,
  type Manifest,
  measurePodVmImage,
  type ReferenceValues,
  type TpmAuthority,
} from '@sealpod/peer-pods/pod-vm';
import type { EffectJournal, Instance, InstanceNetwork, Provider } from '@sealpod/peer-pods/provider';
import { createQemuProvider, defaultOwner } from '@sealpod/peer-pods/providers/qemu';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ask, consoleOf, report, until } from './machine-client.ts';

const agentDirectory = join(import.meta.dirname, 'stand-in-agent');
/** Kept between runs: downloaded packages and recorded firmware logs. */
const cacheDirectory = join(tmpdir(), 'sealpod-test-cache');
const isRoot = process.getuid?.() === 0;
const initdata = Buffer.from('version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n');

let work: string;
let image: string;
let manifest: Manifest;
let reference: ReferenceValues;
let authority: TpmAuthority;
let sandboxes: string;
const provided: { provider: Provider; instance: Instance }[] = [];

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'sealpod-pod-vm-'));
  image = join(work, 'image');
  sandboxes = join(work, 'pods');
  manifest = await buildPodVmImage({ outputDirectory: image, cacheDirectory, guestAgentDirectory: agentDirectory });
  reference = JSON.parse(await readFile(await measurePodVmImage({ imageDirectory: image, cacheDirectory }), 'utf8'));
  authority = await createTpmAuthority(join(work, 'tpm-authority'));
});

afterAll(async () => {
  for (const { provider, instance } of provided) await provider.deleteInstance(instance);
  if (work !== undefined) await rm(work, { recursive: true, force: true });
});

const journal: string[] = [];
const effects: EffectJournal = {
  intend: async (effect) => void journal.push(`intend ${effect.kind}`),
  complete: async (effect) => void journal.push(`complete ${effect.kind}`),
};

function provider(imageDirectory: string): Provider {
  return createQemuProvider({
    imagesDirectory: dirname(imageDirectory),
    defaultImage: basename(imageDirectory),
    tpmAuthority: authority,
    sandboxesDirectory: sandboxes,
  });
}

async function boot(
  imageDirectory: string,
  sandboxId: string,
  more: { network?: InstanceNetwork; initdata?: Buffer } = {},
): Promise<Instance> {
  const directory = join(sandboxes, sandboxId);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const machines = provider(imageDirectory);
  const signal = new AbortController().signal;
  const name = `podvm-test-${sandboxId}`;
  const request = { sandboxId, name, directory, vcpus: 1, memoryMiB: 512, effects, signal, ...more };
  const instance = await machines.createInstance(request);
  provided.push({ provider: machines, instance });
  return instance;
}

/** Indices of the registers that differ from the reference values. Register 8 is the agent's. */
function differing(pcrs: readonly string[]): number[] {
  return Object.entries(reference.pcrs)
    .filter(([index, value]) => pcrs[Number(index)] !== value)
    .map(([index]) => Number(index));
}

describe('image', () => {
  it('is bit-identical on a second build, and nothing is built where nothing changed', async () => {
    const agent = join(work, 'agent-copy');
    await cp(agentDirectory, agent, { recursive: true });
    await chmod(join(agent, 'guest-agent.mjs'), 0o600);
    const again = join(work, 'again');
    const umask = process.umask(0o077);
    try {
      const second = await buildPodVmImage({ outputDirectory: again, cacheDirectory, guestAgentDirectory: agent });
      expect(second).toEqual(manifest);
    } finally {
      process.umask(umask);
    }
    await rm(again, { recursive: true });
    const steps: string[] = [];
    const started = performance.now();
    const progress = (step: string): void => void steps.push(step);
    const third = await buildPodVmImage({
      outputDirectory: image,
      cacheDirectory,
      guestAgentDirectory: agentDirectory,
      progress,
    });
    expect(third).toEqual(manifest);
    expect(steps).toEqual(['resolving packages']);
    console.log(`unchanged build: ${Math.round(performance.now() - started)} ms`);
  });

  it('G-07: is refused with a shell or with an agent policy that permits by default', async () => {
    const agent = join(work, 'agent-permissive');
    await cp(agentDirectory, agent, { recursive: true });
    await cp('/bin/sh', join(agent, 'sh'));
    await cp(join(import.meta.dirname, 'permissive-policy.rego'), join(agent, 'default.rego'));
    const outputDirectory = join(work, 'refused');
    const built = buildPodVmImage({ outputDirectory, cacheDirectory, guestAgentDirectory: agent });
    await expect(built).rejects.toMatchObject({
      code: 'PROVIDER_IMAGE',
      message: expect.stringMatching(/default\.rego permits by default.*sealpod\/sh is a forbidden program/),
    });
    expect(readdirSync(outputDirectory)).toEqual([]);
  });
});

describe('machine', () => {
  const namespace = `sealpod-${process.pid}`;
  const tapName = 'tap0';
  const macAddress = '02:5e:a1:00:00:07';

  beforeEach((context) => {
    if (!isRoot) context.skip('needs root: a network namespace and an unprivileged user');
  });

  beforeAll(() => {
    if (!isRoot) return;
    const ip = (...args: string[]): void => void execFileSync('ip', args);
    ip('netns', 'add', namespace);
    ip('-n', namespace, 'tuntap', 'add', tapName, 'mode', 'tap', 'user', String(defaultOwner.uid));
  });

  afterAll(() => {
    if (isRoot) execFileSync('ip', ['netns', 'del', namespace]);
  });

  it('boots as measured, twice, without privileges, whatever the pod, and leaves nothing', async () => {
    const network = { netnsPath: `/run/netns/${namespace}`, tapName, macAddress, mtu: 1500 };
    const started = performance.now();
    const first = await boot(image, 'first', { network, initdata });
    const running = performance.now();
    const preparing = authority.prepare();
    const told = await report(first);
    const ready = performance.now();
    await preparing;
    console.log(
      `createInstance ${Math.round(running - started)} ms, agent answers ${Math.round(ready - started)} ms, guest uptime ${told.uptime}`,
    );

    expect(differing(told.pcrs)).toEqual([]);
    expect(told.pcrs[8]).toBe('0'.repeat(64));
    expect(told.commandLine).toContain(`roothash=${manifest.rootHash}`);
    expect(Object.values(told.interfaces)).toContain(macAddress);
    expect(told.initdataDisk.startsWith('initdata')).toBe(true);
    await expect(ask(first, { ask: 'echo', text: 'x'.repeat(100_000) })).resolves.toBe('x'.repeat(100_000));
    await expect(ask(first, { ask: 'run', program: '/usr/bin/crun', args: ['--version'] })).resolves.toMatchObject({
      status: 0,
    });
    // G-21: tables from the host cannot change the kernel.
    const lockdown = {
      program: '/usr/bin/node',
      args: ['-p', 'fs.readFileSync("/sys/kernel/security/lockdown", "utf8")'],
    };
    await expect(ask(first, { ask: 'run', ...lockdown })).resolves.toMatchObject({
      output: expect.stringContaining('[confidentiality]'),
    });
    await expect(ask(first, { ask: 'run', program: '/bin/sh', args: [] })).resolves.toMatchObject({ error: 'ENOENT' });

    expect(statSync(`/proc/${first.id}`).uid).toBe(defaultOwner.uid);
    const status = readFileSync(`/proc/${first.id}/status`, 'utf8');
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    expect(status).toMatch(/^CapBnd:\s+0+$/m);
    expect(status).toMatch(/^Seccomp:\s+2$/m);
    const state = join(first.directory, 'vm', 'tpm');
    for (const file of readdirSync(state)) expect(statSync(join(state, file)).mode & 0o777).toBe(0o600);

    const restarted = provider(image);
    // Image and certificate are told once, by whoever made the machine.
    const { image: _image, endorsementCertificate: _certificate, ...found } = first;
    await expect(restarted.listInstances()).resolves.toEqual([found]);
    await expect(restarted.findInstance(first)).resolves.toEqual(found);

    await restarted.deleteInstance(first);
    await expect(restarted.findInstance(first)).resolves.toBeUndefined();
    expect(existsSync(join(first.directory, 'vm'))).toBe(false);
    expect(processesNaming(first.directory)).toEqual([]);
    await restarted.deleteInstance(first);

    const second = await report(await boot(image, 'second'));
    expect(second.pcrs).toEqual(told.pcrs);
    expect(journal).toContain('intend process');
  });

  it('an altered command line changes exactly the registers that hold it', async () => {
    const altered = join(work, 'altered-command-line');
    await alterPodVmImage({ imageDirectory: image, outputDirectory: altered, change: 'command-line' });
    const { pcrs, commandLine } = await report(await boot(altered, 'command-line'));
    expect(commandLine).toContain('sealpod.altered=1');
    expect(differing(pcrs)).toEqual([4, 9, 10, 11]);
    const measured: ReferenceValues = JSON.parse(
      await readFile(await measurePodVmImage({ imageDirectory: altered, cacheDirectory }), 'utf8'),
    );
    expect(measured.pcrs).toEqual(
      Object.fromEntries(Object.keys(measured.pcrs).map((index) => [index, pcrs[Number(index)]])),
    );
    const changed = Object.keys(measured.reference_values).filter(
      (id) => String(measured.reference_values[id]) !== String(reference.reference_values[id]),
    );
    expect(changed.sort()).toEqual(['tpm_command_line', 'tpm_loader']);
  });

  it('a changed byte of the root file system ends the machine before the agent starts', async () => {
    const altered = join(work, 'altered-root-byte');
    await alterPodVmImage({ imageDirectory: image, outputDirectory: altered, change: 'root-byte' });
    const instance = await boot(altered, 'root-byte');
    const machines = provider(altered);
    const ended = async (): Promise<boolean> => (await machines.findInstance(instance)) === undefined;
    await until(ended, 120_000, 'the end of the machine');
    const text = await consoleOf(instance);
    expect(text).toContain('data block 0 is corrupted');
    expect(text).not.toContain('agent ready');
  });

  it('a root file system with hashes made to fit has another root hash and another command line', async () => {
    const altered = join(work, 'altered-root');
    const changed = await alterPodVmImage({
      imageDirectory: image,
      outputDirectory: altered,
      change: 'root-file-system',
    });
    expect(changed.rootHash).not.toBe(manifest.rootHash);
    const file = await measurePodVmImage({ imageDirectory: altered, cacheDirectory });
    const measured: ReferenceValues = JSON.parse(await readFile(file, 'utf8'));
    expect(measured.reference_values['tpm_root_hash']).toEqual([changed.rootHash]);
    expect(measured.reference_values['tpm_kernel']).toEqual(reference.reference_values['tpm_kernel']);
    expect(measured.reference_values['tpm_initrd']).toEqual(reference.reference_values['tpm_initrd']);
  });

  it('a machine that cannot start leaves nothing and says why', async () => {
    const damaged = createQemuProvider({
      imagesDirectory: dirname(image),
      defaultImage: basename(image),
      tpmAuthority: authority,
      sandboxesDirectory: sandboxes,
      firmware: join(work, 'no-firmware'),
    });
    const directory = join(sandboxes, 'broken');
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const signal = new AbortController().signal;
    const identity = { sandboxId: 'broken', name: 'podvm-broken', directory };
    const created = damaged.createInstance({ ...identity, vcpus: 1, memoryMiB: 256, effects, signal });
    await expect(created).rejects.toMatchObject({
      code: 'HYPERVISOR',
      detail: { actual: expect.stringContaining('no-firmware') },
    });
    expect(readdirSync(directory)).toEqual([]);
    expect(processesNaming(directory)).toEqual([]);
  });
});

/** Process ids whose command line names a path. */
function processesNaming(path: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name) || name === String(process.pid)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(path);
    } catch {
      // It ended while the list was read.
      return false;
    }
  });
}
