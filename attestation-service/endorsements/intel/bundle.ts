import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SealpodError } from '@sealpod/protocol/errors';
import { asJsonObject, parseJson } from '@sealpod/protocol/json';
import { type CollateralContents, type CollateralUpdate, collect, collectedSource } from './collateral-document.ts';
import type { IntelCollateralSource } from './source.ts';

const maxBytes = 16 * 1024 * 1024;
const maxFiles = 256;

/**
 * Collateral in a JSON file, or in all `.json` files of a folder; read again when a file has changed. What a file may hold:
 * see {@link collect}.
 */
export function collateralBundle(path: string, update: CollateralUpdate = 'early'): IntelCollateralSource {
  let read: { readonly stamp: string; readonly contents: CollateralContents } | undefined;
  const contents = async (): Promise<CollateralContents> => {
    const files = await list(path);
    const stamp = files.map(({ file, changed }) => `${file}:${changed}`).join('\n');
    if (read?.stamp !== stamp) {
      const found: CollateralContents = new Map();
      for (const { file } of files) await collectFile(file, update, found);
      read = { stamp, contents: found };
    }
    return read.contents;
  };
  return collectedSource(`collateral in ${path}`, contents);
}

async function list(path: string): Promise<{ readonly file: string; readonly changed: number }[]> {
  try {
    const entry = await stat(path);
    if (!entry.isDirectory()) return [{ file: path, changed: entry.mtimeMs }];
    const names = (await readdir(path)).filter((name) => name.endsWith('.json')).sort();
    if (names.length > maxFiles) throw new RangeError(`more than ${maxFiles} files`);
    return await Promise.all(
      names.map(async (name) => ({ file: join(path, name), changed: (await stat(join(path, name))).mtimeMs })),
    );
  } catch (cause) {
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', `${path} cannot be read`, { cause });
  }
}

async function collectFile(file: string, update: CollateralUpdate, found: CollateralContents): Promise<void> {
  try {
    const bytes = await readFile(file);
    collect(asJsonObject(parseJson(bytes, { maxSize: maxBytes, what: file }), file), update, found);
  } catch (cause) {
    throw new SealpodError('EV_COLLATERAL_UNAVAILABLE', `${file} holds no collateral`, { cause });
  }
}
