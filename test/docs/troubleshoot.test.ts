import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { reasonCodes } from '@sealpod/protocol/reason-codes';
import { expect, it } from 'vitest';
import { root } from '../e2e/environment.ts';

it('tells of every reason code what one sees and what to do', () => {
  const page = readFileSync(join(root, 'docs/how-to/troubleshoot.md'), 'utf8');
  const rows = page.split('\n').filter((line) => line.startsWith('| `'));
  const told = new Set(
    rows.flatMap((row) => [...(row.split(' | ')[0] ?? '').matchAll(/`([A-Z_]+)/g)].map(([, code]) => code)),
  );
  expect(Object.keys(reasonCodes).filter((code) => !told.has(code))).toEqual([]);
});
