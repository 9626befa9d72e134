import { createHash, randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endProcess, findProcesses } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { fileSha256 } from '../../pod-vm/disk.ts';
import { run } from '../../pod-vm/run.ts';
import { templateReady, templateWoken, wakeLine } from '../../pod-vm/template-words.ts';
import type { Owner, TpmAuthority } from '../../pod-vm/tpm-authority.ts';
import { readEnd } from '../machine-file.ts';
import type { KeptBetweenInstances } from '../provider.ts';
import {
  type Launched,
  type LaunchOptions,
  machineFiles,
  makeMachineDirectory,
  startMachine,
  startTpm,
} from './launch.ts';
import { machineArguments } from './machine.ts';
import { QmpSession } from './qmp-session.ts';

/** A machine that was booted and saved before it knew of any pod. */
export interface Template {
  /** State of processors, memory, devices and TPM, as QEMU writes it. */
  readonly stateFile: string;
  /** Certificate of the endorsement key that all its clones share, DER. */
  readonly endorsementCertificate: Buffer;
}

export interface TemplatesOptions {
  /** Folder of templates, of the owner of this process alone; one folder a template. */
  readonly directory: string;
  readonly owner: Owner;
  readonly tpmAuthority: TpmAuthority;
  readonly programsDirectory?: string | undefined;
}

/** The machine whose template is wanted; `image` is the digest of its disk. */
export interface TemplateRequest extends Pick<LaunchOptions, 'diskFile'> {
  readonly image: string;
  readonly machine: Pick<LaunchOptions['machine'], 'shape' | 'accelerator' | 'firmware'>;
}

const stateName = 'state';
const certificateName = 'endorsement-key.der';
const bootTimeoutMs = 240_000;
const migrationTimeoutMs = 60_000;
const wakeTimeoutMs = 60_000;
const consoleBytes = 64 * 1024;
/** State of devices beside the memory. */
const deviceStateBytes = 64 * 1024 * 1024;
/** Bytes a second; QEMU's own limit is that of a network. */
const unlimitedBandwidth = 2 ** 40;
const graceMs = 2000;
const executables = ['qemu-system-x86_64', 'swtpm'] as const;

/**
 * Templates of machines, each made when it is first asked for and kept under everything that it depends on. A template is
 * complete or not there: it is written aside and renamed.
 */
