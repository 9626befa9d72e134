import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildPodVmImage, createTpmAuthority, type TpmAuthority } from '@sealpod/peer-pods/pod-vm';
import type { EffectJournal, Instance, Provider, VolumeEffect } from '@sealpod/peer-pods/provider';
import { createQemuProvider } from '@sealpod/peer-pods/providers/qemu';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { diskHolds, LoopDevices, type LoopDisk, loopObstacle } from '../loop-devices.ts';
import { ask } from './machine-client.ts';

/*
 * Volumes in real machines: real QEMU, the programs of the real image, the guest agent's own code. What is not here: the
 * agent protocol and the key broker, see the end-to-end test.
 */

const obstacle = loopObstacle();
const cacheDirectory = join(tmpdir(), 'sealpod-test-cache');
/** A machine boots in half a minute where nothing else runs. */
const patientMs = 600_000;
const canary = `canary-${randomUUID()}`;
const key = randomBytes(32).toString('hex');
const wrongKey = randomBytes(32).toString('hex');
const folder = '/run/kata-containers/sandbox/storage';

let work = '';
let authority: TpmAuthority;
const loops = new LoopDevices();
const effects: EffectJournal = { intend: async () => undefined, complete: async () => undefined };
const provided: Instance[] = [];

function provider(): Provider {
  return createQemuProvider({
    imagesDirectory: work,
    defaultImage: 'image',
    tpmAuthority: authority,
    sandboxesDirectory: join(work, 'pods'),
  });
}

async function boot(sandboxId: string): Promise<Instance> {
  const directory = join(work, 'pods', sandboxId);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { signal } = new AbortController();
  const name = `podvm-volumes-${sandboxId}`;
  const instance = await provider().createInstance({
    ...{ sandboxId, name, directory, vcpus: 1, memoryMiB: 512, effects, signal },
  });
  provided.push(instance);
  return instance;
}

const plugs = () => {
  const { volumes } = provider();
  if (volumes === undefined) throw new Error('the provider has no volumes');
  return volumes;
};
const effect = (slot: number, { device }: LoopDisk): VolumeEffect => ({
  ...{ kind: 'volume' as const, slot, serial: `serial${slot}`, device, readOnly: false },
});

/** Mounts a disk in the guest as the host would ask for it. */
function mount(instance: Instance, slot: number, more: { name: string; key?: string }): Promise<unknown> {
  const driverOptions = [`serial=serial${slot}`, ...(more.key === undefined ? [] : ['encryption_key=kbs:///a/b/c'])];
  const storage = {
    driver: 'scsi',
    source: `0:${slot}`,
    fstype: 'ext4',
    driverOptions,
    mountPoint: `${folder}/${more.name}`,
  };
  return ask(instance, { ask: 'mount', storage, key: more.key }, patientMs);
}

