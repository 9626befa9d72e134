import { spawn } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const defaultMaxOutputBytes = 4 << 20;

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Folder in which programs are looked for before the PATH. */
  readonly programsDirectory?: string;
  readonly input?: Uint8Array;
  /** Largest standard output, in bytes; 4 MiB by default. A program that prints more is killed. */
  readonly maxOutputBytes?: number;
  /** Milliseconds after which the program is killed and the call fails. */
  readonly timeoutMs?: number;
}

/**
 * Runs a program of this machine to its end and returns its standard output.
 *
 * @throws SealpodError `PREREQUISITE` where the program is not installed, `PROVIDER_IMAGE` where it fails.
 */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Buffer> {
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    // The administration folders are not on an unprivileged user's path, where mkfs.vfat and veritysetup live.
    env: {
      ...process.env,
      LC_ALL: 'C',
      TZ: 'UTC',
      ...options.env,
      PATH: [options.programsDirectory, process.env['PATH'], '/usr/sbin', '/sbin'].filter(Boolean).join(':'),
    },
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
  });
  const output: Buffer[] = [];
  let size = 0;
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > (options.maxOutputBytes ?? defaultMaxOutputBytes)) child.kill('SIGKILL');
    else output.push(chunk);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    if (errors.length < 4096) errors += chunk.toString('utf8');
  });
  // A program that ends without reading its input closes the pipe; its exit status says what happened.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? Buffer.alloc(0));
  const ended = await new Promise<{ status: number | null; signal: string | null }>((resolve, reject) => {
    child.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'ENOENT'
          ? new SealpodError('PREREQUISITE', `${program} is not installed`, { cause: error })
          : new SealpodError('PROVIDER_IMAGE', `${program} could not be started`, { cause: error }),
      ),
    );
    child.once('close', (status, signal) => resolve({ status, signal }));
  });
  if (ended.status !== 0) {
    throw new SealpodError('PROVIDER_IMAGE', `${program} failed: ${errors.trim() || 'no message'}`, {
      expected: 'exit status 0',
      actual: ended.signal === null ? `exit status ${ended.status}` : `killed by ${ended.signal}`,
      source: [program, ...args].join(' '),
    });
  }
  return Buffer.concat(output);
}
