import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The three standard streams of a process: descriptors for the child, and for this side. */
export interface StreamPipes {
  readonly child: readonly [stdin: number, stdout: number, stderr: number];
  readonly stdin: number;
  readonly stdout: number;
  readonly stderr: number;
}

/**
 * Makes three real pipes. Node's own `pipe` is a socket pair, and a program that opens `/dev/stdout` (as many images' logs
 * do) cannot open a socket. The names are gone when this returns. This side's descriptors do not block; the child's do.
 *
 * @param folder a folder of the caller's own; it is made and removed
 * @returns undefined where the guest has no `mkfifo` program, and Node's socket pairs have to do
 */
export async function makePipes(folder: string): Promise<StreamPipes | undefined> {
  const [stdin, stdout, stderr] = ['stdin', 'stdout', 'stderr'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const open: number[] = [];
  const opened = (path: string, flags: number): number => {
    const descriptor = openSync(path, flags);
    open.push(descriptor);
    return descriptor;
  };
  try {
    if (!(await makeFifos([stdin, stdout, stderr]))) return undefined;
    // A FIFO opens without waiting only where its other end is open: O_RDWR holds both for the moment.
    const holder = opened(stdin, constants.O_RDWR | constants.O_NONBLOCK);
    const childStdin = opened(stdin, constants.O_RDONLY);
    const ownStdin = opened(stdin, constants.O_WRONLY | constants.O_NONBLOCK);
    const ownStdout = opened(stdout, constants.O_RDONLY | constants.O_NONBLOCK);
    const childStdout = opened(stdout, constants.O_WRONLY);
    const ownStderr = opened(stderr, constants.O_RDONLY | constants.O_NONBLOCK);
    const childStderr = opened(stderr, constants.O_WRONLY);
    closeSync(holder);
    return { child: [childStdin, childStdout, childStderr], stdin: ownStdin, stdout: ownStdout, stderr: ownStderr };
  } catch (thrown) {
    for (const descriptor of open) closeSync(descriptor);
    throw thrown;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function makeFifos(paths: readonly string[]): Promise<boolean> {
  try {
    await run('mkfifo', ['-m', '0600', ...paths], { env: { PATH: '/usr/bin:/bin' } });
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw thrown;
  }
}
