import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import { type LogEvent, parseEventLog } from '@sealpod/protocol/event-log';
import { machineFiles, makeMachineDirectory, startMachine, startTpm } from '../providers/qemu/launch.ts';
import { type Accelerator, type MachineShape, machineArguments } from '../providers/qemu/machine.ts';
import { fileSha256, writeDisk } from './disk.ts';
import { makeEfiFileSystem } from './file-systems.ts';
import { run } from './run.ts';
import { makeWorkDirectory, temporaryWork } from './work-directory.ts';

export interface CalibrationOptions {
  /** The EFI program that prints the event log: same stub and kernel as the image's, a small initrd of its own. */
  readonly program: string;
  readonly firmware: string;
  readonly shape: MachineShape;
  readonly accelerator: Accelerator;
  readonly cacheDirectory: string;
}

const bootTimeoutMs = 180_000;

/**
 * Boots a machine of the given shape once and returns the firmware's event log.
 *
 * Needed because the firmware's first volume is measured where it already runs: its digest depends on memory and
 * processors and cannot be computed from the file. The result is kept in the cache under everything it depends on.
 * What this machine records is what it claims to be: do it on a machine that you trust.
 *
 * @throws SealpodError `HYPERVISOR` where the machine prints no log, `PREREQUISITE` where a program is missing.
 */
export async function calibrate(options: CalibrationOptions): Promise<readonly LogEvent[]> {
  const cache = join(options.cacheDirectory, 'calibrations');
  await mkdir(cache, { recursive: true });
  const file = join(cache, `${await cacheKey(options)}.eventlog`);
  const cached = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (cached !== undefined) return parseEventLog(cached).events;
  const log = await recordEventLog(options);
  const { events } = parseEventLog(log);
  await writeFile(file, log);
  return events;
}

async function cacheKey({ program, firmware, shape, accelerator }: CalibrationOptions): Promise<string> {
  const layout = machineArguments({ name: '', shape, accelerator, firmware, consoleFile: '', tpmSocket: '' });
  const version = (await run('qemu-system-x86_64', ['--version'])).toString('utf8');
  const hash = createHash('sha256').update(JSON.stringify([layout, version]));
  return hash
    .update(await fileSha256(firmware))
    .update(await fileSha256(program))
    .digest('hex');
}

async function recordEventLog(options: CalibrationOptions): Promise<Buffer> {
  const work = await makeWorkDirectory(temporaryWork.parent(), 'sealpod-calibration');
  const marker = `sealpod-calibration-${randomBytes(8).toString('hex')}`;
  const owner =
    process.getuid?.() === 0
      ? { uid: 65534, gid: 65534 }
      : { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const directory = join(work, 'vm');
  const started: { kill: (signal: NodeJS.Signals) => boolean }[] = [];
  try {
    const disk = await writeCalibrationDisk(work, options.program);
    await makeMachineDirectory(directory, owner);
    await writeFile(join(directory, machineFiles.initdata), Buffer.alloc(512));
    await makeTpmState(join(directory, machineFiles.tpmState), owner);
    started.push((await startTpm(directory, owner, marker)).child);
    const machine = {
      name: marker,
      shape: options.shape,
      accelerator: options.accelerator,
      firmware: options.firmware,
    };
    const { child } = await startMachine({ directory, owner, diskFile: disk, machine });
    started.push(child);
    const deadline = Date.now() + bootTimeoutMs;
    while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) await sleep(50);
    return decodeConsole(await readFile(join(directory, machineFiles.console), 'latin1'));
  } finally {
    for (const child of started) child.kill('SIGKILL');
    await rm(work, { recursive: true, force: true });
  }
}

/** A disk with the same partition names as an image's; firmware measures its table into PCR 5, which is not recorded. */
async function writeCalibrationDisk(work: string, program: string): Promise<string> {
  const files = { efi: join(work, 'efi'), root: join(work, 'root'), verity: join(work, 'verity') };
  await makeEfiFileSystem(files.efi, await readFile(program));
  await writeFile(files.root, Buffer.alloc(4096));
  await writeFile(files.verity, Buffer.alloc(4096));
  await writeDisk(join(work, 'disk.raw'), files);
  return join(work, 'disk.raw');
}

async function makeTpmState(directory: string, owner: { uid: number; gid: number }): Promise<void> {
  await mkdir(directory, { mode: 0o700 });
  const identity = ['--tpm2', '--tpmstate', `dir://${directory}`, '--pcr-banks', 'sha256', '--overwrite'];
  await run('swtpm_setup', identity, { timeoutMs: 60_000 });
  if (process.getuid?.() === 0) await run('chown', ['--recursive', `${owner.uid}:${owner.gid}`, directory]);
}

function decodeConsole(text: string): Buffer {
  const log = /SEALPOD-EVENT-LOG-BEGIN\s+([A-Za-z0-9+/=\s]+?)SEALPOD-EVENT-LOG-END/.exec(text)?.[1];
  if (log === undefined) {
    throw new SealpodError('HYPERVISOR', 'the calibration machine printed no event log', { actual: text.slice(-2000) });
  }
  return Buffer.from(log.replace(/\s/g, ''), 'base64');
}
