import { execFile } from 'node:child_process';
import { SealpodError } from '@sealpod/protocol/errors';

const timeoutMs = 60_000;

/** Runs a program of the host to its end and returns what it wrote. @throws SealpodError STORAGE with what it said */
export function runProgram(program: string, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { timeout: timeoutMs, encoding: 'utf8' }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const reason = stderr.trim().slice(0, 1000) || error.message;
      reject(new SealpodError('STORAGE', `${program} ${args.join(' ')}: ${reason}`, { cause: error }));
    });
  });
}
