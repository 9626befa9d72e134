import { rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { commandLineOf, endProcess, findProcesses } from '@sealpod/processes';
import { SealpodError } from '@sealpod/protocol/errors';
import { encodeInitdataDisk } from '@sealpod/protocol/initdata';
import { type Manifest, readManifest } from '../../pod-vm/manifest.ts';
import { startsFromTemplate } from '../../pod-vm/template-words.ts';
import type { Owner, TpmAuthority } from '../../pod-vm/tpm-authority.ts';
import type { Effect, Instance, InstanceReference, InstanceRequest, Provider } from '../provider.ts';
import { findAccelerator } from './acceleration.ts';
import { findFirmware } from './firmware.ts';
import { plugVolume, unplugVolume } from './hot-plug.ts';
import {
  type Launched,
  type LaunchOptions,
  machineFiles,
  makeMachineDirectory,
  startMachine,
  startTpm,
} from './launch.ts';
import type { Accelerator } from './machine.ts';
import { startClone, Templates } from './templates.ts';

export interface QemuProviderOptions {
  /** Folder of pod VM images: one folder (`disk.raw`, `manifest.json`) a name. Others are not booted. */
  readonly imagesDirectory: string;
  /** Name of the image for a pod that does not ask for one. */
  readonly defaultImage: string;
  /** Makes a TPM for each machine. */
  readonly tpmAuthority: TpmAuthority;
  /** Folder below which the adaptor makes one folder a sandbox: what runs from there is ours. */
  readonly sandboxesDirectory: string;
  /** Unprivileged user of QEMU and swtpm, and owner of the taps; default: nobody. */
  readonly owner?: Owner;
  readonly firmware?: string;
  /** Folder with QEMU and swtpm, where they are not the system's. */
  readonly programsDirectory?: string;
  readonly accelerator?: Accelerator;
  /** See `Provider.agentTransport`; default `tls`. */
  readonly agentTransport?: 'tls' | 'plain';
  /**
   * Folder for templates. Images that say so on their command line then start as clones of a machine that was booted once;
   * absent, they are refused. All clones of a template share the keys of its TPM: for development only.
   */
  readonly templatesDirectory?: string;
}

interface Machine extends Launched {
  readonly endorsementCertificate: Buffer;
}

/** The user `nobody`, who owns nothing. */
export const defaultOwner: Owner = { uid: 65534, gid: 65534 };

/** Programs by their role; the hypervisor first, since the TPM ends by itself once it is gone. */
const executables = { hypervisor: 'qemu-system-x86_64', tpm: 'swtpm' } as const;
type Role = keyof typeof executables;
const graceMs = 2000;
/** sockaddr_un holds 107 bytes and a closing NUL. */
const maxSocketPathBytes = 107;
const nothingToDo = Buffer.alloc(512);

/**
 * Runs pod VMs as QEMU processes of this machine: measured boot with OVMF and a software TPM, unprivileged, in the
 * pod's network namespace. Processes outlive this one and are found again by the folder in their command line.
 */
export function createQemuProvider(options: QemuProviderOptions): Provider {
  const owner = options.owner ?? defaultOwner;
  const { programsDirectory, tpmAuthority, templatesDirectory } = options;
  const templates =
    templatesDirectory === undefined
      ? undefined
      : new Templates({ directory: templatesDirectory, owner, tpmAuthority, programsDirectory });

  const start = async (
    request: InstanceRequest,
    directory: string,
    image: string,
    manifest: Manifest,
  ): Promise<Machine> => {
    const { effects, signal } = request;
    const [firmware, accelerator] = await Promise.all([
      options.firmware ?? findFirmware(),
      options.accelerator ?? findAccelerator(),
    ]);
    const marker = markerOf(directory);
    const diskFile = join(options.imagesDirectory, image, manifest.disk);
    const shape = { memoryMiB: request.memoryMiB, vcpus: request.vcpus };
    const template = startsFromTemplate(manifest.commandLine)
      ? await required(templates, image).of(
          { image: manifest.image, diskFile, machine: { shape, accelerator, firmware } },
          signal,
        )
      : undefined;
    signal.throwIfAborted();
    await effects.intend({ kind: 'directory', path: directory });
    await makeMachineDirectory(directory, owner);
    await effects.complete({ kind: 'directory', path: directory });
    // A machine without initdata gets an empty disk all the same: its devices are part of what is measured.
    const initdata = request.initdata === undefined ? nothingToDo : encodeInitdataDisk(request.initdata);
    await writeFile(join(directory, machineFiles.initdata), initdata, { mode: 0o600 });
    const tpmState = join(directory, machineFiles.tpmState);
    // A clone's TPM gets its state with the machine's.
    if (template !== undefined) await makeMachineDirectory(tpmState, owner);
    const endorsementCertificate = template?.endorsementCertificate ?? (await tpmAuthority.createTpm(tpmState, owner));
    signal.throwIfAborted();
    const recorded = async (role: Role, launch: () => Promise<Launched>): Promise<Launched> => {
      const effect: Effect = { kind: 'process', role, executable: executables[role], marker };
      await effects.intend(effect);
      const launched = await launch();
      await effects.complete(effect, launched.identity);
      return launched;
    };
    await recorded('tpm', () => startTpm(directory, owner, marker, programsDirectory));
    signal.throwIfAborted();
    const network =
      request.network === undefined
        ? {}
        : { network: { tap: request.network.tapName, macAddress: request.network.macAddress } };
    const launch: LaunchOptions = {
      ...{ directory, owner, programsDirectory, diskFile, netnsPath: request.network?.netnsPath },
      machine: { name: `${request.name}@${marker}`, shape, accelerator, firmware, ...network },
    };
    const launched = await recorded('hypervisor', () =>
      template === undefined ? startMachine(launch) : startClone(launch, template, signal),
    );
    return { ...launched, endorsementCertificate };
  };

  const end = async (reference: InstanceReference): Promise<void> => {
    const marker = markerOf(machineDirectory(reference));
    for (const executable of Object.values(executables)) {
      for (const identity of findProcesses({ executable, marker })) {
        await endProcess(identity, { executable, marker }, graceMs);
      }
    }
    await rm(machineDirectory(reference), { recursive: true, force: true });
  };

  return {
    name: 'qemu',
    agentTransport: options.agentTransport ?? 'tls',
    createInstance: async (request) => {
      checkShape(request);
      const directory = machineDirectory(request);
      checkSocketPath(join(directory, machineFiles.agentSocket));
      try {
        const name = checkedName(request.image ?? options.defaultImage);
        const manifest = await readManifest(join(options.imagesDirectory, name));
        const { identity, endorsementCertificate } = await start(request, directory, name, manifest);
        const image = { name, digest: manifest.image, rootHash: manifest.rootHash };
        return { ...instance(request, identity.pid), image, endorsementCertificate };
      } catch (error) {
        await end(request);
        if (error instanceof SealpodError) throw error;
        throw new SealpodError('HYPERVISOR', `the machine ${request.name} could not be started`, { cause: error });
      }
    },
    findInstance: async (reference) => {
      const pid = hypervisors(markerOf(machineDirectory(reference)))[0];
      return pid === undefined ? undefined : instance(reference, pid);
    },
    deleteInstance: end,
    volumes: {
      addressOf: ({ slot }) => ({ driver: 'scsi', source: `0:${slot}` }),
      attach: (reference, { slot, serial, device, readOnly }) =>
        plugVolume(controlSocketOf(reference), { lun: slot, serial, device, readOnly }),
      detach: async (reference, { slot }) => {
        if (hypervisors(markerOf(machineDirectory(reference))).length === 0) return;
        await unplugVolume(controlSocketOf(reference), slot);
      },
    },
    ...(templates === undefined ? {} : { kept: templates }),
    listInstances: async () =>
      hypervisors(`@${options.sandboxesDirectory}/`).flatMap((pid) => {
        const reference = referenceOf(pid);
        return reference === undefined ? [] : [instance(reference, pid)];
      }),
  };
}

function required(templates: Templates | undefined, image: string): Templates {
  if (templates !== undefined) return templates;
  throw new SealpodError('PROVIDER_IMAGE', `machines of the image ${image} start from a template`, {
    expected: 'an image without sealpod.template=1 on its command line',
    fix: 'choose another image; in a development environment, set "provider.template" of the adaptor to true',
  });
}

/** A name comes from the pod: it must not lead out of the folder of images. */
function checkedName(name: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) return name;
  throw new SealpodError('PROVIDER_IMAGE', 'not the name of a pod VM image', {
    expected: 'letters, digits, and within it . - _',
    actual: JSON.stringify(name.slice(0, 100)),
  });
}

