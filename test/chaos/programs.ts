import { spawn } from 'node:child_process';
import { openSync, readFileSync, readlinkSync } from 'node:fs';
import { type Daemon, identityOf, killProcess } from '@sealpod/processes';
import { eventually } from '../e2e/started.ts';

/** A running program as a service manager knows it: enough to start it again. */
export interface Program {
  readonly name: string;
  readonly pid: number;
  readonly executable: string;
  /** The name it was called by, which programs of several parts go by. */
  readonly argv0: string;
  readonly args: readonly string[];
  readonly directory: string;
  readonly environment: NodeJS.ProcessEnv;
  /** File to which it writes. */
  readonly output: string;
}

/** Reads how a program was started. */
export function programOf({ name, pid }: { readonly name: string; readonly pid: number }): Program {
  const strings = (file: string): string[] => readFileSync(`/proc/${pid}/${file}`, 'utf8').split('\0').slice(0, -1);
  const link = (file: string): string => readlinkSync(`/proc/${pid}/${file}`);
  const environment = strings('environ').map((entry) => {
    const [key = '', ...value] = entry.split('=');
    return [key, value.join('=')];
  });
  const [argv0 = '', ...args] = strings('cmdline');
  const [executable, directory, output] = [link('exe'), link('cwd'), link('fd/2')];
  return { name, pid, executable, argv0, args, directory, output, environment: Object.fromEntries(environment) };
}

/** Kills programs as the kernel does when memory runs out, all before any is looked after, and waits for their end. */
export async function killPrograms(programs: readonly { readonly pid: number }[]): Promise<void> {
  const identities = programs.flatMap(({ pid }) => identityOf(pid) ?? []);
  for (const { pid } of identities) killProcess(pid);
  const gone = () => identities.every(({ pid, startTime }) => identityOf(pid)?.startTime !== startTime);
  await eventually('the end of what was killed', gone);
}

/** Starts a program again, in the same way. */
export function startProgram({ name, executable, argv0, args, directory, environment, output }: Program): Daemon {
  const log = output.startsWith('/') ? openSync(output, 'a') : 'ignore';
  const stdio = ['ignore', log, log] as const;
  const child = spawn(executable, args, { argv0, cwd: directory, env: environment, detached: true, stdio: [...stdio] });
  child.unref();
  const identity = child.pid === undefined ? undefined : identityOf(child.pid);
  if (identity === undefined) throw new Error(`${name} does not start again`);
  return { name, ...identity };
}