describe.skipIf(obstacle !== undefined)(`volumes in a machine ${obstacle ?? ''}`, () => {
  let sealed: LoopDisk;
  let plain: LoopDisk;
  let raw: LoopDisk;

  beforeAll(async () => {
    work = await mkdtemp(join(tmpdir(), 'sp-vm-volumes-'));
    const agent = join(work, 'agent');
    await build({
      ...{ entryPoints: [join(import.meta.dirname, 'volume-agent/main.ts')], outfile: join(agent, 'guest-agent.mjs') },
      ...{ bundle: true, platform: 'node', format: 'esm', logLevel: 'silent' },
    });
    await buildPodVmImage({ outputDirectory: join(work, 'image'), cacheDirectory, guestAgentDirectory: agent });
    authority = await createTpmAuthority(join(work, 'tpm-authority'));
    sealed = loops.make(work, 'sealed');
    plain = loops.make(work, 'plain');
    raw = loops.make(work, 'raw');
  }, 3 * patientMs);

  afterEach(async () => {
    for (const instance of provided.splice(0)) await provider().deleteInstance(instance);
  });

  afterAll(async () => {
    loops.detachAll();
    if (work !== '') await rm(work, { recursive: true, force: true });
  });

  it(
    'are plugged in, made, written and taken out; the host finds no plaintext on an encrypted one',
    async () => {
      const instance = await boot('first');
      await ask(instance, { ask: 'disks' }, patientMs);
      for (const [slot, which] of [sealed, plain, raw].entries()) await plugs().attach(instance, effect(slot, which));
      // The claim on the device holds while the machine has it: no mount here, no second machine.
      await expect(plugs().attach(instance, effect(5, raw))).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' });
      expect(spawnSync('mount', ['-o', 'ro', plain.device, work]).status).not.toBe(0);

      await mount(instance, 0, { name: 'sealed', key });
      await mount(instance, 1, { name: 'plain' });
      for (const name of ['sealed', 'plain'])
        await ask(instance, { ask: 'write', path: `${folder}/${name}/file`, text: canary });
      const device = { id: '0:2', type: 'scsi', containerPath: '/dev/raw', options: ['serial=serial2'] };
      const numbers = (await ask(instance, { ask: 'device', device })) as { major: number; minor: number };
      expect(numbers).toEqual({ major: 8, minor: expect.any(Number) });
      // Disks are named in the order in which the kernel finds them.
      const name = `sd${String.fromCharCode(97 + numbers.minor / 16)}`;
      await ask(instance, { ask: 'write', path: `/dev/${name}`, text: canary.padEnd(512) });
      expect(await ask(instance, { ask: 'close' })).toBeNull();
      expect(String(await ask(instance, { ask: 'disks' }))).toMatch(/ sdc\n/);
      for (const [slot, which] of [sealed, plain, raw].entries()) await plugs().detach(instance, effect(slot, which));
      const disks = async () => String(await ask(instance, { ask: 'disks' }));
      await expect.poll(disks, { timeout: 60_000 }).not.toMatch(/ sd[a-z]\n/);
      await plugs().detach(instance, effect(0, sealed));

      expect(diskHolds(sealed, canary)).toBe(false);
      expect(diskHolds(sealed, 'LUKS')).toBe(true);
      expect([diskHolds(plain, canary), diskHolds(raw, canary)]).toEqual([true, true]);
      // What the guest made is what everybody makes: this machine's own programs read it.
      const dump = execFileSync('cryptsetup', ['luksDump', sealed.file], { encoding: 'utf8' });
      expect(dump).toMatch(/cipher: aes-xts-plain64/);
      execFileSync('cryptsetup', ['open', '--test-passphrase', '--key-file', '-', sealed.file], { input: key });
    },
    2 * patientMs,
  );

  it(
    'are there in the next machine with their key, and not with another; a swapped one is refused',
    async () => {
      const instance = await boot('second');
      await ask(instance, { ask: 'disks' }, patientMs);
      for (const [slot, which] of [sealed, plain].entries()) await plugs().attach(instance, effect(slot, which));
      await expect(mount(instance, 0, { name: 'sealed', key: wrongKey })).rejects.toThrow(/VOLUME_KEY/);
      // The host gives the plain disk where an encrypted one belongs.
      await expect(mount(instance, 1, { name: 'sealed', key })).rejects.toThrow(/VOLUME_FORMAT.*not encrypted/);
      // And the encrypted one where a plain one belongs: it is not overwritten.
      await expect(mount(instance, 0, { name: 'plain' })).rejects.toThrow(/VOLUME_FORMAT/);
      await ask(instance, { ask: 'close' });
      await mount(instance, 0, { name: 'sealed', key });
      await mount(instance, 1, { name: 'plain' });
      for (const name of ['sealed', 'plain'])
        expect(await ask(instance, { ask: 'read', path: `${folder}/${name}/file` })).toBe(canary);
      // A machine that ends without warning gives back its devices.
      await provider().deleteInstance(instance);
      execFileSync('mount', ['-o', 'ro', plain.device, join(work, 'pods')]);
      execFileSync('umount', [join(work, 'pods')]);
    },
    2 * patientMs,
  );
});
