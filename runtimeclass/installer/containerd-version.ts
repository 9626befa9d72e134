import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { SealpodError } from '@sealpod/protocol/errors';

/** Releases of containerd whose configuration this release writes, by major and minor number. */
export type ContainerdRelease = '1.6' | '1.7' | '2';

/**
 * Which of the supported forms a version text (`1.6.20~ds1`, `v2.4.2`) belongs to.
 *
 * @throws SealpodError UNSUPPORTED for any other.
 */
export function containerdRelease(version: string): ContainerdRelease {
  const match = /^v?(\d+)\.(\d+)\b/.exec(version);
  const [, major, minor] = match ?? [];
  if (major === '1' && (minor === '6' || minor === '7')) return `1.${minor}`;
  if (major === '2') return '2';
  throw new SealpodError('UNSUPPORTED', `containerd ${JSON.stringify(version)} is not supported`, {
    expected: '1.6, 1.7 or 2.x',
    actual: version,
    fix: 'install a supported containerd, or name its version with containerdVersion',
  });
}

/** Asks a containerd binary for its version (third word of `containerd --version`). */
export async function detectContainerd(binary = 'containerd'): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(binary, ['--version'], { timeout: 10_000 });
    const version = stdout.trim().split(/\s+/)[2];
    if (version !== undefined) return version;
    throw new Error(`unexpected answer ${JSON.stringify(stdout)}`);
  } catch (cause) {
    throw new SealpodError('PREREQUISITE', `cannot ask ${binary} for its version: ${String(cause)}`, {
      fix: 'install containerd, or name its version with containerdVersion',
      cause,
    });
  }
}
