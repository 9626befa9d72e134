import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { findAccelerator } from '@sealpod/peer-pods/providers/qemu';

/** The machine that figures were taken on. Figures of two machines must not be compared. */
export interface Machine {
  readonly processor: string;
  readonly processors: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  /** `kvm`, or `tcg`: every instruction of a guest is emulated. */
  readonly accelerator: string;
  /** Load average of the last minute before the first case: above 0.5, something else was running. */
  readonly load: number;
  readonly node: string;
  /** Version by program, as it says itself; undefined where it is not installed. */
  readonly programs: Readonly<Record<string, string | undefined>>;
  readonly date: string;
}

const versionArguments: Readonly<Record<string, readonly string[]>> = {
  'qemu-system-x86_64': ['--version'],
  swtpm: ['--version'],
  containerd: ['--version'],
  runc: ['--version'],
  skopeo: ['--version'],
  umoci: ['--version'],
  'docker-registry': ['--version'],
};

/** Describes this machine. */
export async function describeMachine(): Promise<Machine> {
  const processors = cpus();
  return {
    processor: processors[0]?.model ?? 'unknown',
    processors: processors.length,
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    accelerator: await findAccelerator(),
    load: loadavg()[0] ?? 0,
    node: process.version,
    programs: Object.fromEntries(Object.entries(versionArguments).map(([name, args]) => [name, versionOf(name, args)])),
    date: new Date().toISOString(),
  };
}

function versionOf(program: string, args: readonly string[]): string | undefined {
  if (!isInstalled(program)) return undefined;
  const text = execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? text.split('\n')[0];
}

/** Whether a program is on the path. */
export function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}

/** Says which of the programs are missing; undefined where none is. */
export function missingPrograms(...programs: readonly string[]): string | undefined {
  const absent = programs.filter((program) => !isInstalled(program));
  return absent.length === 0 ? undefined : `not installed: ${absent.join(', ')}`;
}

/** Says that root is needed; undefined where this process is root. */
export function needsRoot(): string | undefined {
  return process.getuid?.() === 0 ? undefined : 'needs root';
}
