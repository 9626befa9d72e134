import { execFile } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const defaultTimeoutMs = 30_000;
const maxOutputBytes = 4 * 1024 * 1024;

/**
 * Runs a program of the guest to its end and returns what it wrote. No shell: each argument is one argument.
 * Rejects with INTERNAL and what the program said where it fails.
 */
export type RunCommand = (command: string, arguments_: readonly string[], options?: RunOptions) => Promise<string>;

export interface RunOptions {
  /** Bytes for its standard input: the place for secrets, which arguments are not. */
  readonly input?: Uint8Array;
  /** Milliseconds that it may take; default 30 000. */
  readonly timeoutMs?: number;
}

export const runCommand: RunCommand = (command, arguments_, { input, timeoutMs = defaultTimeoutMs } = {}) =>
  new Promise((resolve, reject) => {
    const options = {
      timeout: timeoutMs,
      maxBuffer: maxOutputBytes,
      // There is no udev to make device nodes: libdevmapper has to.
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', DM_DISABLE_UDEV: '1' },
    };
    const child = execFile(command, arguments_, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else
        reject(
          new SealpodError('INTERNAL', `${command} ${arguments_.join(' ')}: ${stderr.trim() || error.message}`, {
            cause: error,
          }),
        );
    });
    // A program that ends without reading its input is told by its exit code.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
