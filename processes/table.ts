import { readdirSync, readFileSync, statSync } from 'node:fs';

/** One process of this machine. */
export interface RunningProcess {
  readonly pid: number;
  readonly parent: number;
  /** Its command line; empty for kernel threads and zombies. */
  readonly arguments: readonly string[];
}

/** The processes of this machine, without this one. One that ends meanwhile is left out. */
export function runningProcesses(): RunningProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((name) => describe(Number(name)) ?? []);
}

function describe(pid: number): RunningProcess | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the name in parentheses, which may hold anything.
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    return { pid, parent, arguments: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1) };
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}

/** Whether a process sees the same root directory as this one: in another, the same path is another file. */
export function sharesRoot(pid: number): boolean {
  try {
    const [own, other] = [statSync('/'), statSync(`/proc/${pid}/root/`)];
    return own.dev === other.dev && own.ino === other.ino;
  } catch (error) {
    // Gone; or another user's, whose root may not be looked at.
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EACCES')) return false;
    throw error;
  }
}

/** Kills a process, unless it is gone already. */
export function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/** Kills whatever this process started, and what that started; but not `spared`, nor what those started. */
export function killDescendants(spared: ReadonlySet<number>): void {
  const children = Map.groupBy(runningProcesses(), ({ parent }) => parent);
  const kill = (pid: number): void => {
    for (const child of children.get(pid) ?? []) {
      if (spared.has(child.pid)) continue;
      // Before its children: it could start others in their place.
      killProcess(child.pid);
      kill(child.pid);
    }
  };
  kill(process.pid);
}
