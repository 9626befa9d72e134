import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';

/** One file of a release: path below the payload, permission bits, size in bytes and SHA-256 (hex). */
export interface PayloadFile {
  readonly path: string;
  readonly mode: number;
  readonly size: number;
  readonly sha256: string;
}

/** What a release places on a node. `digest` is over the list of files, so equal content has an equal name. */
export interface PayloadRecord {
  readonly version: string;
  readonly digest: string;
  readonly files: readonly PayloadFile[];
}

export const payloadRecordName = 'payload.json';

/** Lists every file of `directory` into its record, which lies beside them. */
export function writePayloadRecord(directory: string, version: string): PayloadRecord {
  const files = readdirSync(directory, { recursive: true })
    .map(String)
    .filter((path) => path !== payloadRecordName)
    .sort()
    .flatMap((path): PayloadFile[] => {
      const found = lstatSync(join(directory, path));
      if (found.isDirectory()) return [];
      if (!found.isFile())
        throw new SealpodError('INTERNAL', `${path} is no file`, { expected: 'files and directories' });
      return [{ path, mode: found.mode & 0o777, size: found.size, sha256: sha256Of(join(directory, path)) }];
    });
  const digest = createHash('sha256').update(JSON.stringify(files)).digest('hex');
  const record = { version, digest, files };
  writeFileSync(join(directory, payloadRecordName), `${JSON.stringify(record)}\n`, { mode: 0o644 });
  return record;
}

/** @throws SealpodError PREREQUISITE where the directory holds no release */
export function readPayloadRecord(directory: string): PayloadRecord {
  const file = join(directory, payloadRecordName);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as PayloadRecord;
  } catch (cause) {
    throw new SealpodError('PREREQUISITE', `${file} cannot be read`, {
      cause,
      fix: 'run the node agent from its image, or name the folder of a release as "payload"',
    });
  }
}

/** SHA-256 of a file, hex. */
export function sha256Of(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
