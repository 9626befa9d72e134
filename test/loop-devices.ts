import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** A disk of the host: a file behind a loop device. */
export interface LoopDisk {
  readonly file: string;
  readonly device: string;
}

const sizeMiB = 64;

/** Why no loop device can be had here, or undefined. */
export function loopObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  return spawnSync('losetup', ['--find'], { stdio: 'ignore' }).status === 0 ? undefined : 'needs a free loop device';
}

/** The loop devices of a test, which ends them all. */
export class LoopDevices {
  readonly #devices: string[] = [];

  /** An empty disk of 64 MiB whose file is `NAME.img` of a folder. */
  make(directory: string, name: string): LoopDisk {
    const file = join(directory, `${name}.img`);
    execFileSync('truncate', ['-s', `${sizeMiB}M`, file]);
    const device = execFileSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).trim();
    this.#devices.push(device);
    return { file, device };
  }

  detachAll(): void {
    for (const device of this.#devices.splice(0)) execFileSync('losetup', ['--detach', device]);
  }
}

/** Whether a text lies in a disk's file as it is. */
export function diskHolds({ file }: LoopDisk, text: string): boolean {
  const descriptor = openSync(file, 'r');
  try {
    const content = Buffer.alloc(sizeMiB << 20);
    return content.subarray(0, readSync(descriptor, content, 0, content.length, 0)).includes(text);
  } finally {
    closeSync(descriptor);
  }
}
