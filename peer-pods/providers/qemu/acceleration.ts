import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import type { Accelerator } from './machine.ts';

/**
 * KVM only where hardware virtualisation is really there. That /dev/kvm opens does not say so: on hosts which are
 * themselves guests without nested virtualisation it opens, and QEMU aborts or crawls later, without falling back.
 * The vendor module of the processor must be loaded, too.
 */
export async function findAccelerator(
  device = '/dev/kvm',
  modules: readonly string[] = ['/sys/module/kvm_intel', '/sys/module/kvm_amd'],
): Promise<Accelerator> {
  if (!(await permits(device, constants.R_OK | constants.W_OK))) return 'tcg';
  for (const module of modules) if (await permits(module, constants.F_OK)) return 'kvm';
  return 'tcg';
}

async function permits(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}