function machineDirectory(reference: { readonly directory: string }): string {
  return join(reference.directory, 'vm');
}

function controlSocketOf(reference: { readonly directory: string }): string {
  return join(machineDirectory(reference), machineFiles.qmpSocket);
}

/** Closed by a slash, so that one folder's marker is never the start of another's. */
function markerOf(directory: string): string {
  return `${directory}/`;
}

function instance(reference: InstanceReference, pid: number): Instance {
  const directory = machineDirectory(reference);
  return {
    sandboxId: reference.sandboxId,
    name: reference.name,
    directory: reference.directory,
    id: String(pid),
    agentSocketPath: join(directory, machineFiles.agentSocket),
    consoleLogPath: join(directory, machineFiles.console),
  };
}

/** Process ids of the QEMUs whose name holds `marker`. */
function hypervisors(marker: string): number[] {
  return findProcesses({ executable: executables.hypervisor, marker }).map(({ pid }) => pid);
}

/** Reads `<name>@<folder>/vm/` from a QEMU's command line. */
function referenceOf(pid: number): InstanceReference | undefined {
  const args = commandLineOf(pid);
  const match = /^([a-z0-9-]+)@(.+)\/vm\/$/.exec(args[args.indexOf('-name') + 1] ?? '');
  const [, name, directory] = match ?? [];
  if (name === undefined || directory === undefined) return undefined;
  return { sandboxId: basename(directory), name, directory };
}

function checkShape({ memoryMiB, vcpus }: InstanceRequest): void {
  if (!Number.isInteger(memoryMiB) || memoryMiB < 128 || !Number.isInteger(vcpus) || vcpus < 1 || vcpus > 255) {
    throw new SealpodError('HYPERVISOR', 'no machine of this shape can be made', {
      expected: 'at least 128 MiB and 1 to 255 processors',
      actual: `${memoryMiB} MiB, ${vcpus} processors`,
    });
  }
}

function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) > maxSocketPathBytes) {
    throw new SealpodError('HYPERVISOR', 'the path of the agent socket is too long', {
      expected: `at most ${maxSocketPathBytes} bytes`,
      actual: path,
      fix: 'choose a shorter folder for sandboxes',
    });
  }
}