export class Templates implements KeptBetweenInstances {
  readonly #options: TemplatesOptions;
  readonly #underway = new Map<string, Promise<Template>>();
  /** Templates are made one after the other, all in one place: what is found there is nobody's. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: TemplatesOptions) {
    this.#options = options;
  }

  /**
   * The template of a machine, which is booted now where there is none yet. It is made to its end, for others, where `signal`
   * is aborted meanwhile.
   *
   * @throws SealpodError `HYPERVISOR` where the machine does not come up as a template, `PREREQUISITE`, `PROVIDER_IMAGE`
   */
  async of(request: TemplateRequest, signal: AbortSignal): Promise<Template> {
    const key = await templateKey(request, this.#options.programsDirectory);
    signal.throwIfAborted();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await Promise.race([this.#underway.get(key) ?? this.#begin(key, request), aborted]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Ends and removes what a process that was killed while it made a template has left. */
  async recover(): Promise<void> {
    const marker = `${this.#making}/vm/`;
    for (const executable of executables) {
      for (const identity of findProcesses({ executable, marker })) {
        await endProcess(identity, { executable, marker }, graceMs);
      }
    }
    await rm(this.#making, { recursive: true, force: true });
  }

  /** Removes all templates. */
  async remove(): Promise<void> {
    await this.recover();
    await rm(this.#options.directory, { recursive: true, force: true });
  }

  #begin(key: string, request: TemplateRequest): Promise<Template> {
    const template = this.#last.then(() => this.#find(key, request));
    const ended = (): void => void this.#underway.delete(key);
    this.#underway.set(key, template);
    this.#last = template.then(ended, ended);
    return template;
  }

  async #find(key: string, request: TemplateRequest): Promise<Template> {
    const { directory } = this.#options;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const folder = join(directory, key);
    if (!(await exists(folder))) await this.#make(folder, request);
    return {
      stateFile: join(folder, stateName),
      endorsementCertificate: await readFile(join(folder, certificateName)),
    };
  }

  async #make(folder: string, request: TemplateRequest): Promise<void> {
    await this.recover();
    const { owner, tpmAuthority, programsDirectory } = this.#options;
    const making = this.#making;
    const vm = join(making, 'vm');
    const kept = join(making, 'template');
    try {
      await mkdir(kept, { recursive: true, mode: 0o700 });
      await makeMachineDirectory(vm, owner);
      await writeFile(join(vm, machineFiles.initdata), Buffer.alloc(512), { mode: 0o600 });
      const certificate = await tpmAuthority.createTpm(join(vm, machineFiles.tpmState), owner);
      await startTpm(vm, owner, `${vm}/`, programsDirectory);
      const { shape } = request.machine;
      const { child } = await startMachine({
        ...{ directory: vm, owner, programsDirectory, diskFile: request.diskFile },
        machine: { ...request.machine, name: `template@${vm}/` },
        maxFileBytes: shape.memoryMiB * 1024 * 1024 + deviceStateBytes,
      });
      await consoleSays(vm, templateReady, bootTimeoutMs, () => child.exitCode === null && child.signalCode === null);
      await save(vm, join(kept, stateName));
      await writeFile(join(kept, certificateName), certificate, { mode: 0o600 });
      await rename(kept, folder);
    } finally {
      await this.recover();
    }
  }

  get #making(): string {
    return join(this.#options.directory, 'making');
  }
}

/**
 * Starts a machine from a template's state, with its own network card, disk of initdata and sockets, and wakes it. Its TPM's
 * state comes with the machine's: endorsement key and registers are the template's.
 *
 * @throws SealpodError `HYPERVISOR` where the state is refused or the guest does not wake, `PREREQUISITE`
 */
export async function startClone(options: LaunchOptions, template: Template, signal: AbortSignal): Promise<Launched> {
  const { directory, machine } = options;
  const launched = await startMachine({ ...options, machine: { ...machine, incoming: true } });
  await load(directory, template.stateFile);
  signal.throwIfAborted();
  const { child } = launched;
  const socket = connect(join(directory, machineFiles.agentSocket));
  try {
    await connected(socket);
    socket.write(wakeLine(new Date(), machine.network?.macAddress, randomBytes(64)));
    // What follows on the port must find the guest agent there, not its init: that throws away what it did not read.
    await consoleSays(
      directory,
      templateWoken,
      wakeTimeoutMs,
      () => child.exitCode === null && child.signalCode === null && !signal.aborted,
    );
  } finally {
    socket.destroy();
  }
  return launched;
}

/** SHA-256 over all that the state of a template depends on. */
async function templateKey(
  { image, machine }: TemplateRequest,
  programsDirectory: string | undefined,
): Promise<string> {
  const layout = machineArguments({ ...machine, name: '', consoleFile: '', tpmSocket: '' });
  const options = programsDirectory === undefined ? {} : { programsDirectory };
  const versions = await Promise.all(executables.map((program) => run(program, ['--version'], options)));
  const hash = createHash('sha256').update(JSON.stringify([image, layout, ...versions.map(String)]));
  return hash.update(await fileSha256(machine.firmware)).digest('hex');
}

async function save(directory: string, file: string): Promise<void> {
  await using state = await open(file, 'wx', 0o600);
  await QmpSession.use(join(directory, machineFiles.qmpSocket), async (session) => {
    await session.execute('stop');
    await session.execute('migrate-set-parameters', { 'max-bandwidth': unlimitedBandwidth });
    await transfer(session, 'migrate', state);
  });
  await state.sync();
}

async function load(directory: string, file: string): Promise<void> {
  await using state = await open(file, 'r');
  await QmpSession.use(join(directory, machineFiles.qmpSocket), async (session) => {
    await transfer(session, 'migrate-incoming', state);
    await session.execute('cont');
  });
}

/** Hands the file over and waits until the state is written to it or read from it as a whole. */
async function transfer(session: QmpSession, command: 'migrate' | 'migrate-incoming', file: FileHandle): Promise<void> {
  await session.executeWithFile('getfd', { fdname: stateName }, file.fd);
  await session.execute(command, { uri: `fd:${stateName}` });
  const deadline = Date.now() + migrationTimeoutMs;
  for (;;) {
    const { status } = (await session.execute('query-migrate')) as { readonly status?: string };
    if (status === 'completed') return;
    if (status === 'failed' || Date.now() > deadline) {
      throw new SealpodError('HYPERVISOR', `the state of the machine could not be transferred (${command})`, {
        expected: 'completed',
        actual: String(status),
      });
    }
    await sleep(5);
  }
}

/** Waits until a line stands on the console of a machine; the console is the guest's, so nothing is proved by it. */
async function consoleSays(directory: string, words: string, timeoutMs: number, runs: () => boolean): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const running = runs();
    const text = await readEnd(join(directory, machineFiles.console), consoleBytes).then(String, () => '');
    if (text.includes(words)) return;
    if (!running || Date.now() > deadline) {
      throw new SealpodError('HYPERVISOR', 'the machine did not come to where a template is saved or woken', {
        expected: words,
        actual: text.slice(-2000).trim() || 'nothing on its console',
        fix: 'build the image again: one of an earlier release does not know templates',
      });
    }
    await sleep(10);
  }
}

async function connected(socket: Socket): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once('connect', resolve);
  socket.on('error', (cause) =>
    reject(new SealpodError('HYPERVISOR', 'the agent socket of the machine does not accept', { cause })),
  );
  await promise;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
