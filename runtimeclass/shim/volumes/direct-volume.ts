import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** Where storage drivers leave volumes that they did not mount, for a runtime to hand over (Kata's direct volumes). */
export const directVolumesFolder = '/run/kata-containers/shared/direct-volumes';

const maxBytes = 64 * 1024;

/** A volume whose file system no one mounted on the node. */
export interface DirectVolume {
  /** Path of its block device. */
  readonly device: string;
  readonly fileSystem: string;
  readonly options: readonly string[];
  /** Resource of the key broker, without scheme; undefined where the driver names none. */
  readonly key: string | undefined;
}

/** The name of a volume's folder, by the path at which the kubelet believes it to be mounted. */
export function directVolumeName(source: string): string {
  return Buffer.from(source).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}

/**
 * The direct volume of a mount's source: `mountInfo.json` as Kata's tools and the CSI wrapper of cloud-api-adaptor write it,
 * metadata `kbs-key-id` as the latter.
 *
 * @returns undefined where the source is no direct volume
 * @throws SealpodError REQUEST_FORMAT where the file is damaged
 */
export function readDirectVolume(source: string, folder = directVolumesFolder): DirectVolume | undefined {
  const path = join(folder, directVolumeName(source), 'mountInfo.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    throw error;
  }
  const refuse = (message: string, cause?: unknown): SealpodError =>
    new SealpodError('REQUEST_FORMAT', `the direct volume ${path} ${message}`, { cause });
  if (text.length > maxBytes) throw refuse('is too large');
  let info: unknown;
  try {
    info = JSON.parse(text);
  } catch (cause) {
    throw refuse('is not JSON', cause);
  }
  if (!isObject(info)) throw refuse('is not a JSON object');
  const { device, fstype, options = [], metadata = {} } = info;
  if (typeof device !== 'string' || device === '') throw refuse('names no device');
  if (typeof fstype !== 'string') throw refuse('names no file system');
  const list: unknown = options ?? [];
  if (!Array.isArray(list) || !list.every((option) => typeof option === 'string'))
    throw refuse('has no list of options');
  const key: unknown = isObject(metadata) ? metadata['kbs-key-id'] : undefined;
  if (key !== undefined && typeof key !== 'string') throw refuse('has a kbs-key-id that is not a text');
  return { device, fileSystem: fstype, options: list as string[], key: key === '' ? undefined : key };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
