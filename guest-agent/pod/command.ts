import { execFile } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const timeoutMs = 30_000;
const maxOutputBytes = 4 * 1024 * 1024;

/**
 * Runs a program of the guest to its end and returns what it wrote. No shell: each argument is one argument.
 * Rejects with INTERNAL and what the program said where it fails.
 */
export type RunCommand = (command: string, arguments_: readonly string[]) => Promise<string>;

export const runCommand: RunCommand = (command, arguments_) =>
  new Promise((resolve, reject) => {
    const options = {
      timeout: timeoutMs,
      maxBuffer: maxOutputBytes,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    };
    execFile(command, arguments_, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else
        reject(
          new SealpodError('INTERNAL', `${command} ${arguments_.join(' ')}: ${stderr.trim() || error.message}`, {
            cause: error,
          }),
        );
    });
  });
