import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, fchownSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { SealpodError } from '@sealpod/protocol/errors';
import type { Owner } from '../../pod-vm/tpm-authority.ts';

export interface Confinement {
  /** The unprivileged user; ignored where this process has no privileges to give up. */
  readonly owner: Owner;
  /** Working folder, owned by that user. Programs are given paths relative to it: they cannot reach it from above. */
  readonly directory: string;
  /** Folder in which the program is looked for before the system's. */
  readonly programsDirectory?: string | undefined;
  /** Network namespace to enter. */
  readonly netnsPath?: string | undefined;
  /** Whether the program may open /dev/kvm. */
  readonly kvm?: boolean;
  /** Larger files cannot be written: bounds the console of a guest that prints without end. */
  readonly maxFileBytes: number;
  /** Open files that the program inherits as descriptor 3, 4, … */
  readonly descriptors?: readonly number[];
  /** File in the folder that receives what the program prints. */
  readonly logFile: string;
}

/**
 * Starts a program without privileges, in a session of its own, outliving this process. Capabilities are dropped for
 * good, privileges cannot be gained again, and a write beyond the file size limit fails instead of ending the program.
 *
 * @throws SealpodError `PREREQUISITE` where the program is not installed, `HYPERVISOR` where it cannot be started.
 */
export async function startConfined(
  program: string,
  args: readonly string[],
  confinement: Confinement,
): Promise<ChildProcess> {
  const chain = [
    ...(await enterNetwork(confinement)),
    ...['prlimit', `--fsize=${confinement.maxFileBytes}`, '--', 'env', '--ignore-signal=XFSZ'],
    ...(await dropPrivileges(confinement)),
    ...[program, ...args],
  ];
  const [first, ...rest] = chain;
  // Programs of the same user may run in the folder already: what they put there is not followed.
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
  const log = openSync(`${confinement.directory}/${confinement.logFile}`, flags, 0o600);
  try {
    // The program may open its own log by name.
    if (process.getuid?.() === 0) fchownSync(log, confinement.owner.uid, confinement.owner.gid);
    const child = spawn(first ?? program, rest, {
      cwd: confinement.directory,
      env: { PATH: searchPath(confinement.programsDirectory), LC_ALL: 'C' },
      stdio: ['ignore', log, log, ...(confinement.descriptors ?? [])],
      detached: true,
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (error) =>
        reject(new SealpodError('PREREQUISITE', `${first} could not be started`, { cause: error })),
      );
    });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/** Where programs are looked for: never on the PATH of whoever started this process. */
function searchPath(programsDirectory: string | undefined): string {
  const system = '/usr/sbin:/usr/bin:/sbin:/bin';
  return programsDirectory === undefined ? system : `${programsDirectory}:${system}`;
}

/**
 * Where udev runs, every user may open /dev/net/tun (attaching to a tap then needs its ownership). Where it does not,
 * the program gets a node of its own, in a mount namespace of its own; the machine's stays as it is.
 */
async function enterNetwork({ netnsPath, owner }: Confinement): Promise<string[]> {
  if (netnsPath === undefined) return [];
  const enter = ['nsenter', `--net=${netnsPath}`, '--'];
  const { mode } = await stat('/dev/net/tun');
  if ((mode & 0o006) === 0o006 || process.getuid?.() !== 0) return enter;
  const makeNode = [
    'mount -t tmpfs -o nosuid,noexec,mode=0755,size=16k tmpfs /dev/net',
    'mknod -m 0600 /dev/net/tun c 10 200',
    `chown ${owner.uid}:${owner.gid} /dev/net/tun`,
    'exec "$@"',
  ].join(' && ');
  return [...enter, 'unshare', '--mount', '--propagation', 'slave', '--', 'sh', '-c', makeNode, 'sh'];
}

async function dropPrivileges(confinement: Confinement): Promise<string[]> {
  if (process.getuid?.() !== 0) return ['setpriv', '--no-new-privs', '--'];
  const { uid, gid } = confinement.owner;
  const groups = confinement.kvm === true ? [`--groups=${(await stat('/dev/kvm')).gid}`] : ['--clear-groups'];
  const capabilities = ['--inh-caps=-all', '--ambient-caps=-all', '--bounding-set=-all'];
  return ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, ...groups, ...capabilities, '--no-new-privs', '--'];
}
