import { SealpodError } from '@sealpod/protocol/errors';
import { parse } from 'smol-toml';
import type { ContainerdRelease } from './containerd-version.ts';

const importsMark = '# sealpod: imports its runtime; removed by its installer';

/**
 * containerd's configuration with an import of the fragment's folder. The text before is kept as it is; removal restores
 * it byte by byte.
 *
 * @throws SealpodError UNSUPPORTED when the file has imports of its own that do not cover the folder, or another version.
 */
export function withImport(text: string, pattern: string, release: ContainerdRelease, path: string): string {
  let parsed: Record<string, unknown>;
  try {
    parsed = parse(text);
  } catch (cause) {
    throw new SealpodError('REQUEST_FORMAT', `${path} is no TOML`, { cause });
  }
  const imports = parsed['imports'];
  if (Array.isArray(imports) && imports.includes(pattern)) return text;
  if (imports !== undefined) {
    throw new SealpodError('UNSUPPORTED', `${path} has imports of its own`, {
      expected: pattern,
      actual: JSON.stringify(imports),
      fix: `add ${JSON.stringify(pattern)} to them and install again`,
    });
  }
  const version = parsed['version'];
  if (version !== undefined && version !== 2 && !(version === 3 && release === '2')) {
    throw new SealpodError('UNSUPPORTED', `${path} is of configuration version ${String(version)}`, {
      expected: release === '2' ? '2 or 3' : '2',
      actual: String(version),
    });
  }
  // Keys of the root table have to come before the first table.
  const added = `imports = [${JSON.stringify(pattern)}] ${importsMark}\n`;
  const versioned = version === undefined ? `version = ${release === '2' ? 3 : 2} ${importsMark}\n` : '';
  return `${added}${versioned}${text}`;
}

/** The text as it was before `withImport`. */
export function withoutImport(text: string): string {
  return text
    .split('\n')
    .filter((line) => !line.endsWith(importsMark))
    .join('\n');
}
