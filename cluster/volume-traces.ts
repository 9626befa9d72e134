import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Where storage drivers leave volumes for pods in machines of their own (Kata's direct volumes). */
export const directVolumesFolder = '/run/kata-containers/shared/direct-volumes';

interface LoopDevice {
  readonly name: string;
  readonly 'back-file': string | null;
}

/**
 * Detaches loop devices whose files lie below `directory`, those that are mounted as soon as they no longer are, and removes
 * what was left for machines.
 */
export function removeVolumeTraces(directory: string): void {
  const list = execFileSync('losetup', ['--list', '--json', '--output', 'NAME,BACK-FILE'], { encoding: 'utf8' });
  const { loopdevices = [] } = (list.trim() === '' ? {} : JSON.parse(list)) as { loopdevices?: readonly LoopDevice[] };
  const own = new Set<string>();
  // A kubelet holds a block volume by a loop device before the loop device.
  for (let found = -1; found !== own.size; ) {
    found = own.size;
    for (const { name, 'back-file': file } of loopdevices)
      if (file?.startsWith(`${directory}/`) === true || own.has(file ?? '')) own.add(name);
  }
  for (const name of [...own].reverse()) execFileSync('losetup', ['--detach', name]);
  if (!existsSync(directVolumesFolder)) return;
  for (const name of readdirSync(directVolumesFolder)) {
    const path = Buffer.from(name, 'base64url').toString('utf8');
    if (path.startsWith(`${directory}/`)) rmSync(join(directVolumesFolder, name), { recursive: true });
  }
}
