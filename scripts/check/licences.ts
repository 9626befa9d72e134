import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const permissive = new Set([
  'Apache-2.0',
  'MIT',
  'MIT-0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  '0BSD',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'Unlicense',
  'Zlib',
  'Python-2.0',
  'PSF-2.0',
]);
/** Weak copyleft of build and test tools: never bundled, never shipped. */
const developmentOnly = new Set(['MPL-2.0']);

interface LockedPackage {
  readonly license?: string;
  readonly dev?: boolean;
  readonly link?: boolean;
}

/** Reports each locked npm package whose licence is not permissive. Source: the lock file, as npm wrote it. */
export function checkLicences(root: string): string[] {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path.includes('node_modules/') && !entry.link)
    .filter(([, { license = 'none', dev = false }]) => !acceptable(license, dev))
    .map(([path, { license = 'none' }]) => `${path}: licence ${license}; expected a permissive one`);
}

function acceptable(expression: string, dev: boolean): boolean {
  const alternatives = expression.replace(/[()]/g, '').split(/\s+OR\s+/);
  return alternatives.some((alternative) =>
    alternative.split(/\s+AND\s+/).every((name) => permissive.has(name) || (dev && developmentOnly.has(name))),
  );
}
